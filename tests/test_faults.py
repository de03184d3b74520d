"""Faults in the middle of a read of types: what is seen, and what comes next.

A proxy breaks the connection at the very moment the read is on its way. Each test
ends with a request that is right.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import (
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    transaction,
)
from psycopg import pq
from psycopg_pool import AsyncConnectionPool

from django_pg_hot_async import pool
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async.testing import PostgreSQL
from django_pg_hot_async.testing._process import run_user

from . import test_switches_elsewhere as elsewhere
from .conftest import GREEN
from .proxy import Proxy
from .scenarios import (
    ANVIL,
    HSTORE,
    KINDS,
    ORDERS,
    READ,
    TABLE,
    ask_for,
    check_row,
    connection,
    connections,
    create_shop,
    database,
    lead,
    own_database,
    trust,
)
from .shop.models import Product

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())
LOST = (OperationalError, InterfaceError, psycopg.OperationalError)


@pytest.fixture(scope="module")
def victim():
    """A server that is killed, suspended and locked."""
    with PostgreSQL(GREEN) as server:
        create_shop(server, "shop", ORDERS["green"])
        yield server


@pytest.fixture
def proxy(victim):
    with Proxy(victim) as proxy:
        yield proxy


@pytest.fixture
def shop(proxy):
    """The default alias leads to the victim by the proxy, connected, nothing asked."""

    def lead_to(kind="C2", **options):
        target = database(proxy.database("shop"), KINDS[kind], **options)
        lead("default", target)
        KINDS[kind].request(connection.ensure_connection)

    lead_to()
    return lead_to


@pytest.fixture
def aconn(proxy):
    """Make async connections by the proxy, in whatever loop is running."""

    async def connect():
        return await psycopg.AsyncConnection.connect(
            proxy.conninfo("shop"), autocommit=True
        )

    return connect


cancels = pytest.mark.skipif(
    pq.__impl__ != "python" and not psycopg.capabilities.has_cancel_safe(),
    reason="with libpq before 17 psycopg in C cancels without letting other threads"
    " run, and the proxy is one",
)


def in_a_thread(work):
    """Start *work* in a thread; return a function that waits for what it returns."""
    outcome: list[Any] = []

    def run():
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result(timeout=10):
        thread.join(timeout)
        assert not thread.is_alive(), "it hangs"
        return outcome[0]

    return result


def count(name):
    return ask_for("select count(*) from product where name = %s", [name])[0]


@pytest.fixture
def kept(victim):
    """What was written before is there after whatever happens, once."""
    name = "written before"
    victim.execute(f"insert into product (name) values ('{name}')", dbname="shop")
    yield
    assert victim.execute(
        "select count(*) from product where name = %s", [name], dbname="shop"
    ) == [(1,)]
    victim.execute("delete from product where name <> 'anvil'", dbname="shop")


@contextmanager
def types_locked(server, dbname="shop"):
    """Let nobody read pg_type, so that a read of types waits at the server."""
    with psycopg.connect(server.conninfo(dbname)) as conn:
        conn.execute("lock table pg_catalog.pg_type in access exclusive mode")
        yield conn
        conn.rollback()


class TestServer:
    @pytest.mark.parametrize("kind", ["C1", "C2", "C3", "C4"])
    def test_killed(self, victim, proxy, shop, kept, kind):
        """The database's own error, from the query that needed the read."""
        shop(kind)
        proxy.at_read = lambda wire: victim.kill()
        try:
            with pytest.raises(LOST, match=r"clos|terminat|lost|refused|reset"):
                KINDS[kind].read()
        finally:
            victim.start()
        assert proxy.reads
        KINDS[kind].read()
        KINDS[kind].write()

    @pytest.mark.parametrize("kind", ["C1", "C2", "C3", "C4"])
    def test_connection_reset(self, proxy, shop, kept, kind):
        shop(kind)
        proxy.at_read = lambda wire: wire.reset()
        with pytest.raises(LOST, match=r"clos|terminat|lost|reset"):
            KINDS[kind].read()
        KINDS[kind].read()
        KINDS[kind].write()

    @pytest.mark.parametrize("name", elsewhere.KINDS)
    async def test_connection_reset_elsewhere(self, proxy, kept, name):
        """A backend, and pools, of async code and of one's own: theirs to report."""
        if name in ("C5", "C6"):
            reason = "django-async-backend needs Django 6.1 and Python 3.12"
            pytest.importorskip("django_async_backend", reason=reason)
        kind = elsewhere.KINDS[name]()
        try:
            with trust("transaction"):
                await kind.start(proxy.database("shop"), True)
                proxy.at_read = lambda wire: wire.reset()
                with pytest.raises(LOST):
                    await kind.request()
                assert proxy.reads
                await kind.request()
                await kind.request()
        finally:
            await kind.stop()

    def test_reset_in_a_transaction(self, proxy, shop, kept):
        """The transaction is gone whole, as with any statement that fails."""
        proxy.at_read = lambda wire: wire.reset()
        with pytest.raises(LOST), transaction.atomic():
            ask_for("insert into product (name) values ('half')")
            ask_for(SELECT)
        assert count("half") == 0
        KINDS["C2"].read()

    def test_reset_while_a_parameter_is_sent(self, proxy, shop, kept):
        shop(server_side_binding=True)
        proxy.at_read = lambda wire: wire.reset()
        with pytest.raises(LOST):
            KINDS["C2"].request(lambda: Product.objects.create(name="half", attrs={}))
        assert count("half") == 0
        KINDS["C2"].write()

    def test_suspended_under_a_thread(self, victim, proxy, shop, kept):
        """It waits as the query itself would, others do not, and it goes on."""
        proxy.at_read = lambda wire: victim.suspend()
        held = in_a_thread(lambda: KINDS["C2"].request(lambda: ask_for(SELECT)))
        wait_until(lambda: proxy.reads == 1)
        try:
            # Nothing that others need is held meanwhile.
            assert runtime.lock.acquire(timeout=0)
            runtime.lock.release()
            runtime.alias("default").withdraw()
        finally:
            victim.resume()
        assert held() is None
        KINDS["C2"].read()

    @cancels
    async def test_suspended_under_an_await(self, victim, proxy, aconn):
        """The loop is free; who waits can stop waiting."""
        conn = await aconn()
        await pool.aconfigure("mine")(conn)
        proxy.at_read = lambda wire: victim.suspend()
        beats = 0
        try:
            task = asyncio.ensure_future(conn.execute(SELECT))
            for _ in range(20):
                await asyncio.sleep(0.01)
                beats += 1
            assert not task.done() and beats == 20
            task.cancel()
        finally:
            victim.resume()
        with pytest.raises(asyncio.CancelledError):
            await task
        await works_still(conn)

    @cancels
    def test_ctrl_c(self, victim, shop, kept):
        """It cancels the read on the server; the connection is as good as before."""
        # Python has no handler of its own where it was started in the background.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with types_locked(victim):
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                with pytest.raises(KeyboardInterrupt):
                    ask_for(SELECT)
        finally:
            signal.signal(signal.SIGINT, before)
        assert ask_for(SELECT) == ROW

    def test_replica_that_is_read_only(self, victim, tmp_path):
        """One read, nothing else; what fails is what is not allowed there."""
        with standby(victim, tmp_path) as replica:
            target = database(replica.database("shop"), KINDS["C2"])
            with replica.statements() as statements:
                lead("default", target)
                KINDS["C2"].read()
                assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
            assert len([text for text in statements if READ in text]) == 1
            with pytest.raises(InternalError, match="read-only transaction"):
                Product.objects.create(name="no", attrs={"a": "1"})
            KINDS["C2"].read()
            connection.close()


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.005)


