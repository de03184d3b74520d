"""The types tracked at present: those of Django's apps and backends in use."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.utils import load_backend

from ._registry import CITEXT, HSTORE, Registry, TrackedType

_registry: Registry | None = None
_of_backend: tuple[TrackedType, ...] = ()


def current() -> Registry:
    """Return the registry of the types that are tracked now."""
    return _registry or renew()


def renew() -> Registry:
    """Find out anew which types are tracked (INSTALLED_APPS may have changed)."""
    global _registry
    types: tuple[TrackedType, ...] = ()
    if apps.is_installed("django.contrib.postgres"):
        types = (HSTORE, CITEXT)
    _registry = Registry.of(types + _of_backend)
    return _registry


def track_for_backend(types: tuple[TrackedType, ...]) -> None:
    """Track the *types* that a database backend brings, and no other backend's."""
    global _of_backend
    _of_backend = types
    renew()


def find_postgis() -> Any:
    """The module for GeoDjango's PostGIS backend, where DATABASES has one."""
    wrappers: list[type] = []
    for database in connections.settings.values():
        # Not for a missing driver or library to be noticed here.
        with suppress(ImproperlyConfigured):
            wrappers.append(load_backend(database["ENGINE"]).DatabaseWrapper)
    base: Any = sys.modules.get("django.contrib.gis.db.backends.postgis.base")
    if base is None or not any(issubclass(w, base.DatabaseWrapper) for w in wrappers):
        return None
    from . import _postgis

    return _postgis
