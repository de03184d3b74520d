"""Every private name of psycopg that this package touches, and why it has to.

`tests/test_compat.py` fails first when one of them changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types import TypesRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg import abc, pq
    from psycopg.adapt import AdaptersMap
    from psycopg.types import TypeInfo

    DumperFactory = Callable[[type, abc.AdaptContext | None], abc.Dumper]


class _Shared(dict):  # type: ignore[type-arg]
    """The content of a snapshot's types; a copy of it is a plain dict."""


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
    # of the map share: psycopg 3.2.13 and 3.3.9.
    dumpers = adapters._dumpers_by_oid[format]
    adapters._dumpers_by_oid[format] = _DumpersByOid(dumpers, missing)


def drop_prepared_statements(connection: Any) -> None:
    """Have psycopg prepare anew what it prepared on *connection*.

    Nothing is sent: on another server the statements do not exist, on the same one
    they go with the connection. Names are not used twice.
    """
    # BaseConnection._prepared, PrepareManager._counts and ._names: psycopg 3.2.13
    # and 3.3.9. Its clear() would have the next statement deallocated after use.
    connection._prepared._counts.clear()
    connection._prepared._names.clear()


def mark_shared(types: TypesRegistry) -> None:
    """Make the content of *types* known as a snapshot's own."""
    # TypesRegistry._registry: psycopg 3.2.13 and 3.3.9.
    types._registry = _Shared(types._registry)


def share_types(
    adapters: AdaptersMap, types: TypesRegistry, infos: Iterable[TypeInfo]
) -> None:
    """Let *adapters* know *types*, a snapshot's own, and none of another server.

    A registry that somebody has added to gets *infos* added; any other is replaced
    by one that shares the content of *types*: no copy, 9 KB less a connection.
    """
    content = adapters.types._registry
    if content is types._registry:
        return
    if type(content) is _Shared or content is psycopg.adapters.types._registry:
        adapters.types = TypesRegistry(types)
    else:
        for info in infos:
            adapters.types.add(info)
