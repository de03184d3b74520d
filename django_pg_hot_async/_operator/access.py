"""A connection of a command's own to the server of an alias, and why there is none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from django.db import connections, utils
from psycopg.rows import tuple_row

from django_pg_hot_async._core.connection import unwrapped
from django_pg_hot_async._django.connections import is_postgresql

T = TypeVar("T")

CONNECT_SECONDS = 5
"""How long a server has to accept a connection, where nothing else is set."""

_FINAL = re.compile(
    # libpq says so before it connects: an unknown service, an option that is wrong.
    r"^connection is bad: (?!connection to server)"
    r"|authentication failed|no password supplied"
    r'|(role|database) "[^"]*" does not exist|no such (database|user)'
)
_NOT_FINAL = (utils.DatabaseError, utils.InterfaceError, psycopg.Error)
_MISTAKES = (
    utils.ProgrammingError,
    utils.NotSupportedError,
    psycopg.ProgrammingError,
    psycopg.NotSupportedError,
)


class CannotTell(Exception):
    """A server could not be asked, or changed; the text says why, in one line."""

    def __init__(self, text: str, *, is_final: bool = True) -> None:
        super().__init__(text)
        self.is_final = is_final
        """Whether asking again would not help."""


def is_final(error: Exception) -> bool:
    """Whether asking again would not help: a mistake in the settings, for example.

    A wrong password or an unknown database is final, a server that is down is not. What
    is no error of a database, such as one of a receiver of the project's, is final.
    """
    if not isinstance(error, _NOT_FINAL) or isinstance(error, _MISTAKES):
        return True
    return _FINAL.search(str(error)) is not None


def redact(error: Exception, settings: dict[str, Any]) -> str:
    """Write *error* in one line, without a password that may be in it."""
    text = " ".join(str(error).split()) or type(error).__name__
    for password in (settings["PASSWORD"], settings["OPTIONS"].get("password")):
        if password:
            text = text.replace(str(password), "********")
    return text


def wrapper_apart(alias: str) -> Any:
    """Make a wrapper of *alias* that nobody else has, without its pool.

    Not the one that this thread may have open: that may be older than a switch.
    """
    wrapper: Any = connections.create_connection(alias)
    options = dict(wrapper.settings_dict["OPTIONS"])
    options.pop("pool", None)
    if "PGCONNECT_TIMEOUT" not in os.environ:
        options.setdefault("connect_timeout", CONNECT_SECONDS)
    wrapper.settings_dict = {**wrapper.settings_dict, "OPTIONS": options}
    return wrapper


@contextmanager
def opened(alias: str, *, read_only: bool = True) -> Iterator[psycopg.Cursor[Any]]:
    """Open a connection to the server of *alias*, for a transaction on it.

    Give a cursor of psycopg's own that returns tuples. The transaction is one snapshot
    and writes nothing, unless *read_only* is false; it is committed at the end of the
    block, and the connection closed. Raise `CannotTell`, which names the alias, for
    whatever a database or a receiver of the project's raises meanwhile.
    """
    if alias not in connections.settings:
        known = ", ".join(map(repr, sorted(connections.settings)))
        raise CannotTell(f"{alias!r} is no alias in DATABASES; there is {known}")
    settings = connections.settings[alias]
    try:
        wrapper = wrapper_apart(alias)
    except Exception as error:
        raise CannotTell(f"cannot load {alias!r}: {redact(error, settings)}") from error
    if wrapper.vendor != "postgresql":
        raise CannotTell(f"{alias!r} is not PostgreSQL ({wrapper.vendor})")
    try:
        try:
            wrapper.ensure_connection()
            connection = unwrapped(wrapper.connection)
        except Exception as error:
            said = redact(error, settings)
            raise CannotTell(
                f"cannot connect to {alias!r}: {said}", is_final=is_final(error)
            ) from error
        if not isinstance(connection, psycopg.Connection) or not is_postgresql(
            connection
        ):
            raise CannotTell(f"{alias!r} does not lead to PostgreSQL by psycopg 3")
        try:
            with connection.transaction():
                # The connection's own classes of cursors and rows are the project's.
                cursor = psycopg.Cursor(connection, row_factory=tuple_row)
                if read_only:
                    cursor.execute(
                        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
                    )
                # Names in statements are PostgreSQL's own, whatever the project's path.
                cursor.execute("SET LOCAL search_path TO pg_catalog, pg_temp")
                yield cursor
        except psycopg.Error as error:
            said = redact(error, settings)
            raise CannotTell(
                f"{alias!r} refuses: {said}", is_final=is_final(error)
            ) from error
    finally:
        wrapper.close()


def identity(cursor: psycopg.Cursor[Any]) -> tuple[str, ...]:
    """Return what is equal only for one database: of one server, since it started."""
    cursor.execute(
        "SELECT extract(epoch FROM pg_postmaster_start_time())::text, oid::text"
        " FROM pg_database WHERE datname = current_database()"
    )
    return tuple(cursor.fetchone() or ())


def refuse_same(blue: tuple[str, ...], green: tuple[str, ...]) -> None:
    """Raise `CannotTell` where the two `identity` are of one database."""
    if blue == green:
        raise CannotTell("both aliases lead to one and the same database")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield *items* by *size*, for a statement each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
