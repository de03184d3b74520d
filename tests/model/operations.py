"""What operators do: they move databases and aliases, and create types anew."""

from __future__ import annotations

import functools
from contextlib import ExitStack, suppress

import psycopg
from django.core.signals import request_started
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from django_pg_hot_async import forget
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from tests.scenarios import connections

from .clients import OWN, Client
from .comparison import Comparison
from .cursors import plain_query
from .deployment import ERRORS, OFF, clients, counts, doors, nearby, places
from .schema import ORDERS, TEMPLATES
from .world import Door, Place


class Operations(Comparison):
    """Moves and mishaps, and what the project itself tells the app."""

    @rule(name=clients)
    def toggle(self, name: str) -> None:
        """Open, or close, or hand back to the pool."""
        client = self.clients[name]
        if client.is_open:
            self.end(client)
            client.let_go()
            client.do(client.close)
            self.reads(0)
        else:
            self.open(client)

    @rule(door=doors, to=places)
    def move(self, door: int, to: int) -> None:
        """Lead somewhere else: new connections, or, by a pooler, the open ones."""
        self._move(self.doors[door], self.world.places[to])

    def _move(self, door: Door, place: Place) -> None:
        self.leave(door)
        door.lead(place)
        counts["moves"] += 1
        self.reads(0)

    @rule(door=doors, to=places)
    def cut_over(self, door: int, to: int) -> None:
        """Lead somewhere else, and end the connections that are open."""
        there = self.doors[door]
        place, old = self.world.places[to], there.place
        if there.bouncer is not None:
            self.leave(there)
            gone = [c for c in self.clients.values() if c.door is there and c.is_open]
            there.place = place
            there.bouncer.switch(place.server, place.dbname, kill=True)
        else:
            gone = self.here(old)
            there.lead(place)
            self.world.terminate(old)
        self.meet_the_end(gone)
        counts["moves"] += 1

    def leave(self, door: Door) -> None:
        """End the transactions that a pooler would wait for."""
        if door.is_pooler:
            for client in self.clients.values():
                if client.door is door:
                    self.end(client)

    def meet_the_end(self, clients: list[Client]) -> None:
        """The connections of *clients* were cut: each is told, and gets rid of it."""
        for client in clients:
            try:
                client.do(functools.partial(plain_query, client))
            except psycopg.OperationalError:
                client.drop()
            else:
                raise AssertionError(f"{client} was not cut")
        # A pool replaces a connection that it gets back broken.
        self.reads(len(clients))

    @precondition(lambda self: self.left["recreate"])
    @rule(place=nearby, order=st.sampled_from(ORDERS))
    def recreate(self, place: int, order: tuple[str, ...]) -> None:
        """Drop the types, and create them in another order; or create them late."""
        self.left["recreate"] -= 1
        there = self.near(place)
        self.end_locks(there)
        self.world.recreate(there, order)
        self.unsettle()
        counts["types created anew"] += 1
        self.reads(0)

    @rule(place=nearby)
    def complete(self, place: int) -> None:
        """Create the types that are missing, and the table, under open connections."""
        there = self.near(place)
        if there.layout.types and not there.layout.is_whole:
            self.end_locks(there)
            self.world.complete(there)
            self.unsettle()
            counts["types created late"] += 1
            self.reads(0)

    @precondition(lambda self: self.left["rebuild"])
    @rule(place=nearby, template=st.sampled_from(TEMPLATES))
    def rebuild(self, place: int, template: str) -> None:
        """Drop the database and create it anew, with other OIDs."""
        self.left["rebuild"] -= 1
        there = self.near(place)
        here = self.here(there)
        with ExitStack() as stack:
            for door in self.doors:
                if door.bouncer is not None and door.place is there:
                    self.leave(door)
                    stack.enter_context(door.bouncer.paused())
            if (session := self.shadows.pop(there, None)) is not None:
                session.close()
            self.world.rebuild(there, template)
            self.unsettle()
        if not self.doors[0].is_pooler:
            self.meet_the_end(here)
        counts["databases created anew"] += 1
        self.reads(0)

    @rule(place=nearby)
    def add_label(self, place: int) -> None:
        """The enum gets another label: its OID, another shape."""
        there = self.near(place)
        if "mood" in there.layout.oids:
            self.world.add_label(there)
            self.unsettle()
            counts["labels added"] += 1
            self.reads(0)

    def near(self, place: int) -> Place:
        """Return a place; as a rule one that a door leads to."""
        if place < len(self.world.places):
            return self.world.places[place]
        return self.doors[place % 2].place

    @rule(name=st.sampled_from(("default", OWN, None)))
    def forget(self, name: str | None) -> None:
        self._forget(name)

    def _forget(self, name: str | None) -> None:
        if name is None:
            forget()
            for alias in self.promise.aliases:
                self.promise.withdraw(alias)
        else:
            self.promise.withdraw(name)
            runtime.alias(name)
            forget(name)

    @rule(number=st.sampled_from((0, 1)))
    def begin_request(self, number: int) -> None:
        """A request begins in a thread: it may get another connection."""
        client = self.cast.threads[number]
        # It does not begin in a transaction: Django would close the connection.
        self.end(client)
        client.do(lambda: request_started.send(sender=type(self)))
        if not client.is_open:
            # It went back to Django's pool.
            client.let_go()
        self.reads(0)

    @precondition(lambda self: self.has_off)
    @rule(number=st.sampled_from((0, 1)))
    def leave_alone(self, number: int) -> None:
        """An alias that is switched off is left to Django as it is (I5)."""
        thread = self.cast.threads[number]

        def work() -> None:
            wrapper = connections.create_connection(OFF)
            wrapper.settings_dict = thread.wrapper.settings_dict
            connections[OFF] = wrapper
            try:
                with wrapper.cursor() as cursor:
                    assert state_of(wrapper.connection) is None
                    with suppress(*ERRORS):
                        cursor.execute("select attrs, feels from product")
                        cursor.fetchall()
            finally:
                wrapper.close()
                wrapper.close_pool()
                del connections[OFF]

        thread.do(work)
        self.reads(0)
        assert OFF not in runtime.aliases
