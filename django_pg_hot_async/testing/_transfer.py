"""Bring a database's rows to another server that has its schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from ._replication import Replication
from ._server import PostgreSQL

# Tables that hold rows, partitions among them; not those an extension fills.
TABLES = """
    select format('%I.%I', nspname, relname), array(
        select quote_ident(attname) from pg_attribute
        where attrelid = pg_class.oid and attnum > 0
        and not attisdropped and attgenerated = '' order by attnum
    )
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where relkind = 'r' and relpersistence <> 't'
    and nspname <> 'information_schema' and nspname !~ '^pg_'
    and not exists (
        select from pg_depend
        where classid = 'pg_class'::regclass and objid = pg_class.oid
        and deptype = 'e'
    )
    order by 1
"""
VIEWS = """
    select oid::regclass::text from pg_class
    where relkind = 'm' and relispopulated order by oid
"""


def transfer(
    source: PostgreSQL,
    target: PostgreSQL,
    dbname: str,
    *,
    before_commit: Callable[[], Any] = lambda: None,
) -> None:
    """Make the rows, and the sequences, of the target those of the source.

    By COPY, as text: the one form that has no OIDs in it. Constraints and triggers
    are not run on the target, materialised views are refreshed. Nobody can write to
    the source meanwhile, until *before_commit* has been called. Large objects stay
    where they are.

    Raise `LookupError` when the target lacks a table or a sequence.
    """
    with source._connect(dbname) as out, target._connect(dbname) as into:
        tables = dict(out.execute(TABLES).fetchall())
        there = dict(into.execute(TABLES).fetchall())
        if missing := [name for name in tables if name not in there]:
            raise LookupError(f"{target!r} has no table {', '.join(missing)}")
        with out.transaction(), into.transaction():
            into.execute("set local session_replication_role = replica")
            if tables:
                _run(out, "lock table {} in exclusive mode", tables)
            if there:
                _run(into, "truncate {} cascade", there)
            for name, columns in tables.items():
                _copy(out, into, name, columns)
            before_commit()
        for [view] in into.execute(VIEWS).fetchall():
            _run(into, "refresh materialized view {}", [view])
    Replication(source, target, dbname).carry_sequences()


def _copy(out: Any, into: Any, name: str, columns: list[str]) -> None:
    # A list of none is not taken; then there is nothing to name either.
    table = f"{name} ({', '.join(columns)})" if columns else name
    with (
        into.cursor().copy(sql.SQL(f"copy {table} from stdin")) as write,
        out.cursor().copy(sql.SQL(f"copy {table} to stdout")) as read,
    ):
        for data in read:
            write.write(data)


def _run(connection: psycopg.Connection[Any], text: str, names: Any) -> None:
    # The names come quoted.
    connection.execute(sql.SQL(text).format(sql.SQL(", ".join(names))))
