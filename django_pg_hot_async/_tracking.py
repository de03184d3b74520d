"""The types tracked at present: those of Django's apps and backends in use, and
those that the project has declared."""

from __future__ import annotations

from django.apps import apps

from ._registry import CITEXT, HSTORE, Registry, TrackedType

_registry: Registry | None = None
_of_backend: tuple[TrackedType, ...] = ()
_declared: tuple[TrackedType, ...] = ()


def current() -> Registry:
    """Return the registry of the types that are tracked now."""
    return _registry or renew()


def renew() -> Registry:
    """Find out anew which types are tracked (INSTALLED_APPS may have changed)."""
    global _registry
    types: tuple[TrackedType, ...] = ()
    if apps.is_installed("django.contrib.postgres"):
        types = (HSTORE, CITEXT)
    # By name, so that a project may register hstore its own way.
    by_name = {
        (tracked.schema, tracked.name): tracked
        for tracked in (*types, *_of_backend, *_declared)
    }
    _registry = Registry.of(tuple(by_name.values()))
    return _registry


def track_for_backend(types: tuple[TrackedType, ...]) -> None:
    """Track the *types* that a database backend brings, and no other backend's."""
    global _of_backend
    _of_backend = types
    renew()


def declared() -> tuple[TrackedType, ...]:
    """Return the types that the project has declared."""
    return _declared


def declare(types: tuple[TrackedType, ...]) -> None:
    """Track *types* for the project, and no others it has declared.

    May be called before Django has loaded its apps.
    """
    global _declared, _registry
    _declared = types
    _registry = None
