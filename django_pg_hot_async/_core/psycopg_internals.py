"""Every private name of psycopg that is read or called here, and why.

Those that are replaced stand in `cursors`. `tests/test_psycopg_internals.py` fails
first when one of them changes. Tried on psycopg 3.2.10, 3.2.13 and 3.3.9, in C and in
Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import PyFormat
from psycopg.types import TypesRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import abc, pq
    from psycopg.abc import PQGen
    from psycopg.adapt import AdaptersMap
    from psycopg.types import TypeInfo
    from psycopg.types.composite import CompositeInfo

    DumperFactory = Callable[[type, abc.AdaptContext | None], abc.Dumper]


class _DumpersByOid(dict):  # type: ignore[type-arg]
    """Dumpers by OID, and for an OID that is not among them what *missing* makes."""

    def __init__(
        self, dumpers: dict[int, type[abc.Dumper]], missing: Callable[[int], object]
    ) -> None:
        super().__init__(dumpers)
        self._missing = missing

    def __missing__(self, oid: int) -> object:
        return self._missing(oid)

    def copy(self) -> _DumpersByOid:
        return _DumpersByOid(self, self._missing)


def resolve_dumpers_by_oid(
    adapters: AdaptersMap, format: pq.Format, missing: Callable[[int], DumperFactory]
) -> None:
    """Let *missing* answer where *adapters* have no dumper for an OID.

    psycopg has a loader for unknown OIDs to stand in for, but no such dumper. It is
    what ``Copy.set_types()`` and the arrays of a registered type look up.
    """
    # AdaptersMap._dumpers_by_oid, which get_dumper_by_oid() subscripts and copies
    # of the map share.
    dumpers = adapters._dumpers_by_oid[format]
    adapters._dumpers_by_oid[format] = _DumpersByOid(dumpers, missing)


def are_dumpers_resolved(adapters: AdaptersMap, format: pq.Format) -> bool:
    """Whether `resolve_dumpers_by_oid` has been done to *adapters*."""
    return isinstance(adapters._dumpers_by_oid[format], _DumpersByOid)


def dumped_types(
    adapters: AdaptersMap, template: AdaptersMap
) -> dict[type | str, tuple[pq.Format, ...]]:
    """Return the Python types that *adapters* dump otherwise than *template*.

    With the formats they have dumpers for, the one that ``%s`` takes last. A type
    may be given by its full name.
    """
    from psycopg import pq

    # AdaptersMap._dumpers.
    found: dict[type | str, tuple[pq.Format, ...]] = {}
    for key, auto in adapters._dumpers[PyFormat.AUTO].items():
        if template._dumpers[PyFormat.AUTO].get(key) is auto:
            continue
        formats = [
            format
            for format in pq.Format
            if key in adapters._dumpers[PyFormat.from_pq(format)]
        ]
        found[key] = tuple(sorted(formats, key=lambda format: format == auto.format))
    return found


def has_oids(adapters: AdaptersMap, first: int) -> list[str]:
    """Return the names of types that *adapters* have under an OID from *first* on."""
    # AdaptersMap._loaders, TypesRegistry._registry.
    names = {
        info.name
        for key, info in adapters.types._registry.items()
        if isinstance(key, int) and first <= key < 1 << 32
    }
    for loaders in adapters._loaders:
        for oid in loaders:
            if first <= oid < 1 << 32 and adapters.types.get(oid) is None:
                names.add(f"OID {oid}")
    return sorted(names)


def send_fields(dumper: abc.Dumper, info: CompositeInfo) -> None:
    """Have *dumper*, of a composite type, write the OIDs of *info*'s attributes.

    The binary format names the type of each attribute.
    """
    # _SequenceBinaryDumper.info and ._tx of psycopg 3.3.9, TupleBinaryDumper's
    # ._field_types of 3.2.
    names: Any = dumper
    if hasattr(names, "_field_types"):
        names._field_types = tuple(info.field_types)
    elif hasattr(names, "info"):
        names.info = info


class _Merged(dict):  # type: ignore[type-arg]
    """What a registry holds with a snapshot's types in it; a copy is a plain dict."""

    __slots__ = ("base", "infos", "owner")
    base: dict[Any, Any]
    infos: tuple[TypeInfo, ...]
    owner: object


