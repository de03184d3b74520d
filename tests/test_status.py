"""What a process knows of servers, as dicts: right, complete, harmless to ask for."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from django.db import OperationalError
from django.test.utils import override_settings
from psycopg.types.enum import EnumInfo

from django_pg_hot_async import forget, pool, register_type, status
from django_pg_hot_async._core.catalog import Catalog, TypeRow
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.server import Server
from django_pg_hot_async._core.snapshot import Snapshot
from django_pg_hot_async._core.types import HSTORE, Registry
from django_pg_hot_async._django import connections as tracked_connections
from django_pg_hot_async._django.installed import GROUP
from django_pg_hot_async._operator.status import is_version

from .scenarios import (
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
    read,
    trust,
)

SELECT = "select attrs from product where name = 'anvil'"
NOTHING_COUNTED = {
    "reads": 0,
    "changes": 0,
    "differences": 0,
    "unexplained": 0,
}


@contextmanager
def declared():
    """Take back, at the end, what was declared in the block."""
    before = runtime.group(GROUP)
    try:
        yield
    finally:
        runtime.track(GROUP, before)
        tracked_connections.renew()


def connect():
    connection.ensure_connection()
    return connection.connection


def lead_to(server, dbname="shop", kind="C1", **settings):
    lead("default", {**database(server.database(dbname), KINDS[kind]), **settings})


def only() -> Any:
    [entry] = status()
    return entry


def described(server, dbname="shop") -> dict[str, Any]:
    return {
        "version": server.version,
        "release": f"{server.version // 10000}.{server.version % 10000}",
        "host": "127.0.0.1",
        "port": str(server.port),
        "dbname": dbname,
    }


def types_of(server, dbname="shop") -> dict[str, Any]:
    """The types, as the server itself tells them."""
    rows = server.execute(
        "select typname, typnamespace::regnamespace::text, oid::int8, typarray::int8"
        " from pg_type where typname in ('hstore', 'citext')",
        dbname=dbname,
    )
    return {
        name: {"schema": schema, "oid": oid, "array_oid": array_oid}
        for name, schema, oid, array_oid in rows
    }


def test_nothing_is_known_at_first():
    assert status() == []


def test_a_connection_that_has_only_been_opened(blue):
    lead_to(blue)
    connect()
    assert only() == {
        "alias": "default",
        "trust": "auto",
        "server": described(blue),
        "since": only()["since"],
        "types": None,
        "counts": NOTHING_COUNTED,
        "servers": [],
    }


def test_the_first_statement_has_the_types_read(blue):
    """Whatever it is: nobody knows yet that it carries none."""
    lead_to(blue)
    ask_for("select 1")
    entry = only()
    assert entry["types"] == types_of(blue)
    assert entry["counts"] == {**NOTHING_COUNTED, "reads": 1}
    assert entry["servers"] == [
        {"server": described(blue), "types": types_of(blue), "is_trusted": True}
    ]


def test_a_cutover_and_the_way_back(blue, green):
    before = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    lead_to(blue)
    read()
    first = only()
    assert first["server"] == described(blue)
    assert first["types"] == types_of(blue)
    assert first["counts"] == {**NOTHING_COUNTED, "reads": 1}

    lead_to(green)
    read()
    second = only()
    assert second["server"] == described(green)
    assert second["types"] == types_of(green) != types_of(blue)
    assert second["counts"] == {**NOTHING_COUNTED, "reads": 2, "changes": 1}
    assert second["servers"] == [
        {"server": described(blue), "types": types_of(blue), "is_trusted": True},
        {"server": described(green), "types": types_of(green), "is_trusted": True},
    ]
    moments = [datetime.fromisoformat(entry["since"]) for entry in (first, second)]
    assert all(moment.utcoffset() == timedelta(0) for moment in moments)
    assert before <= moments[0] <= moments[1] <= datetime.now(timezone.utc)

    lead_to(blue)
    read()
    third = only()
    assert third["server"] == described(blue)
    assert third["counts"] == {**NOTHING_COUNTED, "reads": 2, "changes": 1}


def test_types_created_anew_are_a_difference(blue):
    """Where nothing else told of it: the server, address and database are the same."""
    with own_database(blue, "status_anew", ORDERS["blue"]):
        lead_to(blue, "status_anew")
        read()
        since = only()["since"]
        drop_types(blue, "status_anew")
        create_types(blue, "status_anew", ORDERS["green"])
        close_all()
        read()
        entry = only()
        assert entry["types"] == types_of(blue, "status_anew")
        assert entry["counts"] == {
            **NOTHING_COUNTED,
            "reads": 2,
            "changes": 1,
            "differences": 1,
        }
        assert len(entry["servers"]) == 1
        assert entry["since"] > since


GONE = "create type gone as enum ('x'); select 'x'::gone; drop type gone"


def be_refused():
    """Have a result refused: once it has arrived, its type is on no server."""
    with pytest.raises(OperationalError, match="no such type; run the statement again"):
        ask_for(GONE)


def test_a_result_that_no_server_can_explain_is_counted(blue):
    lead_to(blue)
    be_refused()
    assert only()["counts"] == {**NOTHING_COUNTED, "reads": 1, "unexplained": 1}
    be_refused()
    read()
    assert only()["counts"]["unexplained"] == 2


def test_the_label_of_a_pool(blue):
    with psycopg.connect(blue.conninfo("shop"), autocommit=True) as conn:
        pool.configure("jobs")(conn)
        assert only()["types"] is None
        conn.execute(SELECT)
    lead_to(blue)
    read()
    assert [entry["alias"] for entry in status()] == ["default", "jobs"]
    assert status()[1]["types"] == types_of(blue)


def test_trust_is_that_of_the_settings(blue):
    lead_to(blue)
    for level in ("transaction", "server", "connection", "auto"):
        with trust(level):
            read()
            assert only()["trust"] == level


def test_forgotten_types_are_known_but_not_trusted(blue):
    lead_to(blue)
    forget("default")
    assert (only()["server"], only()["since"]) == (None, None)
    read()
    forget("default")
    assert only()["types"] == types_of(blue)
    assert [known["is_trusted"] for known in only()["servers"]] == [False]
    read()
    assert [known["is_trusted"] for known in only()["servers"]] == [True]


def test_the_version_is_the_servers_own_word(blue, green, monkeypatch):
    """A connection behind a pooler may report that of the server before."""
    monkeypatch.setattr(
        Server,
        "of",
        lambda pgconn: Server(150001, "127.0.0.1", str(green.port), "shop"),
    )
    lead_to(green)
    connect()
    assert only()["server"]["release"] == "15.1"
    read()
    assert only()["server"] == described(green)


def test_types_that_the_server_lacks_are_left_out(blue):
    with own_database(blue, "status_bare", []):
        lead_to(blue, "status_bare")
        ask_for("select 1")
        assert only()["types"] == {}


def test_types_of_one_name_in_two_schemas(blue):
    """Which of them is meant is a matter of each connection's search_path."""
    with own_database(blue, "status_tenants", ORDERS["blue"]):
        blue.execute(
            "create schema tenant; create domain tenant.citext as text",
            dbname="status_tenants",
        )
        blue.execute(
            "create schema b; create type b.mood as enum ('x')", dbname="status_tenants"
        )
        with declared():
            register_type("mood", EnumInfo)
            lead_to(blue, "status_tenants")
            ask_for("select 1")
            types = only()["types"]
    assert [*types] == ["citext", "hstore", "b.mood", "public.mood"]
    assert types["b.mood"]["schema"] == "b"
    assert types["b.mood"]["oid"] != types["public.mood"]["oid"]
    assert types["citext"]["schema"] == "public"


