"""Telling people: the signal and the log."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import transaction
from psycopg.types.enum import EnumInfo, register_enum
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from django_pg_hot_async import pool as hooks
from django_pg_hot_async import register_type, status
from django_pg_hot_async._core import runtime
from django_pg_hot_async._core.runtime import Change
from django_pg_hot_async._core.server import Server
from django_pg_hot_async._django import notify
from django_pg_hot_async.signals import server_changed
from django_pg_hot_async.testing import PgBouncer

from .scenarios import (
    ANVIL,
    KINDS,
    ORDERS,
    ask_for,
    close_all,
    connection,
    create_types,
    database,
    drop_types,
    lead,
    own_database,
)
from .shop.models import Product

ATTRS = ANVIL["attrs"]
SELECT = "select attrs from product where name = 'anvil'"


class Received:
    """A receiver; `wait` returns what it was sent."""

    def __init__(self):
        self.events = []
        self._came = threading.Semaphore(0)

    def __call__(self, sender, **kwargs):
        self.events.append(kwargs)
        self._came.release()

    def wait(self, number=1):
        for _ in range(number):
            assert self._came.acquire(timeout=10), "nothing was sent"
        return self.events


@pytest.fixture
def received():
    receiver = Received()
    server_changed.connect(receiver)
    yield receiver
    server_changed.disconnect(receiver)


@pytest.fixture
def moved(service, blue):
    service.point("shop", blue, "shop")
    lead("default", database(service.database("shop"), KINDS["C1"]))

    def move(server):
        connection.close()
        service.point("shop", server, "shop")
        return ask_for(SELECT)

    return move


def test_a_type_that_is_in_two_schemas(moved, received, green, caplog):
    """Each has a name of its own, in the signal and in the log."""
    caplog.set_level(logging.INFO, "django_pg_hot_async")
    mood = "create type other.mood as enum ('ok')"
    with own_database(green, "two", [*ORDERS["green"], f"create schema other; {mood}"]):
        register_type("mood", EnumInfo, register_enum)
        lead("default", green.database("two"))
        [ok] = ask_for("select 'ok'::mood")
        assert ok.name == "ok"
        green.execute(f"drop type other.mood; {mood}", dbname="two")
        connection.close()
        [ok, other] = ask_for("select 'ok'::mood, 'ok'::other.mood")
        assert ok.name == other.name == "ok"
        (event,) = received.wait()
        # A value with the new label shows it; the next statement asks.
        green.execute("alter type mood add value 'new'", dbname="two")
        for _ in range(2):
            [new] = ask_for("select 'new'::mood")
            assert new.name == "new"
        received.wait()
    old, new = event["old"].types, event["new"].types
    assert {name for name in old if old[name] != new[name]} == {"other.mood"}
    assert "other.mood {} -> {}".format(old["other.mood"], new["other.mood"]) in (
        caplog.text
    )
    assert "same OIDs; changed: public.mood" in caplog.text


def test_sent_once_for_each_server(moved, received, blue, green, twin):
    for server in (blue, blue, green, green, blue, green, twin):
        moved(server)
    assert [
        (event["alias"], event["old"].version, event["new"].port)
        for event in received.wait(2)
    ] == [
        ("default", blue.version, str(green.port)),
        ("default", green.version, str(twin.port)),
    ]


def test_a_way_back_is_told(moved, received, blue, green, caplog, monkeypatch):
    """Each time, where the server was not reached for long."""
    caplog.set_level(logging.INFO, "django_pg_hot_async")
    monkeypatch.setattr(runtime, "QUIET_SECONDS", 0.0)
    for server in (blue, green, blue, green):
        moved(server)
    assert [
        (event["old"].port, event["new"].port, event["is_return"])
        for event in received.wait(3)
    ] == [
        (str(blue.port), str(green.port), False),
        (str(green.port), str(blue.port), True),
        (str(blue.port), str(green.port), True),
    ]
    assert status()[0]["counts"]["changes"] == 1
    assert f"default: moved back from {at(green)} to {at(blue)}" in caplog.messages


@pytest.mark.pgbouncer
def test_a_way_back_of_open_connections_is_told(received, blue, green, monkeypatch):
    """By a pooler, of whom a connection never shows that it leads elsewhere."""
    monkeypatch.setattr(runtime, "QUIET_SECONDS", 0.0)
    with PgBouncer(blue, "shop") as bouncer:
        lead("default", database(bouncer.database(), KINDS["C2"]))
        for server in (blue, green, blue, green):
            bouncer.switch(server)
            assert ask_for(SELECT) == (ATTRS,)
        events = received.wait(3)
        connection.close()
    assert [
        (event["old"].version, event["new"].version, event["is_return"])
        for event in events
    ] == [
        (blue.version, green.version, False),
        (green.version, blue.version, True),
        (blue.version, green.version, True),
    ]
    assert {event["new"].port for event in events} == {str(bouncer.port)}
    assert status()[0]["counts"]["changes"] == 1


def test_what_is_sent(moved, received, blue, green):
    moved(blue)
    moved(green)
    (event,) = received.wait()
    assert event.keys() == {"signal", "alias", "old", "new", "is_return"}
    old, new = event["old"], event["new"]
    assert (old.version, old.host, old.dbname) == (blue.version, "127.0.0.1", "shop")
    assert set(old.types) == {"hstore", "citext"}
    assert new.version == green.version
    assert new.types is None  # nothing was asked yet: the connection is new


def test_sent_before_the_query_goes_on_when_connecting_shows_it(
    moved, received, blue, green
):
    moved(blue)
    connection.close()
    moved(green)
    assert len(received.events) == 1


def test_types_made_anew_on_the_same_server(green, received):
    with own_database(green, "anew", ORDERS["blue"]):
        lead("default", database(green.database("anew"), KINDS["C2"]))
        ask_for(SELECT)
        drop_types(green, "anew")
        create_types(green, "anew", ORDERS["green"])
        ask_for(SELECT)
        (event,) = received.wait()
        assert event["old"].types.keys() == event["new"].types.keys()
        assert event["old"].types != event["new"].types


# Receivers of every kind, however the change shows


class Asking:
    """A receiver that uses the database, over the alias that changed."""

    def __init__(self):
        self.answers = []
        self.came = threading.Semaphore(0)

    def note(self, attrs):
        self.answers.append(attrs)
        self.came.release()

    def sync(self, sender, **kwargs):
        self.note(Product.objects.get(name="anvil").attrs)

    async def coroutine(self, sender, **kwargs):
        self.note((await Product.objects.aget(name="anvil")).attrs)


@pytest.fixture(params=["sync", "coroutine"])
def asking(request):
    asking = Asking()
    receiver = getattr(asking, request.param)
    server_changed.connect(receiver)
    yield asking
    server_changed.disconnect(receiver)


def answered(asking):
    """One answer came, in time; no more of them is on its way."""
    assert asking.came.acquire(timeout=10), "the receiver waits for itself"
    join_senders()
    return asking.answers == [ATTRS]


def join_senders():
    for thread in threading.enumerate():
        if thread.name.startswith("django_pg_hot_async-"):
            thread.join(10)
            assert not thread.is_alive()


def test_receiver_uses_the_connection_that_was_opened(moved, asking, blue, green):
    moved(blue)
    moved(green)
    assert answered(asking)
    moved(green)
    assert answered_once(asking)


def answered_once(asking):
    join_senders()
    return asking.answers == [ATTRS]


@pytest.mark.parametrize("kind", ["C2", "C3"])
def test_receiver_uses_the_connection_of_a_transaction(
    service, asking, kind, blue, green
):
    """A pool of one connection is enough."""
    target = database(service.database("shop"), KINDS[kind])
    if kind == "C3":
        target["OPTIONS"]["pool"] = {"min_size": 0, "max_size": 1, "timeout": 5}
    service.point("shop", blue, "shop")
    lead("default", target)
    ask_for(SELECT)
    close_all()
    service.point("shop", green, "shop")
    with transaction.atomic():
        assert ask_for(SELECT) == (ATTRS,)
    assert answered(asking)


async def test_receiver_under_the_async_orm(service, asking, blue, green):
    """A thread connects, whose loop is free to run a receiver that is a coroutine."""
    lead("default", database(service.database("shop"), KINDS["C1"]))
    async with ThreadSensitiveContext():
        for server in (blue, green):
            service.point("shop", server, "shop")
            product = await Product.objects.aget(name="anvil")
            assert product.attrs == ATTRS
            await sync_to_async(close_all)()
    assert await asyncio.to_thread(answered, asking)


def test_receiver_of_a_change_in_the_middle_of_a_query(green, asking):
    with own_database(green, "anew", ORDERS["blue"]):
        lead("default", database(green.database("anew"), KINDS["C2"]))
        ask_for(SELECT)
        drop_types(green, "anew")
        create_types(green, "anew", ORDERS["green"])
        assert ask_for(SELECT) == (ATTRS,)
        assert answered(asking)


ONE: dict[str, Any] = {"min_size": 1, "max_size": 1, "open": False, "timeout": 5}


def test_receiver_uses_the_pool_that_found_the_change(service, blue, green):
    """Of its one connection, which the pool is about to hand out."""
    answers = []
    own = ConnectionPool("service=shop", configure=hooks.configure("own"), **ONE)

    def asking(sender, **kwargs):
        with own.connection() as conn:
            answers.append(conn.execute(SELECT).fetchone())

    server_changed.connect(asking)
    try:
        service.point("shop", blue, "shop")
        with own:
            for server in (blue, green):
                service.point("shop", server, "shop")
                with own.connection() as conn:
                    assert conn.execute(SELECT).fetchone() == (ATTRS,)
                    conn.close()
            own.wait()
            join_senders()
    finally:
        server_changed.disconnect(asking)
    assert answers == [(ATTRS,)]


async def test_receiver_while_a_loop_runs(service, asking, blue, green):
    """The loop goes on; a thread of its own asks, over the alias of that name."""
    lead("default", database(service.database("shop"), KINDS["C1"]))
    service.point("shop", blue, "shop")
    own = AsyncConnectionPool(
        "service=shop", configure=hooks.aconfigure("default"), **ONE
    )
    async with own:
        for server in (blue, green):
            service.point("shop", server, "shop")
            async with own.connection() as conn:
                cursor = await conn.execute(SELECT)
                assert await cursor.fetchone() == (ATTRS,)
                await conn.close()
    assert await asyncio.to_thread(answered, asking)


# Once, whoever notices


def test_many_threads_that_connect_at_once(moved, received, service, blue, green):
    moved(blue)
    close_all()
    service.point("shop", green, "shop")
    in_threads(16, lambda: ask_for(SELECT) == (ATTRS,))
    assert len(received.wait()) == 1
    join_senders()
    assert len(received.events) == 1


def test_many_connections_that_see_the_types_made_anew(green, received):
    """Open before, and each finding it out for itself: one set of OIDs, one signal."""
    made = threading.Barrier(9)

    def work():
        assert ask_for(SELECT) == (ATTRS,)
        made.wait(30)
        made.wait(30)
        return ask_for(SELECT) == (ATTRS,)

    def make():
        made.wait(30)
        drop_types(green, "anew")
        create_types(green, "anew", ORDERS["green"])
        made.wait(30)
        return True

    with own_database(green, "anew", ORDERS["blue"]):
        lead("default", database(green.database("anew"), KINDS["C2"]))
        in_threads(9, *[work] * 8, make)
        received.wait()
        join_senders()
        assert len(received.events) == 1


def in_threads(number, *functions):
    """Run them at once, each in a thread; they return True."""
    functions = functions * (number // len(functions))
    ready = threading.Barrier(number)

    def run(function):
        ready.wait(30)
        try:
            return function()
        finally:
            close_all()

    with ThreadPoolExecutor(number) as executor:
        assert list(executor.map(run, functions)) == [True] * number


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_sends_its_own(service, received, blue, green):
    """In place where it connects, and by a thread in the middle of a query."""
    read_end, write_end = os.pipe()
    with own_database(green, "anew", ORDERS["blue"]):
        lead("default", database(service.database("shop"), KINDS["C2"]))
        service.point("shop", blue, "shop")
        ask_for(SELECT)
        close_all()
        pid = os.fork()
        if pid == 0:
            try:
                service.point("shop", green, "shop")
                ask_for(SELECT)
                close_all()
                service.point("shop", green, "anew")
                ask_for(SELECT)
                drop_types(green, "anew")
                create_types(green, "anew", ORDERS["green"])
                ask_for(SELECT)
                events = received.wait(2)
                text = repr([event["new"].types is None for event in events])
            except BaseException as error:
                text = repr(error)
            os.write(write_end, text.encode())
            os._exit(0)
        os.close(write_end)
        with open(read_end) as answer:
            assert answer.read() == "[True, False]"
        os.waitpid(pid, 0)
        assert received.events == []


# Receivers that raise


class Failing:
    """Not a function: it has no __qualname__, which Django's own log line wants."""

    def __call__(self, sender, **kwargs):
        raise RuntimeError("not my day")


