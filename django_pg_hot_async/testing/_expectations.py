"""What a value of a Django field has to be before the field converts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib.postgres.fields import ArrayField, HStoreField, RangeField
from psycopg.types.range import Range


@dataclass(frozen=True)
class Expectation:
    """The noun for a message, and the test of a value that is not None."""

    noun: str
    is_met: Callable[[Any], bool]


def expectation(field: object) -> Expectation | None:
    """Return what is expected of a field's values; `None` is anything.

    Fields whose values are strings, or whose classes a project chose, say nothing.
    """
    if isinstance(field, HStoreField):
        return Expectation("a dict", lambda value: isinstance(value, dict))
    if isinstance(field, RangeField):
        return Expectation("a range", lambda value: isinstance(value, Range))
    if isinstance(field, ArrayField):
        inner = expectation(field.base_field)
        if inner is None:
            return Expectation("a list", lambda value: isinstance(value, list))
        each = inner.is_met
        return Expectation(
            f"a list, each item {inner.noun}",
            lambda value: (
                isinstance(value, list)
                and all(item is None or each(item) for item in value)
            ),
        )
    return None
