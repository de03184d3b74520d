"""Bugs to plant, one at a time: each breaks one thing that the promise stands on.

A search that does not find every one of them proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .promise import LEVELS

Patch = Callable[[Any, str, Any], None]
Plant = Callable[[Patch], None]
Bugs = dict[str, tuple[Plant, tuple[str, ...]]]
BUGS: Bugs = {}
"""How to plant each, and the levels of trust at which it can show."""
BACKEND_BUGS: Bugs = {}
"""Those that show with django-async-backend only."""


def bug(*levels: str, bugs: Bugs = BUGS) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        bugs[plant.__name__] = (plant, levels or LEVELS)
        return plant

    return add
