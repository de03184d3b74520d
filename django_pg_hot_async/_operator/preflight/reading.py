"""Reading one side for `pg_hot_preflight`: a few statements, in one transaction.

What a platform may hide is read apart, and is unknown where it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.utils import Error

from django_pg_hot_async._core.server import Server
from django_pg_hot_async._django.connections import is_postgresql
from django_pg_hot_async._operator.probe import redact, wrapper_apart

from . import statements
from .facts import (
    ColumnFacts,
    ExtensionFacts,
    Facts,
    PreflightError,
    Subscription,
    TypeFacts,
)

_SCHEMA = re.compile(r'^(?:"(?:[^"]|"")*"|[a-z_][a-z0-9_]*)\.')


def read_side(alias: str, names: Sequence[str], tables: Iterable[str]) -> Facts:
    """Read what the server of *alias* has: on a connection of its own, read-only.

    *names* are those of the tracked types, *tables* what models call theirs. A pool
    is passed by: it would hide why a server cannot be reached. Raise
    `PreflightError`, which names the alias, where it cannot be read.
    """
    wrapper = _open(alias)
    try:
        # One transaction, for a pooler to keep on one server; close() ends it.
        wrapper.set_autocommit(False)
        with wrapper.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            return _read(wrapper, cursor, names, tables)
    except Error as error:
        said = redact(error, wrapper.settings_dict)
        raise PreflightError(f"cannot read the catalog of {alias!r}: {said}") from error
    finally:
        wrapper.close()


def _open(alias: str) -> Any:
    if alias not in connections:
        raise PreflightError(
            f"{alias!r} is no alias in DATABASES; those there are:"
            f" {', '.join(repr(name) for name in connections)}"
        )
    wrapper = wrapper_apart(alias)
    if wrapper.vendor != "postgresql":
        raise PreflightError(
            f"{alias!r} is no PostgreSQL but {wrapper.display_name}:"
            f" DATABASES[{alias!r}]['ENGINE'] is {wrapper.settings_dict['ENGINE']!r}"
        )
    if wrapper.Database.__name__ == "psycopg2":
        raise PreflightError(
            f"{alias!r} is connected to by psycopg 2: nothing is tracked with it,"
            ' so every process would have to be restarted; install "psycopg[binary]"'
            f" and have DATABASES[{alias!r}]['ENGINE'] use it"
        )
    try:
        wrapper.ensure_connection()
    except (Error, ImproperlyConfigured) as error:
        wrapper.close()
        said = redact(error, wrapper.settings_dict)
        raise PreflightError(f"cannot connect to {alias!r}: {said}") from error
    if not is_postgresql(wrapper.connection):
        wrapper.close()
        raise PreflightError(
            f"{alias!r} leads to a server that is no PostgreSQL, though it speaks its"
            " protocol, or is not connected to by psycopg 3"
        )
    return wrapper


def _read(
    wrapper: Any, cursor: Any, names: Sequence[str], tables: Iterable[str]
) -> Facts:
    cursor.execute(statements.SERVER)
    version, in_recovery, pid, search_path, *identity = cursor.fetchone()
    pgconn = wrapper.connection.pgconn
    cursor.execute(statements.TYPES, [list(names)])
    types = tuple(_type(row) for row in cursor.fetchall())
    cursor.execute(statements.COLUMNS, _named(tables))
    columns = tuple(
        ColumnFacts(table, name, oid, unqualified(type))
        for table, name, oid, type in cursor.fetchall()
    )
    cursor.execute(statements.EXTENSIONS)
    extensions = {
        name: ExtensionFacts(number, schema)
        for name, number, schema in cursor.fetchall()
    }
    available = _try(wrapper, cursor, statements.AVAILABLE)
    system = _try(wrapper, cursor, statements.SYSTEM_IDENTIFIER)
    publications = _try(wrapper, cursor, statements.PUBLICATIONS)
    subscriptions = _try(wrapper, cursor, statements.SUBSCRIPTIONS)
    return Facts(
        alias=wrapper.alias,
        # What a connection through a pooler was told of the version may be stale.
        server=replace(Server.of(pgconn), version=version),
        identity=tuple(identity),
        system_identifier=system[0][0] if system else None,
        in_recovery=in_recovery,
        # PgBouncer and its like make up a process id for cancel requests.
        pooled=pid != pgconn.backend_pid,
        search_path=tuple(search_path),
        types=types,
        columns=columns,
        extensions=extensions,
        available=None if available is None else dict(available),
        publications=_rows(publications, lambda name: str(name)),
        subscriptions=_rows(
            subscriptions,
            lambda name, enabled, of, uncopied: Subscription(
                name, enabled, tuple(of), uncopied
            ),
        ),
    )


def _try(wrapper: Any, cursor: Any, sql: str) -> list[Any] | None:
    """Return the rows of *sql*, or None where the server does not give them."""
    savepoint = wrapper.savepoint()
    try:
        cursor.execute(sql)
        rows: list[Any] = cursor.fetchall()
    except DatabaseError:
        # Raises what it raises where the connection is lost.
        wrapper.savepoint_rollback(savepoint)
        return None
    wrapper.savepoint_commit(savepoint)
    return rows


def _rows(rows: list[Any] | None, made: Any) -> Any:
    return None if rows is None else tuple(made(*row) for row in rows)


def _type(row: Sequence[Any]) -> TypeFacts:
    *facts, names, types = row
    written = [unqualified(type) for type in types]
    if names is None:
        shape = written
    elif types:
        shape = [f"{name} {type}" for name, type in zip(names, written, strict=True)]
    else:
        shape = names
    facts.append(tuple(shape))
    return TypeFacts(*facts)


def _named(tables: Iterable[str]) -> list[list[str | None]]:
    """Take *tables* apart: what models call them, their schemas, their names."""
    # A schema in db_table is written as 'schema"."table', see Django's #6148.
    apart = [(name, *name.strip('"').rpartition('"."')) for name in sorted(tables)]
    return [
        [name for name, *_ in apart],
        [schema or None for _, schema, _, _ in apart],
        [relation for *_, relation in apart],
    ]


def unqualified(type: str) -> str:
    """Take the schema off what ``format_type()`` returned."""
    return _SCHEMA.sub("", type)
