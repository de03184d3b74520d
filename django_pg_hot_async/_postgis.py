"""GeoDjango's PostGIS backend: geometry, geography and raster as tracked types.

Imported only where DATABASES has such a backend, since Django's needs GDAL and GEOS.
Its own way is to read three OIDs once for each alias, and to register them on each
connection, again at each checkout.

Names of Django taken or replaced here: Django 5.2.19, 6.0.9 and 6.1.3.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.gis.db.backends.postgis import base
from django.contrib.gis.db.backends.postgis.adapter import PostGISAdapter
from django.contrib.gis.db.backends.postgis.introspection import PostGISIntrospection
from django.contrib.gis.db.backends.postgis.operations import PostGISOperations
from django.db import connections
from django.db.backends.postgresql.introspection import DatabaseIntrospection
from django.utils.functional import cached_property
from psycopg.types import TypeInfo
from psycopg.types.string import TextBinaryLoader, TextLoader

from . import _connections, _memory, _tracking, _version, conf
from ._catalog import FIRST_NORMAL_OID
from ._link import link_of
from ._registry import StandIn, TrackedType
from .conf import Trust

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap

    from ._link import Link

DatabaseWrapper: Any = base.DatabaseWrapper
_postgis_adapters: Any = base.postgis_adapters

GEOMETRY_FIELD = "GeometryField"


def _register(info: TypeInfo, context: AdaptersMap, delimiter: str = ":") -> None:
    # Fields parse text, and bytes, themselves.
    TypeInfo(info.name, info.oid, info.array_oid, delimiter=delimiter).register(context)
    for loader in (TextLoader, TextBinaryLoader):
        context.register_loader(info.oid, loader)
    # One Python type stands for all three: its dumpers come with each, and the last of
    # them is of what the server has.
    infos = [context.types.get(name) for name in ("geometry", "geography", "raster")]
    if None not in infos:
        for dumper in _postgis_adapters(*(one.oid for one in infos if one)):
            context.register_dumper(PostGISAdapter, dumper)


def _register_raster(info: TypeInfo, context: AdaptersMap) -> None:
    _register(info, context, ",")


GEOMETRY = TrackedType("geometry", "b", _register)
GEOGRAPHY = TrackedType("geography", "b", _register)
RASTER = TrackedType("raster", "b", _register_raster)

TYPES = (GEOMETRY, GEOGRAPHY, RASTER)


def register_geometry_adapters(
    self: Any, pg_connection: Any, clear_caches: bool = False
) -> None:
    """Take the place of the wrapper's method: nothing is read, nothing registered.

    With *clear_caches*, that is by a migration that created an extension, it makes
    every connection of the alias read OIDs before it next uses them.
    """
    if not _connections.is_ours(self, pg_connection):
        _DJANGOS[DatabaseWrapper, "register_geometry_adapters"](
            self, pg_connection, clear_caches
        )
    elif clear_caches:
        _memory.alias(self.alias).withdraw()


def get_field_type(self: Any, data_type: Any, description: Any) -> Any:
    """Take the place of the introspection's: by the OIDs of the server at hand.

    Django's remembers them in a dict that all wrappers of the process share.
    """
    link = link_of(self.connection.connection)
    if link is None:
        return _DJANGOS[PostGISIntrospection, "get_field_type"](
            self, data_type, description
        )
    if _spatial_type(self, link, data_type):
        return GEOMETRY_FIELD
    if self.data_types_reverse.get(data_type) == GEOMETRY_FIELD:
        # An alias that is left to Django has put it there.
        raise KeyError(data_type)
    return DatabaseIntrospection.get_field_type(self, data_type, description)


def get_geometry_type(self: Any, table_name: Any, description: Any) -> Any:
    """Take the place of the introspection's: by the OIDs of the server at hand."""
    original = _DJANGOS[PostGISIntrospection, "get_geometry_type"]
    link = link_of(self.connection.connection)
    if link is None:
        return original(self, table_name, description)
    oid = description.type_code
    self.postgis_oid_lookup = {oid: _spatial_type(self, link, oid)}
    try:
        return original(self, table_name, description)
    finally:
        del self.postgis_oid_lookup


