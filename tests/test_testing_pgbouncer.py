"""A PgBouncer that moves its clients from one server to another."""

import contextlib
import shutil
import threading
import time

import psycopg
import pytest

from django_pg_hot_async.testing import (
    NotInstalled,
    PgBouncer,
    PostgreSQL,
    StartError,
)

pytestmark = [
    pytest.mark.pgbouncer,
    pytest.mark.skipif(not PgBouncer.installed(), reason="needs pgbouncer"),
]
VERSION = "show server_version_num"


@pytest.fixture(scope="module")
def blue():
    with PostgreSQL(15) as server:
        server.create_database("shop")
        yield server


@pytest.fixture(scope="module")
def green():
    with PostgreSQL(18) as server:
        server.create_database("shop")
        server.create_database("shop'2")
        yield server


@pytest.fixture
def bouncer(blue):
    with PgBouncer(blue, "shop") as bouncer:
        yield bouncer


@pytest.fixture
def session_bouncer(blue):
    with PgBouncer(blue, "shop", pool_mode="session") as bouncer:
        yield bouncer


@contextlib.contextmanager
def client(bouncer):
    with psycopg.connect(bouncer.conninfo(), autocommit=True) as connection:
        yield connection


def where(connection):
    [number] = connection.execute(VERSION).fetchone()
    return int(number) // 10000


def test_switch_moves_a_live_client(bouncer, blue, green):
    """It stays connected; libpq goes on reporting the version of the first server."""
    with client(bouncer) as connection:
        assert where(connection) == 15
        held = bouncer.switch(green)
        assert 0 < held < 5
        assert bouncer.server is green
        assert where(connection) == 18
        assert connection.info.server_version == blue.version
        bouncer.switch(blue)
        assert where(connection) == 15
        bouncer.switch(green, "shop'2")
        assert connection.execute("select current_database()").fetchone() == ("shop'2",)


def test_switch_waits_for_transactions(bouncer, green):
    """One under way ends where it began."""
    with client(bouncer) as connection:
        moved = threading.Event()

        def switch():
            bouncer.switch(green)
            moved.set()

        with connection.transaction():
            assert where(connection) == 15
            thread = threading.Thread(target=switch)
            thread.start()
            assert not moved.wait(0.2)
            assert where(connection) == 15
        thread.join()
        assert where(connection) == 18


def test_switch_that_times_out_lets_clients_go_on(bouncer, blue, green):
    with client(bouncer) as connection, client(bouncer) as other:
        with connection.transaction():
            assert where(connection) == 15
            with pytest.raises(TimeoutError, match=r"PAUSE.*0\.1 seconds"):
                bouncer.switch(green, timeout=0.1)
            assert bouncer.server is blue
            assert where(other) == 15
        assert where(connection) == 15


def test_switch_waits_for_a_login_at_the_server(bouncer, blue, green):
    """PAUSE would cut it, and clients be told that "login has been failing"."""
    blue.execute("alter system set pre_auth_delay = 1")
    blue.execute("select pg_reload_conf()")
    try:
        with client(bouncer) as connection, client(bouncer) as other:
            with connection.transaction():
                thread = threading.Thread(target=lambda: where(other))
                thread.start()
                wait_for_login(bouncer)
            thread.join()  # with the server that the transaction had
            assert logins(bouncer) == 1
            bouncer.switch(green)
            assert where(connection) == where(other) == 18
    finally:
        blue.execute("alter system reset pre_auth_delay")
        blue.execute("select pg_reload_conf()")


def logins(bouncer):
    rows = bouncer.command("SHOW POOLS")
    return sum(int(row["sv_login"]) for row in rows)


def wait_for_login(bouncer):
    until = time.monotonic() + 10
    while not logins(bouncer):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_paused_holds_clients_until_the_end_of_the_block(bouncer, green):
    with client(bouncer) as connection:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(where(connection)))
        with bouncer.paused():
            thread.start()
            thread.join(0.2)
            assert not answers
            bouncer.point(green)
        thread.join()
        assert answers == [18]


def test_paused_resumes_after_an_error(bouncer, blue):
    with client(bouncer) as connection:
        with pytest.raises(ZeroDivisionError), bouncer.paused():
            raise ZeroDivisionError
        assert where(connection) == 15
        assert bouncer.server is blue


def test_pause_and_resume_by_themselves(bouncer):
    with client(bouncer) as connection:
        bouncer.pause()
        rows = bouncer.command("SHOW DATABASES")
        assert [r["paused"] for r in rows if r["name"] == "shop"] == ["1"]
        bouncer.resume()
        bouncer.resume()
        assert where(connection) == 15


