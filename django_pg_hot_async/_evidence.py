"""Errors that a stale OID explains: they end the trust that led to them.

The error itself reaches the user as it is, with a note.
"""

from __future__ import annotations

from typing import Any

import psycopg

from . import conf
from ._compat import follow_cursors, leave_cursors
from ._link import link_of
from .conf import Trust

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


def is_evidence(error: BaseException) -> bool:
    """Whether *error* may come of an OID that is not the server's."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        # psycopg's own: "error parsing hstore".
        return isinstance(error, psycopg.DataError)
    if error.sqlstate == psycopg.errors.InternalError_.sqlstate:
        return _GONE in str(error)
    return error.sqlstate in _REFUSALS


def notice(connection: Any, error: BaseException) -> None:
    """Withdraw trust where *error*, of *connection*, is evidence; note that on it."""
    link = link_of(connection) if is_evidence(error) else None
    if link is None or not link.doubt(refused=bool(getattr(error, "sqlstate", None))):
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


def install() -> None:
    """Follow the cursors of every psycopg connection of the process.

    Each execution of theirs costs a call, and another one where ``PG_HOT_ASYNC`` has
    a result as the longest that anything is trusted for.
    """
    follow_cursors(_begin, notice, each=conf.has_level(Trust.RESULT))


def uninstall() -> None:
    """Leave them alone."""
    leave_cursors()
