"""Counts and checksums of tables, that are equal on two servers if the rows are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import sql

from .access import batches

ALL_BYTES = 64 << 20
"""A table that is larger is not read whole, unless all rows are asked for."""
LAST_ROWS = 1000
"""How many of its rows are read then, by the end of the primary key."""
BATCH = 50
"""Tables read in one statement."""

# What a row looks like as text depends on these.
_SETTINGS = """\
SELECT set_config(name, value, true) FROM (VALUES
    ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'),
    ('extra_float_digits', '3'), ('bytea_output', 'hex'), ('lc_monetary', 'C'),
    ('xmloption', 'content'), ('row_security', 'off'), ('statement_timeout', '0')
) AS settings (name, value)"""

# Roots of partitioned tables, not their partitions: those may be others on green.
_TABLES = """\
SELECT n.nspname, c.relname,
       (SELECT array_agg(a.attname::text ORDER BY a.attname COLLATE "C")
        FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT array_agg(a.attname::text ORDER BY k.n)
        FROM pg_index AS i, unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary
        -- Text is in another order where the collation is of another version.
        HAVING bool_and(a.atttypid IN ('int2'::regtype, 'int4'::regtype,
            'int8'::regtype, 'uuid'::regtype, 'date'::regtype, 'timestamptz'::regtype,
            'timestamp'::regtype))),
       (SELECT coalesce(sum(pg_relation_size(relid)), pg_relation_size(c.oid))::int8
        FROM pg_partition_tree(c.oid)),
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.deptype = 'e'
                      AND e.classid = 'pg_class'::regclass AND e.objid = c.oid)
ORDER BY 1, 2"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and which of its rows are read."""

    schema: str
    name: str
    columns: tuple[str, ...]
    by: tuple[str, ...]
    """The columns by whose end `LAST_ROWS` are read; none for all rows."""
    is_whole: bool
    """Whether all rows are read, or the last of them."""
    is_readable: bool

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Sum:
    """How many rows were read, and their checksum, which does not go by their order."""

    rows: int
    sum: str


def read_tables(cursor: Any, *, full: bool) -> list[Table]:
    """Return the tables of a database, and what to read of each: all rows if *full*.

    Unlogged tables, which replication leaves out, and those of extensions are left out.
    """
    cursor.execute(_TABLES)
    found = []
    for schema, name, columns, key, size, is_readable in cursor.fetchall():
        is_whole = full or size <= ALL_BYTES
        by = () if is_whole else tuple(key or ())
        table = Table(schema, name, tuple(columns or ()), by, is_whole, is_readable)
        found.append(table)
    return found


def read_sums(cursor: Any, tables: Iterable[Table]) -> dict[str, Sum]:
    """Return the sum of each of *tables* that is there and may be read.

    The same statements, under the same settings, on whatever server: the text of a row
    is what is summed. A table that is not read whole, and has no primary key that
    orders its rows in the same way everywhere, is left out.
    """
    cursor.execute(_SETTINGS)
    wanted = [one for one in tables if one.is_readable and (one.is_whole or one.by)]
    found: dict[str, Sum] = {}
    for part in batches(wanted, BATCH):
        cursor.execute(
            sql.SQL(" UNION ALL ").join(
                sql.SQL("SELECT {}, count(*), {} FROM {} AS t").format(
                    number, _CHECKSUM, _rows(one)
                )
                for number, one in enumerate(part)
            )
        )
        for number, rows, total in cursor.fetchall():
            found[str(part[number])] = Sum(rows, str(total))
    return found


# The hash is that of partitions by hash, so it stays the same from release to release.
_CHECKSUM = sql.SQL(
    'coalesce(sum(hashtextextended(t.content COLLATE "C", 0)::numeric), 0)::text'
)


def _rows(table: Table) -> sql.Composed:
    """Write a query for the rows of *table* as text, their columns by name."""
    names = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    order: sql.Composable = sql.SQL("")
    if table.by:
        order = sql.SQL(" ORDER BY {} LIMIT {}").format(
            sql.SQL(", ").join(
                sql.SQL("{} DESC").format(sql.Identifier(name)) for name in table.by
            ),
            LAST_ROWS,
        )
    return sql.SQL("(SELECT ROW({})::text AS content FROM {}{})").format(
        names, sql.Identifier(table.schema, table.name), order
    )


def as_data(table: Table) -> dict[str, Any]:
    """Return *table* as JSON has it; `from_data` reads it."""
    return asdict(table)


def from_data(data: dict[str, Any]) -> Table:
    """Return the table that `as_data` wrote."""
    columns, by = tuple(data["columns"]), tuple(data["by"])
    return Table(**{**data, "columns": columns, "by": by})