def test_types_of_the_projects_own(blue):
    with declared():
        register_type("public.mood", EnumInfo)
        lead_to(blue)
        read()
        [[oid, array_oid]] = blue.execute(
            "select oid::int8, typarray::int8 from pg_type where typname = 'mood'",
            dbname="shop",
        )
        assert only()["types"] == {
            **types_of(blue),
            "mood": {"schema": "public", "oid": oid, "array_oid": array_oid},
        }


def test_json_takes_it_and_gives_it_back(blue, green):
    for server in (blue, green):
        lead_to(server)
        read()
    told = status()
    assert json.loads(json.dumps(told)) == told


def test_no_secret_is_in_it(blue):
    blue.execute("create role status_clerk login superuser password 'open sesame'")
    try:
        lead_to(blue, USER="status_clerk", PASSWORD="open sesame")
        read()
        assert ask_for("select current_user") == ("status_clerk",)
        text = json.dumps(status())
        assert "shop" in text
        for secret in ("clerk", "sesame", "password", "user"):
            assert secret not in text.lower()
    finally:
        close_all()
        blue.execute("drop role status_clerk")


def test_what_it_returns_is_the_callers(blue):
    lead_to(blue)
    read()
    told = only()
    told["types"].clear()
    told["server"]["dbname"] = told["counts"]["reads"] = None
    assert only()["types"] == types_of(blue)
    assert only()["server"] == described(blue)
    assert only()["counts"]["reads"] == 1


