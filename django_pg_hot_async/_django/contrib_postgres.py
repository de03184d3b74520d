"""In the place of django.contrib.postgres's own handling of hstore and citext.

Django's receiver reads OIDs through ``connections[alias]`` once for each alias and
registers them on each connection, again at each checkout. Ours has its name
everywhere Django looks for it, so that Django connects and calls ours, whichever
of the two apps comes first in INSTALLED_APPS. Tried on Django 5.2.19, 6.0.10 and 6.1.3.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres import apps as postgres_apps
from django.contrib.postgres import operations, signals
from django.db.backends.signals import connection_created

from django_pg_hot_async._core import dumping
from django_pg_hot_async._core.connection import unwrapped
from django_pg_hot_async._core.patches import Patch
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.types import CITEXT, HSTORE

from . import backend, connections

GROUP = "contrib.postgres"


class OidsByAlias:
    """``get_hstore_oids`` or ``get_citext_oids``, telling us when it is cleared.

    Migrations clear it when they create or drop an extension.
    """

    def __init__(self, original: Any) -> None:
        self.__wrapped__ = original

    def __call__(self, connection_alias: str) -> Any:
        return self.__wrapped__(connection_alias)

    def cache_clear(self) -> None:
        self.__wrapped__.cache_clear()
        runtime.withdraw_all()

    def cache_info(self) -> Any:
        return self.__wrapped__.cache_info()


def track() -> None:
    """Track hstore and citext from now on."""
    if not runtime.group(GROUP):
        runtime.track(GROUP, (HSTORE, CITEXT))
        connections.renew()


def _register_type_handlers(original: Any) -> Any:
    """Wrap Django's function of this name.

    As a receiver of `connection_created` it has next to nothing to do: that of this
    package does it all. Called by a migration that created an extension, it has every
    connection of the alias ask before it next uses them. A backend that calls it
    without the app wants the two types.
    """

    def register_type_handlers(connection: Any, **kwargs: Any) -> None:
        pg_connection = getattr(connection, "connection", None)
        state = connections.state_behind(pg_connection)
        if state is None:
            if not connections.is_ours(connection, pg_connection):
                original(connection, **kwargs)
                return
            connections.track(pg_connection, connection.alias)
        if "signal" not in kwargs:
            track()
        elif runtime.group(GROUP):
            # A receiver before this one may have registered something for dicts.
            dumping.reclaim(unwrapped(pg_connection).adapters, dict)

    return register_type_handlers


def install() -> None:
    """Exchange the receivers, in the place where Django's stands."""
    ours, djangos = signals.register_type_handlers, _original()
    backend.OURS.add(id(ours))
    # Signal.receivers: ((id of the receiver or dispatch_uid, id of the sender),
    # receiver, ...). Receivers before and after it stay before and after it.
    keys = [entry[0][0] for entry in connection_created.receivers]
    if id(djangos) not in keys:
        return  # It will be ours that Django connects.
    connection_created.disconnect(djangos)
    connection_created.connect(ours)
    with connection_created.lock:
        receivers = connection_created.receivers
        receivers.insert(keys.index(id(djangos)), receivers.pop())
        connection_created.sender_receivers_cache.clear()


def clear_caches() -> None:
    """Clear what Django keeps by alias, for whoever calls its functions."""
    for name in ("get_hstore_oids", "get_citext_oids"):
        kept = getattr(signals, name)
        getattr(kept, "__wrapped__", kept).cache_clear()


def _original() -> Any:
    return _originals["register_type_handlers"]


_originals: dict[str, Any] = {"register_type_handlers": signals.register_type_handlers}


def _the_same(name: str) -> Any:
    """Have a second holder name what the first one names now."""
    return lambda original: getattr(signals, name)


PATCHES = (
    Patch(signals, "register_type_handlers", _register_type_handlers, ("connection",)),
    Patch(postgres_apps, "register_type_handlers", _the_same("register_type_handlers")),
    Patch(operations, "register_type_handlers", _the_same("register_type_handlers")),
    Patch(signals, "get_hstore_oids", OidsByAlias),
    Patch(operations, "get_hstore_oids", _the_same("get_hstore_oids")),
    Patch(signals, "get_citext_oids", OidsByAlias),
    Patch(operations, "get_citext_oids", _the_same("get_citext_oids")),
)