async def works_still(conn):
    await pool.aconfigure("mine")(conn)
    cursor = await conn.execute(SELECT)
    assert await cursor.fetchone() == ROW
    await conn.close()


@contextmanager
def standby(server, directory: Path):
    """A hot standby of *server*, streaming."""
    user = run_user()
    identity: dict[str, Any] = {}
    directory.chmod(0o755)
    home = directory / "standby"
    home.mkdir(mode=0o700)
    if user:
        os.chown(home, *user)
        identity = {"user": user[0], "group": user[1], "extra_groups": []}
        for parent in directory.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
    source = server.conninfo(dbname="")
    subprocess.run(
        [
            server.bin_dir / "pg_basebackup",
            *("-d", source, "-D", home, "-X", "stream", "-c", "fast", "-R"),
        ],
        check=True,
        capture_output=True,
        cwd="/",
        **identity,
    )
    # What says that only reads are allowed, and where to stream from.
    with PostgreSQL(server.major, data_dir=home) as replica:
        assert replica.execute("select pg_is_in_recovery()") == [(True,)]
        yield replica


class TestStatement:
    def test_statement_timeout(self, victim, shop, kept):
        """The database's own error, and at the next try the row."""
        ask_for("set statement_timeout = 200")
        with (
            types_locked(victim),
            pytest.raises(OperationalError, match="statement timeout"),
        ):
            ask_for(SELECT)
        assert ask_for(SELECT) == ROW

    def test_lock_timeout_in_a_transaction(self, victim, shop, kept):
        """As any statement that fails: what the transaction wrote goes with it."""
        ask_for("set lock_timeout = 200")
        with (
            types_locked(victim),
            pytest.raises(OperationalError, match="lock timeout"),
            transaction.atomic(),
        ):
            ask_for("insert into product (name) values ('half')")
            ask_for(SELECT)
        assert count("half") == 0
        assert ask_for(SELECT) == ROW

    def test_savepoint_round_the_read(self, victim, shop, kept):
        """A savepoint takes the failure; what was written before it stays."""
        ask_for("set lock_timeout = 200")
        with transaction.atomic():
            ask_for("insert into product (name) values ('whole')")
            with (
                types_locked(victim),
                pytest.raises(OperationalError),
                transaction.atomic(),
            ):
                ask_for(SELECT)
            assert ask_for(SELECT) == ROW
        assert count("whole") == 1

    @pytest.mark.parametrize("known", [False, True])
    def test_aborted_transaction(self, proxy, shop, kept, known):
        """Nothing is asked in it; the server's error is what is seen."""
        shop(server_side_binding=True)
        if known:
            ask_for(SELECT)
            connection.close()
        reads = proxy.reads
        with pytest.raises(IntegrityError), transaction.atomic():
            with pytest.raises(ProgrammingError):
                ask_for("select no_such_column")
            for sql, params in ((SELECT, None), ("select %s", [{"a": "1"}])):
                with pytest.raises(InternalError, match="current transaction is abort"):
                    ask_for(sql, params)
            raise IntegrityError
        assert proxy.reads == reads
        assert ask_for(SELECT) == ROW
        assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)


