"""A watcher that fails a test which read a row wrongly."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from django.apps import apps
from django.core.exceptions import FieldError
from django.db import connections
from django.db.models import Model, TextField
from django.db.models.functions import Cast
from django.db.utils import DatabaseErrorWrapper

from ._expectations import expectation
from ._rehearsal import Rehearsal

SHOWN = 10

# Below 16384 are PostgreSQL's own types, whose OIDs are the same on every server.
COLUMNS = """
    select name, attname
    from unnest(%s::text[]) name join pg_attribute on attrelid = to_regclass(name)
    where attnum > 0 and not attisdropped and atttypid >= 16384
"""


class WrongRows(AssertionError):
    """Rows were decoded wrongly, or could not be decoded."""


class Watcher:
    """Look at what is read during a rehearsal, for the block of a ``with`` statement.

    Two things are watched, for the aliases of the rehearsal, in every thread:

    - each value that the ORM reads: that of an `HStoreField` has to be a dict, that
      of an `ArrayField` a list, of a range field a range, whatever they are nested in
      and whatever expression they come from;
    - each error that a cursor of Django's meets with, also one that somebody caught:
      psycopg could not decode a value (a `DataError` without SQLSTATE), or the server
      does not know the type of a parameter ("cache lookup failed for type").

    And before each cutover and rollback, and at the end of the block, every row of
    every model is read by this thread, as it is connected: the columns whose type
    has an OID of its own on each server, each as the ORM returns it and as text,
    which has the same OID everywhere, in one statement. The same text in the same
    column has to be an equal value of the same class each time.

    `WrongRows` is raised by the cutover, the rollback, `check()` or the end of the
    block, whichever is next, and once. A warning is given where nothing has been
    compared.
    """

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal = rehearsal
        self.compared = 0
        """How many values were read again, and compared with what they were."""
        self.problems: list[str] = []
        self._is_over = False
        self._sweeps = 0
        self._values: dict[tuple[str, str], tuple[Any, int, str]] = {}
        self._stack = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.rehearsal!r}>"

    def __enter__(self) -> Watcher:
        self._stack.enter_context(_values_watched(self._see_value))
        self._stack.enter_context(_errors_watched(self._see_error))
        self.rehearsal.before_switch.append(self.check)
        self._stack.callback(self.rehearsal.before_switch.remove, self.check)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        __tracebackhide__ = True
        with self._stack:
            if exc_type is not None or self._is_over:
                return
            for alias in self.rehearsal.aliases:
                connections[alias].close_if_unusable_or_obsolete()
            self.check()
        if not self.compared:
            warnings.warn(
                "nothing was compared: there was no cutover, or no row with a value"
                " whose type has an OID of its own on each server",
                stacklevel=2,
            )

    def check(self) -> None:
        """Read every row and raise `WrongRows` if anything was wrong so far."""
        __tracebackhide__ = True
        self._sweeps += 1
        for alias in sorted(self.rehearsal.aliases):
            self._sweep(alias)
        problems, self.problems = self.problems, []
        if problems:
            self._is_over = True
            counts = Counter(problems)
            lines = [
                f"  {problem}" + (f" ({count} times)" if count > 1 else "")
                for problem, count in counts.most_common(SHOWN)
            ]
            if len(counts) > SHOWN:
                lines.append(f"  ... and {len(counts) - SHOWN} more")
            raise WrongRows(
                f"{len(problems)} values wrong or not to be decoded"
                f" ({self.compared} compared):\n" + "\n".join(lines)
            )

    def _sweep(self, alias: str) -> None:
        tables: dict[str, type[Model]] = {
            connections[alias].ops.quote_name(model._meta.db_table): model
            for model in apps.get_models(include_auto_created=True)
            if not model._meta.proxy
        }
        with connections[alias].cursor() as cursor:
            cursor.execute(COLUMNS, [list(tables)])
            found = cursor.fetchall()
        for table, model in tables.items():
            columns = {column for name, column in found if name == table}
            fields = [
                f for f in model._meta.local_concrete_fields if f.column in columns
            ]
            if not fields:
                continue
            seen = len(self.problems)
            try:
                self._read(alias, model, [field.attname for field in fields])
            except Exception as error:
                if len(self.problems) == seen:
                    what = f"{type(error).__name__}: {error}"
                    self._report(alias, f"{model._meta.label}: {what}")

    def _read(self, alias: str, model: type[Model], names: list[str]) -> None:
        texts = [Cast(name, TextField()) for name in names]
        rows = model._base_manager.using(alias).order_by()
        for row in rows.values_list(*names, *texts):
            for name, value, text in zip(names, row, row[len(names) :], strict=False):
                if text is not None:
                    self._compare(alias, f"{model._meta.label}.{name}", text, value)

    def _compare(self, alias: str, where: str, text: str, value: Any) -> None:
        new = (value, self._sweeps, self.rehearsal.where)
        before, sweep, then = self._values.setdefault((where, text), new)
        self.compared += sweep < self._sweeps
        if not _is_same(before, value):
            was = f"{before!r} on {then}"
            self._report(alias, f"{where}: {value!r} where it was {was}")

    def _see_value(self, alias: str, field: Any, noun: str, value: Any) -> None:
        if alias in self.rehearsal.aliases:
            name = getattr(field, "model", None) and f"{field.model._meta.label}."
            where = f"{name or ''}{getattr(field, 'name', None) or 'an expression'}"
            self._report(alias, f"{where}: {value!r} where {noun} is expected")

    def _see_error(self, alias: str, error: BaseException) -> None:
        if alias in self.rehearsal.aliases and _is_stale(error):
            self._report(alias, f"{type(error).__name__}: {error}")

    def _report(self, alias: str, what: str) -> None:
        self.problems.append(f"{alias!r} on {self.rehearsal.where}: {what}")


def _is_same(before: Any, now: Any) -> bool:
    if type(before) is not type(now):
        return False
    # NaN is not equal to itself; of classes without __eq__ nothing more is known.
    equals: Any = type(now).__eq__
    return equals is object.__eq__ or before == now or repr(before) == repr(now)


def _is_stale(error: BaseException) -> bool:
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    return error.sqlstate == "XX000" and "cache lookup failed for type" in str(error)


@contextlib.contextmanager
def _values_watched(report: Callable[[str, Any, str, Any], None]) -> Iterator[None]:
    """Have a look at each value that the ORM converts, before it does.

    By `get_db_converters()`, which a backend is asked for by every query that
    returns rows (Django 5.2.19, 6.0.9 and 6.1.3).
    """
    # Django 5.2 cannot import it before django.db.models.
    from django.db.backends.postgresql.operations import DatabaseOperations

    original = DatabaseOperations.get_db_converters
    own = "get_db_converters" in vars(DatabaseOperations)

    def get_db_converters(self: DatabaseOperations, expression: Any) -> list[Any]:
        try:
            field = expression.output_field
        except (AttributeError, FieldError):
            field = None
        expected = expectation(field)
        converters: list[Any] = original(self, expression)
        if expected is None:
            return converters

        def look(value: Any, expression: Any, connection: Any) -> Any:
            if value is not None and not expected.is_met(value):
                report(connection.alias, field, expected.noun, value)
            return value

        return [look, *converters]

    operations: Any = DatabaseOperations
    operations.get_db_converters = get_db_converters
    try:
        yield
    finally:
        if own:
            operations.get_db_converters = original
        else:
            del operations.get_db_converters


@contextlib.contextmanager
def _errors_watched(report: Callable[[str, BaseException], None]) -> Iterator[None]:
    """Have a look at each error that a cursor of Django's lets through."""
    original = DatabaseErrorWrapper.__exit__

    def __exit__(self: Any, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if exc_value is not None:
            report(self.wrapper.alias, exc_value)
        original(self, exc_type, exc_value, traceback)

    wrapper: Any = DatabaseErrorWrapper
    wrapper.__exit__ = __exit__
    try:
        yield
    finally:
        wrapper.__exit__ = original
