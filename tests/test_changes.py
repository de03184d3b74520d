"""Telling people: the signal and the log."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from django_pg_hot_async.signals import server_changed

from .scenarios import (
    KINDS,
    ORDERS,
    ask_for,
    connection,
    create_types,
    database,
    drop_types,
    lead,
)

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


def test_what_is_sent(moved, received, blue, green):
    moved(blue)
    moved(green)
    (event,) = received.wait()
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
    """Noticed in the middle of a query: a receiver can still use the database."""
    answers = []

    def asking(sender, **kwargs):
        answers.append(ask_for(SELECT))

    green.create_database("anew")
    create_types(green, "anew", ORDERS["blue"])
    lead("default", database(green.database("anew"), KINDS["C2"]))
    server_changed.connect(asking)
    try:
        ask_for(SELECT)
        drop_types(green, "anew")
        create_types(green, "anew", ORDERS["green"])
        ask_for(SELECT)
        (event,) = received.wait()
        assert event["old"].types.keys() == event["new"].types.keys()
        assert event["old"].types != event["new"].types
        for _ in range(100):
            if answers:
                break
            threading.Event().wait(0.05)
        assert answers == [({"weight": "9 kg", "gone": None},)]
    finally:
        server_changed.disconnect(asking)
        connection.close()
        green.drop_database("anew")


def test_a_receiver_that_raises_is_logged_and_harms_nothing(
    moved, received, blue, green, caplog
):
    def failing(sender, **kwargs):
        raise RuntimeError("not my day")

    server_changed.connect(failing)
    try:
        moved(blue)
        assert moved(green) == ({"weight": "9 kg", "gone": None},)
    finally:
        server_changed.disconnect(failing)
    received.wait()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "django.dispatch"
    assert "not my day" in str(record.exc_info[1])


def test_from_an_event_loop_a_thread_sends(received):
    """Receivers may block; the loop does not wait for them."""
    from django_pg_hot_async import _changes, _memory
    from django_pg_hot_async._server import Server

    here = threading.get_ident()
    senders = []
    server_changed.connect(
        senders_of := lambda **kw: senders.append(threading.get_ident())
    )

    async def announce():
        servers = [Server(150018, "h", port, "d") for port in ("1", "2")]
        change = _memory.Change("default", servers[0], None, servers[1], None)
        _changes.announce(change, in_query=False)

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
        ("DEBUG", f"default: verified a connection to {at(blue)}"),
        ("INFO", f"default: moved from {at(blue)} to {at(green)}"),
        ("DEBUG", f"default: verified a connection to {at(green)}"),
        ("INFO", f"default: types of {at(green)}: {moves(caplog)}"),
    ]


def moves(caplog):
    text = caplog.records[-1].getMessage().rpartition(": ")[2]
    assert "hstore" in text and " -> " in text
    return text


def at(server):
    version = f"{server.version // 10000}.{server.version % 10000}"
    return f"PostgreSQL {version} at 127.0.0.1:{server.port}/shop"
