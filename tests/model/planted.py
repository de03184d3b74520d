"""Bugs to plant, one at a time: each breaks one thing that the promise stands on.

A search that does not find every one of them proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psycopg
from psycopg import pq
from psycopg.types import TypeInfo
from psycopg.types.hstore import register_hstore

from django_pg_hot_async import _catalog, _connections, _link, _memory, _reading
from django_pg_hot_async._link import Link
from django_pg_hot_async._memory import Alias

from .promise import LEVELS

Patch = Callable[[Any, str, Any], None]
Plant = Callable[[Patch], None]
Bugs = dict[str, tuple[Plant, tuple[str, ...]]]
BUGS: Bugs = {}
"""How to plant each, and the levels of trust at which it can show."""
BACKEND_BUGS: Bugs = {}
"""Those that show with django-async-backend only."""


def bug(*levels: str, bugs: Bugs = BUGS) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        bugs[plant.__name__] = (plant, levels or LEVELS)
        return plant

    return add


@bug("server")
def memory_is_keyed_by_alias_alone(patch: Patch) -> None:
    """What was read from one server is taken for another's."""

    def recall(self: Alias, server: Any) -> Any:
        for known in reversed(list(self.servers.values())):
            return known if known.is_trusted else None
        return None

    patch(Alias, "recall", recall)


@bug("server", "connection", "checkout")
def loaders_are_trusted_once_too_long(patch: Patch) -> None:
    """A connection goes on by what it holds when trust was withdrawn."""
    patch(Link, "snapshot", property(lambda self: self._snapshot))


@bug("checkout")
def a_checkout_does_not_begin_anew(patch: Patch) -> None:
    patch(Link, "renew", lambda self: None)


@bug("checkout")
def every_other_checkout_does_not_begin_anew(patch: Patch) -> None:
    renew, skipped = Link.renew, set()

    def sometimes(self: Link) -> None:
        if id(self) in skipped:
            skipped.discard(id(self))
            renew(self)
        else:
            skipped.add(id(self))

    patch(Link, "renew", sometimes)


@bug("server", "connection")
def an_oid_that_is_news_is_not_asked_about(patch: Patch) -> None:
    verify = Link._verify

    def only_at_first(self: Any, context: Any, *, anew: bool = False, **kw: Any) -> Any:
        if anew and self.snapshot:
            return self.snapshot
        return verify(self, context, **kw)

    patch(Link, "_verify", only_at_first)


@bug()
def a_cursors_own_types_are_missed(patch: Patch) -> None:
    """Parameters look in the connection's map, not in that of an older cursor."""
    sending = Link.sending

    def by_connection(self: Link, context: Any, is_known: Any) -> Any:
        connection = context.connection
        other: Any = SimpleNamespace(
            connection=connection, adapters=connection.adapters
        )
        return sending(self, other, is_known)

    patch(Link, "sending", by_connection)


@bug("server", "connection", "checkout")
def nothing_withdraws_trust(patch: Patch) -> None:
    patch(Alias, "withdraw", lambda self: None)


@bug("connection", "checkout")
def a_difference_is_no_evidence(patch: Patch) -> None:
    """Other connections go on by what one of them found changed."""
    learn = Alias.learn

    def quietly(self: Alias, server: Any, snapshot: Any, **kwargs: Any) -> Any:
        before = self.epoch
        _, change = learn(self, server, snapshot, **kwargs)
        self.epoch = before
        return kwargs["epoch"], change

    patch(Alias, "learn", quietly)


@bug("server", "connection")
def an_error_is_no_evidence(patch: Patch) -> None:
    patch(Link, "doubt", lambda self, *, refused: False)


@bug()
def what_is_untracked_is_asked_about_again(patch: Patch) -> None:
    patch(Link, "_learn_untracked", lambda self, *args: None)


@bug()
def a_read_at_each_connect(patch: Patch) -> None:
    look_after = _connections.look_after

    def reading(pg_connection: Any, alias: str, **kwargs: Any) -> Any:
        link = look_after(pg_connection, alias, **kwargs)
        if not hasattr(pg_connection, "__aenter__"):
            link.verify(pg_connection)
        return link

    patch(_connections, "look_after", reading)


