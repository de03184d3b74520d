"""Reading one side for `pg_hot_preflight`: one transaction, which only reads.

What a server does not tell is left out, and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from time import monotonic, sleep
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.utils import Error
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import namedtuple_row, tuple_row

from django_pg_hot_async._core.server import Server
from django_pg_hot_async._django.connections import is_postgresql
from django_pg_hot_async._operator.access import redact, wrapper_apart

from . import statements
from .catalog import QUERIES
from .facts import Facts, PreflightError, TypeFacts
from .query import Query

_SCHEMA = re.compile(r'^(?:"(?:[^"]|"")*"|[a-z_][a-z0-9_]*)\.')
SETTLE_SECONDS = 3.0
_ESSENTIAL = ("database", "relations", "columns")
"""Without these there is nothing to compare."""


class Side:
    """One side, open for reading."""

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper
        self.alias: str = wrapper.alias
        self.refused: dict[str, str] = {}
        self._parameters: dict[str, Any] = {}
        self._cursor: Any = None

    def begin(self) -> None:
        # One transaction, for a pooler to keep on one server; close() ends it. Not
        # REPEATABLE READ, which would show rows as they were at its beginning.
        self.wrapper.set_autocommit(False)
        # Not Django's cursor: it would log, and knows no names of columns.
        self._cursor = self.wrapper.connection.cursor(row_factory=_rows)
        self.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY")
        self.execute(statements.LIMITS)

    def execute(self, sql: str, parameters: Any = None) -> list[Any]:
        """Send one statement; return its rows, with the columns as attributes."""
        with self.wrapper.wrap_database_errors:
            self._cursor.execute(sql, parameters)
            return self._cursor.fetchall() if self._cursor.description else []

    def attempt(self, query: Query, parameters: Any) -> list[Any] | str:
        """Return the rows of *query*, or why there are none.

        Locks are given back, and what failed is undone, by the savepoint.
        """
        try:
            rows = self.execute(query.sql, parameters)
        except Error as error:
            if self.wrapper.connection.closed:
                raise
            self.execute("ROLLBACK TO SAVEPOINT preflight")
            return redact(error, self.wrapper.settings_dict)
        if query.locks:
            self.execute("ROLLBACK TO SAVEPOINT preflight")
        return rows

    def read(self, names: Sequence[str], role: str | None = None) -> Facts:
        """Read the catalog: all but rows of tables.

        *names* are those of the tracked types. *role* is the one whose rights are
        looked at, where the server has it; else it is the one that is connected.
        """
        [server] = self.execute(statements.SERVER)
        version, in_recovery, pid, search_path, user, *identity = server
        types = tuple(
            _type(row) for row in self.execute(statements.TYPES, [list(names)])
        )
        [(_, lsn, is_known)] = self.execute(statements.PATH, [role or user])
        self.execute("SAVEPOINT preflight")
        parameters = {"role": role if role and is_known else user, "lsn": lsn}
        self._parameters = parameters
        catalog: dict[str, Mapping[str, Any]] = {}
        for kind, query in QUERIES.items():
            if version // 10000 < query.since:
                continue
            rows = self.attempt(query, parameters)
            if not isinstance(rows, str):
                catalog[kind] = {row[0]: row for row in rows}
            elif kind in _ESSENTIAL:
                raise PreflightError(
                    f"cannot read {query.what} of {self.alias!r}: {rows}"
                )
            else:
                self.refused[kind] = rows
        pgconn = self.wrapper.connection.pgconn
        return Facts(
            alias=self.alias,
            # What a connection through a pooler was told of the version may be stale.
            server=replace(Server.of(pgconn), version=version),
            identity=tuple(identity),
            in_recovery=in_recovery,
            # PgBouncer and its like make up a process id for cancel requests.
            pooled=pid != pgconn.backend_pid,
            search_path=tuple(search_path),
            role=user,
            types=types,
            catalog=catalog,
            refused=self.refused,
        )

    def let_slots_settle(self, facts: Facts) -> Facts:
        """Return *facts* with slots read again, until all who read them have it all.

        A subscriber confirms what it has applied when that is on its disk: a second
        or so later, with its default settings. Wait for `SETTLE_SECONDS` at most.
        """
        deadline = monotonic() + SETTLE_SECONDS
        while any(slot.active and slot.behind for slot in facts.of("slots").values()):
            if monotonic() > deadline:
                break
            sleep(0.2)
            rows = self.attempt(QUERIES["slots"], self._parameters)
            if isinstance(rows, str):
                break
            slots = {row.name: row for row in rows}
            facts = replace(facts, catalog={**facts.catalog, "slots": slots})
        return facts


def _rows(cursor: Any) -> Any:
    """Make rows with columns as attributes, where each has a name of its own."""
    names = [column.name for column in cursor.description or ()]
    is_unique = len(set(names)) == len(names) and "?column?" not in names
    return (namedtuple_row if is_unique else tuple_row)(cursor)


@contextmanager
def green_alias(blue: str, green: str | None, dsn: str | None) -> Iterator[str]:
    """Yield the alias of green: for the block, one for *dsn* where that is given.

    What *dsn* leaves out is as in the settings of *blue*.
    """
    if green is not None or dsn is None:
        yield green or ""
        return
    if blue not in connections:
        raise _unknown(blue)
    try:
        parts: dict[str, Any] = dict(conninfo_to_dict(dsn))
    except psycopg.Error as error:
        raise PreflightError(
            f"--green-dsn is not a connection string: {error}"
        ) from None
    settings = deepcopy(connections.settings[blue])
    options = {k: v for k, v in settings["OPTIONS"].items() if k != "service"}
    for key, name in (
        ("dbname", "NAME"),
        ("host", "HOST"),
        ("port", "PORT"),
        ("user", "USER"),
        ("password", "PASSWORD"),
    ):
        if key in parts:
            settings[name] = str(parts.pop(key))
    settings["OPTIONS"] = {**options, **parts}
    alias = "green"
    while alias in connections:
        alias += "_dsn"
    connections.settings[alias] = settings
    try:
        yield alias
    finally:
        del connections.settings[alias]


@contextmanager
def open_side(alias: str) -> Iterator[Side]:
    """Connect to the server of *alias* by a connection of its own, in a transaction.

    A pool is passed by: it would hide why a server cannot be reached. Raise
    `PreflightError`, which names the alias, where it cannot be read.
    """
    wrapper = _open(alias)
    try:
        side = Side(wrapper)
        side.begin()
        yield side
    except Error as error:
        said = redact(error, wrapper.settings_dict)
        raise PreflightError(f"cannot read the catalog of {alias!r}: {said}") from error
    finally:
        wrapper.close()


def _unknown(alias: str) -> PreflightError:
    return PreflightError(
        f"{alias!r} is no alias in DATABASES; those there are:"
        f" {', '.join(repr(name) for name in connections)}"
    )


def _open(alias: str) -> Any:
    if alias not in connections:
        raise _unknown(alias)
    try:
        wrapper = wrapper_apart(alias)
    except ImproperlyConfigured as error:
        raise PreflightError(f"cannot connect to {alias!r}: {error}") from error
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
    except Exception as error:
        # A receiver of connection_created, or a backend of the project's.
        wrapper.close()
        said = redact(error, wrapper.settings_dict)
        raise PreflightError(
            f"cannot connect to {alias!r}: code of this project raised"
            f" {type(error).__name__} while Django connected: {said}"
        ) from error
    if not is_postgresql(wrapper.connection):
        wrapper.close()
        raise PreflightError(
            f"{alias!r} leads to a server that is no PostgreSQL, though it speaks its"
            " protocol, or is not connected to by psycopg 3"
        )
    return wrapper


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


def unqualified(type: str) -> str:
    """Take the schema off what ``format_type()`` returned."""
    return _SCHEMA.sub("", type)
