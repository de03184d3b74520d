"""Errors that a stale OID explains: they end the trust that led to them.

The error itself reaches the user as it is, with a note.
"""

from __future__ import annotations

import functools
import itertools
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg

from . import _resolver, _tracking, conf
from ._compat import drop_prepared_statements, follow_cursors, leave_cursors
from ._guard import BadValue
from ._link import link_of
from .conf import Trust

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg.abc import PQGen

# PostgreSQL's errcodes appendix; what a parameter of a type that is gone, or is
# another one now, meets with.
_REFUSALS = {
    "42704": "undefined_object",  # type "hstore" does not exist
    "42804": "datatype_mismatch",  # column is of type hstore but ... of type mood
    "0A000": "feature_not_supported",  # cached plan must not change result type
    "42883": "undefined_function",  # operator does not exist: mood -> unknown
    "22P03": "invalid_binary_representation",
}
# An internal error, and as such never translated. Others have its code as well,
# PostGIS's of a geometry for one.
_GONE = "cache lookup failed for type"
# Of types that initdb made, whose OIDs no server changes; psycopg 3.2 and 3.3. What
# anybody can send, or store, is not to cost every connection a read.
_BUILT_IN = re.compile(
    r"fields cannot contain NUL|\((after|before) year |not supported by Python: hour"
    r"|^can't parse (date|time|interval)|^cannot (dump|calculate) "
    r"|^(lists cannot|nested lists) |numeric binary format"
)

_is_installed = False
# Connections that were open when a type was registered: their cursors may be older.
_older: weakref.WeakSet[Any] = weakref.WeakSet()


def is_evidence(error: BaseException) -> bool:
    """Whether *error* may come of an OID that is not the server's."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        # psycopg's own: "error parsing hstore". Of a BadValue the server was asked.
        return (
            isinstance(error, psycopg.DataError)
            and not isinstance(error, BadValue)
            and _BUILT_IN.search(str(error)) is None
        )
    if error.sqlstate == psycopg.errors.InternalError_.sqlstate:
        return _GONE in str(error)
    return error.sqlstate in _REFUSALS


def notice(connection: Any, error: BaseException) -> None:
    """Withdraw trust where *error*, of *connection*, is evidence; note that on it."""
    link = link_of(connection)
    if link is None:
        return
    link.ask_for_missed()
    if not is_evidence(error):
        return
    if isinstance(error, psycopg.errors.FeatureNotSupported):
        # "cached plan must not change result type": nor will it when it is sent again.
        drop_prepared_statements(connection)
    if not link.doubt(refused=bool(getattr(error, "sqlstate", None))):
        return
    # Python 3.11.
    if hasattr(error, "add_note"):
        error.add_note(
            f"django_pg_hot_async: {link.memory.name!r} may have other OIDs than were"
            " used here; they are read again before the next statement that needs"
            " them, on every connection."
        )


def _begin(connection: Any) -> bool:
    link = link_of(connection)
    return link is not None and link.begin()


def _ahead(context: Any) -> PQGen[None]:
    link = link_of(context.connection)
    if link is not None:
        yield from link.read_ahead(context)


def _ahead_of_many(cursor: Any, params_seq: Any, returning: bool) -> PQGen[None]:
    """Read ahead of an `executemany()`, where its parameters or rows may need it.

    Once rows are on their way nothing can be read, and some may be committed. Of what
    can be iterated over but once nothing can be told.
    """
    link = link_of(cursor.connection)
    if link is None:
        return
    is_known = None
    if isinstance(params_seq, Sequence) and not link.knows_all:
        rows = (
            row.values() if isinstance(row, Mapping) else row
            for row in params_seq
            if isinstance(row, (Mapping, Sequence))  # Else psycopg says what it wants.
        )
        senders = _tracking.current().senders_of(itertools.chain.from_iterable(rows))
        if not (senders or returning):
            return
        is_known = functools.partial(_resolver.are_known, senders, cursor)
    yield from link.read_ahead(cursor, is_known)


def _adapt(cursor: Any) -> bool:
    """Have *cursor* resolve what is tracked now; return whether it did not."""
    if cursor.connection not in _older:
        if not _older:
            install()
        return False
    if _resolver.is_installed(cursor.adapters):
        return False
    _resolver.install(cursor.adapters)
    return True


def follow_older(connections: Iterable[Any]) -> None:
    """Have the cursors of *connections* resolve what is tracked now, too.

    A cursor has adapters of its own, a copy of what its connection had when it was
    opened. Until the last of *connections* is gone each execution in the process
    costs a call.
    """
    global _older
    _older = weakref.WeakSet(connections)
    if _is_installed:
        install()


def install() -> None:
    """Follow the cursors of every psycopg connection of the process.

    Each execution of theirs costs a call, and another one where ``PG_HOT_ASYNC`` has
    a result as the longest that anything is trusted for.
    """
    global _is_installed
    _is_installed = True
    follow_cursors(
        _begin,
        notice,
        _ahead,
        _ahead_of_many,
        each=conf.has_level(Trust.RESULT),
        adapt=_adapt if _older else None,
    )


def uninstall() -> None:
    """Leave them alone."""
    global _is_installed
    _is_installed = False
    leave_cursors()
