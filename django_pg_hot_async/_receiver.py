"""What this package does when Django says something: connected, request, setting.

None of it sends anything to a server, so it is right for `send()` and `asend()`,
in a thread and in an event loop, for synchronous and for async connections.
"""

from __future__ import annotations

from typing import Any

import psycopg
from django.apps import apps
from django.core.signals import request_started, setting_changed
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.signals import connection_created

from . import (
    _adapters,
    _changes,
    _contrib,
    _errors,
    _memory,
    _resolver,
    _tracking,
    _version,
    conf,
)
from ._link import attach, link_of

APP = "django_pg_hot_async"


def connected(connection: Any, **kwargs: Any) -> None:
    """Look after a new connection; begin a new checkout of one known already."""
    link = link_of(connection.connection)
    if link is None:
        if is_ours(connection, connection.connection):
            look_after(connection.connection, connection.alias)
    elif link.is_prepared:
        link.is_prepared = False
    else:
        link.renew()


def look_after(pg_connection: Any, alias: str) -> None:
    """Attach a psycopg connection to what is known of *alias*."""
    if not _resolver.is_installed(pg_connection.adapters):
        _resolver.install(pg_connection.adapters)
    link = attach(pg_connection, alias)
    known = link.memory.recall(link.server)
    if known is not None:
        # For Copy.set_types(), where nothing can be read any more. What is
        # loaded or sent is looked up in what this connection was verified with.
        known.snapshot.share_types(pg_connection.adapters)
    change = link.memory.arrive(link.server)
    if change is not None:
        _contrib.clear_caches()
        _changes.announce(change, in_query=False)


def begin_work_unit(**kwargs: Any) -> None:
    """Let "checkout" trust begin anew for this context's open connections."""
    wrappers = connections.all(initialized_only=True)
    async_backend = find_async_backend()
    if async_backend is not None:
        wrappers += async_backend.open_wrappers()
    for wrapper in wrappers:
        link = link_of(wrapper.connection)
        if link is not None:
            link.renew()


def find_async_backend() -> Any:
    """The module for django-async-backend, where that app is installed."""
    if not apps.is_installed("django_async_backend"):
        return None
    from . import _async_backend

    return _async_backend


def setting_was_changed(setting: str, value: Any, enter: bool, **kwargs: Any) -> None:
    """Follow `override_settings()`."""
    if setting in (conf.SETTING, "DATABASES"):
        conf.read.cache_clear()
        conf.read()
        for name, alias in _memory.aliases().items():
            alias.trust = conf.trust(name)
    elif setting == "INSTALLED_APPS":
        if not enter and APP not in value:
            # What Django's own apps do: ready() ran only for the override.
            uninstall()
        _tracking.renew()
        _memory.withdraw_all()


def install() -> None:
    """Connect the receivers and take the places that have to be taken."""
    conf.read()
    _adapters.install()
    _contrib.install()
    _errors.install()
    _version.install()
    if async_backend := find_async_backend():
        async_backend.install()
    if postgis := _tracking.find_postgis():
        postgis.install()
    connection_created.connect(connected, dispatch_uid=APP)
    request_started.connect(begin_work_unit, dispatch_uid=APP)
    setting_changed.connect(setting_was_changed, dispatch_uid=APP)
    _tracking.renew()
    for connection in connections.all(initialized_only=True):
        connection.__dict__.pop("pg_version", None)
        if connection.connection is not None:
            connected(connection)


def uninstall() -> None:
    """Undo `install`; connections already looked after stay so."""
    connection_created.disconnect(dispatch_uid=APP)
    request_started.disconnect(dispatch_uid=APP)
    setting_changed.disconnect(dispatch_uid=APP)
    if async_backend := find_async_backend():
        async_backend.uninstall()
    if postgis := _tracking.find_postgis():
        postgis.uninstall()
    _version.uninstall()
    _errors.uninstall()
    _contrib.uninstall()
    _adapters.uninstall()


def is_ours(connection: Any, pg_connection: Any) -> bool:
    """Whether to look after what a Django connection connects with."""
    return (
        connection.vendor == "postgresql"
        and connection.alias != NO_DB_ALIAS
        and is_postgresql(pg_connection)
        and not conf.is_off(connection.alias)
    )


def is_postgresql(connection: Any) -> bool:
    """Whether a connection is psycopg 3's, and leads to a PostgreSQL.

    Servers that only speak its protocol, such as CockroachDB, are left alone.
    """
    return (
        isinstance(connection, (psycopg.Connection, psycopg.AsyncConnection))
        and connection.info.vendor == "PostgreSQL"
        # What psycopg.crdb tells CockroachDB by, on a connection of any class.
        and connection.pgconn.parameter_status(b"crdb_version") is None
    )
