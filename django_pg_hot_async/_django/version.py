"""Django's knowledge of the server's version, as of now instead of once for all.

Django keeps ``pg_version`` and what depends on it for the life of a wrapper, that
is of a thread, whatever server the next connection reaches. SQL is compiled
before the connection is opened, so it does not help to correct it then: after a
roll-back from 18 to 15 the first query of a thread would still be written for 18.
"""

from __future__ import annotations

import functools
import threading
from time import monotonic
from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.postgresql.features import DatabaseFeatures
from django.utils.functional import cached_property

from django_pg_hot_async import conf
from django_pg_hot_async._core.patches import Patch

from .connections import state_behind

FRESH_SECONDS = 1.0
"""How long a version serves a wrapper that has no connection to ask."""

_KEPT = "_pg_hot_async_version"
_asked = threading.local()


class LiveVersion:
    """``DatabaseWrapper.pg_version``: that of the server connected to now.

    Where nothing is connected, one is looked up as Django does it, over a
    temporary connection, and serves for a second: long enough to compile the
    query that is about to connect.
    """

    def __init__(self, original: cached_property[int]) -> None:
        self._original = original

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        if wrapper is None:
            return self
        if not conf.is_on:
            return self._original.__get__(wrapper, owner)
        _asked.version = True
        connection = wrapper.connection
        if connection is not None:
            return _version_of(connection)
        version, read_at = wrapper.__dict__.get(_KEPT, (0, 0.0))
        if not version or monotonic() - read_at > FRESH_SECONDS:
            version = self._original.func(wrapper)
            wrapper.__dict__[_KEPT] = (version, monotonic())
        return version


def _version_of(connection: Any) -> int:
    # The server's own word, where it was asked, goes before the connection's:
    # a pooler may have moved the connection without telling it.
    state = state_behind(connection)
    if state is not None and state.last is not None and state.last.version:
        return state.last.version
    if state is not None:
        # As it showed when it was opened: one that is lost shows 0, or raises.
        return state.server.version
    version: int = connection.info.server_version
    return version


class PerVersion:
    """A cached property of the features, computed anew for another version.

    Only values that were made from ``pg_version`` are tied to it; the others are
    kept as Django keeps them. It has no ``__set__``, so that a test which sets the
    attribute on an instance has its way.
    """

    def __init__(self, original: cached_property[Any], name: str) -> None:
        self._original = original
        self._name = name
        self._key = f"_pg_hot_async_{name}"
        self.__doc__ = original.__doc__

    def __get__(self, features: Any, owner: type | None = None) -> Any:
        if features is None:
            return self
        if not conf.is_on:
            return self._original.__get__(features, owner)
        version, value = features.__dict__.get(self._key, (None, None))
        if version is not None and version == features.connection.pg_version:
            return value
        outer, _asked.version = getattr(_asked, "version", False), False
        value = self._original.func(features)
        if _asked.version:
            features.__dict__[self._key] = (features.connection.pg_version, value)
        else:
            features.__dict__[self._name] = value
            _asked.version = outer
        return value


def patches() -> list[Patch]:
    """Return what takes the place of Django's cached properties.

    ``DatabaseWrapper.pg_version`` and those of ``DatabaseFeatures``: Django 5.2.19,
    6.0.10 and 6.1.3.
    """
    found = [Patch(DatabaseWrapper, "pg_version", LiveVersion)]
    for name, value in vars(DatabaseFeatures).items():
        if isinstance(value, cached_property):
            found.append(Patch(DatabaseFeatures, name, functools.partial(_per, name)))
    return found


def _per(name: str, original: cached_property[Any]) -> PerVersion:
    return PerVersion(original, name)