def failing(sender, **kwargs):
    raise RuntimeError("not my day")


async def afailing(sender, **kwargs):
    raise RuntimeError("not my day")


@pytest.mark.parametrize("receiver", [failing, afailing, Failing()])
def test_a_receiver_that_raises_is_logged_and_harms_nothing(
    moved, received, blue, green, caplog, receiver
):
    late = Received()
    server_changed.connect(receiver)
    server_changed.connect(late)
    try:
        moved(blue)
        assert moved(green) == (ATTRS,)
    finally:
        server_changed.disconnect(receiver)
        server_changed.disconnect(late)
    assert len(received.events) == len(late.events) == 1
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "django.dispatch"
    assert "ailing" in record.getMessage()
    assert "not my day" in str(record.exc_info[1])


def test_a_receiver_that_raises_in_a_thread(green, caplog):
    with own_database(green, "anew", ORDERS["blue"]):
        lead("default", database(green.database("anew"), KINDS["C2"]))
        ask_for(SELECT)
        server_changed.connect(failing)
        try:
            drop_types(green, "anew")
            create_types(green, "anew", ORDERS["green"])
            assert ask_for(SELECT) == (ATTRS,)
            join_senders()
        finally:
            server_changed.disconnect(failing)
    assert [record.name for record in caplog.records if record.exc_info] == [
        "django.dispatch"
    ]


