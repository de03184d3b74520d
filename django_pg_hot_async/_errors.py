"""Errors that a stale OID explains: they end the trust that led to them.

The error itself reaches the user as it is. It is Django's wrapper of database
errors that sees it: `with` statements around each call of a cursor, so an error
costs a look and a success nothing.
"""

from __future__ import annotations

from typing import Any

import psycopg
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property

from ._link import link_of

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


class Noticing:
    """What makes a `DatabaseErrorWrapper` take notice of what passes."""

    wrapper: Any

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if exc_type is None:
            return
        note = self._notice(exc_value)
        try:
            super().__exit__(exc_type, exc_value, traceback)  # type: ignore[misc]
        except BaseException as raised:
            # Django's own error, which is what people see.
            _add_note(raised, note)
            raise
        _add_note(exc_value, note)

    def _notice(self, error: BaseException) -> str:
        """Withdraw trust where *error* is evidence; return what to say of that."""
        if not (isinstance(error, psycopg.Error) and is_evidence(error)):
            return ""
        link = link_of(self.wrapper.connection)
        if link is None or not link.doubt(refused=error.sqlstate is not None):
            return ""
        return (
            f"django_pg_hot_async: {link.memory.name!r} may have other OIDs than were"
            " used here; they are read again before the next statement that needs"
            " them, on every connection."
        )


class NoticingErrorWrapper(Noticing, DatabaseErrorWrapper):
    """Django's `DatabaseErrorWrapper`, taking notice of what passes."""


def _add_note(error: BaseException, note: str) -> None:
    # Python 3.11.
    if note and hasattr(error, "add_note"):
        error.add_note(note)


def is_evidence(error: psycopg.Error) -> bool:
    """Whether *error* may come of an OID that is not the server's."""
    if error.sqlstate is None:
        # psycopg's own: "error parsing hstore".
        return isinstance(error, psycopg.DataError)
    if error.sqlstate == psycopg.errors.InternalError_.sqlstate:
        return _GONE in str(error)
    return error.sqlstate in _REFUSALS


def install() -> None:
    """Have the wrappers of the PostgreSQL backends take notice."""
    # BaseDatabaseWrapper.wrap_database_errors: Django 5.2.19, 6.0.9 and 6.1.3.
    noticing = cached_property(NoticingErrorWrapper)
    noticing.__set_name__(DatabaseWrapper, "wrap_database_errors")
    DatabaseWrapper.wrap_database_errors = noticing  # type: ignore[assignment,method-assign]


def uninstall() -> None:
    """Leave them Django's own."""
    if "wrap_database_errors" in vars(DatabaseWrapper):
        del DatabaseWrapper.wrap_database_errors
