"""What a project does about its types without the app.

What Django does about hstore: ask each alias for the OIDs once, keep them for the
life of the process, and register them on each connection.
"""

from __future__ import annotations

from typing import Any

from asgi_project import async_pool
from catalogue.values import Dimensions, Status
from django.apps import AppConfig
from django.db.backends.signals import connection_created
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.hstore import register_hstore
from psycopg.types.range import RangeInfo, register_range

KINDS: dict[str, type[TypeInfo]] = {
    "status": EnumInfo,
    "dimensions": CompositeInfo,
    "celsius": RangeInfo,
}
LABELS = {status: status.value for status in Status}
_found: dict[tuple[str, str], Any] = {}


class UsualConfig(AppConfig):
    name = "demo"

    def ready(self) -> None:
        connection_created.connect(look_up_and_register)
        async_pool.configure = configure


def look_up_and_register(connection: Any, **kwargs: Any) -> None:
    for name, kind in KINDS.items():
        key = connection.alias, name
        if _found.get(key) is None:
            _found[key] = kind.fetch(connection.connection, name)
        if _found[key] is not None:
            register(_found[key], connection.connection)


def known(alias: str) -> dict[str, int]:
    """Return the OIDs kept of *alias*."""
    return {
        name: info.oid for (of, name), info in _found.items() if of == alias and info
    }


async def configure(connection: Any) -> None:
    """Look all types up for each connection of the project's own pool."""
    kinds: dict[str, type[TypeInfo]] = {
        **KINDS,
        "hstore": TypeInfo,
        "citext": TypeInfo,
    }
    for name, kind in kinds.items():
        info = await kind.fetch(connection, name)
        if info is not None:
            register(info, connection)


def register(info: Any, connection: Any) -> None:
    if isinstance(info, EnumInfo):
        register_enum(info, connection, Status, mapping=LABELS)
    elif isinstance(info, CompositeInfo):
        register_composite(info, connection, Dimensions)
    elif isinstance(info, RangeInfo):
        register_range(info, connection)
    elif info.name == "hstore":
        register_hstore(info, connection)
    else:
        info.register(connection)
