"""Comparing tables, views and their columns: what SQL names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .facts import Facts, Finding
from .levelling import level_names, level_schemas
from .reading import unqualified
from .rules import Rule, Subject, apply, both

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
            "{name} is no partition of {blue.parent} on {side}: its rows are not found"
            " there, and those of its range are refused",
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

_SET_DEFAULT = (
    "ALTER TABLE {blue.table} ALTER {blue.column} SET DEFAULT {blue.default};"
)
_NO_VALUE = "an INSERT that leaves it out"

COLUMNS = Subject(
    missing=(
        Rule(
            "break",
            "column_missing",
            "{name} is missing on {side}: SQL that names it fails",
            "ALTER TABLE {blue.table} ADD {blue.column} {blue.type}; or manage.py"
            " migrate --database {side}",
        ),
    ),
    extra=(
        Rule(
            "break",
            "column_required",
            "{name} exists on {side} alone, is NOT NULL and has no default: each INSERT"
            " fails",
            "ALTER TABLE {green.table} ALTER {green.column} DROP NOT NULL;",
            lambda b, g: g.required and not g.fills_itself,
        ),
        Rule(
            "note",
            "column_extra",
            "{name} exists on {side} alone",
        ),
    ),
    differs=(
        Rule(
            "break",
            "column_type",
            "{name} is {green.type} on {side}, but {blue.type} on {here}: its values"
            " come back as something else",
            "ALTER TABLE {green.table} ALTER {green.column} TYPE {blue.type}"
            " USING {green.column}::{blue.type};",
            lambda b, g: b.level != g.level and (b.tracked or g.tracked),
        ),
        Rule(
            "note",
            "column_type",
            "{name} is {green.type} on {side}, which takes every {blue.type}",
            "",
            lambda b, g: b.level != g.level and is_wider(g.level, b.level),
        ),
        Rule(
            "break",
            "column_type",
            "{name} is {green.type} on {side}, but {blue.type} on {here}: it may refuse"
            " values, or return others",
            "ALTER TABLE {green.table} ALTER {green.column} TYPE {blue.type}"
            " USING {green.column}::{blue.type};",
            lambda b, g: b.level != g.level,
        ),
        Rule(
            "break",
            "column_required",
            "{name} is NOT NULL on {side} alone: saving NULL fails",
            "ALTER TABLE {green.table} ALTER {green.column} DROP NOT NULL;",
            lambda b, g: g.required and not b.required,
        ),
        Rule(
            "warning",
            "column_nullable",
            "{name} is NOT NULL on {here} alone: {side} takes NULL",
            "ALTER TABLE {blue.table} ALTER {blue.column} SET NOT NULL;",
            lambda b, g: b.required and not g.required,
        ),
        Rule(
            "break",
            "column_generated",
            "{name} is generated on {here} alone: new rows on {side} get no value",
            "ALTER TABLE {blue.table} DROP {blue.column}; ALTER TABLE {blue.table} ADD"
            " {blue.column} {blue.type} GENERATED ALWAYS AS ({blue.default}) STORED;",
            lambda b, g: b.generated and not g.generated,
        ),
        Rule(
            "break",
            "column_generated",
            "{name} is generated on {side} alone: an INSERT that gives it a value"
            " fails",
            "ALTER TABLE {green.table} ALTER {green.column} DROP EXPRESSION;",
            lambda b, g: g.generated and not b.generated,
        ),
        Rule(
            "warning",
            "column_generated",
            "{name} is generated as {green.default} on {side}, but as {blue.default}",
            "Drop the column on {side}, and add it as it is on {here}.",
            lambda b, g: b.generated and b.default_level != g.default_level,
        ),
        Rule(
            "break",
            "identity",
            f"{{name}} is an identity column on {{here}} alone: {_NO_VALUE} fails",
            "ALTER TABLE {blue.table} ALTER {blue.column} ADD GENERATED"
            " {blue.identity_word} AS IDENTITY; then manage.py pg_hot_sequences {here}"
            " {side}",
            lambda b, g: b.identity and not g.fills_itself,
        ),
        Rule(
            "break",
            "identity",
            "{name} is GENERATED ALWAYS on {side} alone: an INSERT that gives it a"
            " value fails",
            "ALTER TABLE {blue.table} ALTER {blue.column} SET GENERATED BY DEFAULT;",
            lambda b, g: g.identity == "a" and b.identity == "d",
        ),
        Rule(
            "break",
            "identity",
            "{name} is GENERATED ALWAYS AS IDENTITY on {side} alone: an INSERT that"
            " gives it a value fails",
            "ALTER TABLE {blue.table} ALTER {blue.column} DROP IDENTITY;",
            lambda b, g: g.identity == "a" and not b.identity,
        ),
        Rule(
            "warning",
            "identity",
            "{name} is GENERATED {green.identity_word} on {side}, but"
            " {blue.identity_word} on {here}",
            "",
            lambda b, g: b.identity != g.identity,
        ),
        Rule(
            "break",
            "default_missing",
            f"{{name}} has no default on {{side}}: {_NO_VALUE} fails",
            _SET_DEFAULT,
            lambda b, g: (
                b.plain_default and not g.default and not g.fills_itself and g.required
            ),
        ),
        Rule(
            "warning",
            "default_missing",
            f"{{name}} has no default on {{side}}: {_NO_VALUE} stores NULL",
            _SET_DEFAULT,
            lambda b, g: b.plain_default and not g.default and not g.fills_itself,
        ),
        Rule(
            "warning",
            "default_differs",
            "{name} has the default {green.default} on {side}, but {blue.default} on"
            " {here}",
            _SET_DEFAULT,
            lambda b, g: (
                b.plain_default
                and g.plain_default
                and b.default_level != g.default_level
            ),
        ),
        Rule(
            "warning",
            "default_differs",
            "{name} has a default on {side} alone: {green.default}",
            "ALTER TABLE {green.table} ALTER {green.column} DROP DEFAULT;",
            lambda b, g: g.plain_default and not b.default and not b.fills_itself,
        ),
        Rule(
            "warning",
            "column_collation",
            "{name} has the collation {green.collation_word} on {side}, but"
            " {blue.collation_word} on {here}: it sorts, and may compare, otherwise",
            "ALTER TABLE {green.table} ALTER {green.column} TYPE {blue.type} COLLATE"
            " {blue.collation_word};",
            lambda b, g: b.collation != g.collation,
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


class Named:
    """A row, with more facts than were read."""

    def __init__(self, row: Any, **facts: Any) -> None:
        self.__dict__.update({**row._asdict(), **facts})

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


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
    yield from apply(
        COLUMNS,
        blue,
        green,
        _columns(blue, on_both, tracked, level),
        _columns(green, on_both, tracked_there, level),
    )
    yield from _find_in_order(blue, green, on_both)
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


def _columns(
    facts: Facts, tables: Any, tracked: frozenset[int], level: Any
) -> dict[str, Named]:
    defaults = facts.of("defaults")
    found = {}
    for name, row in facts.of("columns").items():
        if row.table not in tables:
            continue
        default = defaults[name].definition if name in defaults else ""
        # From 17 on, a partition has the identity of its parent. What is written to
        # the parent has it in every release.
        identity = "" if facts.of("relations")[row.table].parent else row.identity
        found[name] = Named(
            row,
            identity=identity,
            column=name[len(row.table) + 1 :],
            level=unqualified(row.type),
            tracked=row.oid in tracked,
            default=default,
            default_level=level(default),
            plain_default=default if not row.generated else "",
            fills_itself=bool(row.has_default or row.identity),
            identity_word={"a": "ALWAYS", "d": "BY DEFAULT"}.get(identity, "never"),
            collation_word=row.collation or 'pg_catalog."default"',
        )
    return found


def _find_in_order(blue: Facts, green: Facts, tables: Any) -> Iterator[Finding]:
    orders: list[dict[str, list[str]]] = []
    for facts in (blue, green):
        order: dict[str, list[str]] = {}
        for row in facts.of("columns").values():
            if row.table in tables:
                order.setdefault(row.table, []).append(row.plain)
        orders.append(order)
    for table, here in orders[0].items():
        there = orders[1].get(table, [])
        common = [name for name in there if name in here]
        if common != [name for name in here if name in there]:
            yield Finding(
                "warning",
                "column_order",
                table,
                f"the columns of {table} stand in another order on {green.alias}: an"
                " INSERT or COPY that names none puts values into others",
                f"Order on {blue.alias}: {', '.join(here)}.",
            )


_SIZED = re.compile(
    r"(character varying|numeric|bit varying)(?:\((\d+)(?:,(\d+))?\))?$"
)
_INTEGERS = ("smallint", "integer", "bigint")


def is_wider(type: str, other: str) -> bool:
    """Whether each value of the type *other* can be stored in *type* as it is."""
    if type.endswith("[]") and other.endswith("[]"):
        return is_wider(type[:-2], other[:-2])
    if type in _INTEGERS and other in _INTEGERS:
        return _INTEGERS.index(type) > _INTEGERS.index(other)
    one, two = _SIZED.match(type), _SIZED.match(other)
    if two and two[1] == "character varying" and type == "text":
        return True
    if (type, other) == ("double precision", "real"):
        return True
    if not one or not two or one[1] != two[1]:
        return False
    if one[2] is None:
        return True
    if two[2] is None or one[3] != two[3]:
        return False
    return int(one[2]) >= int(two[2])
