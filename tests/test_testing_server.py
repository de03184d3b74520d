"""Servers to throw away: life, crash, databases, and what they logged."""

import contextlib
import threading
from pathlib import Path

import psycopg
import pytest

from django_pg_hot_async.testing import PostgreSQL, StartError, scatter_oids
from django_pg_hot_async.testing._statements import MARK, parse

HIGH = 3_000_000_000


@pytest.fixture(scope="module", params=[14, 15, 18])
def each(request):
    with PostgreSQL(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def server():
    with PostgreSQL(18, next_oid=HIGH, config={"work_mem": "5MB"}) as server:
        yield server


@pytest.fixture
def client(each):
    with psycopg.connect(
        each.conninfo(application_name="client"), autocommit=True
    ) as connection:
        yield connection


def test_facts(each):
    assert each.running
    assert each.host == "127.0.0.1"
    assert each.version // 10000 == each.major
    assert f"{each.port}" in repr(each)
    assert each.pid == int((each.data_dir / "postmaster.pid").read_text().split()[0])
    assert "database system is ready" in each.log()
    assert each.execute("show wal_level") == [("logical",)]
    assert each.execute("show server_encoding") == [("UTF8",)]
    assert each.execute("show listen_addresses") == [("127.0.0.1",)]


def test_facts_before_start():
    server = PostgreSQL(18)
    assert not server.running
    assert server.log() == ""
    assert repr(server) == "<PostgreSQL 18 not started>"
    for name in ("port", "pid", "version", "data_dir"):
        with pytest.raises(RuntimeError, match="start"):
            getattr(server, name)
    for name in ("kill", "suspend", "resume"):
        with pytest.raises(RuntimeError, match="start"):
            getattr(server, name)()
    server.stop()
    server.close()


def test_statements_of_both_protocols(each, client):
    with each.statements() as seen:
        assert seen.all() == []
        client.execute("select 1 as simple")
        assert seen.all() == ["select 1 as simple"]
        client.execute("select %s::text", ["a\nb"], prepare=True)
        client.execute("select\n\t'two''s\n\nlines: x'")
        each.execute("select 'its own'")
    client.execute("select 'after the block'")
    assert seen == [
        "select 1 as simple",
        "select $1::text",
        "select\n\t'two''s\n\nlines: x'",
    ]
    assert seen.all() == seen
    first = seen[0]
    assert first.application_name == "client"
    assert first.database == "postgres"
    assert first.pid == client.info.backend_pid
    assert each.execute("show log_statement") == [("none",)]


def test_statements_none_at_connect(each):
    """A bare connect sends none, and one without a name is told by that."""
    with each.statements() as seen:
        with psycopg.connect(each.conninfo()) as connection:
            assert seen.all() == []
            connection.execute("select 1")
        assert seen == []
    assert seen == ["BEGIN", "select 1", "COMMIT"]
    assert seen[0].application_name == ""


def test_statements_that_fail(each, client):
    """Once each: refused by the parser, at parse, at bind, and when executed."""
    with each.statements() as seen:
        for text, params in [
            ("selekt 1", None),
            ("selekt %s", ["1"]),
            ("select %s::int", ["x"]),
            ("select 1 / 0", None),
            ("select 1 / %s::int", ["0"]),
        ]:
            with pytest.raises(psycopg.Error):
                client.execute(text, params)
    assert seen == [
        "selekt 1",
        "selekt $1",
        "select $1::int",
        "select 1 / 0",
        "select 1 / $1::int",
    ]


def test_statements_of_a_server_side_cursor_opened_before(each):
    """FETCH is a statement; sessions open before the block are heard as well."""
    with psycopg.connect(each.conninfo()) as connection:
        cursor = connection.cursor("named")
        cursor.execute("select generate_series(1, 3)")
        with each.statements() as seen:
            assert cursor.fetchall() == [(1,), (2,), (3,)]
            cursor.close()
    assert seen == ['FETCH FORWARD ALL FROM "named"', 'CLOSE "named"']


def test_statements_nested(each, client):
    with each.statements() as outer:
        client.execute("select 1")
        with each.statements() as inner:
            client.execute("select 2")
        client.execute("select 3")
    assert inner == ["select 2"]
    assert outer == ["select 1", "select 2", "select 3"]


def test_statements_block_that_raises(each):
    with pytest.raises(ZeroDivisionError), each.statements():
        raise ZeroDivisionError
    assert each.execute("show log_statement") == [("none",)]


def test_statements_parsed_from_a_log():
    """Text that looks like a record, or is none, is not taken for one."""

    def record(text, pid=1, name="a"):
        return f"2026-01-01 00:00:00.000 UTC [{pid}] {MARK}{name}{MARK}d{MARK} {text}\n"

    log = (
        "somebody's library writes this\n"
        + record("LOG:  checkpoint starting: time")
        + record("LOG:  execute _pg3_0: select $1")
        + record("DETAIL:  parameters: $1 = 'statement: x'")
        + record("LOG:  execute fetch from s/c: select 2", pid=2)
        + record("LOG:  statement: select '\n\tLOG:  statement: no'")
        + record("ERROR:  no")
        + record("STATEMENT:  select 2", pid=2)
        + record("STATEMENT:  select 2", pid=2)
        + record("LOG:  statement: mine", name="django_pg_hot_async.testing")
    )
    assert list(parse(log)) == [
        "select $1",
        "select 2",
        "select '\nLOG:  statement: no'",
        "select 2",
    ]


def test_kill_is_a_crash_and_start_recovers(each):
    each.execute(
        "create table if not exists kept (id int); insert into kept values (1)"
    )
    port, pid = each.port, each.pid
    with psycopg.connect(each.conninfo()) as connection:
        each.kill()
        assert not each.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(each.conninfo())
    each.kill()
    each.start()
    assert each.port == port
    assert each.pid != pid
    assert each.execute("select id from kept limit 1") == [(1,)]
    assert "not properly shut down" in each.log()


def test_statements_with_a_crash_in_between(each):
    """What was logged before is read; the setting is gone after the next start."""
    with each.statements() as seen:
        with psycopg.connect(each.conninfo(), autocommit=True) as connection:
            connection.execute("select 1")
        each.kill()
    assert seen == ["select 1"]
    each.start()
    assert each.execute("show log_statement") == [("none",)]


@pytest.mark.parametrize("mode", ["fast", "immediate", "smart"])
def test_stop_keeps_data_and_port(server, mode):
    server.execute(
        "create table if not exists kept (id int); insert into kept values (1)"
    )
    port = server.port
    server.stop(mode)
    assert not server.running
    server.stop(mode)
    server.start()
    server.start()
    assert server.port == port
    assert server.execute("select 1 from kept limit 1") == [(1,)]


def test_a_commit_outlives_the_server():
    """As soon as it is made: no WAL writer has to come by first."""
    with PostgreSQL(18, config={"wal_writer_delay": "10s"}) as own:
        own.execute("create table kept (id int)")
        own.execute("checkpoint")
        own.execute("insert into kept values (1)")
        own.stop("immediate")
        own.start()
        assert own.execute("select id from kept") == [(1,)]


def test_stop_mode_unknown(server):
    with pytest.raises(ValueError, match=r"fast.*'slow'"):
        server.stop("slow")
    assert server.running


def test_suspend_hangs_connections_until_resume(server):
    """A query sent meanwhile is answered later; nothing is lost."""
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        server.suspend()
        assert server.running
        answered = threading.Event()

        def ask():
            connection.execute("select 1")
            answered.set()

        thread = threading.Thread(target=ask)
        thread.start()
        assert not answered.wait(0.2)
        server.resume()
        assert answered.wait(10)
        thread.join()


def test_stop_while_suspended(server):
    server.suspend()
    server.stop()
    assert not server.running
    server.start()


def test_server_that_does_not_do_as_told(server, monkeypatch):
    """Every wait has an end, and the error names the server."""
    from django_pg_hot_async.testing import _server

    assert server._keeper is not None
    with monkeypatch.context() as patch:
        patch.setattr(_server, "poll", lambda timeout: iter(range(2)))
        patch.setattr(server._keeper, "signal", lambda number: None)
        patch.setattr(server._keeper, "wait", lambda timeout: False)
        with pytest.raises(TimeoutError, match=r"PostgreSQL 18 .* did not stop"):
            server.stop()
        with (
            pytest.raises(TimeoutError, match=r"PostgreSQL 18 .* did not reload"),
            server.statements(),
        ):
            pass
        patch.setattr(server, "execute", lambda sql: [])
        with pytest.raises(TimeoutError, match=r"PostgreSQL 18 .* did not log"):
            server._flushed(server._keeper, 0)
    with server.statements() as seen:
        pass
    assert seen == []


def test_databases(server):
    server.create_database('od"d')
    server.execute("create table t as select 1 as id", dbname='od"d')
    server.create_database("copy", template='od"d')
    assert server.execute("select id from t", dbname="copy") == [(1,)]
    with psycopg.connect(server.conninfo("copy")) as connection:
        server.drop_database("copy")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    server.drop_database('od"d')
    with pytest.raises(psycopg.errors.InvalidCatalogName):
        server.drop_database("copy")


def test_execute(server):
    assert server.execute("select %s::int, %s", [1, "a"]) == [(1, "a")]
    assert server.execute("select 1; select 2") == [(1,)]
    assert server.execute("checkpoint") == []
    [[name]] = server.execute("show application_name")
    assert name == "django_pg_hot_async.testing"


def test_terminate(server):
    server.create_database("other")
    with (
        psycopg.connect(server.conninfo()) as here,
        psycopg.connect(server.conninfo("other")) as there,
    ):
        assert server.terminate("other") == 1
        here.execute("select 1")
        with pytest.raises(psycopg.OperationalError):
            there.execute("select 1")
        assert server.terminate() == 1
        with pytest.raises(psycopg.OperationalError):
            here.execute("select 1")
    server.drop_database("other")


def test_conninfo_and_database(server):
    info = psycopg.conninfo.conninfo_to_dict(server.conninfo("a b", user="u"))
    assert info == {
        "host": "127.0.0.1",
        "port": str(server.port),
        "user": "u",
        "dbname": "a b",
    }
    assert server.database("shop") == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "shop",
        "USER": "postgres",
        "PASSWORD": "",
        "HOST": "127.0.0.1",
        "PORT": str(server.port),
    }