class TestClient:
    @cancels
    @pytest.mark.parametrize("params", [None, [{"a": "1"}]], ids=["result", "sent"])
    async def test_task_cancelled_while_it_asks(self, victim, aconn, params):
        """The read is cancelled with it; the connection can be used."""
        conn = await aconn()
        await pool.aconfigure("mine")(conn)
        sql = SELECT if params is None else "select %s -> 'a'"
        with types_locked(victim) as other:
            task = asyncio.ensure_future(conn.execute(sql, params))
            waiting = "select 1 from pg_catalog.pg_locks where not granted"
            await asyncio.to_thread(
                wait_until, lambda: other.execute(waiting).fetchone() is not None
            )
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        state = state_of(conn)
        assert state is not None and state.snapshot is None
        assert conn.info.transaction_status is pq.TransactionStatus.IDLE
        await works_still(conn)

    @cancels
    async def test_task_cancelled_over_a_connection_of_a_pool(self, proxy):
        """The pool loses no connection by it."""
        async with AsyncConnectionPool(
            proxy.conninfo("shop"),
            configure=pool.aconfigure("mine"),
            min_size=1,
            max_size=1,
        ) as own:
            await own.wait()

            async def work():
                async with own.connection() as conn:
                    await conn.execute(SELECT)

            held = proxy.hold()
            task = asyncio.create_task(work())
            await asyncio.to_thread(held.wait)
            task.cancel()
            await asyncio.sleep(0)
            held.release()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with own.connection(timeout=10) as conn:
                cursor = await conn.execute(SELECT)
                assert await cursor.fetchone() == ROW

    def test_request_cancelled_while_its_thread_reads(self, proxy, shop):
        """A thread cannot be cancelled; it is the next request that must be right."""
        shop("C4")
        held = proxy.hold()
        kind: Any = KINDS["C4"]

        async def requests():
            request = asyncio.create_task(kind.arequest(aread_once))
            await asyncio.to_thread(held.wait)
            request.cancel()
            await asyncio.sleep(0)
            held.release()
            with pytest.raises(asyncio.CancelledError):
                await request
            for _ in range(3):
                await kind.arequest(aread_once)

        asyncio.run(requests())

    def test_forked_in_the_middle(self, proxy, shop, kept):
        """The child has connections of its own; the parent's read goes on."""
        held = proxy.hold()
        reading = in_a_thread(lambda: ask_for(SELECT))
        held.wait()
        status = fork(lambda: KINDS["C1"].read())
        held.release()
        assert status == 0
        assert reading() == ROW
        KINDS["C2"].read()

    def test_thread_that_dies(self, proxy, shop, kept):
        """In the middle of the read, and nothing is closed: it took nothing with it."""
        left: list[Any] = []

        def work():
            connection.ensure_connection()
            with pytest.raises(SystemExit):
                ask_for(SELECT)
            left.append(connection.connection)

        def end(wire):
            # From the thread that hands the read on: with a tracer, coverage's, CPython
            # 3.11 lets nobody enter a function until this has been raised.
            assert dying.ident is not None
            number, error = ctypes.c_ulong(dying.ident), ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, error)

        proxy.at_read = end
        dying = threading.Thread(target=work)
        dying.start()
        dying.join(10)
        assert not dying.is_alive()
        assert proxy.reads == len(left) == 1
        for level in ("auto", "server", "connection", "transaction"):
            with trust(level):
                KINDS["C1"].read()
                KINDS["C1"].write()
        left[0].close()

    def test_thread_that_is_stuck(self, proxy, shop, kept):
        """Others do not wait for it, nor for what it leaves behind."""
        held = proxy.hold()
        stuck = in_a_thread(lambda: ask_for(SELECT))
        wire = held.wait()
        for level in ("auto", "server", "connection", "transaction"):
            with trust(level):
                assert in_a_thread(lambda: KINDS["C1"].read())() is None
        wire.reset()
        held.release()
        assert isinstance(stuck(), OperationalError)
        KINDS["C2"].read()

    @pytest.mark.parametrize("handled", [False, True])
    def test_sigterm_during_a_cutover(
        self, proxy, victim, blue, service, kept, handled
    ):
        """The process ends at once; the server is left with nothing half done."""
        service.point("faults", blue, "shop")
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, "handled" if handled else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            assert worker.stdout.readline() == "right\n"
            service.point("faults", proxy, "shop")
            held = proxy.hold()
            print(file=worker.stdin, flush=True)
            held.wait()
            worker.send_signal(signal.SIGTERM)
            try:
                assert worker.wait(10) == (3 if handled else -signal.SIGTERM)
            finally:
                held.release()
        wait_until(
            lambda: (
                victim.execute(
                    "select 1 from pg_stat_activity where application_name = 'worker'"
                )
                == []
            )
        )
        target = database(service.database("faults"), KINDS["C2"])
        lead("default", target)
        KINDS["C2"].read()
        assert count("half") == 0


