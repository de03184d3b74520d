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

from django_pg_hot_async import conf
from django_pg_hot_async._core.catalog import FIRST_NORMAL_OID
from django_pg_hot_async._core.connection import ConnectionState
from django_pg_hot_async._core.patches import Patch
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.trust import Trust
from django_pg_hot_async._core.types import SurrogateType, TrackedType

from . import connections as _connections
from . import version as _version

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap


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


def _register_geometry_adapters(original: Any) -> Any:
    """Wrap the wrapper's method: nothing is read, nothing registered.

    With *clear_caches*, that is by a migration that created an extension, it has
    every connection of the alias ask before it next uses them.
    """

    def register_geometry_adapters(
        self: Any, pg_connection: Any, clear_caches: bool = False
    ) -> None:
        if not _connections.is_ours(self, pg_connection):
            original(self, pg_connection, clear_caches)
        elif clear_caches:
            runtime.alias(self.alias).withdraw()

    return register_geometry_adapters


def _get_field_type(original: Any) -> Any:
    """Wrap the introspection's method: by the OIDs of the server at hand.

    Django's remembers them in a dict that all wrappers of the process share.
    """

    def get_field_type(self: Any, data_type: Any, description: Any) -> Any:
        state = _connections.state_behind(self.connection.connection)
        if state is None:
            return original(self, data_type, description)
        if _spatial_type(state, data_type):
            return GEOMETRY_FIELD
        if self.data_types_reverse.get(data_type) == GEOMETRY_FIELD:
            # An alias that is left to Django has put it there.
            raise KeyError(data_type)
        return DatabaseIntrospection.get_field_type(self, data_type, description)

    return get_field_type


def _get_geometry_type(original: Any) -> Any:
    """Wrap the introspection's method: by the OIDs of the server at hand."""

    def get_geometry_type(self: Any, table_name: Any, description: Any) -> Any:
        state = _connections.state_behind(self.connection.connection)
        if state is None:
            return original(self, table_name, description)
        oid = description.type_code
        self.postgis_oid_lookup = {oid: _spatial_type(state, oid)}
        try:
            return original(self, table_name, description)
        finally:
            del self.postgis_oid_lookup

    return get_geometry_type


def _spatial_type(state: ConnectionState, data_type: Any) -> str | None:
    """Return what *data_type*, an OID or a name, is called, if it is of a geometry.

    By the statement before, which described the columns of a table.
    """
    if not isinstance(data_type, int) or data_type < FIRST_NORMAL_OID:
        return None
    number = state.last.numbers.get(data_type, 0) if state.last is not None else 0
    found = SurrogateType.by_number(number)
    if found is None or found.tracked not in (GEOMETRY, GEOGRAPHY):
        return None
    return found.tracked.name if found.oid == number else None


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
        alias = getattr(ops.connection, "alias", None)
        if (
            not conf.is_on
            or alias is None
            or conf.is_off(alias)
            or hasattr(settings, "POSTGIS_VERSION")
        ):
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
    state = _connections.state_behind(ops.connection.connection)
    if state is None:
        return None
    if state.level is Trust.SERVER:
        return (state.server, state.alias.generation)
    if state.level is Trust.CONNECTION:
        return (state, state.alias.generation)
    pgconn = ops.connection.connection.pgconn
    snapshot = None if state.is_between(pgconn) else state.snapshot
    return None if snapshot is None else (state, state.alias.generation, snapshot)


PATCHES = (
    Patch(
        DatabaseWrapper,
        "register_geometry_adapters",
        _register_geometry_adapters,
        ("self", "pg_connection"),
    ),
    Patch(PostGISIntrospection, "get_field_type", _get_field_type, ("self",)),
    Patch(PostGISIntrospection, "get_geometry_type", _get_geometry_type, ("self",)),
    Patch(PostGISOperations, "spatial_version", SpatialVersion),
)
"""What is replaced in GeoDjango. Tried on Django 5.2.19, 6.0.10 and 6.1.3."""


def start() -> None:
    """Track the three types, and drop what Django has kept of them so far."""
    runtime.track("backend", TYPES)
    _connections.renew()
    for by_alias in DatabaseWrapper._type_infos.values():
        for alias in [alias for alias in by_alias if not conf.is_off(alias)]:
            del by_alias[alias]
    for wrapper in connections.all(initialized_only=True):
        if not conf.is_off(wrapper.alias):
            wrapper.ops.__dict__.pop("spatial_version", None)