class SharedTypes(TypesRegistry):
    """psycopg's registry of types, with those of one snapshot in it.

    What a project adds is kept apart, so that the next snapshot replaces none of it,
    and none of this one's stays.
    """

    def add(self, info: TypeInfo) -> None:
        merged: Any = self._registry
        base = TypesRegistry()
        base._registry = {**merged.base}
        base.add(info)
        self._registry = _merge(merged.owner, base._registry, merged.infos)


def share_types(adapters: AdaptersMap, owner: Any, infos: tuple[TypeInfo, ...]) -> None:
    """Let *adapters* know *infos*, the types of the snapshot *owner*.

    What the last call for *owner* made is shared where the types that were there are
    the same: no copy.
    """
    # TypesRegistry._registry, which add() replaces where a copy shares it, and
    # ._own_state. Without __init__(), which makes a dict, and for each cursor.
    base = content = adapters.types._registry
    if type(content) is _Merged:
        if content.owner is owner:
            return
        base = content.base
    merged = owner.merged
    if merged is None or merged.base is not base:
        merged = owner.merged = _merge(owner, base, infos)
    new = SharedTypes.__new__(SharedTypes)
    new._registry = merged
    new._own_state = True
    adapters.types = new


def _merge(owner: object, base: dict[Any, Any], infos: tuple[TypeInfo, ...]) -> _Merged:
    own = {
        key: info
        for key, info in base.items()
        if psycopg.adapters.types._registry.get(key) is not info
        and not _is_surrogate(info)
    }
    types = TypesRegistry()
    types._registry = merged = _Merged(base)
    merged.base, merged.infos, merged.owner = base, infos, owner
    for info in infos:
        types.add(info)
    # What the project has registered on the connection goes before what it declared.
    merged.update(own)
    return merged


def _is_surrogate(info: TypeInfo) -> bool:
    return info.oid >= 1 << 32 or info.array_oid >= 1 << 32


def start_query(connection: Any) -> PQGen[None]:
    """Begin the transaction that psycopg begins for a statement, if it does."""
    return connection._start_query()  # type: ignore[no-any-return]


def forget_prepared_statements(connection: Any) -> PQGen[None]:
    """Have psycopg prepare anew, and the server drop, what *connection* prepared.

    They were prepared with other OIDs, perhaps on another server.
    """
    # BaseConnection._prepared; PrepareManager.clear(), which asks for a DEALLOCATE
    # ALL, and .maintain_gen(), which sends it: before the next one is prepared.
    if connection._prepared.clear():
        yield from connection._prepared.maintain_gen(connection)


def drop_prepared_statements(connection: Any) -> None:
    """Have psycopg prepare anew what it prepared on *connection*; nothing is sent yet.

    Each is deallocated by its name, after the next statement: that may be prepared, and
    a DEALLOCATE ALL would take it along.
    """
    # PrepareManager._counts, ._names and ._to_flush.
    prepared = connection._prepared
    prepared._to_flush.extend(prepared._names.values())
    prepared._counts.clear()
    prepared._names.clear()


def registry_in(adapters: AdaptersMap) -> Any:
    """Return the registry whose resolvers *adapters* have; None: they have none.

    That is None as well where somebody has put a loader of their own over ours.
    """
    # AdaptersMap._loaders, by format and OID: get_loader(), which is asked for each
    # cursor, without the call.
    return getattr(adapters._loaders[0].get(0), "registry", None)


def has_prepared_statements(connection: Any) -> bool:
    """Whether psycopg has prepared a statement on *connection*."""
    return bool(connection._prepared._names)
