"""The counts of `status()` as metrics: one table for every exporter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django_pg_hot_async._status import Counts


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
        lambda counts: counts["fallbacks"],
        "fallbacks_total",
        "fallbacks",
        "{fallback}",
        "Uses of OIDs that could not be verified",
    ),
    Count(
        lambda counts: counts["reads_in_loop"],
        "loop_reads_total",
        "loop.reads",
        "{read}",
        "Reads of types that held an event loop",
    ),
    Count(
        lambda counts: counts["seconds_in_loop"],
        "loop_seconds_total",
        "loop.time",
        "s",
        "Time for which reads of types held an event loop",
    ),
)
