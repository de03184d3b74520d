"""The adapters that all of Django's connections share, with the resolvers in them.

Registered there once, they cost a connection nothing: psycopg copies a map only
when something is registered on the copy.
"""

from __future__ import annotations

import functools
from typing import Any

from django.db.backends.postgresql import base, psycopg_any
from psycopg.adapt import AdaptersMap

from . import _resolver

# get_adapters_template() and the two modules that name it: Django 5.2.19, 6.0.9
# and 6.1.3. Where a backend gets its adapters elsewhere, the receiver registers
# the resolvers on each of its connections.
_HOLDERS: tuple[Any, ...] = (psycopg_any, base)
_djangos = psycopg_any.get_adapters_template


@functools.lru_cache
def _template(use_tz: bool, timezone: Any) -> AdaptersMap:
    return AdaptersMap(_djangos(use_tz, timezone))


def get_adapters_template(use_tz: bool, timezone: Any) -> AdaptersMap:
    """Return Django's template for a time zone, with the resolvers added.

    The same one when another type is tracked: a project may have added to it.
    """
    template = _template(use_tz, timezone)
    # Nothing, if they are there; two threads at once would do the same twice.
    _resolver.install(template)
    return template


def install() -> None:
    """Have Django's connections made with our template from now on."""
    for holder in _HOLDERS:
        holder.get_adapters_template = get_adapters_template


def uninstall() -> None:
    """Put Django's own back."""
    for holder in _HOLDERS:
        holder.get_adapters_template = _djangos
