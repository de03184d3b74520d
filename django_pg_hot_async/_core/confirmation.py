"""Whether a server is one that was read: the question, and what its answer means."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .catalog import confirm, moment, parse_name, unescape

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from .snapshot import Snapshot

MAX_ANSWERS = 256
"""How many answers are kept with what they mean. Another one is parsed again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a confirmation."""

    start: int
    """When the postmaster that answered started, in µs."""
    snapshot: Snapshot | None
    """What is confirmed, under the session's search_path; None: a read is due."""
    others: tuple[Snapshot, ...] = ()
    """What it does not confirm, where it confirms nothing."""
    database: str | None = None
    """The database that answered, where it was asked for."""
    pid: int | None = None
    """Of the backend that answered, where it was asked for."""


class Confirmation:
    """The question whether one of *snapshots* is what answers, and what answers mean.

    Where the server calls a type by its bare name, the search_path leads to it.
    """

    def __init__(
        self,
        snapshots: tuple[Snapshot, ...],
        *,
        is_ascii: bool,
        is_iso: bool,
        wants_pid: bool,
    ) -> None:
        self._snapshots = snapshots
        self._is_ascii = is_ascii
        self._wants_pid = wants_pid
        self._wants_database = any(one.needs_database for one in snapshots)
        self._known: dict[tuple[bytes, ...], Answer] = {}
        self.statement = confirm(
            [one.catalog for one in snapshots],
            is_ascii=is_ascii,
            is_iso=is_iso,
            wants_pid=wants_pid,
            wants_database=self._wants_database,
        )

    def read(self, result: PGresult) -> Answer:
        """Return what the *result* of the statement says."""
        values = [
            bytes(result.get_value(0, column) or b"")
            for column in range(result.nfields)
        ]
        pid = int(values.pop()) if self._wants_pid else None
        key = tuple(values)
        answer = self._known.get(key)
        if answer is None:
            start = moment(values[0])
            snapshot, database = self._explain(start, values[1:])
            others = () if snapshot is not None else self._snapshots
            answer = Answer(start, snapshot, others, database)
            if snapshot is not None:
                self._known[key] = answer
                while len(self._known) > MAX_ANSWERS:
                    self._known.pop(next(iter(self._known)), None)
        return answer if pid is None else replace(answer, pid=pid)

    def _explain(
        self, start: int, values: list[bytes]
    ) -> tuple[Snapshot | None, str | None]:
        database = unescape(values.pop()) if self._wants_database else None
        for snapshot in self._snapshots:
            catalog = snapshot.catalog
            names = values.pop(0)
            attributes = unescape(values.pop(0)) if catalog.relations else ""
            if (
                catalog.start != start
                or catalog.attributes != attributes
                or database not in (None, catalog.database)
            ):
                continue
            text = names.decode(errors="replace") if self._is_ascii else unescape(names)
            visible = _find_visible(snapshot, text)
            if visible is not None:
                return snapshot.seen_from(visible, text), database
        return None, database


def _find_visible(snapshot: Snapshot, text: str) -> frozenset[int] | None:
    """Return the OIDs that *text*, an array of names, has bare names for.

    None where it has another name for one of them.
    """
    visible = set()
    for oid, name in zip(snapshot.catalog.confirmed, _elements(text), strict=True):
        row = snapshot.row_of(oid) if oid else None
        if row is None:
            if name != "-":
                return None
            continue
        is_array = oid == row.array_oid
        if is_array != name.endswith("[]"):
            return None
        schema, last = parse_name(name)
        if last != row.name or schema not in (None, row.schema):
            return None
        if schema is None and not is_array:
            visible.add(oid)
    return frozenset(visible)


_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}]+)', re.DOTALL)


def _elements(text: str) -> list[str]:
    """Return the elements of an array of names, as the server writes one."""
    return [
        match[2] or re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)
        for match in _ELEMENT.finditer(text)
    ]
