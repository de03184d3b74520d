"""What this package costs, and what it saves: every figure against Django's own.

``uvx nox -s bench`` runs it; docs/benchmarks.md says how it measures.
"""
