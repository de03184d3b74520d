"""What this package does when Django starts, and when a setting is changed."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.core.signals import setting_changed
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.utils import load_backend

from . import (
    _adapters,
    _checkouts,
    _connections,
    _contrib,
    _errors,
    _evidence,
    _memory,
    _tracking,
    _version,
    _work_units,
    conf,
)

APP = "django_pg_hot_async"


def find_postgis() -> Any:
    """The module for GeoDjango's PostGIS backend, where DATABASES has one."""
    wrappers: list[type] = []
    for database in connections.settings.values():
        # A backend that cannot be loaded is for whoever uses the alias to meet.
        with suppress(Exception):
            wrappers.append(load_backend(database["ENGINE"]).DatabaseWrapper)
    base: Any = sys.modules.get("django.contrib.gis.db.backends.postgis.base")
    if base is None or not any(issubclass(w, base.DatabaseWrapper) for w in wrappers):
        return None
    from . import _postgis

    return _postgis


def setting_was_changed(setting: str, value: Any, enter: bool, **kwargs: Any) -> None:
    """Follow `override_settings()`."""
    if setting == conf.SETTING:
        conf.read.cache_clear()
        conf.read()
        for name, alias in _memory.aliases().items():
            alias.trust = conf.trust(name)
        _evidence.install()
        # An alias may be left to Django now.
        connection_created.sender_receivers_cache.clear()
    elif setting == "INSTALLED_APPS":
        # By name: it may be listed by its class.
        if not enter and not apps.is_installed(APP):
            # What Django's own apps do: ready() ran only for the override.
            uninstall()
        _tracking.renew()
        _connections.renew()
        _memory.withdraw_all()


def install() -> None:
    """Connect the receivers and take the places that have to be taken."""
    conf.read()
    _adapters.install()
    _contrib.install()
    _errors.install()
    _evidence.install()
    _version.install()
    if async_backend := _work_units.find_async_backend():
        async_backend.install()
    if postgis := find_postgis():
        postgis.install()
    _checkouts.install()
    _work_units.install()
    setting_changed.connect(setting_was_changed, dispatch_uid=APP)
    _tracking.renew()
    for connection in connections.all(initialized_only=True):
        connection.__dict__.pop("pg_version", None)
        if connection.connection is not None:
            _checkouts.connected(connection)


def uninstall() -> None:
    """Undo `install`; connections already looked after stay so."""
    _checkouts.uninstall()
    _work_units.uninstall()
    setting_changed.disconnect(dispatch_uid=APP)
    if async_backend := _work_units.find_async_backend():
        async_backend.uninstall()
    if postgis := find_postgis():
        postgis.uninstall()
    _version.uninstall()
    _evidence.uninstall()
    _errors.uninstall()
    _contrib.uninstall()
    _adapters.uninstall()
