"""Telling where the planner of green has no statistics to go by."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Facts, Finding, count, listed
from .rights import may_read


def find_in_statistics(blue: Facts, green: Facts) -> Iterator[Finding]:
    if not green.has("analyzed"):
        return
    analyzed, before = green.of("analyzed"), blue.of("analyzed")
    there = green.of("relations")
    without = [
        name
        for name, row in blue.of("relations").items()
        if row.kind in "rm"
        and (name in before or row.tuples > 0)
        and name in there
        and may_read(there[name], green)
        and name not in analyzed
    ]
    if without:
        yield Finding(
            "warning",
            "statistics_missing",
            listed(without),
            f"{count(len(without), 'table')} of {green.alias} without statistics:"
            f" {listed(without)}: the planner guesses, and queries may take minutes",
            "ANALYZE; or vacuumdb --analyze-in-stages",
        )
