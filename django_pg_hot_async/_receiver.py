"""What this package does when Django says something: connected, setting changed.

None of it sends anything to a server, so it is right for `send()` and `asend()`,
in a thread and in an event loop, for synchronous and for async connections.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from django.core.signals import setting_changed
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.utils import load_backend

from . import (
    _adapters,
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
from ._link import link_of

APP = "django_pg_hot_async"


def connected(connection: Any, **kwargs: Any) -> None:
    """Look after a new connection; begin a new checkout of one known already."""
    link = link_of(connection.connection)
    if link is None:
        if _connections.is_ours(connection, connection.connection):
            _connections.look_after(connection.connection, connection.alias)
            _work_units.find_celery()
    elif link.is_prepared:
        link.is_prepared = False
    else:
        link.renew()


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
    if setting in (conf.SETTING, "DATABASES"):
        conf.read.cache_clear()
        conf.read()
        for name, alias in _memory.aliases().items():
            alias.trust = conf.trust(name)
        _evidence.install()
    elif setting == "INSTALLED_APPS":
        if not enter and APP not in value:
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
    connection_created.connect(connected, dispatch_uid=APP)
    # A checkout pays more for finding its receivers than for calling them. Django
    # keeps them by sender where a signal asks for it, as those of models do; the
    # senders are classes. Signal.use_caching: Django 5.2.19, 6.0.9 and 6.1.3.
    connection_created.use_caching = True
    _work_units.install()
    setting_changed.connect(setting_was_changed, dispatch_uid=APP)
    _tracking.renew()
    for connection in connections.all(initialized_only=True):
        connection.__dict__.pop("pg_version", None)
        if connection.connection is not None:
            connected(connection)


def uninstall() -> None:
    """Undo `install`; connections already looked after stay so."""
    connection_created.use_caching = False
    connection_created.disconnect(dispatch_uid=APP)
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
