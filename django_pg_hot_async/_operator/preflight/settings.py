"""What the settings of an alias mean for a cutover under it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django_pg_hot_async import conf
from django_pg_hot_async._core.trust import Trust
from django_pg_hot_async.checks import (
    is_health_checked,
    signs_of_a_pooler,
    trust_setting,
)

from .facts import Facts, Finding


def find_in_settings(
    settings: Mapping[str, Any], blue: Facts, green: Facts
) -> Iterator[Finding]:
    """Tell what *settings*, those of *blue*, will cause once they lead to *green*."""
    alias = blue.alias
    path = f"DATABASES[{alias!r}]"
    options = settings["OPTIONS"]
    pool = options.get("pool")
    stays_open = bool(pool) or settings["CONN_MAX_AGE"] != 0
    if stays_open and not is_health_checked(settings):
        what = "a pool" if pool else f"CONN_MAX_AGE {settings['CONN_MAX_AGE']!r}"
        yield Finding(
            "warning",
            "health_checks",
            f"{path}['CONN_HEALTH_CHECKS']",
            f"{path} has {what} and no CONN_HEALTH_CHECKS: each connection that is cut"
            " fails a request",
            f"{path}['CONN_HEALTH_CHECKS'] = True",
        )
    evidence = _pooler(settings, blue)
    if evidence and options.get("prepare_threshold") is not None:
        yield Finding(
            "warning",
            "prepare_threshold",
            f"{path}['OPTIONS']['prepare_threshold']",
            f"{path} prepares statements, and {evidence}: they are not there on the"
            " server that a pooler moves a connection to",
            "Leave prepare_threshold out: Django's default is not to prepare.",
        )
    if not conf.is_off(alias):
        yield from _find_in_trust(alias, evidence if stays_open else "", blue, green)


def _find_in_trust(
    alias: str, evidence: str, blue: Facts, green: Facts
) -> Iterator[Finding]:
    trust = conf.trust(alias)
    path, _ = trust_setting(alias)
    if evidence and trust in (Trust.SERVER, Trust.CONNECTION):
        yield Finding(
            "warning",
            "trust",
            path,
            f"OIDs of {alias} are trusted for a {trust.value}, and {evidence}:"
            " a pooler can move connections that are open",
            f'{path} = "auto", or leave it out.',
        )
    elif trust is Trust.SERVER and blue.server.version == green.server.version:
        yield Finding(
            "warning",
            "trust",
            path,
            f"OIDs of {alias} are trusted for a server, and the two are of one"
            " version: behind one address they are taken for one",
            f'{path} = "auto", or leave it out.',
        )


def _pooler(settings: Mapping[str, Any], facts: Facts) -> str:
    """Tell what shows that there is a pooler; nothing where nothing does."""
    if facts.pooled:
        return f"a pooler answers at {facts.address}"
    return " and ".join(signs_of_a_pooler(facts.alias, settings))
