"""A rehearsal without pytest's plugin: who is where, what is lost, what is restored."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import threading
import warnings
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DEFAULT_DB_ALIAS,
    OperationalError,
    connections,
    transaction,
)
from django.db.transaction import TransactionManagementError

from django_pg_hot_async._django import startup
from django_pg_hot_async.testing import Stage
from django_pg_hot_async.testing._alias import in_thread_of_async_code
from django_pg_hot_async.testing._schema import SchemaError

from .conftest import BLUE, GREEN
from .scenarios import (
    ANVIL,
    CITEXT,
    HSTORE,
    KINDS,
    MOOD,
    ORDERS,
    TABLE,
    connection,
    database,
    lead,
    own_database,
    trust,
)
from .shop.models import Product


def prepare(server, dbname):
    """The tests' models are not managed: what their migrations would do."""
    for statement in (HSTORE, CITEXT, MOOD, TABLE):
        server.execute(statement, dbname=dbname)
    server.execute("truncate product restart identity", dbname=dbname)


@pytest.fixture(scope="module")
def stage():
    with Stage(BLUE, GREEN, prepare=prepare) as stage:
        yield stage


@pytest.fixture(scope="module")
def shop(green):
    """Where the alias leads otherwise; nobody else writes to it."""
    with own_database(green, "rehearsed", ORDERS["green"]):
        yield green.database("rehearsed")


@pytest.fixture
def rehearsal(stage):
    with stage.rehearse() as rehearsal:
        yield rehearsal


def create():
    return Product.objects.create(name="anvil", **ANVIL)


def oids(server):
    query = "select oid::int8 from pg_type where oid >= 16384"
    return {oid for [oid] in server.execute(query, dbname="default template")}


def major():
    with connection.cursor() as cursor:
        cursor.execute("select current_setting('server_version_num')::int / 10000")
        return cursor.fetchone()[0]


def test_no_type_has_one_oid_on_both(stage):
    """Green's are above 2**31, where a signed integer would not do."""
    assert not oids(stage.blue) & oids(stage.green)
    assert max(oids(stage.blue)) < 2**31 < min(oids(stage.green))


def test_there_and_back(rehearsal):
    """Rows come along each time, numbers go on, all of it read right."""
    first = create()
    assert major() == BLUE
    rehearsal.cutover()
    assert (major(), rehearsal.server) == (GREEN, rehearsal.green)
    assert Product.objects.values(*ANVIL).get() == ANVIL
    second = create()
    assert second.pk == first.pk + 1
    first.delete()
    rehearsal.rollback()
    assert (major(), rehearsal.server) == (BLUE, rehearsal.blue)
    assert Product.objects.get() == second
    assert Product.objects.values(*ANVIL).get() == ANVIL
    rehearsal.cutover()
    assert (major(), Product.objects.get()) == (GREEN, second)


def test_each_rehearsal_begins_anew(stage):
    for _ in range(2):
        with stage.rehearse() as rehearsal:
            assert not Product.objects.exists()
            create()
            rehearsal.cutover()
            assert create().pk == 2


def test_there_already(rehearsal):
    with pytest.raises(RuntimeError, match=r"on blue \(PostgreSQL \d+\)> is there alr"):
        rehearsal.rollback()
    rehearsal.cutover()
    with pytest.raises(RuntimeError, match=r"on green \(PostgreSQL \d+\)> is there al"):
        rehearsal.cutover()


def test_open_connections_are_cut_and_the_old_server_lets_nobody_in(rehearsal):
    """In other threads, that is; this one goes on as the next request does."""
    ready, moved = threading.Barrier(2), threading.Barrier(2)
    met: list[Any] = []

    def other():
        create()
        ready.wait()
        moved.wait()
        try:
            Product.objects.count()
        except OperationalError as error:
            met.append(str(error))
        connection.close()
        met.append(Product.objects.count())
        connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    rehearsal.cutover()
    moved.wait()
    thread.join()
    assert "terminating connection" in met[0] and met[1] == 1
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(rehearsal.blue.conninfo("default", user="rehearsal"))


def test_no_row_is_lost_that_was_acknowledged(rehearsal):
    """Threads that write all the time, each row on a connection of its own."""
    acknowledged: list[str] = []
    names = [itertools.count(start=number * 10**6) for number in range(4)]
    enough = threading.Event()

    def write(numbers):
        while not enough.is_set():
            name = str(next(numbers))
            try:
                Product.objects.create(name=name, attrs={"a": name})
            except OperationalError:
                pass
            else:
                acknowledged.append(name)
            finally:
                connection.close()

    threads = [threading.Thread(target=write, args=[numbers]) for numbers in names]
    for thread in threads:
        thread.start()
    for move in [rehearsal.cutover, rehearsal.rollback] * 3:
        seen = len(acknowledged)
        while len(acknowledged) < seen + 20:
            enough.wait(0.001)
        move()
    enough.set()
    for thread in threads:
        thread.join()
    stored = dict(Product.objects.values_list("name", "attrs"))
    assert stored.keys() >= set(acknowledged)
    assert all(attrs == {"a": name} for name, attrs in stored.items())


