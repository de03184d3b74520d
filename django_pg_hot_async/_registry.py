"""The types this process tracks, and how psycopg is to treat each.

psycopg's own register functions do the work, once for each type, under a
*stand-in*: an integer above every OID. What a server calls hstore is then a
matter of mapping its OID to the stand-in, and nothing that holds a real OID is
ever registered, on a connection or anywhere. It also keeps psycopg's caches
small: they hold about 14 KB for good for each OID ever registered
(``functools.cache`` in psycopg.types.hstore and .array, 3.2 and 3.3).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.types import TypeInfo
from psycopg.types.hstore import register_hstore

STAND_INS = 1 << 32
"""The first stand-in; OIDs are unsigned 32-bit."""


@dataclass(frozen=True, slots=True)
class TrackedType:
    """A type declared by name, and the psycopg function that registers it."""

    name: str
    kinds: str
    """The ``pg_type.typtype`` it may have: a table called hstore is no hstore."""
    register: Callable[[TypeInfo, AdaptersMap], None]
    python_types: tuple[type, ...] = ()
    """Those that *register* registers dumpers for."""


def _register_array_only(info: TypeInfo, context: AdaptersMap) -> None:
    # A citext value loads as a string like any type psycopg does not know; OID 0
    # makes the elements of an array do the same. Django registers it that way.
    TypeInfo(info.name, 0, info.array_oid).register(context)


HSTORE = TrackedType("hstore", "b", register_hstore, (dict,))
CITEXT = TrackedType("citext", "b", _register_array_only)


class Registry:
    """The tracked types, registered with psycopg under stand-ins.

    Immutable, and one object for equal *types*: compare with ``is``.
    """

    def __init__(self, types: tuple[TrackedType, ...]) -> None:
        self.types = types
        self.names = tuple(dict.fromkeys(tracked.name for tracked in types))
        self.python_types = tuple(
            dict.fromkeys(
                python_type for tracked in types for python_type in tracked.python_types
            )
        )
        """The Python types whose dumpers are resolved."""
        self.adapters = AdaptersMap(psycopg.adapters)
        """Loaders and dumpers by stand-in."""
        self.infos: dict[str, TypeInfo] = {}
        """The stand-in and the array stand-in of each name."""
        for number, tracked in enumerate(types):
            stand_in = STAND_INS + 2 * number
            info = TypeInfo(tracked.name, stand_in, stand_in + 1)
            tracked.register(info, self.adapters)
            self.infos[tracked.name] = info
        self.loadable = frozenset(
            stand_in
            for info in self.infos.values()
            for stand_in in (info.oid, info.array_oid)
            if self.adapters.get_loader(stand_in, pq.Format.TEXT)
        )
        """The stand-ins that have a loader; the others load as unknown types do."""

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(types: tuple[TrackedType, ...]) -> Registry:
        """Return the registry of *types*."""
        return Registry(types)