def test_switch_with_session_pooling_waits_for_clients_to_leave(
    session_bouncer, blue, green
):
    with client(session_bouncer) as connection:
        assert where(connection) == 15
        with pytest.raises(TimeoutError, match="PAUSE"):
            session_bouncer.switch(green, timeout=0.1)
        assert where(connection) == 15
    session_bouncer.switch(green)
    with client(session_bouncer) as connection:
        assert where(connection) == 18


def test_switch_with_kill_ends_clients(session_bouncer, green):
    with client(session_bouncer) as connection:
        assert where(connection) == 15
        session_bouncer.switch(green, kill=True)
        with pytest.raises(psycopg.OperationalError):
            where(connection)
    with client(session_bouncer) as connection:
        assert where(connection) == 18


def test_point_with_session_pooling_moves_new_clients_only(session_bouncer, green):
    """Both servers are in use at once."""
    with client(session_bouncer) as old:
        assert where(old) == 15
        session_bouncer.point(green)
        with client(session_bouncer) as new:
            assert where(new) == 18
            assert where(old) == 15


def test_point_before_start(blue, green):
    bouncer = PgBouncer(blue, "shop")
    bouncer.point(green)
    with bouncer, client(bouncer) as connection:
        assert where(connection) == 18


def test_point_that_fails_changes_nothing(bouncer, blue, green, monkeypatch):
    def fail(text, timeout=30):
        raise psycopg.OperationalError(text)

    monkeypatch.setattr(bouncer, "command", fail)
    with pytest.raises(psycopg.OperationalError, match="RELOAD"):
        bouncer.point(green)
    assert bouncer.server is blue


def test_alias_config_and_port(blue, green):
    with PgBouncer(
        blue, "shop", alias="store", config={"default_pool_size": 3}
    ) as bouncer:
        assert bouncer.running
        assert bouncer.conninfo(user="u").split() == [
            "host=127.0.0.1",
            f"port={bouncer.port}",
            "user=u",
            "dbname=store",
        ]
        with client(bouncer) as connection:
            row = connection.execute("select current_database()").fetchone()
            assert row == ("shop",)
        rows = bouncer.command("SHOW CONFIG")
        assert [r["value"] for r in rows if r["key"] == "default_pool_size"] == ["3"]
        assert "store" in repr(bouncer)
        with (
            pytest.raises(StartError, match=r"(?s)'shop'.*Address already in use"),
            PgBouncer(blue, "shop", port=bouncer.port),
        ):
            pass


@pytest.mark.parametrize(
    ("mode", "disabled"),
    [("session", False), ("transaction", True), ("statement", True)],
)
def test_database(blue, mode, disabled):
    with PgBouncer(blue, "shop", pool_mode=mode) as bouncer:
        assert bouncer.database() == {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "shop",
            "USER": "postgres",
            "PASSWORD": "",
            "HOST": "127.0.0.1",
            "PORT": str(bouncer.port),
            "DISABLE_SERVER_SIDE_CURSORS": disabled,
        }


def test_stop_and_start(bouncer):
    """The port is the same; connections are gone."""
    port, pid = bouncer.port, bouncer.pid
    with client(bouncer) as connection:
        bouncer.stop()
        assert not bouncer.running
        bouncer.stop()
        with pytest.raises(psycopg.OperationalError):
            where(connection)
        with pytest.raises(psycopg.OperationalError):
            bouncer.command("SHOW VERSION")
    bouncer.start()
    bouncer.start()
    assert bouncer.port == port
    assert bouncer.pid != pid
    assert "process up" in bouncer.log()


def test_server_that_crashes_and_recovers(bouncer, blue):
    """Clients keep their connection to PgBouncer."""
    with client(bouncer) as connection:
        assert where(connection) == 15
        blue.kill()
        blue.start()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(psycopg.OperationalError):
                if connection.closed:
                    break
                assert where(connection) == 15
                break
    with client(bouncer) as connection:
        assert where(connection) == 15


def test_command_that_fails(bouncer):
    with pytest.raises(psycopg.OperationalError, match="PAUSE"):
        bouncer.command('PAUSE "no"')


def test_nothing_before_start(blue):
    bouncer = PgBouncer(blue, "shop")
    assert repr(bouncer) == "<PgBouncer 'shop' not started>"
    assert not bouncer.running
    assert bouncer.log() == ""
    bouncer.stop()
    bouncer.close()
    for name in ("port", "pid"):
        with pytest.raises(RuntimeError, match="start"):
            getattr(bouncer, name)


def test_arguments_that_will_not_do(blue):
    with pytest.raises(ValueError, match=r"transaction.*'sessions'"):
        PgBouncer(blue, "shop", pool_mode="sessions")
    with pytest.raises(ValueError, match=r"alias.*od"):
        PgBouncer(blue, 'od"d')


def test_not_installed(blue, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    assert not PgBouncer.installed()
    with pytest.raises(NotInstalled, match=r"/usr/sbin.*apt-get install pgbouncer"):
        PgBouncer(blue, "shop")