async def aread_once():
    check_row(await Product.objects.values(*ANVIL).aget(name="anvil"))


def fork(work) -> int:
    """Do *work* in a fork; return 0 where it went well and 1 where it did not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)
            for wrapper in connections.all(initialized_only=True):
                wrapper.connection = None
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


WORKER = """
import os, signal, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
import django
from django.conf import settings
settings.DATABASES["default"] = {
    "ENGINE": "django.db.backends.postgresql",
    "OPTIONS": {"service": "faults", "application_name": "worker"},
}
django.setup()
from django.db import transaction
from tests.scenarios import KINDS, ask_for, connection, read

if sys.argv[1]:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
KINDS["C1"].read()
print("right", flush=True)
sys.stdin.readline()
with transaction.atomic():
    ask_for("insert into product (name) values ('half')")
    read()
print("never", flush=True)
"""


class TestTypes:
    def test_green_without_the_extension(self, blue, green, service):
        """What it has is right; what it lacks is told by it; created, it is used."""
        with own_database(green, "faults_bare", []):
            service.point("faults", blue, "shop")
            lead("default", database(service.database("faults"), KINDS["C2"]))
            KINDS["C2"].read()
            connection.close()
            service.point("faults", green, "faults_bare")
            assert ask_for("select 'x', 1") == ("x", 1)
            with pytest.raises(ProgrammingError, match='"product" does not exist'):
                ask_for(SELECT)
            with pytest.raises(ProgrammingError, match="cannot adapt type 'dict'"):
                ask_for("select %s", [{"a": "1"}])
            for statement in (HSTORE, ORDERS["blue"][1], ORDERS["blue"][2], TABLE):
                green.execute(statement, dbname="faults_bare")
            KINDS["C2"].read()
            KINDS["C2"].write()

    @pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
    def test_off_the_search_path(self, green, server_side):
        """Loaded, and sent, as the type it is, by its qualified name or its OID."""
        with own_database(green, "faults_off", []):
            green.execute(
                "create schema ext; create extension hstore schema ext;"
                " create extension citext schema ext;"
                "create table product (id bigint generated by default as identity"
                " primary key, name text, attrs ext.hstore, tags ext.citext[],"
                " parts ext.hstore[]);"
                "insert into product (name, attrs, tags, parts) values ('anvil',"
                " 'weight=>\"9 kg\", gone=>NULL', '{Heavy,\"two words\"}',"
                " array['bolt=>1'::ext.hstore, 'nut=>2'])",
                dbname="faults_off",
            )
            options = {"server_side_binding": server_side}
            target = green.database("faults_off")
            lead("default", database(target, KINDS["C2"], **options))
            KINDS["C2"].read()
            # Not by the ORM: Django itself writes "::citext[]" for an ArrayField.
            values = [ANVIL["attrs"], ANVIL["parts"]]
            ask_for(
                "insert into product (name, attrs, parts) values ('new', %s, %s)",
                values,
            )
            assert ask_for("select attrs, parts from product where name = 'new'") == (
                *values,
            )
            assert ask_for(
                "select pg_typeof(%s)::text, pg_typeof(%s)::text", [{}, [{}]]
            ) == ("ext.hstore", "ext.hstore[]")

    @pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
    def test_two_of_one_name(self, green, server_side):
        """Values of both load; the one that the search_path leads to is sent."""
        with own_database(green, "faults_two", []):
            green.execute(TWO_HSTORES, dbname="faults_two")
            options = {"server_side_binding": server_side}
            target = green.database("faults_two")
            lead("default", database(target, KINDS["C2"], **options))
            for path, other in (("one", "two"), ("two", "one"), ("one", "two")):
                ask_for(f"set search_path to {path}")
                assert ask_for("select 'a=>1'::one.hstore, 'b=>2'::two.hstore") == (
                    {"a": "1"},
                    {"b": "2"},
                )
                assert ask_for(
                    "select pg_typeof(%s)::text, %s::text, %s = 'a=>1'::hstore,"
                    f" pg_typeof('a=>1'::{other}.hstore)::text",
                    [{"a": "1"}] * 3,
                ) == ("hstore", '"a"=>"1"', True, f"{other}.hstore")

    @pytest.mark.parametrize("level", ["auto", "connection", "transaction"])
    def test_role_with_the_least_rights(self, green, level):
        """To connect, and to select from one table, is all it takes."""
        green.execute("create role least login")
        try:
            with own_database(green, "faults_least", ORDERS["green"]), trust(level):
                green.execute(
                    "revoke all on database faults_least from public;"
                    " revoke all on schema public from public;"
                    " grant connect on database faults_least to least;"
                    " grant usage on schema public to least;"
                    " grant select on product to least",
                    dbname="faults_least",
                )
                target = {**green.database("faults_least"), "USER": "least"}
                lead("default", database(target, KINDS["C2"]))
                KINDS["C2"].read()
                assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
                with pytest.raises(ProgrammingError, match="permission denied"):
                    ask_for("select * from pg_catalog.pg_authid")
                assert ask_for(SELECT) == ROW
                connection.close()
        finally:
            green.execute("drop role least")


TWO_HSTORES = """
create schema one; create schema two;
create extension hstore schema one;
create type two.hstore;
create function two.hstore_in(cstring) returns two.hstore
    as '$libdir/hstore', 'hstore_in' language c strict immutable;
