"""A cutover, for the time line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Switch:
    """A cutover: when, and from where to where."""

    at: float
    """Seconds since the load began."""
    source: str
    target: str
    counts: Sequence[int]
    """Rows each fleet had read wrong by then."""
    seconds: float | None = None
    """How long it took; None while it does."""
