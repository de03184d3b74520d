"""What a statement's text tells: its first word, and whether it is several."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from psycopg.client_cursor import ClientCursorMixin

from .connection import Execution

# What may precede a statement's first word besides comments: space, parentheses, and
# the ends of empty statements.
_BLANK = re.compile(rb"[\s(;]*")

# As most statements begin.
_FIRST = re.compile(rb"[\s(;]*([a-zA-Z]+)")

_WORD = re.compile(rb"[a-zA-Z]*")

_COMMENT = re.compile(rb"/\*|\*/")

# What may stand in a transaction block and controls none. The others, as VACUUM, CREATE
# DATABASE, SET or BEGIN, are sent as they are.
CARRIES = frozenset(
    b"SELECT WITH VALUES TABLE INSERT UPDATE DELETE MERGE FETCH EXECUTE".split()
)

CALL = b"CALL"
"""A procedure may end the transaction. Not in a string of statements, and in a pipeline
only where it comes first (PostgreSQL 18)."""

_WRITES = re.compile(rb"\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)

_RETURNS = re.compile(rb"\bRETURNING\b", re.IGNORECASE)

# Where something begins in which a semicolon ends nothing.
_OPENING = re.compile(rb"([eE]?'|\"|\$\w*\$|--|/\*|;)")

_STRING = re.compile(rb"(?:[^']|'')*'")

_ESCAPE_STRING = re.compile(rb"(?:[^'\\]|\\.|'')*'", re.DOTALL)


def first_word(query: bytes) -> bytes:
    """Return the first word of *query* in upper case; b"" where there is none."""
    match = _FIRST.match(query)
    if match is not None:
        return match[1].upper()
    position = 0
    while True:
        position = _end(_BLANK, query, position)
        if query.startswith(b"--", position):
            position = query.find(b"\n", position)
            if position < 0:
                return b""
        elif query.startswith(b"/*", position):
            position = _skip_comment(query, position)
        else:
            return query[position : _end(_WORD, query, position)].upper()


def _end(pattern: re.Pattern[bytes], query: bytes, position: int) -> int:
    match = pattern.match(query, position)
    return position if match is None else match.end()


def _skip_comment(query: bytes, position: int) -> int:
    """Return where the comment at *position* ends. PostgreSQL nests them."""
    depth = 0
    for match in _COMMENT.finditer(query, position):
        depth += 1 if match[0] == b"/*" else -1
        if not depth:
            return match.end()
    return len(query)


def is_several(query: bytes, pgconn: Any) -> bool:
    """Whether *query* is a string of several statements."""
    if b";" not in query:
        return False
    has_escapes = pgconn.parameter_status(b"standard_conforming_strings") == b"off"
    position = 0
    while match := _OPENING.search(query, position):
        opening, position = match[1], match.end()
        if opening == b";":
            if first_word(query[position:]):
                return True
        elif opening == b"--":
            position = query.find(b"\n", position) + 1 or len(query)
        elif opening == b"/*":
            position = _skip_comment(query, match.start())
        elif opening == b"'" and not has_escapes:
            position = _end(_STRING, query, position)
        elif opening.endswith(b"'"):
            position = _end(_ESCAPE_STRING, query, position)
        else:
            position = query.find(opening, position) + len(opening)
            if position < len(opening):
                return False
    return False


def can_be_bare(query: bytes) -> bool:
    """Whether *query* may go without a confirmation, once nothing was found in it.

    What writes and returns cannot be refused afterwards: it has been committed.
    """
    return not (_RETURNS.search(query) and _WRITES.search(query))


def text_of(query: Any, cursor: Any) -> bytes:
    if isinstance(query, str):
        return query.encode(errors="replace")
    if isinstance(query, bytes):
        return query
    with suppress(Exception):
        return bytes(query.as_bytes(cursor))
    # A template, or a literal of a type that only the server's answer can write.
    return b"SELECT"


def memo_key(cursor: Any, execution: Execution, pgq: Any) -> str | bytes | None:
    """Return what a statement is remembered by: its text before values are put in."""
    query = execution.query
    if isinstance(query, (str, bytes)):
        return query
    if isinstance(cursor, ClientCursorMixin) or pgq is None:
        return None
    text: bytes = pgq.query
    return text
