"""Errors that a stale OID explains: the connection that met one asks again.

The error itself reaches the user as it is, with a note. Other connections are not
bothered unless the answer is another one.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import psycopg

from .connection import state_of, unwrapped
from .loading import BadValue
from .psycopg_internals import drop_prepared_statements

logger = logging.getLogger("django_pg_hot_async")

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
_INTERNAL = "XX000"
# PostGIS keeps operator families in the backend's own cache: where the extension was
# made anew, predicates fail in the backend until it ends. PostGIS 3.3 to 3.6.
_BACKEND_IS_STALE = "no spatial operator found for "
# Of types that initdb made, whose OIDs no server changes; psycopg 3.2 and 3.3. What
# anybody can send, or store, is not to cost every connection a read.
_BUILT_IN = re.compile(
    r"fields cannot contain NUL|\((after|before) year |not supported by Python: hour"
    r"|^can't parse (date|time|interval)|^cannot (dump|calculate) "
    r"|^(lists cannot|nested lists) |numeric binary format"
)


def is_evidence(error: BaseException) -> bool:
    """Whether *error* may come of an OID that is not the server's."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        # psycopg's own: "error parsing hstore".
        return (
            isinstance(error, psycopg.DataError)
            and not isinstance(error, BadValue)
            and _BUILT_IN.search(str(error)) is None
        )
    if error.sqlstate == _INTERNAL:
        return _GONE in str(error)
    return error.sqlstate in _REFUSALS


def notice(connection: Any, error: BaseException) -> None:
    """Have *error*, of *connection*, looked into where it is evidence; note that."""
    state = state_of(connection)
    if state is None:
        return
    state.forget_missed()
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate == _INTERNAL and _BACKEND_IS_STALE in str(error):
        logger.warning(
            "%s: closing a connection whose backend keeps what PostGIS was before it"
            " was made anew",
            state.alias.name,
            extra={"alias": state.alias.name},
        )
        unwrapped(connection).pgconn.finish()
        return
    if not is_evidence(error):
        return
    if isinstance(error, psycopg.errors.FeatureNotSupported):
        # "cached plan must not change result type": nor will it when it is sent again.
        drop_prepared_statements(connection)
    if sqlstate and not state.has_sent:
        return
    if not state.doubt((sqlstate, str(error))):
        return
    # Python 3.11.
    if hasattr(error, "add_note"):
        error.add_note(
            f"django_pg_hot_async: {state.alias.name!r} may have other OIDs than were"
            " used here; the server is asked before the next statement that needs them"
        )