create function two.hstore_out(two.hstore) returns cstring
    as '$libdir/hstore', 'hstore_out' language c strict immutable;
create function two.hstore_recv(internal) returns two.hstore
    as '$libdir/hstore', 'hstore_recv' language c strict immutable;
create function two.hstore_send(two.hstore) returns bytea
    as '$libdir/hstore', 'hstore_send' language c strict immutable;
create type two.hstore (internallength = -1, storage = extended,
    input = two.hstore_in, output = two.hstore_out,
    receive = two.hstore_recv, send = two.hstore_send);
create function two.hstore_eq(two.hstore, two.hstore) returns boolean
    as '$libdir/hstore', 'hstore_eq' language c strict immutable;
create operator two.= (leftarg = two.hstore, rightarg = two.hstore,
    procedure = two.hstore_eq);
"""


class TestNoPostgreSQL:
    def test_one_that_only_speaks_the_protocol(self, green):
        """It reports a version of PostgreSQL; nothing of ours is sent to it.

        Django registers types on such a connection as it does without this app.
        """
        with Proxy(green) as posing:
            posing.answer = announce_cockroach
            target = posing.database("shop")
            target["OPTIONS"] = {"sslmode": "disable", "gssencmode": "disable"}
            for level in ("auto", "server", "connection", "transaction"):
                with trust(level):
                    lead("default", target)
                    assert ask_for(SELECT) == ROW
                    assert state_of(connection.connection) is None
                    adapters = connection.connection.adapters
                    (oid,) = ask_for("select 'hstore'::regtype::oid")
                    assert adapters.types["hstore"].oid == oid
                    assert ask_for("select pg_typeof(%s)::text", [{}]) == ("hstore",)
                    connection.close()
            with psycopg.connect(
                posing.conninfo("shop"), sslmode="disable", gssencmode="disable"
            ) as conn:
                pool.configure("mine")(conn)
                assert state_of(conn) is None
                row = conn.execute(SELECT).fetchone()
                assert row is not None and isinstance(row[0], str)
            assert posing.reads == 0


READY = b"Z\0\0\0\5"


def announce_cockroach(data: bytes) -> bytes:
    """Add what CockroachDB says of itself to what a server says at the start."""
    name = b"crdb_version\0CockroachDB CCL v24.1.0\0"
    message = b"S" + (len(name) + 4).to_bytes(4, "big") + name
    if b"server_version\0" in data and READY in data:
        return data.replace(READY, message + READY, 1)
    return data