def test_from_an_event_loop_a_thread_sends(received):
    """Receivers may block; the loop does not wait for them."""
    here = threading.get_ident()
    senders = []
    server_changed.connect(
        senders_of := lambda **kw: senders.append(threading.get_ident())
    )

    async def announce():
        servers = [Server(150018, "h", port, "d") for port in ("1", "2")]
        change = Change("default", servers[0], None, servers[1], None)
        notify.announce(change, in_query=False)

    try:
        asyncio.run(announce())
        received.wait()
    finally:
        server_changed.disconnect(senders_of)
    assert senders and senders[0] != here


def test_log_lines(moved, blue, green, caplog):
    caplog.set_level(logging.DEBUG, logger="django_pg_hot_async")
    moved(blue)
    moved(green)
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert levels == [
        ("DEBUG", f"default: read the types of {at(blue)}"),
        ("INFO", f"default: moved from {at(blue)} to {at(green)}"),
        ("INFO", f"default: types of {at(green)}: {moves(caplog)}"),
        ("DEBUG", f"default: read the types of {at(green)}"),
    ]


@pytest.mark.pgbouncer
def test_the_log_names_the_version_that_a_moved_connection_does_not_show(
    blue, green, caplog
):
    kind = KINDS["C2"]
    with PgBouncer(blue, "shop") as bouncer:
        lead("default", database(bouncer.database(), kind))
        kind.read()
        bouncer.switch(green)
        caplog.set_level(logging.INFO, logger="django_pg_hot_async")
        kind.read()
        assert connection.connection.info.server_version == blue.version
        connection.close()
        # A new one shows the version: the server is the one that is known.
        kind.read()
        assert connection.connection.info.server_version == green.version
        connection.close()
    assert status()[0]["counts"]["changes"] == 1
    old, new = at(blue, bouncer.port), at(green, bouncer.port)
    assert [record.getMessage() for record in caplog.records] == [
        f"default: moved from {old} to {new}",
        f"default: types of {new}: {moves(caplog)}",
    ]
    for record in caplog.records:
        assert (record.old_version, record.new_version) == (blue.version, green.version)


def moves(caplog):
    [*_, record] = [one for one in caplog.records if one.levelno == logging.INFO]
    text = record.getMessage().rpartition(": ")[2]
    assert "hstore" in text and " -> " in text
    return text


def at(server, port=None):
    version = f"{server.version // 10000}.{server.version % 10000}"
    return f"PostgreSQL {version} at 127.0.0.1:{port or server.port}/shop"