def test_config(server):
    assert server.execute("show work_mem") == [("5MB",)]


def test_next_oid_above_two_to_the_31(server):
    server.execute("create extension if not exists hstore")
    [[oid]] = server.execute("select 'hstore'::regtype::oid")
    assert oid >= HIGH


def test_scatter_oids(server):
    last = scatter_oids(server, n=500)
    server.execute("create type scattered as (a int)")
    [[oid]] = server.execute("select 'scattered'::regtype::oid")
    assert oid > last >= HIGH + 499


@pytest.mark.parametrize("oid", [0, 16383, 2**32])
def test_next_oid_out_of_range(oid):
    with pytest.raises(ValueError, match=f"16384.*{oid}"):
        PostgreSQL(18, next_oid=oid)


def test_servers_of_one_release_differ(server):
    """Each has a system identifier of its own, and its own first OID if asked."""
    with PostgreSQL(18) as other:
        identifier = "select system_identifier from pg_control_system()"
        assert server.execute(identifier) != other.execute(identifier)
        assert server.port != other.port


def test_nothing_is_left_after_the_block():
    with PostgreSQL(18, config={"log_connections": True}) as server:
        directory = server.data_dir.parent
        assert directory.is_dir()
        assert server.execute("show log_connections")[0][0] in ("on", "all")
        server.kill()
    assert not directory.exists()
    assert not server.running
    # What was closed can be made anew.
    with server:
        assert server.running


