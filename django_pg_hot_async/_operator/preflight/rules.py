"""Comparing the objects of one kind by a table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .facts import Facts, Finding, Severity

Row = Any
"""A row of a statement of `catalog.QUERIES`: its columns are attributes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is found where a condition holds.

    The sentence and the hint may name ``{name}``, the object; ``{blue.x}`` and
    ``{green.x}``, its facts; ``{here}`` and ``{side}``, the aliases of blue and green;
    and ``{role}``, that of the application.
    """

    severity: Severity
    code: str
    sentence: str
    hint: str = ""
    when: Callable[[Row, Row], object] = lambda blue, green: True


@dataclass(frozen=True, slots=True)
class Subject:
    """The rules of one kind of object.

    Of what one side lacks, the first that holds is found; of what differs, the first
    of each code.
    """

    missing: tuple[Rule, ...] = ()
    """For what green lacks."""
    extra: tuple[Rule, ...] = ()
    """For what green alone has."""
    differs: tuple[Rule, ...] = ()
    """For what both have."""


class Named:
    """A row, with more facts than were read."""

    def __init__(self, row: Any, **facts: Any) -> None:
        self.__dict__.update({**row._asdict(), **facts})

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


Objects = Mapping[str, Row]


def apply(
    subject: Subject, blue: Facts, green: Facts, here: Objects, there: Objects
) -> Iterator[Finding]:
    """Find what *subject* says of the objects *here* (blue's) and *there* (green's)."""
    names = {"here": blue.alias, "side": green.alias, "role": blue.role}
    for name in dict.fromkeys((*here, *there)):
        one, other = here.get(name), there.get(name)
        rules = (
            subject.extra
            if one is None
            else subject.missing
            if other is None
            else subject.differs
        )
        is_whole = one is None or other is None
        found: set[str] = set()
        for rule in rules:
            if rule.code not in found and rule.when(one, other):
                found.update(every.code for every in rules if is_whole)
                found.add(rule.code)
                words = {**names, "name": name, "blue": one, "green": other}
                yield Finding(
                    rule.severity,
                    rule.code,
                    name,
                    rule.sentence.format(**words),
                    rule.hint.format(**words),
                )


def both(
    kind: str, blue: Facts, green: Facts
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the objects of a *kind*: none where one side could not be read."""
    if blue.has(kind) and green.has(kind):
        return blue.of(kind), green.of(kind)
    return {}, {}
