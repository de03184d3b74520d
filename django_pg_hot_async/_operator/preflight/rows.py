"""Comparing rows: all those of small tables, and whether the others have any.

A large table is not read: ``pg_hot_prove`` does that when nothing writes any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .django_tables import read_django
from .facts import Facts, Finding, Severity, count
from .query import Query
from .reading import Side
from .replication import copying, is_behind
from .rights import may_read

MAX_ROWS = 5000
"""Rows beyond which a table is large."""
MAX_PAGES = 128
"""Pages of 8 kB beyond which it is, be its rows few."""
TABLES_A_STATEMENT = 100
SECONDS = 0.5
"""How long what differs has to stand still, to be a difference and no delay."""

# What a row looks like as text depends on these.
_OUTPUT = """\
SELECT set_config('DateStyle', 'ISO, YMD', true), set_config('TimeZone', 'UTC', true),
       set_config('IntervalStyle', 'postgres', true),
       set_config('bytea_output', 'hex', true),
       set_config('extra_float_digits', '1', true),
       set_config('statement_timeout', '10s', true)"""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a table holds."""

    number: int
    """How many rows; `MAX_ROWS` + 1 for more than that."""
    digest: Any
    """A sum over all of them; None where there are too many."""


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What was read of rows on both sides."""

    blue: Mapping[str, Rows]
    green: Mapping[str, Rows]
    reached: Mapping[str, int]
    """The highest value that green has in the column of a sequence, by the sequence."""
    next: Mapping[str, int]
    """What sequences of green give out next, where the catalog does not tell."""
    django: tuple[Mapping[str, list[Any]], Mapping[str, list[Any]]]
    large: int
    """How many tables were only looked at for whether they have rows."""


def read_rows(here: Side, there: Side, blue: Facts, green: Facts) -> RowFacts:
    """Read rows of tables that both sides have and that the roles may read."""
    for side in (here, there):
        side.execute(_OUTPUT)
        side.execute("SAVEPOINT preflight")
    tables = {name: sql for name, sql in _probes(blue, green).items() if sql}
    left, right = _read_tables(here, tables), _read_tables(there, tables)
    differ = {name: tables[name] for name in left if left[name] != right.get(name)}
    if differ:
        # What is on its way is no difference: look again, and take what stands still.
        time.sleep(SECONDS)
        again = _read_tables(here, differ), _read_tables(there, differ)
        for name in differ:
            if again[0].get(name) != left[name] or again[1].get(name) != right.get(
                name
            ):
                left.pop(name)
                right.pop(name, None)
    return RowFacts(
        blue=left,
        green=right,
        reached=_read_reached(there, green),
        next=_read_sequences(there, blue, green),
        django=(read_django(here, blue), read_django(there, green)),
        large=sum(rows.digest is None for rows in left.values()),
    )


def find_in_rows(
    rows: RowFacts, blue: Facts, green: Facts, *, at_cutover: bool
) -> Iterator[Finding]:
    yield from _find_in_estimates(rows, blue, green)
    late = is_behind(blue, green)
    not_ready = copying(green)
    severity: Severity = "break" if at_cutover else "note" if late else "warning"
    for name, here in rows.blue.items():
        there = rows.green.get(name)
        if there is None or here == there or name in not_ready:
            continue
        if blue.of("relations")[name].kind == "m":
            yield Finding(
                "warning" if at_cutover else "note",
                "matview_old",
                name,
                f"{name} shows other rows on {green.alias}: no replication fills it",
                f"REFRESH MATERIALIZED VIEW {name};",
            )
            continue
        hint = (
            f"Compare the rows themselves: SELECT * FROM {name}; and find out what"
            " wrote, or failed to."
        )
        if here.number and not there.number:
            # What is on its way is not lost.
            yield Finding(
                "note" if late and not at_cutover else "break",
                "table_empty",
                name,
                f"{name} has no rows on {green.alias}, but {_many(here.number)} on"
                f" {blue.alias}",
                hint,
            )
        elif here.number != there.number:
            yield Finding(
                severity,
                "rows_differ",
                name,
                f"{name} has {_many(there.number)} on {green.alias}, but"
                f" {_many(here.number)} on {blue.alias}",
                hint,
            )
        elif here.digest is not None and there.digest is not None:
            yield Finding(
                "warning" if at_cutover else "note",
                "values_differ",
                name,
                f"{name} has other values on {green.alias}, in as many rows",
                hint,
            )


def _find_in_estimates(rows: RowFacts, blue: Facts, green: Facts) -> Iterator[Finding]:
    """Tell of large tables that have much fewer rows, as ANALYZE has counted."""
    left, right = blue.of("relations"), green.of("relations")
    not_ready = copying(green)
    for name, here in rows.blue.items():
        one, other = left[name].tuples, right[name].tuples
        if here.digest is None and name not in not_ready and 0 < other < one / 2:
            yield Finding(
                "warning",
                "rows_differ",
                name,
                f"{name} has about {other:.0f} rows on {green.alias}, but about"
                f" {one:.0f} on {blue.alias}",
                f"ANALYZE {name}; on both sides, and look again.",
            )


def _many(number: int) -> str:
    return f"more than {MAX_ROWS} rows" if number > MAX_ROWS else count(number, "row")


def _probes(blue: Facts, green: Facts) -> dict[str, str]:
    """Return a query for each table: how many rows, and a sum over them."""
    there = green.of("relations")
    columns: dict[str, list[str]] = {}
    types = {name: row.type for name, row in green.of("columns").items()}
    # Where characters differ, so do the bytes of what is the same.
    same_encoding = blue.database.encoding == green.database.encoding
    for name, row in blue.of("columns").items():
        if types.get(name) == row.type and same_encoding:
            columns.setdefault(row.table, []).append(name[len(row.table) + 1 :])
    probes = {}
    for name, row in blue.of("relations").items():
        other = there.get(name)
        if other is None or row.kind not in "rm" or other.kind != row.kind:
            continue
        if row.unlogged or not row.populated or not other.populated:
            continue
        if not may_read(row, blue) or not may_read(other, green):
            continue
        if max(row.pages, other.pages) > MAX_PAGES:
            probes[name] = (
                f"SELECT CASE WHEN EXISTS (SELECT FROM {name}) THEN {MAX_ROWS + 1}"
                " ELSE 0 END AS number, NULL::numeric AS digest"
            )
            continue
        # Sorted: the two may have them in another order.
        names = ", ".join(f"t.{column}" for column in sorted(columns.get(name, ())))
        probes[name] = (
            f"SELECT count(*) AS number, CASE WHEN count(*) <= {MAX_ROWS}"
            " THEN coalesce(sum(hashtextextended(r, 0)), 0) END AS digest FROM"
            f' (SELECT ROW({names})::text COLLATE "C" AS r FROM {name} AS t'
            f" LIMIT {MAX_ROWS + 1}) AS s"
        )
    return probes


def _read_tables(side: Side, probes: Mapping[str, str]) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    names = sorted(probes)
    for chunk in _chunks(names):
        sql = " UNION ALL ".join(
            f"SELECT {number} AS name, * FROM ({probes[name]}) AS q{number}"
            for number, name in enumerate(chunk)
        )
        rows = side.attempt(Query(sql, "rows", locks=True), None)
        if isinstance(rows, str):
            side.refused["rows"] = rows
        else:
            found.update(
                {chunk[row.name]: Rows(row.number, row.digest) for row in rows}
            )
    return found


def _read_reached(side: Side, facts: Facts) -> dict[str, int]:
    """Read the highest value of each sequence's column, where an index gives it."""
    relations = facts.of("relations")
    found: dict[str, int] = {}
    able = [
        row
        for row in facts.of("sequences").values()
        if row.indexed
        and row.table in relations
        and may_read(relations[row.table], facts)
    ]
    for chunk in _chunks(able):
        sql = " UNION ALL ".join(
            f"SELECT {number} AS name, (SELECT {'max' if row.increment > 0 else 'min'}"
            f"({row.column}) FROM {row.table})::int8 AS top"
            for number, row in enumerate(chunk)
        )
        rows = side.attempt(Query(sql, "columns of sequences", locks=True), None)
        if isinstance(rows, str):
            side.refused["columns of sequences"] = rows
            continue
        found.update({chunk[r.name].name: r.top for r in rows if r.top is not None})
    return found


def _read_sequences(side: Side, blue: Facts, green: Facts) -> dict[str, int]:
    """Read those that were set and not used, which the catalog does not tell from new.

    ``setval(..., 101, false)`` gives out 101 next, and is no less ahead for it.
    """
    here = blue.of("sequences")
    unused = [
        row
        for name, row in green.of("sequences").items()
        if row.last is None and row.readable and name in here
    ]
    found: dict[str, int] = {}
    for chunk in _chunks(unused):
        sql = " UNION ALL ".join(
            f"SELECT {number} AS name, last_value AS next FROM {row.name}"
            for number, row in enumerate(chunk)
        )
        rows = side.attempt(Query(sql, "sequences", locks=True), None)
        if not isinstance(rows, str):
            found.update({chunk[row.name].name: row.next for row in rows})
    return found


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(items), TABLES_A_STATEMENT):
        yield items[start : start + TABLES_A_STATEMENT]
