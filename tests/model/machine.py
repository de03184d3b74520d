"""The state machine: traffic and operations in random order, and the invariants."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from django_pg_hot_async._core import runtime as memory
from django_pg_hot_async._core import snapshot as snapshots
from django_pg_hot_async._core.connection import ConnectionState, state_of

from .cursors import KEPT, VALUES, column_lists
from .deployment import clients, counts, places
from .schema import ORDERS, SOME
from .widened import Widened

FIRST_NORMAL_OID = 16384
SURROGATES = 2**32


class Search(Widened):
    """Invariants are the promise's; a step that breaks one is the counter-example."""

    @rule(
        name=clients,
        how=st.sampled_from(KEPT),
        columns=column_lists,
        stops=st.lists(places, min_size=2, max_size=4),
        ends=st.sampled_from(("nothing", "forget")),
    )
    def tour(
        self, name: str, how: str, columns: list[str], stops: list[int], ends: str
    ) -> None:
        """One query over one cursor, while a pooler moves the connection around."""
        client = self.use(name)
        number = self._keep(client, how, columns)
        for stop in [*stops, None]:
            if self.has_rows(client):
                self._again(client, number)
            if stop is None:
                return
            self._move(client.door, self.world.places[stop])
            if ends == "forget":
                self._forget(client.alias)

    @precondition(lambda self: not self.has_moods)
    @rule()
    def register(self) -> None:
        """A type is registered, and sent over cursors that are open already."""
        self.declare()
        self.reads(0)
        for client in self.clients.values():
            if client.is_open:
                for how, cursor in client.senders.items():
                    self._send(client, how, "mood", cursor)

    @precondition(lambda self: self.left["recreate"])
    @rule(
        name=clients,
        order=st.sampled_from(SOME),
        how=st.sampled_from(KEPT),
        columns=column_lists,
    )
    def create_late(
        self, name: str, order: tuple[str, ...], how: str, columns: list[str]
    ) -> None:
        """Types appear when others have been read, and a new connection meets them."""
        self.left["recreate"] -= 1
        client = self.use(name)
        place = self.place(client)
        self.end_locks(place)
        self.world.recreate(place, order)
        self.unsettle()
        self._read(client, how, columns)
        self.end_locks(place)
        self.world.complete(place)
        self.unsettle()
        self.end(client)
        client.let_go()
        client.do(client.close)
        self.reads(0)
        counts["types created late"] += 1
        self._read(self.use(name), how, columns)

    @precondition(lambda self: self.left["recreate"])
    @rule(
        name=clients,
        order=st.sampled_from(ORDERS),
        how=st.sampled_from(KEPT),
        kind=st.sampled_from(sorted(VALUES)),
        columns=column_lists,
    )
    def outlive(
        self, name: str, order: tuple[str, ...], how: str, kind: str, columns: list[str]
    ) -> None:
        """Types are created anew under a transaction that sees what was there."""
        self.left["recreate"] -= 1
        client = self.use(name)
        place = self.place(client)
        self.end(client)
        self.end_locks(place)
        self.begin(client)
        self._freeze(client)
        self.world.recreate(place, order)
        self.unsettle()
        for _ in range(2):
            self._read(self.use(name), how, columns)
            self._send(self.use(name), how, kind)
        self.end(client)
        self._read(self.use(name), how, columns)

    @precondition(lambda self: self.left["recreate"])
    @rule(
        name=clients,
        other=clients,
        order=st.sampled_from(SOME),
        how=st.sampled_from(KEPT),
        columns=column_lists,
    )
    def look_back(
        self,
        name: str,
        other: str,
        order: tuple[str, ...],
        how: str,
        columns: list[str],
    ) -> None:
        """Types appear under a transaction that goes on without them.

        What it sees is no news to another client, which has met them.
        """
        client, met = self.use(name), self.use(other)
        place = self.place(client)
        if met is client or self.place(met) is not place:
            return
        self.left["recreate"] -= 1
        self.end(client)
        self.end_locks(place)
        self.world.recreate(place, order)
        self.unsettle()
        self.begin(client)
        self._freeze(client)
        self.world.complete(place)
        self.unsettle()
        for one in (other, name, other):
            self._read(self.use(one), how, [*{*columns, "attrs", "tags"}])

    @invariant()
    def promises_hold(self) -> None:
        if not hasattr(self, "links"):
            return
        counts["steps"] += 1
        for connection, _ in self.links.values():
            check_nothing_registered(connection)
            if (state := state_of(connection)) is not None:
                check_bounds(state)
        # That no lock is held across I/O is looked at when there is some.
        assert not self.cast.locks.are_held()


def check_nothing_registered(connection: Any) -> None:
    """I1: nothing with an OID of a server in it, to go stale."""
    adapters = connection.adapters
    for registered in (*adapters._loaders, *adapters._dumpers_by_oid):
        oids = [oid for oid in registered if FIRST_NORMAL_OID <= oid < SURROGATES]
        assert not oids, f"registered on {connection}: {oids}"


def check_bounds(state: ConnectionState) -> None:
    """What is remembered is bounded."""
    alias = state.alias
    assert len(alias.servers) <= memory.SERVERS_AN_ALIAS
    for known in alias.servers.values():
        assert len(known.snapshot.catalog.types) <= snapshots.MAX_TYPES
        assert len(known.snapshot.untracked) <= snapshots.MAX_UNTRACKED