def _spatial_type(introspection: Any, link: Link, data_type: Any) -> str | None:
    """Return what *data_type*, an OID or a name, is called, if it is of a geometry."""
    if not isinstance(data_type, int) or data_type < FIRST_NORMAL_OID:
        return None
    if link.memory.trust is Trust.RESULT:
        link.renew()
    stand_in = link.stand_in(data_type, introspection.connection.connection)
    found = StandIn.by_number(stand_in)
    if found is None or found.tracked not in (GEOMETRY, GEOGRAPHY):
        return None
    return found.tracked.name if found.oid == stand_in else None


class SpatialVersion:
    """``PostGISOperations.spatial_version``: that of the server connected to now.

    Kept for as long as OIDs would be trusted. Where nothing is connected, one is
    read as Django does it, over temporary connections, and serves for a second.
    """

    _KEPT = "_pg_hot_async_spatial_version"

    def __init__(self, original: cached_property[Any]) -> None:
        self._original = original

    def __get__(self, ops: Any, owner: type | None = None) -> Any:
        if ops is None:
            return self
        if conf.is_off(ops.connection.alias) or hasattr(settings, "POSTGIS_VERSION"):
            return self._original.__get__(ops, owner)
        evidence, version, read_at = ops.__dict__.get(self._KEPT, (None, None, 0.0))
        if ops.connection.connection is None:
            is_kept = version and monotonic() - read_at <= _version.FRESH_SECONDS
        else:
            is_kept = evidence is not None and evidence == _evidence(ops)
        if not is_kept:
            version = self._original.func(ops)
            ops.__dict__[self._KEPT] = (_evidence(ops), version, monotonic())
        return version


def _evidence(ops: Any) -> tuple[object, ...] | None:
    """What has to be the same for a version to be kept; None where nothing is."""
    link = link_of(ops.connection.connection)
    if link is None or link.memory.trust is Trust.RESULT:
        return None
    if link.memory.trust is Trust.SERVER:
        return (link.server, link.memory.epoch)
    if link.memory.trust is Trust.CONNECTION:
        return (link, link.memory.epoch)
    snapshot = link.snapshot
    return None if snapshot is None else (link, link.memory.epoch, snapshot)


_OURS: dict[tuple[type, str], Any] = {
    (DatabaseWrapper, "register_geometry_adapters"): register_geometry_adapters,
    (PostGISIntrospection, "get_field_type"): get_field_type,
    (PostGISIntrospection, "get_geometry_type"): get_geometry_type,
    (PostGISOperations, "spatial_version"): SpatialVersion(
        vars(PostGISOperations)["spatial_version"]
    ),
}
_DJANGOS: dict[tuple[type, str], Any] = {
    (owner, name): vars(owner)[name] for owner, name in _OURS
}


def install() -> None:
    """Track the three types, and put ours in the place of Django's methods."""
    _exchange(_OURS, TYPES)
    # What Django kept so far.
    for by_alias in DatabaseWrapper._type_infos.values():
        for alias in [alias for alias in by_alias if not conf.is_off(alias)]:
            del by_alias[alias]
    for wrapper in connections.all(initialized_only=True):
        if not conf.is_off(wrapper.alias):
            wrapper.ops.__dict__.pop("spatial_version", None)


def uninstall() -> None:
    """Put Django's own back."""
    _exchange(_DJANGOS, ())


def _exchange(new: dict[tuple[type, str], Any], types: tuple[TrackedType, ...]) -> None:
    for (owner, name), value in new.items():
        setattr(owner, name, value)
    _tracking.track_for_backend(types)
    _connections.renew()