def test_data_dir_is_kept(tmp_path):
    for part in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            part.chmod(part.stat().st_mode | 0o011)
    data = tmp_path / "data"
    with PostgreSQL(18, data_dir=data, next_oid=HIGH) as server:
        server.execute("create table kept as select 1 as id")
        [[identifier]] = server.execute(
            "select system_identifier from pg_control_system()"
        )
    assert not (data / "postmaster.pid").exists()
    with PostgreSQL(18, data_dir=data) as server:
        assert server.execute("select id from kept") == [(1,)]
        assert server.execute("select system_identifier from pg_control_system()") == [
            (identifier,)
        ]
        server.suspend()
    assert (data / "PG_VERSION").exists()


def test_start_that_fails_says_why():
    """The error ends with the server's log; nothing is left of the attempt."""
    server = PostgreSQL(18, config={"work_mem": "no'size\\"})
    with pytest.raises(StartError, match=r"(?s)PostgreSQL 18.*work_mem"), server:
        pass
    assert not server.running


def test_port_that_is_taken(server):
    with (
        pytest.raises(StartError, match="Address already in use"),
        PostgreSQL(18, port=server.port),
    ):
        pass


def test_port_somebody_was_quicker_to_take(server, monkeypatch):
    """Another free port is tried."""
    ports = iter([server.port, server.port])
    from django_pg_hot_async.testing import _process

    free_port = _process.free_port
    monkeypatch.setattr(_process, "free_port", lambda: next(ports, 0) or free_port())
    with PostgreSQL(18) as other:
        assert other.port != server.port


def test_bin_dir(server):
    with PostgreSQL(18, bin_dir=str(server.bin_dir)) as other:
        assert other.version == server.version
    with pytest.raises(ValueError, match="'/no/such' is no PostgreSQL 18: no postgres"):
        PostgreSQL(18, bin_dir="/no/such")
    with pytest.raises(ValueError, match=r"is no PostgreSQL 17: postgres is 18\."):
        PostgreSQL(17, bin_dir=Path(server.bin_dir))