def test_a_request_that_goes_on_after_the_cutover(rehearsal):
    """Its connection is gone, as in a fail-over."""
    lead_on(CONN_MAX_AGE=60)
    create()
    rehearsal.cutover(within_request=True)
    with pytest.raises(OperationalError):
        create()


def lead_on(**settings):
    """Change settings of the alias as it is led now."""
    connection.settings_dict.update(settings)


def test_health_checks_find_what_was_cut(rehearsal):
    """Without them a persistent connection fails once, as it would in production."""
    lead_on(CONN_MAX_AGE=60)
    create()
    rehearsal.cutover()
    with pytest.raises(OperationalError):
        create()
    connection.close()
    lead_on(CONN_HEALTH_CHECKS=True)
    create()
    rehearsal.rollback()
    create()
    assert major() == BLUE


def test_djangos_pool(stage, monkeypatch):
    settings = connections.settings[DEFAULT_DB_ALIAS]
    monkeypatch.setitem(settings, "OPTIONS", {"pool": {"min_size": 1, "max_size": 2}})
    monkeypatch.setitem(settings, "CONN_HEALTH_CHECKS", True)
    with stage.rehearse() as rehearsal:
        create()
        rehearsal.cutover()
        assert Product.objects.values(*ANVIL).get() == ANVIL
        assert major() == GREEN
        rehearsal.rollback()
        assert major() == BLUE


async def test_async_code(rehearsal):
    """By the ORM's async methods, whose thread has connections of its own."""
    await Product.objects.acreate(name="anvil", **ANVIL)
    await rehearsal.acutover()
    assert await sync_to_async(major)() == GREEN
    assert await Product.objects.values(*ANVIL).aget() == ANVIL
    await rehearsal.arollback()
    assert await sync_to_async(major)() == BLUE


def test_connections_of_async_code_are_led_away_and_back(stage, shop):
    """They outlive the event loop that a test runs in."""
    lead("default", database(shop, KINDS["C2"]))
    seen = []

    def ask():
        seen.append(Product.objects.count())

    in_thread_of_async_code(ask)
    with stage.rehearse():
        in_thread_of_async_code(ask)
    in_thread_of_async_code(ask)
    in_thread_of_async_code(connections.close_all)
    assert seen == [1, 0, 1]


