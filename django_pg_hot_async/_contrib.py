"""In the place of django.contrib.postgres's own handling of hstore and citext.

Django's receiver reads OIDs through ``connections[alias]`` once for each alias and
registers them on each connection, again at each checkout. Ours has its name
everywhere Django looks for it, so that Django connects and calls ours, whichever
of the two apps comes first in INSTALLED_APPS.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from django.contrib.postgres import apps as postgres_apps
from django.contrib.postgres import operations, signals
from django.db.backends.signals import connection_created

from . import _memory, conf
from ._link import link_of

# Tried on Django 5.2.19, 6.0.9 and 6.1.3. The names that hold Django's functions:
_HOLDERS: dict[str, tuple[ModuleType, ...]] = {
    "register_type_handlers": (signals, postgres_apps, operations),
    "get_hstore_oids": (signals, operations),
    "get_citext_oids": (signals, operations),
}


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
        _memory.withdraw_all()

    def cache_info(self) -> Any:
        return self.__wrapped__.cache_info()


def register_type_handlers(connection: Any, **kwargs: Any) -> None:
    """Take the place of Django's function of this name.

    As a receiver of `connection_created` it has nothing to do: the receiver of
    this package does it all. Called by a migration that created an extension, it
    makes every connection of the alias read OIDs before it next uses them.
    """
    is_received = "signal" in kwargs
    if is_received and link_of(connection.connection) is not None:
        return  # Each checkout comes this way.
    if conf.is_off(connection.alias):
        _DJANGOS["register_type_handlers"](connection, **kwargs)
    elif not is_received:
        _memory.alias(connection.alias).withdraw()


_DJANGOS: dict[str, Any] = {name: getattr(signals, name) for name in _HOLDERS}
_OURS: dict[str, Any] = {
    "register_type_handlers": register_type_handlers,
    "get_hstore_oids": OidsByAlias(signals.get_hstore_oids),
    "get_citext_oids": OidsByAlias(signals.get_citext_oids),
}


def install() -> None:
    """Name ours where Django's stand, and connect ours if Django's is."""
    _exchange(_DJANGOS, _OURS)


def uninstall() -> None:
    """Put Django's back, connected if ours is."""
    _exchange(_OURS, _DJANGOS)


def clear_caches() -> None:
    """Clear what Django keeps by alias, for whoever calls its functions."""
    _DJANGOS["get_hstore_oids"].cache_clear()
    _DJANGOS["get_citext_oids"].cache_clear()


def _exchange(old: dict[str, Any], new: dict[str, Any]) -> None:
    for name, holders in _HOLDERS.items():
        for holder in holders:
            setattr(holder, name, new[name])
    # Only where Django's ready() was first; else it will connect the new one.
    if connection_created.disconnect(old["register_type_handlers"]):
        connection_created.connect(new["register_type_handlers"])
