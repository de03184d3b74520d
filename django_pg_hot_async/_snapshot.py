"""One server's OIDs of the tracked types, ready for psycopg to look up."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from psycopg.types import TypeInfo, TypesRegistry

from ._compat import mark_shared, share_types

if TYPE_CHECKING:
    from psycopg.abc import Loader
    from psycopg.adapt import AdaptersMap

    from ._catalog import Catalog, TypeRow
    from ._registry import Registry


class Snapshot:
    """What a server answered, as maps between its OIDs and the stand-ins.

    Immutable; equal where the answers are. Equal ones of late are one object.
    """

    def __init__(self, catalog: Catalog, registry: Registry) -> None:
        self.catalog = catalog
        self.registry = registry
        self.stand_ins: dict[int, int] = {}
        """OID to stand-in; 0 where psycopg's loader for unknown types is right."""
        self.oids: dict[int, int] = {}
        """Stand-in to the OID a parameter is sent with."""
        # The type that the search_path leads to comes last, so it is the one to
        # send; values of every one are loaded.
        for row in sorted(self._tracked_rows(), key=lambda row: row.visible):
            info = registry.infos[row.name]
            for oid, stand_in in (
                (row.oid, info.oid),
                (row.array_oid, info.array_oid),
            ):
                if oid:
                    loadable = stand_in in registry.loadable
                    self.stand_ins[oid] = stand_in if loadable else 0
                    self.oids[stand_in] = oid

        self.loaders: tuple[dict[int, type[Loader]], ...] = tuple(
            {
                oid: loader
                for oid, stand_in in self.stand_ins.items()
                if (loader := registry.adapters.get_loader(stand_in, format))
                and stand_in
            }
            for format in pq.Format
        )
        """For text and for binary: the loader by OID, where it is a tracked type's."""

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Snapshot)
            and self.registry is other.registry
            and self.catalog == other.catalog
        )

    def __hash__(self) -> int:
        return hash(self.catalog)

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(catalog: Catalog, registry: Registry) -> Snapshot:
        """Return the snapshot of *catalog*; the last 64 are kept, and shared."""
        return Snapshot(catalog, registry)

    @functools.cached_property
    def types(self) -> TypesRegistry:
        """psycopg's registry with the tracked types in it, by OID and by name.

        What `Column.type_display`, ``Copy.set_types()``, the dumper of lists and
        client-side binding look a type up in. Made once, then shared.
        """
        types = TypesRegistry(psycopg.adapters.types)
        for info in self.infos:
            types.add(info)
        mark_shared(types)
        return types

    @functools.cached_property
    def infos(self) -> tuple[TypeInfo, ...]:
        """psycopg's description of each tracked type that the server has."""
        return tuple(
            TypeInfo(
                row.name,
                row.oid,
                row.array_oid,
                regtype=row.regtype,
                delimiter=row.delimiter,
            )
            for row in sorted(self._tracked_rows(), key=lambda row: row.visible)
        )

    def share_types(self, adapters: AdaptersMap) -> None:
        """Let *adapters* know the types of this server, and none of another."""
        share_types(adapters, self.types, self.infos)

    def by_name(self) -> dict[str, int]:
        """The OID of each tracked type that the server has, by name."""
        return {info.name: info.oid for info in self.infos}

    def _tracked_rows(self) -> list[TypeRow]:
        kinds = {tracked.name: tracked.kinds for tracked in self.registry.types}
        return [row for row in self.catalog.types if row.kind in kinds[row.name]]