@bug("result")
def a_result_is_trusted_like_a_checkout(patch: Patch) -> None:
    begin = Link.begin

    def carelessly(self: Any) -> bool:
        snapshot = self._snapshot
        stale = begin(self)
        self._snapshot, self._is_of_result = snapshot, True
        return stale

    patch(Link, "begin", carelessly)


@bug("server", "connection", "checkout")
def a_kept_cursor_keeps_its_loaders(patch: Patch) -> None:
    begin = Link.begin

    def forgetting(self: Link) -> bool:
        begin(self)
        return False

    patch(Link, "begin", forgetting)


@bug()
def a_read_leaves_a_transaction_open(patch: Patch) -> None:
    verify = Link._verify

    def beginning(self: Any, context: Any, **kwargs: Any) -> Any:
        found = verify(self, context, **kwargs)
        pgconn = context.connection.pgconn
        if pgconn.transaction_status == pq.TransactionStatus.IDLE:
            pgconn.exec_(b"begin")
        return found

    patch(Link, "_verify", beginning)


@bug()
def oids_are_registered_on_connections(patch: Patch) -> None:
    learn = Link._learn

    def registering(self: Any, *args: Any) -> Any:
        snapshot, context = learn(self, *args), args[-1]
        for name, row in snapshot.by_name().items():
            if name == "hstore":
                register_hstore(TypeInfo(name, row.oid, 0), context.connection)
        return snapshot

    patch(Link, "_learn", registering)


@bug()
def a_pool_checks_without_a_look(patch: Patch) -> None:
    verify = Link.verify

    def once(self: Link, connection: Any) -> bool:
        return self.snapshot is not None or verify(self, connection)

    patch(Link, "verify", once)


@bug("server")
def the_server_is_told_by_its_version_alone(patch: Patch) -> None:
    """As the package this one succeeds did."""
    attach = _link.attach

    def by_version(connection: Any, alias: str) -> Link:
        link = attach(connection, alias)
        link.server = replace(link.server, host="", port="", dbname="")
        return link

    patch(_connections, "attach", by_version)


@bug("server")
def a_way_back_is_not_noticed(patch: Patch) -> None:
    """The answers of a server are remembered for good, and any of them will do."""
    recall = Alias.recall

    def first(self: Alias, server: Any) -> Any:
        known = recall(self, server)
        return known and replace(known, snapshot=known.answers[0])

    patch(_memory.Alias, "recall", first)


@bug("connection", "checkout", "result")
def what_is_confirmed_is_taken_for_all_there_is(patch: Patch) -> None:
    """A type created since is one that nobody tracks, then."""

    def as_a_read(self: Any, catalog: Any, check: Any) -> None:
        self._reads += 1

    patch(Link, "_note", as_a_read)


@bug()
def nothing_is_read_ahead(patch: Patch) -> None:
    """Of COPY, stream() and pipelines: in them it is too late."""

    def nothing(self: Link, context: Any) -> Iterator[None]:
        yield from ()

    patch(Link, "read_ahead", nothing)


@bug()
def an_old_transaction_is_believed(patch: Patch) -> None:
    """A type that is newer than what it sees is one that nobody tracks, then."""

    def nothing(*args: Any) -> Iterator[None]:
        yield from ()

    patch(_catalog, "_look_for_newer", nothing)


@bug("server", "connection", "checkout")
def what_an_old_transaction_saw_is_news(patch: Patch) -> None:
    learn = Alias.learn

    def as_of_now(self: Alias, server: Any, snapshot: Any, **kwargs: Any) -> Any:
        return learn(self, server, snapshot, **{**kwargs, "is_old": False})

    patch(Alias, "learn", as_of_now)


@bug()
def a_read_that_fails_is_passed_over(patch: Patch) -> None:
    """What nobody could read is taken for what cannot be read just now."""
    read = _reading.read

    def quietly(*args: Any) -> Any:
        try:
            return read(*args)
        except psycopg.Error:
            return None

    patch(_link, "read", quietly)


@bug("checkout", bugs=BACKEND_BUGS)
def a_work_unit_does_not_reach_async_connections(patch: Patch) -> None:
    from django_pg_hot_async import _async_backend

    patch(_async_backend, "open_wrappers", list)


@bug("server", bugs=BACKEND_BUGS)
def async_connections_read_from_a_server_that_is_known(patch: Patch) -> None:
    patch(Link, "awaits_read", property(lambda self: self.snapshot is None))
