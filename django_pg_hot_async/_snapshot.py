"""One server's OIDs of the tracked types, ready for psycopg to look up."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat
from psycopg.types import TypeInfo, TypesRegistry

from ._catalog import MAX_CONFIRMED, Confirmation
from ._compat import is_made_of, mark_shared, share_types
from ._registry import Registration, Shape, Shapes, make_info

if TYPE_CHECKING:
    from psycopg.abc import Dumper, Loader
    from psycopg.adapt import AdaptersMap

    from ._catalog import Catalog, TypeRow
    from ._registry import Registry, StandIn, TrackedType


class Snapshot:
    """What a server answered, as maps between its OIDs and the stand-ins.

    Immutable; equal where the servers' types are, whatever the search_path of the
    connections that asked. Equal answers of late are one object.
    """

    def __init__(self, catalog: Catalog, registry: Registry) -> None:
        self.catalog = catalog
        self.registry = registry
        self._identity = (catalog.version, *(row.identity for row in catalog.types))
        self._hash = hash(self._identity)
        self._types: TypesRegistry | None = None
        shapes = Shapes(registry, catalog.types)
        # The type that the search_path leads to comes last, so it is the one to
        # send; values of every one are loaded.
        self._rows = {
            row: stand_in
            for row in sorted(catalog.types, key=lambda row: row.visible)
            if (stand_in := shapes.stand_in(row)) is not None
        }
        self.stand_ins: dict[int, int] = {}
        """OID to stand-in; 0 where psycopg's loader for unknown types is right."""
        self.loaders: tuple[dict[int, type[Loader]], ...] = ({}, {})
        """For text and for binary: the loader by OID, where it needs no guard."""
        self.registration = Registration.of(self._in_order())
        self.has_failures = any(one.failure for one in self._rows.values())
        self._load()
        self.oids: dict[int, int] = {}
        """Stand-in to the OID a parameter is sent with; 0 leaves it to the server."""
        self.ambiguous: frozenset[int] = self._send()
        """The stand-ins for which the search_path decides what OID that is."""

    def _in_order(self) -> tuple[StandIn, ...]:
        """List what to register: as declared, last what is to be sent."""
        # First what the server lacks: one Python type may be sent as several types.
        found: list[StandIn] = list(self.registry.absent)
        for tracked in self.registry.types:
            found += (one for one in self._rows.values() if one.tracked is tracked)
        return tuple(reversed(dict.fromkeys(reversed(found))))

    def _load(self) -> None:
        for row, stand_in in self._rows.items():
            for oid, number in (
                (row.oid, stand_in.oid),
                (row.array_oid, stand_in.array_oid),
            ):
                if not oid:
                    continue
                is_element = number == stand_in.oid
                is_guarded = stand_in.failure is not None or (
                    is_element and stand_in.tracked.has_shape
                )
                loadable = is_guarded
                for format in pq.Format:
                    if loader := stand_in.loaders.get((number, format)):
                        loadable = True
                        if not is_guarded:
                            self.loaders[format][oid] = loader
                self.stand_ins[oid] = number if loadable else 0

    def _send(self) -> frozenset[int]:
        by_type: dict[TrackedType, list[TypeRow]] = {}
        for row, stand_in in self._rows.items():
            by_type.setdefault(stand_in.tracked, []).append(row)
        ambiguous: set[int] = set()
        for rows in by_type.values():
            for row in rows:
                stand_in = self._rows[row]
                numbers = (stand_in.oid, stand_in.array_oid)
                oids = (row.oid, row.array_oid)
                if len(rows) > 1:
                    ambiguous.update(numbers)
                    if not row.visible:
                        oids = (0, 0)
                self.oids.update(zip(numbers, oids, strict=True))
        return frozenset(ambiguous)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Snapshot)
            and self.registry is other.registry
            and self._identity == other._identity
        )

    def __hash__(self) -> int:
        return self._hash

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(catalog: Catalog, registry: Registry) -> Snapshot:
        """Return the snapshot of *catalog*; the last 64 are kept, and shared."""
        return Snapshot(catalog, registry)

    def find_dumper(self, key: type, format: PyFormat) -> type[Dumper] | None:
        """Return psycopg's dumper for *key*, with a stand-in for its OID, or None."""
        try:
            return self.registration.adapters.get_dumper(key, format)
        except psycopg.ProgrammingError:
            return None

    @functools.cached_property
    def is_complete(self) -> bool:
        """Whether the server has a type for each that is tracked."""
        return {one.tracked for one in self._rows.values()} == {*self.registry.types}

    def shapes_of(self, tracked: TrackedType) -> list[StandIn]:
        """Return the stand-ins of *tracked* on this server, one for each shape."""
        found = [one for one in self._rows.values() if one.tracked is tracked]
        return list(dict.fromkeys(found))

    @functools.cached_property
    def confirmation(self) -> Confirmation | None:
        """What to have this answer confirmed by; None where names would not tell."""
        registry = self.registry
        has_more = registry.question.kinds or any(one.schema for one in registry.types)
        if has_more or not 0 < len(self.catalog.types) <= MAX_CONFIRMED:
            return None
        return Confirmation(self.catalog)

    @functools.cached_property
    def qualified(self) -> Snapshot:
        """The same, with names for SQL that are right under any search_path."""
        types = tuple(
            replace(row, regtype=_quoted(row.schema, row.name))
            for row in self.catalog.types
        )
        return Snapshot.of(replace(self.catalog, types=types), self.registry)

    @property
    def types(self) -> TypesRegistry:
        """psycopg's registry with the tracked types in it, by OID and by name.

        What `Column.type_display`, ``Copy.set_types()``, the dumpers of lists and
        ranges and client-side binding look a type up in. Made once, then shared; and
        again when a type was registered with psycopg for the whole process.
        """
        types = self._types
        if types is None or not is_made_of(types, psycopg.adapters.types):
            types = TypesRegistry(psycopg.adapters.types)
            for info in self.infos:
                types.add(info)
            mark_shared(types, psycopg.adapters.types)
            self._types = types
        return types

    @functools.cached_property
    def infos(self) -> tuple[TypeInfo, ...]:
        """psycopg's description of each tracked type that the server has."""
        return tuple(_describe(row, one.tracked) for row, one in self._rows.items())

    def share_types(self, adapters: AdaptersMap) -> None:
        """Let *adapters* know the types of this server, and none of another."""
        share_types(adapters, self.types, self.infos)

    def by_name(self) -> dict[str, TypeRow]:
        """The tracked types that the server has, by name.

        Which of several of one name is meant depends on the search_path of a
        connection: each is under "schema.name".
        """
        rows = sorted(self._rows, key=lambda row: (row.name, row.schema))
        names = [row.name for row in rows]
        return {
            row.name if names.count(row.name) == 1 else f"{row.schema}.{row.name}": row
            for row in rows
        }


def _quoted(*names: str) -> str:
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


def _describe(row: TypeRow, tracked: TrackedType) -> TypeInfo:
    shape = Shape(row.delimiter, row.labels, row.attributes, row.range_oid, row.subtype)
    info = make_info(tracked, row.oid, row.array_oid, shape)
    info.regtype = row.regtype
    return info
