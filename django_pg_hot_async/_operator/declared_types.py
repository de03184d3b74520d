"""System checks of what `register_type()` declares, beside what a server has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.core.checks import CheckMessage, Error, Warning
from psycopg.types import TypeInfo

from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django.arguments import (
    a_or_an,
    called,
    example,
    factory_of,
    why_not_callable,
)
from django_pg_hot_async._django.declare import registers_nothing
from django_pg_hot_async._django.installed import APP, GROUP

if TYPE_CHECKING:
    from django_pg_hot_async._core.snapshot import Snapshot
    from django_pg_hot_async._core.types import SurrogateType, TrackedType

    from .probe import Answer

KINDS = {
    "b": "a base type",
    "c": "a composite type",
    "d": "a domain",
    "e": "an enum",
    "m": "a multirange",
    "p": "a pseudo-type",
    "r": "a range",
    "t": "the row type of a table",
}
"""In words: ``pg_type.typtype``, and "t" for a composite type that is a relation's."""


def check_declared_types(alias: str, answer: Answer) -> Iterator[CheckMessage]:
    """Compare each declared type with what *answer* says of the server's."""
    snapshot = answer.snapshot
    if snapshot is None:
        return
    place = f"{answer.server}, to which DATABASES[{alias!r}] leads"
    for tracked in runtime.group(GROUP):
        if tracked.builtin:
            continue
        surrogates = snapshot.surrogates_of(tracked)
        if not surrogates:
            yield _missing(tracked, answer, place)
        elif tracked.info_class is TypeInfo and registers_nothing(tracked):
            yield from _check_plain(tracked, snapshot, place)
        for surrogate in surrogates:
            if surrogate.failure is not None:
                yield Error(
                    f"The register function of the type {str(tracked)!r} raised"
                    f" {surrogate.failure!r}, given the type as it is on {place}.",
                    hint="Values of the type cannot be loaded or sent until it does"
                    " not: correct the arguments of register_type().",
                    id=f"{APP}.E003",
                )
            yield from _check_factory(tracked, surrogate, place)


def _missing(tracked: TrackedType, answer: Answer, place: str) -> CheckMessage:
    says = f"and {place}, has no such type"
    hint = (
        "Create it, or correct its name or class. A migration that creates it is"
        " enough: nothing has to be restarted."
    )
    for other in answer.others:
        if other.name == tracked.name and tracked.schema in (None, other.schema):
            kind = KINDS.get(other.kind, "a type of another kind")
            says = f"and on {place}, {other.schema}.{other.name} is {kind}"
            hint = "Correct its name or class."
            if other.kind in "ecrm":
                hint = f"Declare it as what it is: {example(str(tracked), other.kind)}."
            break
    return Warning(
        f"register_type() declares {str(tracked)!r}, {a_or_an(tracked.info_class)},"
        f" {says}.",
        hint=hint,
        id=f"{APP}.W005",
    )


def _check_plain(
    tracked: TrackedType, snapshot: Snapshot, place: str
) -> Iterator[CheckMessage]:
    kinds = {row.kind for row, one in snapshot.rows.items() if one.tracked is tracked}
    for kind in sorted(kinds & {"e", "r", "m"}):
        hint = f"Declare it as what it is: {example(str(tracked), kind)}."
        if kind == "e":
            hint += f" For strings, register_type({str(tracked)!r}, EnumInfo)."
        yield Warning(
            f"register_type() declares {str(tracked)!r}, a TypeInfo, and on {place},"
            f" it is {KINDS[kind]}: its values stay strings.",
            hint=hint,
            id=f"{APP}.W009",
        )


def _check_factory(
    tracked: TrackedType, surrogate: SurrogateType, place: str
) -> Iterator[CheckMessage]:
    factory = factory_of(tracked.register)
    attributes = [name for name, _ in surrogate.shape.attributes]
    if factory is None or not (why := why_not_callable(factory, *attributes)):
        return
    yield Error(
        f"The factory of the type {str(tracked)!r}, {called(factory)}, cannot be called"
        f" with the attributes that the type has on {place}"
        f" ({', '.join(attributes)}): {why}.",
        hint="Have it take them, one argument each, in this order.",
        id=f"{APP}.E006",
    )
