"""In the places of Django's PostgreSQL backend: adapters, connects, errors, versions.

None of it sends anything to a server, so it is right in a thread and in an event loop,
for synchronous and for async connections. Tried on Django 5.2.19, 6.0.10 and 6.1.3.
"""

from __future__ import annotations

import functools
from typing import Any

from django.db.backends.postgresql import base, psycopg_any
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.utils import DatabaseErrorWrapper
from django.dispatch.dispatcher import NO_RECEIVERS
from django.utils.functional import cached_property
from psycopg.adapt import AdaptersMap

from django_pg_hot_async import conf
from django_pg_hot_async._core import dumping, evidence
from django_pg_hot_async._core.connection import ATTRIBUTE, ConnectionState
from django_pg_hot_async._core.patches import Patch

from . import connections

UID = "django_pg_hot_async"


# The adapters that Django's connections share


def _adapters_template(original: Any) -> Any:
    """Wrap ``get_adapters_template()``: the resolvers are registered once.

    psycopg copies a map only when something is registered on the copy.
    """

    @functools.lru_cache
    def template(use_tz: bool, timezone: Any) -> AdaptersMap:
        return AdaptersMap(original(use_tz, timezone))

    def get_adapters_template(use_tz: bool, timezone: Any) -> AdaptersMap:
        if not conf.is_on:
            found: AdaptersMap = original(use_tz, timezone)
            return found
        # The same one when another type is tracked: a project may have added to it.
        made = template(use_tz, timezone)
        dumping.install(made)
        return made

    def cache_clear() -> None:
        original.cache_clear()
        template.cache_clear()

    # As Django's has it: what is registered with psycopg later is in the next one.
    taken: Any = functools.wraps(original)(get_adapters_template)
    taken.cache_clear, taken.cache_info = cache_clear, template.cache_info
    return taken


# Connects and checkouts


def _init_connection_state(original: Any) -> Any:
    """Wrap ``DatabaseWrapper.init_connection_state()``: each connect and checkout.

    Django tells by `connection_created` as well, right after. To send that, caching or
    not, took an eighth of what a checkout from its pool costs (15,000 of 120,000
    instructions: callgrind, Django 6.1.3, Python 3.13).
    """

    def init_connection_state(self: Any) -> None:
        original(self)
        state: ConnectionState | None = getattr(self.connection, ATTRIBUTE, None)
        if state is None:
            if not connections.is_ours(self, self.connection):
                # Django's receiver serves it: the signal may be spared no more.
                connection_created.sender_receivers_cache.pop(type(self), None)
                return
            state = connections.track(self.connection, self.alias)
        state.notes_checkouts = True

    return init_connection_state


def connected(
    connection: Any, signal: Any = None, sender: Any = None, **kwargs: Any
) -> None:
    """Receive `connection_created`: of wrappers that do not tell us themselves."""
    if not conf.is_on:
        return
    pg_connection = getattr(connection, "connection", None)
    state = connections.state_behind(pg_connection)
    if state is None:
        if connections.is_ours(connection, pg_connection):
            connections.track(pg_connection, connection.alias)
    elif state.notes_checkouts and sender is not None:
        _spare(sender)


OURS: set[Any] = {UID}
"""Lookup keys of this package's receivers of `connection_created`."""


def _spare(sender: Any) -> None:
    """Skip the signal for *sender* while our receivers are the only ones.

    Those that track an alias which was switched off are Django's.
    """
    # Signal.lock, .receivers and .sender_receivers_cache, which connect() and
    # disconnect() clear.
    with connection_created.lock:
        lookup_keys = {receiver[0][0] for receiver in connection_created.receivers}
        if lookup_keys <= OURS and not conf.is_any_off():
            connection_created.sender_receivers_cache[sender] = NO_RECEIVERS


# Errors


class Noticing:
    """What makes a `DatabaseErrorWrapper` take notice of what passes.

    What a server refuses, psycopg's cursors tell. A value that does not parse raises
    when it is fetched, inside these ``with`` statements: an error costs a look and a
    success nothing.
    """

    wrapper: Any

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if exc_type is None:
            return
        evidence.notice(self.wrapper.connection, exc_value)
        try:
            super().__exit__(exc_type, exc_value, traceback)  # type: ignore[misc]
        except Exception as raised:
            # Django's own error, which is what people see.
            for note in getattr(exc_value, "__notes__", ()):
                raised.add_note(note)
            raise


class NoticingErrorWrapper(Noticing, DatabaseErrorWrapper):
    """Django's `DatabaseErrorWrapper`, taking notice of what passes."""


def _wrap_database_errors(original: Any) -> Any:
    noticing = cached_property(NoticingErrorWrapper)
    noticing.__set_name__(DatabaseWrapper, "wrap_database_errors")
    return noticing


PATCHES = (
    Patch(psycopg_any, "get_adapters_template", _adapters_template),
    Patch(
        base,
        "get_adapters_template",
        lambda original: psycopg_any.get_adapters_template,
    ),
    Patch(DatabaseWrapper, "init_connection_state", _init_connection_state, ("self",)),
    Patch(
        DatabaseWrapper,
        "wrap_database_errors",
        _wrap_database_errors,
        is_inherited=True,
    ),
)