def test_in_thread_of_async_code_raises_what_is_raised():
    with pytest.raises(ZeroDivisionError):
        in_thread_of_async_code(lambda: 1 // 0)


@pytest.mark.parametrize("fails", [False, True])
def test_all_is_as_it_was_afterwards(stage, shop, fails):
    lead("default", database(shop, KINDS["C2"]))
    before = dict(connections.settings["default"])
    wrapper = connections["default"]
    assert Product.objects.count() == 1
    try:
        with stage.rehearse():
            assert connections["default"] is not wrapper
            assert not Product.objects.exists()
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert connections["default"] is wrapper
    assert connections.settings["default"] == before == wrapper.settings_dict
    assert Product.objects.count() == 1


def test_not_in_a_transaction(stage, shop):
    lead("default", shop)
    with (
        transaction.atomic(),
        pytest.raises(TransactionManagementError, match="'default' is in a transactio"),
        stage.rehearse(),
    ):
        pass
    with stage.rehearse() as rehearsal:
        create()
        with (
            transaction.atomic(),
            pytest.raises(TransactionManagementError, match="has to be committed"),
        ):
            rehearsal.cutover()
        assert major() == BLUE
        rehearsal.cutover()


def test_what_cannot_be_brought_over_stays(rehearsal):
    """Clients are let in again where they were."""
    create()
    with connection.cursor() as cursor:
        cursor.execute("create table late ()")
    with pytest.raises(LookupError, match=r"has no table public\.late"):
        rehearsal.cutover()
    assert rehearsal.server is rehearsal.blue
    assert (major(), Product.objects.count()) == (BLUE, 1)
    with connection.cursor() as cursor:
        cursor.execute("drop table late")
    rehearsal.cutover()
    assert (major(), Product.objects.count()) == (GREEN, 1)


@pytest.mark.pgbouncer
@pytest.mark.parametrize("level", ["auto", "transaction"])
def test_pgbouncer_moves_a_connection_that_stays_open(stage, level):
    with trust(level), stage.rehearse("pgbouncer") as rehearsal:
        lead_on(CONN_MAX_AGE=60)
        create()
        kept = connection.connection
        for move, release in [(rehearsal.cutover, GREEN), (rehearsal.rollback, BLUE)]:
            for within_request in (False, True):
                move(within_request=within_request)
                assert connection.connection is kept
                assert major() == release
                assert Product.objects.values(*ANVIL).get() == ANVIL
                if not within_request:
                    back = {rehearsal.cutover, rehearsal.rollback} - {move}
                    back.pop()()


@pytest.mark.pgbouncer
@pytest.mark.parametrize(
    "level, settings, within_request, is_told",
    [
        ("connection", {"CONN_MAX_AGE": 60}, False, True),
        ("connection", {"CONN_MAX_AGE": 0}, False, False),
        ("connection", {"CONN_MAX_AGE": 0}, True, True),
        ("server", {"CONN_MAX_AGE": None}, False, True),
        ("transaction", {"CONN_MAX_AGE": None}, False, False),
        ("transaction", {"CONN_MAX_AGE": 60}, True, False),
        ("auto", {"CONN_MAX_AGE": 60}, True, False),
    ],
)
def test_trust_that_proves_nothing(stage, level, settings, within_request, is_told):
    """OIDs apart are noticed where those of other servers might not be."""
    with (
        trust(level),
        stage.rehearse("pgbouncer") as rehearsal,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        lead_on(**settings)
        rehearsal.cutover(within_request=within_request)
    messages = [str(warning.message) for warning in caught]
    if not is_told:
        assert messages == []
    else:
        [message] = messages
        assert f"'default' has TRUST {level!r}" in message
        assert "it has to be 'auto' or 'transaction'" in message
        assert caught[0].filename == __file__


def test_without_the_app(stage, shop):
    """It begins as a process on blue would, and shows what the app is for."""
    startup.stop()
    try:
        lead("default", shop)
        assert Product.objects.values(*ANVIL).get() == ANVIL
        with stage.rehearse() as rehearsal:
            create()
            assert Product.objects.values(*ANVIL).get() == ANVIL
            rehearsal.cutover()
            assert isinstance(Product.objects.get().attrs, str)
        assert Product.objects.values(*ANVIL).get() == ANVIL
    finally:
        startup.install()


def test_routes_and_backends_that_are_none(stage):
    with pytest.raises(ValueError, match="service, pgbouncer expected, got 'dns'"):
        stage.rehearse("dns")
    lead("default", {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
    with pytest.raises(ImproperlyConfigured, match=r"'default'.*sqlite3.*PostgreSQL"):
        stage.rehearse()


def test_the_newest_two_releases_by_default():
    parameters = inspect.signature(Stage).parameters
    assert [parameters[name].default for name in ("blue", "green")] == [17, 18]


def test_what_fails_leaves_no_server():
    started = []

    def fail(server, dbname):
        started.append(server)
        raise RuntimeError("no such role")

    with (
        pytest.raises(RuntimeError, match="no such role"),
        Stage(GREEN, GREEN, prepare=fail),
    ):
        pass
    assert not started[0].running


def test_from_the_schemas_of_real_servers(blue, green, tmp_path):
    """What somebody forgot on green shows in a test of the project's own."""
    name, file = "drifted", tmp_path / "blue.sql"
    with own_database(blue, name, ORDERS["blue"]), own_database(green, name, []):
        prepare(green, name)
        for server in (blue, green):
            server.execute(
                "create sequence drift_seq; create role drift; alter table product"
                " owner to drift; grant select on product to drift",
                dbname=name,
            )
        green.execute("alter table product drop column tags", dbname=name)
        command = [blue.bin_dir / "pg_dump", "--schema-only", "--no-owner"]
        file.write_bytes(
            subprocess.check_output(
                [*command, "--no-privileges", f"--dbname={blue.conninfo(name)}"]
            )
        )
        try:
            with (
                Stage(
                    BLUE,
                    GREEN,
                    blue_schema=[str(file)],
                    green_schema=[green.conninfo(name)],
                ) as stage,
                stage.rehearse() as rehearsal,
            ):
                create()
                with pytest.raises(psycopg.errors.UndefinedColumn, match="tags"):
                    rehearsal.cutover()
                assert Product.objects.get().tags == ANVIL["tags"]
        finally:
            for server in (blue, green):
                server.execute("drop owned by drift; drop role drift", dbname=name)


@pytest.mark.parametrize(
    ("schemas", "error", "said"),
    [
        (["no_such.sql"], SchemaError, "'no_such.sql' is neither a file that pg_dump"),
        (["host=127.0.0.1 port=1"], SchemaError, "pg_dump of .*refused"),
        (["a", "b"], ImproperlyConfigured, "each of 'default' expected, .*; 2 given"),
    ],
)
def test_a_schema_that_cannot_be_had(schemas, error, said):
    with (
        pytest.raises(error, match=said),
        Stage(GREEN, GREEN, blue_schema=schemas),
    ):
        pass
