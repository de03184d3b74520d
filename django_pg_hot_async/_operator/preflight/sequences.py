"""Comparing sequences: what they are, and how far they have got."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .facts import Facts, Finding, Severity
from .rows import RowFacts
from .rules import Named, Rule, Subject, apply, both

_ALTER = (
    "ALTER SEQUENCE {name} AS {blue.type} INCREMENT {blue.increment}"
    " MINVALUE {blue.min} MAXVALUE {blue.max};"
)

SEQUENCES = Subject(
    missing=(
        Rule(
            "break",
            "sequence_missing",
            "sequence {name} is missing on {side}: nextval() fails",
            "CREATE SEQUENCE {name} AS {blue.type} INCREMENT {blue.increment} MINVALUE"
            " {blue.min} MAXVALUE {blue.max} START {blue.start}; then manage.py"
            " pg_hot_sequences {here} {side}",
        ),
    ),
    differs=(
        Rule(
            "break",
            "sequence_differs",
            "sequence {name} ends at {green.end} on {side}, which {here} has passed:"
            " nextval() fails",
            _ALTER,
            lambda b, g: b.reached is not None and not g.min <= b.reached <= g.max,
        ),
        Rule(
            "warning",
            "sequence_differs",
            "sequence {name} is {green.word} on {side}, but {blue.word} on {here}",
            _ALTER,
            lambda b, g: b.word != g.word,
        ),
        Rule(
            "warning",
            "sequence_differs",
            "sequence {name} belongs to {green.owner} on {side}, but to {blue.owner}",
            "ALTER SEQUENCE {name} OWNED BY {blue.owner};",
            lambda b, g: b.owner != g.owner,
        ),
    ),
)


def find_in_sequences(
    blue: Facts, green: Facts, rows: RowFacts, *, at_cutover: bool
) -> Iterator[Finding]:
    """Compare sequences, with what is in the columns that they are for.

    Replication leaves sequences where they are: to be behind is a note until the
    cutover, where the next INSERT fails.
    """
    here, there = (
        {name: _named(row) for name, row in rows.items()}
        for rows in both("sequences", blue, green)
    )
    yield from apply(SEQUENCES, blue, green, here, there)
    severity: Severity = "break" if at_cutover else "note"
    for name, one in here.items():
        other = there.get(name)
        if other is None:
            continue
        other.next = rows.next.get(name, other.next)
        if not one.readable or not other.readable:
            yield Finding(
                "warning",
                "sequence_unread",
                name,
                f"how far sequence {name} is cannot be read as"
                f" {(blue if not one.readable else green).role}",
                f"GRANT SELECT, USAGE ON SEQUENCE {name} TO {blue.role};",
            )
            continue
        says = ""
        goal = one.reached
        if goal is not None and is_behind(other, goal):
            says = f"{blue.alias} has given out {goal}"
        top = rows.reached.get(name)
        if top is not None and is_behind(other, top):
            goal = top if goal is None or other.increment * (top - goal) > 0 else goal
            says = says or f"{other.owner} has {top}"
        if says:
            yield Finding(
                severity,
                "sequence_behind",
                name,
                f"sequence {name} of {green.alias} is behind: it gives out {other.next}"
                f" next, and {says}",
                f"manage.py pg_hot_sequences {blue.alias} {green.alias} or, for this"
                f" one: SELECT setval('{name}', {goal});",
            )


def is_behind(sequence: Any, value: int) -> bool:
    """Whether *sequence* would give out *value*, or has yet to get there."""
    if sequence.increment > 0:
        return bool(sequence.next <= value)
    return bool(sequence.next >= value)


def _named(row: Any) -> Named:
    word = f"{row.type} by {row.increment} from {row.min} to {row.max}"
    return Named(
        row,
        word=word + (", in a circle" if row.cycle else ""),
        end=row.max if row.increment > 0 else row.min,
        reached=row.last,
        next=row.start if row.last is None else row.last + row.increment,
        owner=f"{row.table}.{row.column}" if row.table else "nothing",
    )
