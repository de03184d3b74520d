"""Statements as the server logged them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

APPLICATION_NAME = "django_pg_hot_async.testing"

# What no text in the log can contain: PostgreSQL cleans application names of it.
MARK = "\x1e"
LOG_LINE_PREFIX = f"%m [%p] {MARK}%a{MARK}%d{MARK} "

_RECORD = re.compile(
    rf"[^{MARK}\n]*\[(\d+)\] {MARK}([^{MARK}]*){MARK}([^{MARK}]*){MARK} (\w+):  (.*)",
    re.DOTALL,
)
_STATEMENT = re.compile(
    r"(?:statement|execute (?:fetch from )?.*?|fastpath function call): (.*)", re.DOTALL
)


class Statement(str):
    """The text of a statement, and who sent it."""

    application_name: str
    database: str
    pid: int

    def __new__(
        cls, sql: str, application_name: str, database: str, pid: int
    ) -> Statement:
        self = super().__new__(cls, sql)
        self.application_name = application_name
        self.database = database
        self.pid = pid
        return self


class Statements(list[Statement]):
    """The statements logged since a block began, oldest first.

    Filled by `all()` and at the end of the block, and not changed after it.
    """

    def __init__(self, read: Callable[[], str]) -> None:
        super().__init__()
        self._read: Callable[[], str] | None = read

    def all(self) -> Statements:
        """Read what was logged up to now (one statement of its own); return itself."""
        if self._read:
            self[:] = parse(self._read())
        return self

    def _end(self) -> None:
        self.all()
        self._read = None


def parse(log: str) -> Iterator[Statement]:
    """Read the statements from a log, without those of this package.

    With ``log_statement`` at "all" a statement is logged before it is executed. One
    that got no further than parse or bind shows only below its error.
    """
    last: dict[str, str] = {}
    # Lines of a record after its first begin with a tab, put there by the server.
    for record in re.split(r"\n(?!\t)", log):
        match = _RECORD.fullmatch(record)
        if not match:
            continue
        pid, application_name, database, severity, text = match.groups()
        text = text.replace("\n\t", "\n")
        if severity == "LOG" and (found := _STATEMENT.fullmatch(text)):
            sql = last[pid] = found[1]
        elif severity == "STATEMENT" and last.pop(pid, None) != text:
            sql = text
        else:
            continue
        if application_name != APPLICATION_NAME:
            name = "" if application_name == "[unknown]" else application_name
            yield Statement(sql, name, database, int(pid))
