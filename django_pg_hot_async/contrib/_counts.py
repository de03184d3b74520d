"""The counts of `status()` as metrics: one table for every exporter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django_pg_hot_async._operator.status import Counts


@dataclass(frozen=True, slots=True)
class Count:
    """A count that never falls, and its names after a library's own prefix."""

    of: Callable[[Counts], float]
    prometheus: str
    opentelemetry: str
    unit: str
    """As OpenTelemetry writes units."""
    description: str


COUNTS = (
    Count(
        lambda counts: counts["reads"],
        "reads_total",
        "reads",
        "{read}",
        "Reads of types from a server",
    ),
    Count(
        lambda counts: counts["changes"],
        "changes_total",
        "changes",
        "{change}",
        "Servers, or OIDs, that were not reached before",
    ),
    Count(
        lambda counts: counts["differences"],
        "differences_total",
        "differences",
        "{read}",
        "Reads that found other OIDs than were known",
    ),
    Count(
        lambda counts: counts["unexplained"],
        "unexplained_total",
        "unexplained",
        "{result}",
        "Results that no server could explain",
    ),
)
