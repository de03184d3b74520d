"""System checks: what the settings show, and what the servers say.

`docs/checks.md` lists them by id. Those of settings never connect. Those of servers
run where Django runs checks of databases: ``check --database ALIAS``, ``migrate`` and
the test runner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Info, Tags, Warning
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.utils import load_backend
from django.dispatch import Signal

from . import conf
from ._core.trust import Trust
from ._django.driver import why_no_psycopg
from ._django.installed import APP

_LONGER = (Trust.SERVER, Trust.CONNECTION)
"""Levels that outlive a transaction, whatever is in between."""
POOLER_PORTS = {"6432": "PgBouncer's", "6543": "Supabase's pooler's"}
"""Ports that poolers listen on unless told otherwise."""


def register() -> None:
    """Register the checks; doing so again changes nothing."""
    checks.register(check_settings)
    checks.register(check_servers, Tags.database)


def check_settings(
    app_configs: Any, databases: Any = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check what can be known without a connection, of every alias."""
    # Checks stay registered when override_settings() takes the app away.
    if not apps.is_installed(APP):
        return []
    found = list(check_psycopg())
    if not why_no_psycopg():
        found += [
            *_check_patches(),
            *_check_receivers(),
            *_check_aliases(),
            *_check_functions(),
            *_check_registrations(),
        ]
    return found


