"""What is known of one server: its OIDs of tracked types, ready for psycopg.

A snapshot is immutable. It grows by making a new one, when an OID turns up that
nobody had asked about.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat
from psycopg.types import TypeInfo

from .catalog import FIRST_NORMAL_OID, Catalog
from .psycopg_internals import share_types
from .types import SURROGATES, Registration, Shape, SurrogateType, make_info

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg.abc import Dumper, Loader
    from psycopg.adapt import AdaptersMap

    from .catalog import TypeRow
    from .types import Registry, TrackedType

MAX_TYPES = 4096
"""The most types that are known of one server; then those met first are forgotten."""
MAX_PATHS = 256
"""The most search_paths that a snapshot is kept under."""
MAX_UNTRACKED = 1 << 16
"""The most OIDs that are known to be of no tracked type; then the first go."""


class Snapshot:
    """A server's types, as maps between its OIDs and surrogates.

    *visible* are the OIDs of the types that the search_path leads to; they decide
    which of several types of one name is sent.
    """

    def __init__(
        self,
        catalog: Catalog,
        registry: Registry,
        untracked: dict[int, None] | None = None,
    ) -> None:
        self.catalog = catalog
        self.registry = registry
        self.version = catalog.version
        self.has_composites = "c" in registry.question.kinds
        self.merged: Any = None
        """psycopg's registry with the types in it, as it was last made."""
        self.untracked: dict[int, None] = {} if untracked is None else untracked
        """OIDs that were asked about and are of no tracked type; oldest first. It
        grows, in this snapshot and those made of it."""
        self._surrogates: dict[int, SurrogateType | None] = {0: None}
        self._by_oid = {row.oid: row for row in catalog.types}
        self._by_array = {row.array_oid: row for row in catalog.types if row.array_oid}
        self.rows: dict[TypeRow, SurrogateType] = {
            row: surrogate
            for row in catalog.types
            if (surrogate := self._surrogate(row)) is not None
        }
        self.numbers: dict[int, int] = {}
        """OID to surrogate number; 0 where psycopg's loader for unknown types is
        right."""
        self.loaders: tuple[dict[int, type[Loader]], ...] = ({}, {})
        """For text and for binary: the loader by OID, where it needs no guard."""
        self.names: dict[int, int] = {}
        """By OID, the number under which a project may have a loader of its own."""
        self.has_failures = any(one.failure for one in self.rows.values())
        self._load()
        self.ambiguous: frozenset[TrackedType]
        """The tracked types for which the search_path decides which one is sent."""
        self.sent: dict[TrackedType, TypeRow] = {}
        """The row that a tracked type is sent as; none leaves it to the server."""
        self._send()

    # What a server's rows mean

    def _surrogate(self, row: TypeRow) -> SurrogateType | None:
        if row.oid not in self._surrogates:
            self._surrogates[row.oid] = None  # A row type may hold an array of itself.
            tracked = self.registry.match(row)
            if tracked is not None:
                shape = self._shape(row) if tracked.has_shape else Shape(row.delimiter)
                self._surrogates[row.oid] = SurrogateType.of(tracked, shape)
        return self._surrogates[row.oid]

    def _shape(self, row: TypeRow) -> Shape:
        return Shape(
            labels=row.labels,
            attributes=tuple((name, self._type(oid)) for name, oid in row.attributes),
            # A range's own OID says nothing, and would differ from server to server.
            range=self._type(row.range_oid) if row.range_oid != row.oid else 0,
            subtype=self._type(row.subtype),
        )

    def _type(self, oid: int) -> int:
        if oid < FIRST_NORMAL_OID:
            return oid
        row = self._by_oid.get(oid) or self._by_array.get(oid)
        surrogate = self._surrogate(row) if row is not None else None
        if surrogate is None or row is None:
            return 0
        return surrogate.oid if oid == row.oid else surrogate.array_oid

    def _load(self) -> None:
        for row, surrogate in self.rows.items():
            for oid, number in (
                (row.oid, surrogate.oid),
                (row.array_oid, surrogate.array_oid),
            ):
                if not oid:
                    continue
                is_element = number == surrogate.oid
                is_guarded = surrogate.failure is not None or (
                    is_element and surrogate.tracked.has_shape
                )
                loadable = is_guarded
                for format in pq.Format:
                    if loader := surrogate.loaders.get((number, format)):
                        loadable = True
                        if not is_guarded:
                            self.loaders[format][oid] = loader
                self.numbers[oid] = number if loadable else 0
                absent = self.registry.absent_of[surrogate.tracked]
                self.names[oid] = absent.oid if is_element else absent.array_oid

    def _send(self) -> None:
        by_type: dict[TrackedType, list[TypeRow]] = {}
        for row, surrogate in self.rows.items():
            by_type.setdefault(surrogate.tracked, []).append(row)
        ambiguous = set()
        visible = self.catalog.visible
        for tracked, rows in by_type.items():
            if tracked.schema is None and (len(rows) > 1 or not self.catalog.is_whole):
                ambiguous.add(tracked)
                rows = [row for row in rows if row.oid in visible]
            if rows:
                self.sent[tracked] = rows[-1]
        self.ambiguous = frozenset(ambiguous)

    # What it can tell

    def knows(self, oid: int) -> bool:
        """Whether a value of *oid* can be loaded: what the type is is known."""
        return oid in self.numbers or oid in self.untracked

    @functools.cached_property
    def registration(self) -> Registration:
        """What to send with: surrogates in the order of declaration.

        One Python type may be sent as several types; the last declared wins of those
        that the server has.
        """
        absent: list[SurrogateType] = []
        present: list[SurrogateType] = []
        for one in self.registry.absent:
            row = self.sent.get(one.tracked)
            if row is None:
                others = [s for s in self.rows.values() if s.tracked is one.tracked]
                (present if others else absent).append(others[-1] if others else one)
            else:
                present.append(self.rows[row])
        return Registration.of((*absent, *present))

    def find_dumper(self, key: type, format: PyFormat) -> type[Dumper] | None:
        """Return psycopg's dumper for *key*, with a surrogate for its OID, or None."""
        try:
            return self.registration.adapters.get_dumper(key, format)
        except psycopg.ProgrammingError:
            return None

    def failed_for(self, key: type, format: PyFormat) -> list[SurrogateType]:
        """Return the types for *key* whose register function raised, as they are here.

        Which Python types it is for shows what it registers for a type with nothing
        in it.
        """
        absent = Registration.of(self.registry.absent).adapters
        try:
            surrogate = SurrogateType.by_number(absent.get_dumper(key, format).oid)
        except psycopg.ProgrammingError:
            return []
        if surrogate is None:
            return []
        return [one for one in self.surrogates_of(surrogate.tracked) if one.failure]

    def oid_of(self, number: int) -> int | None:
        """Return the OID to send for a surrogate *number*.

        0 leaves the type to the server to infer; None: the server has no such type.
        """
        surrogate = SurrogateType.by_number(number)
        if surrogate is None:
            return None
        row = self.sent.get(surrogate.tracked)
        if row is None:
            is_there = any(s.tracked is surrogate.tracked for s in self.rows.values())
            return 0 if is_there else None
        return row.array_oid if number == surrogate.array_oid else row.oid

    def translate(self, oid: int, other: Snapshot) -> int | None:
        """Return the OID that *other* has for the type that is *oid* here.

        None where *other* lacks it; *oid* itself where it is of no tracked type.
        """
        number = self.numbers.get(oid)
        row = self._by_oid.get(oid) or self._by_array.get(oid)
        if number is None or row is None:
            return oid
        there = other.sent.get(self.rows[row].tracked)
        if there is None:
            return None
        return there.oid if oid == row.oid else there.array_oid

    def row_of(self, oid: int) -> TypeRow | None:
        """Return the row of the type *oid*, or of the one it is an array of."""
        return self._by_oid.get(oid) or self._by_array.get(oid)

    @functools.cached_property
    def needs_database(self) -> bool:
        """Whether a server's start, and names, do not tell which database answers.

        Two databases of one server may have been made from one template. Then
        extensions are the same in both, and other types need not be.
        """
        has_shapes = any(one.tracked.has_shape for one in self.rows.values())
        return has_shapes or not self.catalog.confirmed

    @property
    def knows_paths(self) -> bool:
        """Whether a confirmation tells of all types that a search_path leads to."""
        types = self.catalog.types
        return self.catalog.is_whole and 2 * len(types) <= len(self.catalog.confirmed)

    def is_same_place(self, other: Snapshot) -> bool:
        """Whether *other* is of the same database of a server, since it started."""
        mine, theirs = self.catalog, other.catalog
        return (mine.start, mine.database) == (theirs.start, theirs.database)

    def is_of(self, other: Snapshot) -> bool:
        """Whether *other* is this one, under whatever search_path."""
        mine, theirs = self.catalog, other.catalog
        return mine.types is theirs.types and mine.start == theirs.start

    def is_changed(self, other: Snapshot) -> bool:
        """Whether types that both know differ: *other* is another server, or later."""
        if self.registry is not other.registry:
            return False
        mine, theirs = {*self.catalog.types}, {*other.catalog.types}
        if self.catalog.is_whole and other.catalog.is_whole:
            return mine != theirs
        names = {(row.schema, row.name) for row in theirs - mine}
        oids = {row.oid for row in theirs - mine}
        return any(
            row.oid in oids or (row.schema, row.name) in names for row in mine - theirs
        )

    def is_contradicted(self, catalog: Catalog) -> bool:
        """Whether *catalog* has a type of a name known here, made anew."""
        names = {(row.schema, row.name): row.oid for row in self.rows}
        return any(
            names.get((row.schema, row.name), row.oid) != row.oid
            for row in catalog.types
        )

    def is_complete(self) -> bool:
        """Whether the server has a type for each that is tracked."""
        return {one.tracked for one in self.rows.values()} == {*self.registry.types}

    def lacks(self, python_types: Iterable[type]) -> bool:
        """Whether one of *python_types* is made of a type that the server lacks."""
        for python_type in python_types:
            found = self.find_dumper(python_type, PyFormat.TEXT)
            is_tracked = found is not None and found.oid >= SURROGATES
            if found is not None and is_tracked and self.oid_of(found.oid) is None:
                return True
        return False

    def lacks_any_for(self, python_type: type) -> bool:
        """Whether the server lacks a type that is found by values of *python_type*."""
        there = {one.tracked for one in self.rows.values()}
        return any(
            tracked not in there and issubclass(python_type, tracked.python_types)
            for tracked in self.registry.types
            if tracked.python_types
        )

    def surrogates_of(self, tracked: TrackedType) -> list[SurrogateType]:
        """Return the surrogates of *tracked* on this server, one for each shape."""
        found = [one for one in self.rows.values() if one.tracked is tracked]
        return list(dict.fromkeys(found))

    def by_name(self) -> dict[str, TypeRow]:
        """The tracked types that the server is known to have, by name.

        Where several have one name, each is under "schema.name".
        """
        rows = sorted(self.rows, key=lambda row: (row.name, row.schema))
        counts: dict[str, int] = {}
        for row in rows:
            counts[row.name] = counts.get(row.name, 0) + 1
        return {
            row.name if counts[row.name] == 1 else f"{row.schema}.{row.name}": row
            for row in rows
        }

    # Others made of it

    def extended(self, catalog: Catalog, oids: Iterable[int]) -> Snapshot:
        """Return this snapshot with what *catalog* told of *oids* as well."""
        for oid in oids:
            if oid in catalog.asked and not any(
                oid in (row.oid, row.array_oid)
                for row in catalog.types
                if self.registry.match(row) is not None
            ):
                self.untracked[oid] = None
                if len(self.untracked) > MAX_UNTRACKED:
                    self.untracked.pop(next(iter(self.untracked)), None)
        new = [
            row
            for row in catalog.types
            if row not in self._known and self.registry.match(row) is not None
        ]
        if not new:
            return self
        replaced = {row.oid for row in new}
        types = [row for row in self.catalog.types if row.oid not in replaced]
        return self._with(
            (*types, *new)[-MAX_TYPES:], visible=self.catalog.visible | catalog.visible
        )

    @functools.cached_property
    def _known(self) -> frozenset[TypeRow]:
        return frozenset(self.catalog.types)

    def joined(self, other: Snapshot) -> Snapshot:
        """Return this snapshot with the types that *other*, of the same server, has."""
        new = [row for row in other.catalog.types if row not in self._known]
        if not new:
            return self
        return self._with((*self.catalog.types, *new)[-MAX_TYPES:])

    def seen_from(self, visible: frozenset[int], names: str = "") -> Snapshot:
        """Return this snapshot under a search_path that leads to *visible*.

        *names* is what a confirmation calls the types under that path, if known.
        """
        if visible == self.catalog.visible and names in ("", self.catalog.names):
            return self
        found = self._paths.get((visible, names))
        if found is None:
            found = self._with(self.catalog.types, visible=visible, names=names)
            if len(self._paths) >= MAX_PATHS:
                self._paths.clear()
            self._paths[visible, names] = found
        return found

    @functools.cached_property
    def _paths(self) -> dict[tuple[frozenset[int], str], Snapshot]:
        return {}

    def _with(self, types: tuple[TypeRow, ...], **more: Any) -> Snapshot:
        catalog = replace(self.catalog, types=types, **more)
        return Snapshot(catalog, self.registry, self.untracked)

    # psycopg's registry

    @functools.cached_property
    def infos(self) -> tuple[TypeInfo, ...]:
        """psycopg's description of each tracked type, as declared, sent ones last.

        What an array or a range is sent as goes by the last of its elements' type.
        """
        order = {tracked: n for n, tracked in enumerate(self.registry.types)}
        sent = {*self.sent.values()}
        rows = sorted(
            self.rows.items(),
            key=lambda item: (order[item[1].tracked], item[0] in sent),
        )
        return tuple(
            _describe(row, one.tracked)
            for row, one in rows
            # The search_path leads to none of several: none is to be found by name.
            if row in sent
            or one.tracked.info_class is TypeInfo
            or not one.tracked.python_types
        )

    def share_types(self, adapters: AdaptersMap) -> None:
        """Let *adapters* know the types of this server, and none of another."""
        share_types(adapters, self, self.infos)


def _describe(row: TypeRow, tracked: TrackedType) -> TypeInfo:
    shape = Shape(row.delimiter, row.labels, row.attributes, row.range_oid, row.subtype)
    info = make_info(tracked, row.oid, row.array_oid, shape)
    info.regtype = row.regtype
    return info
