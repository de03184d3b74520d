"""Comparing tables, views and their columns: what SQL names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .facts import Facts, Finding
from .fields import find_in_fields
from .levelling import level_names, level_schemas
from .rules import Named, Rule, Subject, apply, both

KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}
_KIND = {"r": "TABLE", "p": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW"}

RELATIONS = Subject(
    missing=(
        Rule(
            "break",
            "table_missing",
            "{name} ({blue.word}) is missing on {side}: SQL that names it fails",
            "pg_dump --schema-only --table={blue.pattern} of {here}, into {side}.",
        ),
    ),
    differs=(
        Rule(
            "break",
            "table_kind",
            "{name} is a {blue.word}, but a {green.word} on {side}",
            "DROP it on {side}, and create it as it is on {here}.",
            lambda b, g: not is_same_kind(b, g),
        ),
        Rule(
            "warning",
            "partition",
            "{name} is a {blue.word}, but a {green.word} on {side}",
            "",
            lambda b, g: b.kind != g.kind and is_same_kind(b, g),
        ),
        Rule(
            "break",
            "matview_empty",
            "{name} was never filled on {side}: each SELECT from it fails",
            "REFRESH MATERIALIZED VIEW {name};",
            lambda b, g: b.populated and not g.populated,
        ),
        Rule(
            "break",
            "unlogged",
            "{name} is UNLOGGED on {side} alone: its rows are lost when the server"
            " crashes",
            "ALTER TABLE {name} SET LOGGED;",
            lambda b, g: g.unlogged and not b.unlogged,
        ),
        Rule(
            "break",
            "row_security",
            "row security of {name} is {green.security} on {side}, but {blue.security}"
            " on {here}: other rows are seen, or none",
            "{blue.security_sql}",
            lambda b, g: b.security != g.security,
        ),
        Rule(
            "warning",
            "view_differs",
            "{name} has the options {green.options!r} on {side}, but {blue.options!r}"
            " on {here}",
            "ALTER VIEW {name} SET ({blue.options});",
            lambda b, g: b.kind in "vm" and b.options != g.options,
        ),
        Rule(
            "warning",
            "partition",
            "{name} is partitioned by {green.key} on {side}, but by {blue.key}",
            "Create it on {side} as it is on {here}.",
            lambda b, g: b.kind == g.kind == "p" and b.key != g.key,
        ),
    ),
)

PARTITIONS = Subject(
    missing=(
        Rule(
            "break",
            "partition",
            "{name} is not a partition of {blue.parent} on {side}: its rows are not"
            " found there, and those of its range are refused",
            "ALTER TABLE {blue.parent} ATTACH PARTITION {name} {blue.definition};",
        ),
    ),
    differs=(
        Rule(
            "break",
            "partition",
            "{name} is a partition of {green.parent} {green.definition} on {side}, but"
            " of {blue.parent} {blue.definition} on {here}",
            "ALTER TABLE {green.parent} DETACH PARTITION {name}; ALTER TABLE"
            " {blue.parent} ATTACH PARTITION {name} {blue.definition};",
            lambda b, g: (b.parent, b.definition) != (g.parent, g.definition),
        ),
    ),
)

VIEWS = Subject(
    differs=(
        Rule(
            "warning",
            "view_differs",
            "{name} has another definition on {side}",
            "CREATE OR REPLACE VIEW {name} AS {blue.definition}",
            lambda b, g: b.kind == g.kind == "v" and b.level != g.level,
        ),
        Rule(
            "warning",
            "view_differs",
            "{name} has another definition on {side}",
            "DROP MATERIALIZED VIEW {name}; CREATE MATERIALIZED VIEW {name} AS"
            " {blue.definition}",
            lambda b, g: b.kind == g.kind and b.level != g.level,
        ),
    ),
)


def find_in_relations(
    blue: Facts, green: Facts, tracked: frozenset[int], tracked_there: frozenset[int]
) -> Iterator[Finding]:
    """Compare tables, partitions, columns and views.

    *tracked* and *tracked_there* are the OIDs of tracked types and their arrays.
    """
    here, there = (_relations(facts) for facts in (blue, green))
    yield from apply(RELATIONS, blue, green, here, there)
    on_both = shared_tables(blue, green)
    level = level_schemas(blue, green)
    parts = [
        {name: row for name, row in rows.items() if name in on_both}
        for rows in both("partitions", blue, green)
    ]
    # A partition that green has more holds nothing up.
    yield from apply(PARTITIONS, blue, green, parts[0], parts[1])
    yield from find_in_fields(blue, green, on_both, (tracked, tracked_there), level)
    names = level_names(blue, green)
    views = [
        {
            name: Named(row, level=(squeezed(names(level(row.definition))), row.uses))
            for name, row in rows.items()
            if name in on_both
        }
        for rows in both("views", blue, green)
    ]
    yield from apply(VIEWS, blue, green, views[0], views[1])


def is_same_kind(row: Any, other: Any) -> bool:
    """Whether SQL cannot tell the two: a table may have partitions, or none."""
    return row.kind == other.kind or {row.kind, other.kind} == {"r", "p"}


def shared_tables(blue: Facts, green: Facts) -> set[str]:
    """Return the names of tables and views that are on both sides, and comparable."""
    here, there = blue.of("relations"), green.of("relations")
    return {n for n in here if n in there and is_same_kind(here[n], there[n])}


def squeezed(definition: str) -> str:
    return " ".join(definition.replace("(", "( ").replace(")", " )").split())


def _relations(facts: Facts) -> dict[str, Named]:
    return {
        name: Named(
            row,
            word=KINDS[row.kind],
            pattern="'" + name.replace("'", "''") + "'",
            security=_security(row),
            security_sql=_security_sql(row),
        )
        for name, row in facts.of("relations").items()
    }


def _security(row: Any) -> str:
    return "off" if not row.rls else "forced" if row.forced else "on"


def _security_sql(row: Any) -> str:
    on, forced = ("ENABLE" if row.rls else "DISABLE"), ("" if row.forced else "NO ")
    return (
        f"ALTER TABLE {row.name} {on} ROW LEVEL SECURITY, {forced}FORCE ROW LEVEL"
        " SECURITY;"
    )
