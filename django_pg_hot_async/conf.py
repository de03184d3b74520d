"""``settings.PG_HOT_ASYNC``: read on access, and checked only here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from ._core.trust import Trust

SETTING = "PG_HOT_ASYNC"


is_on = False
"""Whether new connections are tracked: the app is installed, and its patches fit."""

_LEVELS = {level.value: level for level in Trust}
_GONE = dict.fromkeys(
    ("checkout", "result"),
    "leave it out, \"auto\" is right behind any pooler, or write 'transaction'",
)
"""Levels that existed once, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """``PG_HOT_ASYNC``, checked."""

    default: Trust
    aliases: Mapping[str, Trust | None]
    """The trust of each alias that is named; None if it is left to Django."""


@functools.cache
def read() -> Configuration:
    """Read and check ``PG_HOT_ASYNC``.

    Raise `ImproperlyConfigured` with the key, its value, and the values it may have.
    """
    value = getattr(settings, SETTING, None)
    top = _mapping(SETTING, {} if value is None else value, {"TRUST", "ALIASES"})
    path = f"{SETTING}['ALIASES']"
    aliases = top.get("ALIASES", {})
    if not isinstance(aliases, Mapping):
        raise ImproperlyConfigured(
            f"{path} is {aliases!r}; it must be a dict of database aliases."
        )
    # Not in settings.DATABASES: what overrides that does not reach the connections.
    unknown = [alias for alias in aliases if alias not in connections]
    if unknown:
        raise ImproperlyConfigured(
            f"{path} names {unknown[0]!r}, which is no alias in DATABASES; it may"
            f" name {_listed(connections)}."
        )
    default = _trust(f"{SETTING}['TRUST']", top.get("TRUST", "auto"))
    return Configuration(
        default,
        {
            alias: _alias_trust(f"{path}[{alias!r}]", options, default)
            for alias, options in aliases.items()
        },
    )


def trust(alias: str) -> Trust:
    """Return the trust that holds for *alias*, be it in DATABASES or not."""
    configuration = read()
    level = configuration.aliases.get(alias)
    return configuration.default if level is None else level


def is_any_off() -> bool:
    """Whether any alias is left to Django."""
    return None in read().aliases.values()


def is_off(alias: str) -> bool:
    """Whether ``PG_HOT_ASYNC["ALIASES"]`` leaves *alias* to Django."""
    return read().aliases.get(alias, Trust.AUTO) is None


def _alias_trust(path: str, options: Any, default: Trust) -> Trust | None:
    if options is None:
        return None
    options = _mapping(path, options, {"TRUST"}, ", or None to leave it to Django")
    return _trust(f"{path}['TRUST']", options["TRUST"]) if options else default


def _mapping(
    path: str, value: Any, keys: set[str], otherwise: str = ""
) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(
            f"{path} is {value!r}; it must be a dict with the keys"
            f" {_listed(keys)}{otherwise}."
        )
    unknown = [key for key in value if key not in keys]
    if unknown:
        raise ImproperlyConfigured(
            f"{path} has the key {unknown[0]!r}; the keys it may have are"
            f" {_listed(keys)}."
        )
    return value


def _trust(path: str, value: Any) -> Trust:
    if isinstance(value, str) and value in _LEVELS:
        return _LEVELS[value]
    if isinstance(value, str) and value in _GONE:
        raise ImproperlyConfigured(
            f"{path} is {value!r}, which is not a level any more; {_GONE[value]}."
        )
    raise ImproperlyConfigured(
        f"{path} is {value!r}, which is not a valid TRUST level; choose from"
        f" {_listed(_LEVELS)}."
    )


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names))
