"""The types tracked at present: Django's own where django.contrib.postgres is."""

from __future__ import annotations

from django.apps import apps

from ._registry import CITEXT, HSTORE, Registry, TrackedType

_registry: Registry | None = None


def current() -> Registry:
    """Return the registry of the types that are tracked now."""
    return _registry or renew()


def renew() -> Registry:
    """Find out anew which types are tracked (INSTALLED_APPS may have changed)."""
    global _registry
    types: tuple[TrackedType, ...] = ()
    if apps.is_installed("django.contrib.postgres"):
        types = (HSTORE, CITEXT)
    _registry = Registry.of(types)
    return _registry