def check_servers(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Ask the servers behind *databases*; they are None where none is to be asked.

    Two statements each, or three where a type is missing, over a connection of their
    own. A server that cannot be reached is a warning: Django's own checks do without.
    """
    # Django 5.2 and 6.0 call checks of databases every time, with None; 6.1 does
    # not, and passes all aliases to those that are asked for by tag.
    if not databases or not apps.is_installed(APP):
        return []
    if why_no_psycopg() or any(_check_patches()) or any(_check_receivers()):
        return []
    from ._operator import probe

    found: list[CheckMessage] = []
    ours = [alias for alias in _aliases() if alias in databases]
    for alias, answer in probe.ask_all(ours).items():
        if isinstance(answer, probe.Answer):
            found += _check_answer(alias, answer)
        elif answer.state == "failed":
            found.append(
                Warning(
                    f"The server behind DATABASES[{alias!r}] was not checked:"
                    f" {answer.reason}",
                    hint="Check again once it can be reached.",
                    id=f"{APP}.W006",
                )
            )
        else:
            found.append(
                Info(
                    f"DATABASES[{alias!r}] leads to a server that speaks PostgreSQL's"
                    " protocol and is not PostgreSQL. This app ignores it.",
                    hint="To say that you know, leave it to Django:"
                    f" {_left_to_django(alias)}.",
                    id=f"{APP}.I002",
                )
            )
    return found


# What settings show


def check_psycopg() -> Iterator[CheckMessage]:
    """Tell which aliases psycopg 2 serves."""
    reason = why_no_psycopg()
    if reason:
        reason = f", since psycopg 3 cannot be imported ({reason})"
    for alias, database in _aliases("psycopg2").items():
        yield Error(
            f"DATABASES[{alias!r}]['ENGINE'] is {database['ENGINE']!r}, which uses"
            f" psycopg 2{reason}. It registers OIDs for the whole process, and nothing"
            " keeps them right.",
            hint='Install "psycopg[binary]" and have the backend use it, or leave the'
            f" alias to Django: {_left_to_django(alias)}.",
            id=f"{APP}.E001",
        )


def _check_patches() -> Iterator[CheckMessage]:
    from ._django import startup

    if startup.why_not:
        yield Error(
            f"This package stands aside, and Django works as without it:"
            f" {startup.why_not}.",
            hint="Install a release of psycopg, Django or django-async-backend that it"
            " was tried on: the README lists them.",
            id=f"{APP}.E005",
        )


def _check_receivers() -> Iterator[CheckMessage]:
    from ._django import startup
    from ._django.backend import UID

    if not startup.why_not and not has_receiver(connection_created, UID):
        yield Error(
            "This package's receiver of connection_created is not connected, so that"
            " connections are not tracked.",
            hint="Have a ready() that overrides DjangoPgHotAsyncConfig.ready() call"
            " super().ready(), and disconnect no receivers of other apps.",
            id=f"{APP}.E002",
        )


def has_receiver(signal: Signal, uid: str) -> bool:
    """Tell whether a receiver with *uid* is connected."""
    # Signal.receivers, entries of which begin with (dispatch_uid or id of the
    # receiver, id of the sender): Django 5.2.19, 6.0.10 and 6.1.3.
    return any(entry[0][0] == uid for entry in signal.receivers)


def _check_aliases() -> Iterator[CheckMessage]:
    for alias, database in _aliases().items():
        yield from _check_pooler(alias, database)
        yield from _check_reuse(alias, database)


def _check_pooler(alias: str, database: Mapping[str, Any]) -> Iterator[CheckMessage]:
    signs = list(signs_of_a_pooler(alias, database))
    if not signs:
        return
    if conf.trust(alias) in _LONGER:
        path, text = trust_setting(alias)
        yield Warning(
            f"{' and '.join(signs)}; {text}. A pooler may move an open connection to"
            " another server, and nothing tells the client.",
            hint=f"Set {path} to 'auto', the default, which is right behind any pooler."
            " Silence this where the pooler never moves an open connection.",
            id=f"{APP}.W001",
        )
    threshold = database["OPTIONS"].get("prepare_threshold")
    if threshold is not None:
        path = f"DATABASES[{alias!r}]['OPTIONS']['prepare_threshold']"
        yield Warning(
            f"{path} is {threshold!r}, and {' and '.join(signs)}. A statement prepared"
            " on one server is not there on the one that a pooler moves on to.",
            hint=f"Remove {path}; Django's default is None, never to prepare. Silence"
            " this where the pooler prepares statements anew itself (PgBouncer 1.21 and"
            " on, with max_prepared_statements).",
            id=f"{APP}.W003",
        )


def signs_of_a_pooler(alias: str, database: Mapping[str, Any]) -> Iterator[str]:
    """Tell what in the settings of *alias* is there for a pooler."""
    path = f"DATABASES[{alias!r}]"
    for keys, value in (
        ("['PORT']", database["PORT"]),
        ("['OPTIONS']['port']", database["OPTIONS"].get("port")),
    ):
        # Several, for several hosts, stand with commas between them.
        for port in str(value).split(","):
            if owner := POOLER_PORTS.get(port.strip()):
                yield f"{path}{keys} is {value!r}, {owner} port"
                break
    key = "DISABLE_SERVER_SIDE_CURSORS"
    if database.get(key):
        yield f"{path}['{key}'] is {database[key]!r}, as for a pooler"


def _check_reuse(alias: str, database: Mapping[str, Any]) -> Iterator[CheckMessage]:
    path = f"DATABASES[{alias!r}]"
    pool = database["OPTIONS"].get("pool")
    if pool:
        # Not what it is: it may have a password in it.
        sign = f"{path}['OPTIONS']['pool'] is set"
    elif database["CONN_MAX_AGE"] != 0:
        sign = f"{path}['CONN_MAX_AGE'] is {database['CONN_MAX_AGE']!r}"
    else:
        return
    if is_health_checked(database):
        return
    yield Warning(
        f"{path}['CONN_HEALTH_CHECKS'] is {database['CONN_HEALTH_CHECKS']!r}, and"
        f" {sign}. Each connection that a server cuts as it goes fails a request.",
        hint=f"Set {path}['CONN_HEALTH_CHECKS'] to True.",
        id=f"{APP}.W002",
    )


def is_health_checked(database: Mapping[str, Any]) -> bool:
    """Whether a connection that is used again is checked before."""
    pool = database["OPTIONS"].get("pool")
    # Django 6.1 and on takes a check; before it, none but its own.
    own_check = isinstance(pool, Mapping) and pool.get("check") is not None
    return bool(database["CONN_HEALTH_CHECKS"]) or own_check


def _check_functions() -> Iterator[CheckMessage]:
    from ._core.runtime import runtime

    registry = runtime.registry
    for absent in registry.absent:
        if absent.failure is not None:
            yield Error(
                f"The register function of the type {str(absent.tracked)!r} raised"
                f" {absent.failure!r}, given a type without labels or attributes, as"
                " on a server that lacks the type. So it is not known for which Python"
                " types it registers dumpers, and psycopg's own send them.",
                hint="Have it take an info with nothing in it.",
                id=f"{APP}.E004",
            )


def _check_registrations() -> Iterator[CheckMessage]:
    import psycopg

    from ._core.catalog import FIRST_NORMAL_OID
    from ._core.psycopg_internals import has_oids

    for name in has_oids(psycopg.adapters, FIRST_NORMAL_OID):
        yield Warning(
            f"The type {name!r} is registered in psycopg.adapters, for the whole"
            " process, under the OID that one server has for it. On another server"
            " that OID may be another type, and nothing can make it follow.",
            hint=f"Declare it instead, with register_type({name!r}, ...), and remove"
            " the registration.",
            id=f"{APP}.W007",
        )


# What servers say


def _check_answer(alias: str, answer: Any) -> Iterator[CheckMessage]:
    if answer.is_pooled and conf.trust(alias) in _LONGER:
        path, text = trust_setting(alias)
        yield Warning(
            f"DATABASES[{alias!r}] leads to {answer.server} through a pooler;"
            f" {text}. A pooler may move an open connection to another server, and"
            " nothing tells the client.",
            hint=f"Set {path} to 'auto', the default, which is right behind any pooler."
            " Silence this where the pooler never moves an open connection.",
            id=f"{APP}.W004",
        )
    for name in answer.registrations:
        yield Warning(
            f"The type {name!r} is registered on connections of DATABASES[{alias!r}]"
            f" under the OID that {answer.server} has for it. A connection that is"
            " moved to another server keeps it.",
            hint="Declare it with register_type(), and remove the registration from"
            " the receiver of connection_created.",
            id=f"{APP}.W008",
        )
    from ._operator.declared_types import check_declared_types

    yield from check_declared_types(alias, answer)


# Settings


def _aliases(driver: str = "psycopg") -> dict[str, Mapping[str, Any]]:
    """Return the settings of each alias of PostgreSQL that is not left to Django."""
    found: dict[str, Mapping[str, Any]] = {}
    for alias, database in connections.settings.items():
        # A backend that cannot be loaded is for whoever uses the alias to meet.
        with suppress(Exception):
            wrapper = load_backend(database["ENGINE"]).DatabaseWrapper
            if (
                wrapper.vendor == "postgresql"
                and wrapper.Database.__name__ == driver
                and not conf.is_off(alias)
            ):
                found[alias] = database
    return found


def trust_setting(alias: str) -> tuple[str, str]:
    """Return the path of the setting that *alias* goes by, and what it says."""
    value = getattr(settings, conf.SETTING, None) or {}
    own = value.get("ALIASES", {}).get(alias) or {}
    path = f"{conf.SETTING}['TRUST']"
    if "TRUST" in own:
        path = f"{conf.SETTING}['ALIASES'][{alias!r}]['TRUST']"
    return path, f"{path} is {conf.trust(alias).value!r}"


def _left_to_django(alias: str) -> str:
    return f"{conf.SETTING}['ALIASES'] = {{{alias!r}: None}}"
