"""What this package does when Django starts, and when a setting is changed."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.core.signals import setting_changed
from django.db import connections as django_connections
from django.db.backends.signals import connection_created
from django.db.utils import load_backend

from django_pg_hot_async import conf
from django_pg_hot_async._core import cursors, patches
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.types import CITEXT, HSTORE

from . import backend, connections, contrib_postgres, notify, version

logger = logging.getLogger("django_pg_hot_async")

APP = "django_pg_hot_async"

why_not: str = ""
"""Why this package stands aside; "" where it does not."""


def find_postgis() -> Any:
    """Return the module for GeoDjango's PostGIS backend, where DATABASES has one."""
    wrappers: list[type] = []
    for database in django_connections.settings.values():
        # A backend that cannot be loaded is for whoever uses the alias to meet.
        with suppress(Exception):
            wrappers.append(load_backend(database["ENGINE"]).DatabaseWrapper)
    base: Any = sys.modules.get("django.contrib.gis.db.backends.postgis.base")
    if base is None or not any(issubclass(w, base.DatabaseWrapper) for w in wrappers):
        return None
    from . import postgis

    return postgis


def find_async_backend() -> Any:
    """Return the module for django-async-backend, where that app is installed."""
    if not apps.is_installed("django_async_backend"):
        return None
    from . import async_backend

    return async_backend


def setting_was_changed(
    setting: str, value: Any = None, enter: bool = False, **kwargs: Any
) -> None:
    """Follow `override_settings()`."""
    if setting == conf.SETTING:
        conf.read.cache_clear()
        conf.read()
        for name, alias in runtime.aliases.items():
            alias.trust = conf.trust(name)
        # An alias may be left to Django now.
        connection_created.sender_receivers_cache.clear()
    elif setting == "INSTALLED_APPS" and not why_not:
        # By name: it may be listed by its class. ready() ran only for the override.
        conf.is_on = apps.is_installed(APP)
        _track_apps()
        connections.renew()
        runtime.withdraw_all()


def _track_apps() -> None:
    is_installed = apps.is_installed("django.contrib.postgres")
    types = (HSTORE, CITEXT) if is_installed else ()
    runtime.track(contrib_postgres.GROUP, types)


def install() -> None:
    """Take the places that have to be taken, and connect the receivers.

    Where a name of Django or psycopg is not what it was when that was tried, nothing
    is taken: Django works as without the app, the log has an error, and so does the
    system check ``django_pg_hot_async.E005``.
    """
    global why_not
    conf.read()
    modules = [one for one in (find_postgis(), find_async_backend()) if one]
    try:
        patches.install(
            [
                *cursors.PATCHES,
                *backend.PATCHES,
                *contrib_postgres.PATCHES,
                *version.patches(),
                *(patch for module in modules for patch in module.PATCHES),
            ]
        )
    except patches.DoesNotFit as error:
        why_not = str(error)
        logger.error("standing aside, Django works as without this app: %s", why_not)
        return
    why_not = ""
    conf.is_on = True
    runtime.trust_of = conf.trust
    runtime.announce = notify.announce
    contrib_postgres.install()
    connection_created.connect(backend.connected, dispatch_uid=backend.UID)
    setting_changed.connect(setting_was_changed, dispatch_uid=APP)
    _track_apps()
    for module in modules:
        module.start()
    for wrapper in django_connections.all(initialized_only=True):
        wrapper.__dict__.pop("pg_version", None)
        if wrapper.connection is not None:
            backend.connected(wrapper)


def stop() -> None:
    """Leave new connections to Django. What is replaced passes everything through."""
    conf.is_on = False
    connection_created.disconnect(dispatch_uid=backend.UID)
    setting_changed.disconnect(dispatch_uid=APP)
