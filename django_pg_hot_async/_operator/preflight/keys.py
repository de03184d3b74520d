"""Comparing constraints and indexes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from .facts import Facts, Finding, quoted
from .levelling import level_schemas, without_name, without_storage
from .relations import shared_tables
from .rules import Named, Objects, Rule, Subject, apply, both

_ADD = "ALTER {blue.what} {blue.table} ADD CONSTRAINT {blue.constraint} {blue.full};"

CONSTRAINTS = Subject(
    missing=(
        Rule(
            "break",
            "unique_missing",
            "{blue.word} {blue.plain} of {blue.table} is missing on {side}: duplicates"
            " get in, and ON CONFLICT fails",
            _ADD,
            lambda b, g: b.kind in "pu",
        ),
        Rule(
            "warning",
            "constraint_missing",
            "{blue.word} {blue.plain} of {blue.table} is missing on {side}: it"
            " takes what {here} refuses",
            _ADD,
        ),
    ),
    extra=(
        Rule(
            "break",
            "constraint_extra",
            "{green.word} {green.plain} of {green.table} exists on {side} alone: {side}"
            " may refuse what {here} takes",
            "ALTER {green.what} {green.table} DROP CONSTRAINT {green.constraint};",
        ),
    ),
    differs=(
        Rule(
            "break",
            "constraint_differs",
            "{blue.word} {blue.plain} of {blue.table} is {green.definition} on {side},"
            " but {blue.definition} on {here}",
            "ALTER {blue.what} {blue.table} DROP CONSTRAINT {green.constraint}; "
            + _ADD,
            lambda b, g: b.level != g.level,
        ),
        Rule(
            "warning",
            "constraint_not_valid",
            "{blue.word} {blue.plain} of {blue.table} is NOT VALID on {side}: rows that"
            " are there may break it",
            "ALTER {blue.what} {blue.table} VALIDATE CONSTRAINT {green.constraint};",
            lambda b, g: b.valid and not g.valid,
        ),
        Rule(
            "warning",
            "trigger_disabled",
            "the triggers of {blue.word} {blue.plain} of {blue.table} are disabled on"
            " {side}: it holds nothing",
            "ALTER TABLE {blue.table} ENABLE TRIGGER ALL;",
            lambda b, g: g.disabled and not b.disabled,
        ),
    ),
)

INDEXES = Subject(
    missing=(
        Rule(
            "break",
            "unique_missing",
            "unique index {name} of {blue.table} is missing on {side}: duplicates get"
            " in, and ON CONFLICT fails",
            "{blue.concurrently};",
            lambda b, g: b.is_unique,
        ),
        Rule(
            "warning",
            "index_missing",
            "index {name} of {blue.table} is missing on {side}: queries that used it"
            " read the whole table",
            "{blue.concurrently};",
        ),
    ),
    extra=(
        Rule(
            "break",
            "constraint_extra",
            "unique index {name} of {green.table} exists on {side} alone: {side} may"
            " refuse what {here} takes",
            "DROP INDEX CONCURRENTLY {name};",
            lambda b, g: g.is_unique,
        ),
    ),
    differs=(
        Rule(
            "break",
            "constraint_differs",
            "unique index {name} is {green.definition} on {side}, but {blue.definition}"
            " on {here}",
            "DROP INDEX CONCURRENTLY {green.name}; {blue.concurrently};",
            lambda b, g: b.level != g.level and (b.is_unique or g.is_unique),
        ),
        Rule(
            "warning",
            "index_differs",
            "index {name} is {green.definition} on {side}, but {blue.definition} on"
            " {here}",
            "DROP INDEX CONCURRENTLY {green.name}; {blue.concurrently};",
            lambda b, g: b.level != g.level,
        ),
        Rule(
            "warning",
            "index_invalid",
            "index {name} of {blue.table} is invalid on {side}: no query uses it",
            "REINDEX INDEX CONCURRENTLY {green.name};",
            lambda b, g: b.valid and not g.valid,
        ),
    ),
)
# The index of a constraint is the constraint's, but for being invalid.
_INDEXES_OF_CONSTRAINTS = Subject(differs=INDEXES.differs[-1:])

_WORDS = {
    "p": "primary key",
    "u": "unique constraint",
    "c": "check constraint",
    "f": "foreign key",
    "x": "exclusion constraint",
}


def find_in_keys(blue: Facts, green: Facts) -> Iterator[Finding]:
    """Compare constraints and indexes of the tables that both sides have.

    One of another name that does the same is the same: Django makes names.
    """
    left, right = blue.of("relations"), green.of("relations")
    # A partition that was detached has keys of its own, which were its parent's.
    tables = {
        name
        for name in shared_tables(blue, green)
        if left[name].parent == right[name].parent
    }
    level = level_schemas(blue, green)
    here, there = (
        {
            name: Named(
                row,
                word=_WORDS[row.kind],
                what="DOMAIN" if row.of_domain else "TABLE",
                constraint=quoted(row.plain),
                full=row.definition,
                definition=row.definition.removesuffix(" NOT VALID"),
                level=level(row.definition.removesuffix(" NOT VALID")),
            )
            for name, row in rows.items()
            if row.of_domain or row.table in tables
        }
        for rows in both("constraints", blue, green)
    )
    yield from apply(CONSTRAINTS, blue, green, *paired(here, there))
    plain, of_constraints = [], []
    for rows in both("indexes", blue, green):
        indexes = {
            name: Named(
                row,
                level=level(without_storage(without_name(row.definition, row.plain))),
                concurrently=row.definition.replace(
                    " INDEX ", " INDEX CONCURRENTLY ", 1
                ),
            )
            for name, row in rows.items()
            if row.table in tables
        }
        plain.append({n: one for n, one in indexes.items() if not one.of_constraint})
        of_constraints.append(
            {n: one for n, one in indexes.items() if one.of_constraint}
        )
    yield from apply(INDEXES, blue, green, *paired(*plain))
    yield from apply(_INDEXES_OF_CONSTRAINTS, blue, green, *paired(*of_constraints))


def paired(
    here: Mapping[str, Any], there: Mapping[str, Any]
) -> tuple[Objects, Objects]:
    """Rename what *there* does the same as one *here* under another name."""
    left: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name, one in here.items():
        if name not in there:
            left[one.table, one.level].append(name)
    renamed = {}
    for name, one in there.items():
        same = left.get((one.table, one.level)) if name not in here else None
        renamed[same.pop() if same else name] = one
    return here, renamed
