"""Django's errors: where a value does not load, and what is said of evidence.

What a server refuses, psycopg's cursors tell. A value that does not parse raises
when it is fetched; Django's wrapper of database errors sees that: `with` statements
around each call of a cursor, so an error costs a look and a success nothing.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property

from . import _evidence


class Noticing:
    """What makes a `DatabaseErrorWrapper` take notice of what passes."""

    wrapper: Any

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if exc_type is None:
            return
        _evidence.notice(self.wrapper.connection, exc_value)
        try:
            super().__exit__(exc_type, exc_value, traceback)  # type: ignore[misc]
        except Exception as raised:
            # Django's own error, which is what people see.
            for note in getattr(exc_value, "__notes__", ()):
                raised.add_note(note)
            raise


class NoticingErrorWrapper(Noticing, DatabaseErrorWrapper):
    """Django's `DatabaseErrorWrapper`, taking notice of what passes."""


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