def test_nothing_is_sent_or_waited_for(blue):
    """A signal handler may ask in the middle of a change."""
    lead_to(blue)
    read()
    told = only()
    with blue.statements() as statements:
        blue.suspend()
        try:
            with runtime.lock:
                assert only() == told
        finally:
            blue.resume()
    assert statements == []


def test_while_other_threads_are_at_it():
    """The types are those of the server they are shown with."""
    registry = Registry.of((HSTORE,))
    memory = runtime.alias("default")
    servers = [Server(180000 + n, "127.0.0.1", str(n), "shop") for n in range(4)]
    oids = [20000 + n for n in range(4)]
    snapshots = [
        Snapshot(
            Catalog(
                180000 + n,
                start=n + 1,
                types=(TypeRow("hstore", "public", oid, 90000, "b", ","),),
                visible=frozenset([oid]),
                confirmed=(oid,),
                names="{hstore}",
            ),
            registry,
        )
        for n, oid in enumerate(oids)
    ]
    done = threading.Event()

    def move():
        while not done.is_set():
            for server, snapshot in zip(servers, snapshots, strict=True):
                memory.arrive(server)
                memory.learn(server, snapshot)

    threads = [threading.Thread(target=move) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        seen: set[int] = set()
        reads = 0
        while len(seen) < 4 or reads < 1000:
            entry = only()
            if entry["types"] is not None:
                [oid] = [each["oid"] for each in entry["types"].values()]
                assert entry["server"]["port"] == str(oids.index(oid))
                seen.add(oid)
            assert entry["counts"]["reads"] >= reads
            reads = entry["counts"]["reads"]
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_importing_it_is_cheap():
    code = (
        "import sys; from django_pg_hot_async import status;"
        "print('django.db' in sys.modules, 'psycopg' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("False False\n", "")


@pytest.mark.parametrize(
    ("version", "expected", "is_it"),
    [
        (180006, "18", True),
        (180006, "18.6", True),
        (180006, "180006", True),
        (180060, "18.6", False),
        (180006, "180060", False),
        (180006, "1", False),
        (150019, "18", False),
        (180000, "18.0", True),
    ],
)
def test_is_version(version, expected, is_it):
    assert is_version(version, expected) is is_it


def test_after_settings_changed(blue):
    lead_to(blue)
    read()
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": {"TRUST": "server"}}}):
        assert only()["trust"] == "server"
    assert only()["trust"] == "auto"
