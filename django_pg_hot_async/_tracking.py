"""The types tracked at present: those of Django's apps and backends in use."""

from __future__ import annotations

from django.apps import apps

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
