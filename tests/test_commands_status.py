"""manage.py pg_hot_status: what it asks, what it prints, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.signals import connection_created
from django.test.utils import override_settings
from psycopg import OperationalError
from psycopg.types.enum import EnumInfo

from django_pg_hot_async import register_type, status
from django_pg_hot_async._django import connections as tracked_connections
from django_pg_hot_async._operator import access, probe
from django_pg_hot_async.testing import PgBouncer, PostgreSQL
from django_pg_hot_async.testing._process import poll

from .scenarios import (
    KINDS,
    READ,
    ask_for,
    close_all,
    connection,
    connections,
    database,
    lead,
    own_database,
    read,
)
from .test_status import declared, described, types_of

ROOT = Path(__file__).parent.parent
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
KEYS = [
    "alias",
    "state",
    "reason",
    "trust",
    "server",
    "backend",
    "is_standby",
    "is_pooled",
    "types",
    "missing",
    "notes",
    "is_expected",
    "is_final",
    "sessions",
    "ended",
    "remembered",
]


@pytest.fixture
def aliases(monkeypatch):
    """Lead aliases to databases; the others of DATABASES stay as they are."""

    def lead_to(**databases: dict[str, Any]) -> None:
        for alias, entry in databases.items():
            if alias == "default":
                lead(alias, entry)
            else:
                configured = connections.configure_settings({"default": dict(entry)})
                monkeypatch.setitem(connections.settings, alias, configured["default"])

    return lead_to


def shop(server, dbname="shop", **settings) -> dict[str, Any]:
    return {**server.database(dbname), **settings}


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("pg_hot_status", *arguments, stdout=out)
    return out.getvalue()


def run_failing(*arguments: str) -> tuple[str, str, int]:
    """Return what it printed, what it said at the end, and the exit status."""
    out = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("pg_hot_status", *arguments, stdout=out)
    return out.getvalue(), str(caught.value), caught.value.returncode


def run_json(*arguments: str) -> Any:
    return json.loads(run("--json", *arguments))


def notes(alias="default") -> str:
    [entry] = run_json("--database", alias)
    return "; ".join(entry["notes"])


def test_text(blue, aliases):
    aliases(default=shop(blue))
    types = types_of(blue)
    assert run() == (
        f"""\
default
  server      PostgreSQL {described(blue)["release"]} at 127.0.0.1:{blue.port}/shop
  trust       auto
  types       name    schema    oid  array oid
              citext  public  {types["citext"]["oid"]}      \
{types["citext"]["array_oid"]}
              hstore  public  {types["hstore"]["oid"]}      \
{types["hstore"]["array_oid"]}
"""
    )


def test_json(blue, aliases):
    aliases(default=shop(blue), lite=SQLITE)
    first, second = run_json()
    assert list(first) == list(second) == KEYS
    assert first == {
        "alias": "default",
        "state": "answered",
        "reason": None,
        "trust": "auto",
        "server": described(blue),
        "backend": {"host": "127.0.0.1", "port": blue.port},
        "is_standby": False,
        "is_pooled": False,
        "types": types_of(blue),
        "missing": [],
        "notes": [],
        "is_expected": None,
        "is_final": False,
        "sessions": None,
        "ended": None,
        "remembered": None,
    }
    assert second["state"] == "not_postgresql"


def test_it_asks_the_server_of_now_not_the_one_connected_to(blue, green, aliases):
    """And leaves the connection that it was called beside as it is."""
    aliases(default=shop(blue, CONN_MAX_AGE=None))
    read()
    open_before = connection.connection
    connections.settings["default"]["PORT"] = str(green.port)
    text = run()
    assert f"server      PostgreSQL {described(green)['release']}" in text
    assert f"remembered  PostgreSQL {described(blue)['release']}" in text
    assert f"hstore {types_of(blue)['hstore']['oid']}" in text
    assert connection.connection is open_before
    assert ask_for("show port") == (str(blue.port),)


def test_what_it_sends(blue, aliases):
    aliases(default=shop(blue))
    run()  # Django asks once a process for the version
    with blue.statements() as statements:
        run()
    sent = [
        text.removeprefix(READ).split()[0]
        for text in statements
        if "TimeZone" not in text
    ]
    assert sent == ["BEGIN", "SELECT", "SELECT", "COMMIT"]
    assert sum(READ in text for text in statements) == 1
    assert _sessions(blue) == 0


def _sessions(server) -> int:
    """How many clients are connected to the shop."""
    [[count]] = server.execute(
        "select count(*) from pg_stat_activity where datname = 'shop'"
        " and backend_type = 'client backend'"
    )
    return int(count)


def test_a_pool_is_neither_opened_nor_used(blue, aliases):
    aliases(default=database(shop(blue), KINDS["C3"]))
    assert "idle in a process's pool may lead elsewhere" in run()
    assert vars(DatabaseWrapper)["_connection_pools"] == {}


def test_connections_of_receivers_are_closed(blue, green, aliases):
    """They are opened in a thread that ends."""
    aliases(default=shop(blue), other=shop(green))

    def look_elsewhere(connection, **kwargs):
        if connection.alias == "default":
            connections["other"].ensure_connection()

    before = _sessions(green)
    connection_created.connect(look_elsewhere)
    try:
        run("--database", "default")
    finally:
        connection_created.disconnect(look_elsewhere)
    assert [entry["alias"] for entry in status()] == ["default", "other"]
    assert any(_sessions(green) == before for _ in poll(5))


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({}, ""),
        ({"CONN_MAX_AGE": 600}, "keep connections for up to 600 seconds: CONN_MAX_AGE"),
        ({"CONN_MAX_AGE": None}, "keep connections for good: CONN_MAX_AGE"),
        ({"OPTIONS": {"pool": True}}, "nothing checks connections of that pool: CONN"),
        (
            {"OPTIONS": {"pool": True}, "CONN_HEALTH_CHECKS": True},
            "idle in a process's pool may lead elsewhere",
        ),
        (
            {"OPTIONS": {"pool": {"check": print}}},
            "idle in a process's pool may lead elsewhere",
        ),
        ({"HOST": "127.0.0.1,127.0.0.1"}, "several hosts are named"),
    ],
)
def test_note_on(blue, aliases, settings, note):
    aliases(default=shop(blue, **settings))
    assert note in notes()
    assert ("nothing checks" in notes()) == ("nothing checks" in note)
    assert bool(notes()) == bool(note)


def test_note_on_a_service_file(blue, aliases, service):
    service.point("status", blue, "shop")
    aliases(default=service.database("status"))
    assert notes().startswith("service 'status' is what")


@pytest.mark.pgbouncer
def test_behind_a_pooler(blue, aliases):
    """It tells the pooler's address from the server's, and whether TRUST suits it."""
    with PgBouncer(blue, "shop") as bouncer:
        aliases(default=bouncer.database())
        text = run()
        assert f"at 127.0.0.1:{bouncer.port}/shop\n" in text
        assert f"itself      at 127.0.0.1:{blue.port}\n" in text
        in_between = "a pooler is in between: other connections may lead elsewhere"
        assert f"note        {in_between}\n" in text
        assert "does not notice" not in text
        for level in ("auto", "transaction"):
            with override_settings(PG_HOT_ASYNC={"TRUST": level}):
                assert notes() == in_between
        for level in ("server", "connection"):
            with override_settings(PG_HOT_ASYNC={"TRUST": level}):
                assert notes() == (
                    f"{in_between}; TRUST {level!r} does not notice when a pooler moves"
                    " open connections; 'auto' and 'transaction' do"
                )
        [entry] = run_json()
        assert entry["is_pooled"]
        assert entry["types"] == types_of(blue)
        close_all()


@pytest.mark.pgbouncer
def test_behind_a_pooler_that_is_paused(blue, aliases, monkeypatch):
    """Clients may connect and then wait for minutes; the command does not."""
    monkeypatch.setattr(probe, "SECONDS", 0.5)
    with PgBouncer(blue, "shop") as bouncer:
        aliases(default=bouncer.database())
        with bouncer.paused():
            text, error, code = run_failing()
            assert text == "default\n  server      no answer in 0.5 seconds\n"
            assert (error, code) == ("no answer from default", 1)
        monkeypatch.undo()
        for thread in threading.enumerate():
            if thread.name == "ask default":
                thread.join()


def test_a_standby(aliases):
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        data = Path(parent) / "data"
        with PostgreSQL(18, data_dir=data) as server:
            server.stop()
        (data / "standby.signal").touch()
        os.chown(data / "standby.signal", data.stat().st_uid, data.stat().st_gid)
        with PostgreSQL(18, data_dir=data) as server:
            aliases(default=shop(server, "postgres"))
            assert "/postgres, a read-only standby\n" in run()


def test_types_that_the_server_lacks(blue, aliases):
    with own_database(blue, "status_part", []):
        blue.execute("create extension citext", dbname="status_part")
        aliases(default=shop(blue, "status_part"))
        assert "              hstore  absent\n" in run()
        [entry] = run_json()
        assert (list(entry["types"]), entry["missing"]) == (["citext"], ["hstore"])


def test_types_of_the_projects_own(blue, aliases):
    with declared():
        register_type("mood", EnumInfo)
        register_type("tenant.mood", EnumInfo)
        register_type("status_of_nothing", EnumInfo)
        aliases(default=shop(blue))
        [entry] = run_json()
        assert list(entry["types"]) == ["citext", "hstore", "mood"]
        assert entry["missing"] == ["tenant.mood", "status_of_nothing"]


def test_where_no_type_is_tracked(blue, aliases):
    with override_settings(INSTALLED_APPS=["django_pg_hot_async"]):
        aliases(default=shop(blue))
        assert "  types       none are tracked\n" in run()
        [entry] = run_json()
        assert (entry["types"], entry["missing"]) == (None, [])


def test_types_follow_the_search_path(blue, aliases):
    with own_database(blue, "status_schemas", []):
        blue.execute(
            "create schema tenant; create extension hstore schema tenant",
            dbname="status_schemas",
        )
        aliases(default=shop(blue, "status_schemas"))
        [entry] = run_json()
        assert entry["types"]["hstore"]["schema"] == "tenant"


# --expect


def test_expect(blue, green, aliases):
    aliases(default=shop(blue))
    release = described(blue)["release"]
    for version in (str(blue.major), release, str(blue.version)):
        assert run("--expect", version) == (
            f"default  {release}\nfor new connections; who is still connected to the"
            " server that was left, --drained ALIAS tells\n"
        )
    assert run_failing("--expect", str(green.major)) == (
        f"default  {release}, not {green.major}\n",
        f"not on {green.major} yet: default is on {release}",
        1,
    )
    aliases(default=shop(green))
    run("--expect", str(green.major))
    [entry] = run_json("--expect", str(green.major))
    assert entry["is_expected"] is True


def test_expect_waits_for_the_last_alias(blue, green, aliases):
    aliases(default=shop(green), replica=shop(blue), lite=SQLITE)
    expected = str(green.major)
    text, error, code = run_failing("--expect", expected)
    assert text.splitlines() == [
        f"default  {described(green)['release']}",
        f"replica  {described(blue)['release']}, not {expected}",
        "lite     not PostgreSQL (sqlite)",
    ]
    assert error == f"not on {expected} yet: replica is on {described(blue)['release']}"
    assert code == 1
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("pg_hot_status", "--json", "--expect", expected, stdout=out)
    told = {e["alias"]: e["is_expected"] for e in json.loads(out.getvalue())}
    assert told == {"default": True, "replica": False, "lite": None}
    run("--expect", expected, "--database", "default")


@pytest.mark.parametrize(
    "version", ["eighteen", "9", "18.", "18.6.1", "1806", "-18", ""]
)
def test_expect_something_else(version):
    with pytest.raises(CommandError, match=r"is no version such as 18, 18\.6 or"):
        run(f"--expect={version}")


# --drained, --end, --wait


@pytest.fixture
def app(blue, green):
    """A role that is not a superuser, as an application's, on both servers."""
    for server in (blue, green):
        server.execute("create role app login")
    yield {"USER": "app"}
    for server in (blue, green):
        server.execute("drop role app")


def connect(server, name, role="app"):
    conninfo = server.conninfo("shop", user=role, application_name=name)
    return psycopg.connect(conninfo, autocommit=True)


def test_drained(blue, aliases, app):
    aliases(default=shop(blue, **app))
    assert "0 connections of this application" in run("--drained", "default")
    with connect(blue, "web") as web, connect(blue, "psql", "postgres"):
        text, error, code = run_failing("--drained", "default")
        assert error == (
            "1 connection of this application is still open to default: --end ends it"
        )
        assert code == 1
        first, head, line, other = text.splitlines()
        assert first == (
            f"default  PostgreSQL {described(blue)['release']} at"
            f" 127.0.0.1:{blue.port}/shop: 1 connection of this application"
        )
        assert head.split() == [
            *("role", "application_name", "address", "state", "since", "connected")
        ]
        assert line.split()[:4] == ["app", "web", "127.0.0.1", "idle"]
        # Another role's state and address are not for this one to see.
        assert other.split()[:4] == ["postgres", "psql", "-", "-"]
        assert web.execute("select 1").fetchone() == (1,)
        run("--drained", "default", "--end")
        with pytest.raises(OperationalError):
            web.execute("select 1")
    [entry] = run_json("--drained", "default")
    assert (entry["ended"], entry["sessions"]) == (0, [])


def test_expect_and_drained(blue, green, aliases, app):
    """What was left is not expected to be of the version; nobody may be on it."""
    aliases(default=shop(blue, **app), old=shop(blue, **app))
    wanted = ("--expect", str(green.major), "--drained", "old")
    with connect(blue, "web") as web:
        _, error, code = run_failing(*wanted, "--end")
        assert error.startswith(f"not on {green.major} yet: default is on")
        assert code == 1
        # Nobody is cut off before there is somewhere to go.
        assert web.execute("select 1").fetchone() == (1,)
        aliases(default=shop(green, **app))
        text, error, code = run_failing(*wanted)
        assert text.startswith(f"default  {described(green)['release']}\nold  Postg")
        assert error.startswith("1 connection of this application is still open to old")
        assert code == 1
        assert run_failing("--drained", "no_such")[2] == 2
        assert ", 1 ended\n" in run(*wanted, "--end")
    assert run(*wanted).endswith(": 0 connections of this application\n")
    text, error, code = run_failing(*wanted, "--database", "old")
    assert (error, code) == ("there was nothing to ask", 2)


def test_wait_ends_when_the_last_connection_does(blue, green, aliases, app):
    aliases(default=shop(blue, **app), old=shop(blue, **app))
    shown = []

    def wait():
        shown.append(
            run("--expect", str(green.major), "--drained", "old", "--wait", "60")
        )

    with connect(blue, "web") as web:
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.5)
        aliases(default=shop(green, **app))
        thread.join(2)
        assert thread.is_alive()
        web.close()
    thread.join(30)
    [text] = shown
    assert f", not {green.major}\n" in text
    assert "1 connection of this application\n" in text
    assert text.endswith(": 0 connections of this application\n")


def test_wait_no_longer_than_told(blue, aliases):
    aliases(default=shop(blue))
    out = StringIO()
    before = time.monotonic()
    with pytest.raises(CommandError) as caught:
        call_command(
            *("pg_hot_status", "--expect", "99", "--wait", "1.5", "--json"), stdout=out
        )
    assert 1.5 <= time.monotonic() - before < 6
    assert caught.value.returncode == 1
    [entry] = json.loads(out.getvalue())
    assert entry["is_expected"] is False


@pytest.mark.parametrize("options", [["--wait", "5"], ["--end"]])
def test_options_that_need_another(options):
    _, error, code = run_failing(*options)
    assert error.startswith(f"{options[0]} needs --drained")
    assert code == 2


# What cannot be asked


def test_an_alias_that_does_not_exist(aliases):
    aliases(other=SQLITE)
    text, error, code = run_failing("--database", "no_such")
    assert text == ""
    assert error == "'no_such' is no alias in DATABASES; there is 'default', 'other'"
    assert code == 2


def test_an_alias_that_is_not_postgresql(blue, aliases):
    aliases(default=shop(blue), lite=SQLITE)
    assert run().endswith("\nlite\n  server      not PostgreSQL (sqlite)\n")
    for expect in ((), ("--expect", "18")):
        _, error, code = run_failing("--database", "lite", *expect)
        assert (error, code) == ("there was nothing to ask", 2)


def test_a_project_without_postgresql(aliases):
    """There is nothing to wait for, and nothing wrong with that otherwise."""
    aliases(default=SQLITE)
    assert run() == "default\n  server      not PostgreSQL (sqlite)\n"
    assert run_failing("--expect", "18")[1:] == ("there was nothing to ask", 2)


def test_connections_that_are_not_tracked(blue, aliases, without_app):
    """A ready() that was overridden: PostgreSQL it is, and a script is to know."""
    aliases(default=shop(blue))
    text, error, status = run_failing()
    assert "its connections are not tracked: the system check" in text
    assert "django_pg_hot_async.E002 tells why" in text
    assert "no answer from default; asking again would not help" in error
    assert status == 2


def test_a_server_that_is_not_postgresql(blue, aliases, monkeypatch):
    """CockroachDB speaks the protocol; nothing of ours is sent to it."""
    monkeypatch.setattr(tracked_connections, "is_postgresql", lambda connection: False)
    aliases(default=shop(blue))
    with blue.statements() as statements:
        text = run()
    assert "server      not PostgreSQL (it speaks its protocol)\n" in text
    assert [text for text in statements if "pg_catalog." in text] == []


def test_an_alias_left_to_django(blue, green, aliases):
    aliases(default=shop(blue), legacy=shop(green))
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"legacy": None}}):
        with green.statements() as statements:
            text = run("--expect", str(blue.major))
        assert statements == []
        assert text.splitlines()[1] == (
            "legacy   left to Django by PG_HOT_ASYNC['ALIASES']"
        )
        _, _, code = run_failing("--database", "legacy", "--expect", "18")
        assert code == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NAME": "no_such"}, 'database "no_such" does not exist'),
        ({"USER": "no_such"}, 'role "no_such" does not exist'),
        ({"OPTIONS": {"service": "no_such"}}, 'service "no_such" not found'),
        ({"OPTIONS": {"no_such": 1}}, "no_such"),
        ({"ENGINE": "no.such.engine"}, "'no.such.engine' isn't an available"),
    ],
)
def test_a_mistake_in_the_settings_is_not_waited_for(blue, aliases, settings, said):
    aliases(default=shop(blue, **settings))
    for arguments in ((), ("--expect", "18", "--wait", "60")):
        text, error, code = run_failing(*arguments)
        assert said in text
        assert len(text.splitlines()) == (1 if arguments else 2)
        assert error == "no answer from default; asking again would not help"
        assert code == 2


def test_a_wrong_password_is_not_waited_for(blue, aliases):
    """Not of blue, nor of the server that is to be drained."""
    aliases(default=shop(blue), strict=shop(blue, USER="strict", PASSWORD="wrong"))
    blue.execute("create role strict login password 'right'")
    [[path]] = blue.execute("show hba_file")
    before = Path(path).read_text()
    Path(path).write_text(f"host all strict all scram-sha-256\n{before}")
    blue.execute("select pg_reload_conf()")
    try:
        for option in ("--database", "--drained"):
            for _ in poll(10):
                text, _, code = run_failing("--expect", "15", option, "strict")
                if "password authentication failed" in text:
                    break
            assert code == 2
    finally:
        Path(path).write_text(before)
        blue.execute("select pg_reload_conf(); drop role strict")


def test_a_receiver_that_raises(blue, aliases):
    def receiver(**kwargs):
        raise RuntimeError("the project's own")

    aliases(default=shop(blue))
    connection_created.connect(receiver)
    try:
        for option in ("--database", "--drained"):
            text, _, code = run_failing(option, "default")
            assert "the project's own" in text
            assert code == 2
    finally:
        connection_created.disconnect(receiver)


def test_a_server_that_is_down(blue, aliases):
    """The others are shown all the same."""
    aliases(default=shop(blue, PORT="1"), other=shop(blue))
    text, error, code = run_failing()
    assert text.startswith("default\n  server      connection failed: ")
    assert "refused" in text.splitlines()[1]
    assert "other\n  server      PostgreSQL" in text
    assert (error, code) == ("no answer from default", 1)
    assert run_failing("--expect", str(blue.major))[2] == 1


def test_a_server_that_hangs(blue, aliases, monkeypatch):
    monkeypatch.setattr(probe, "SECONDS", 0.5)
    with PostgreSQL(blue.major) as server:
        aliases(default=shop(server, "postgres"), other=shop(blue))
        server.suspend()
        try:
            text, error, code = run_failing()
        finally:
            server.resume()
        assert "default\n  server      no answer in 0.5 seconds\n" in text
        assert "other\n  server      PostgreSQL" in text
        assert (error, code) == ("no answer from default", 1)
        for thread in threading.enumerate():
            if thread.name == "ask default":
                thread.join()


def test_how_long_a_server_may_take_to_accept(blue, aliases, monkeypatch):
    """What is set, in whatever way, holds; libpq's own default is for ever."""

    def timeout():
        return (
            access.wrapper_apart("default")
            .settings_dict["OPTIONS"]
            .get("connect_timeout")
        )

    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    aliases(default=shop(blue))
    assert timeout() == access.CONNECT_SECONDS
    assert connections.settings["default"]["OPTIONS"] == {}
    aliases(default=shop(blue, OPTIONS={"connect_timeout": 30}))
    assert timeout() == 30
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "40")
    aliases(default=shop(blue))
    assert timeout() is None


def test_no_password_is_printed(blue, aliases):
    """Not even where libpq's own message would have it."""
    told = {"USER": "postgres", "PASSWORD": "open-sesame"}
    aliases(default=shop(blue, **told), other=shop(blue, **told, OPTIONS={}))
    for arguments in ((), ("--json",)):
        assert "sesame" not in run(*arguments)
    aliases(default=shop(blue, **told, OPTIONS={"hostaddr": "open-sesame"}))
    text, error, _ = run_failing()
    assert "********" in text
    assert "sesame" not in text + error


# As programs run it


@pytest.fixture
def manage(tmp_path, blue):
    """Run the command as manage.py does, in a process of its own."""
    (tmp_path / "night_settings.py").write_text(
        "INSTALLED_APPS = ['django_pg_hot_async', 'django.contrib.postgres']\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql',"
        " 'OPTIONS': {'service': 'night'}}}\n"
    )
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "night_settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }

    def start(script):
        return subprocess.Popen(
            ["sh", "-c", script.replace("manage.py", f"{sys.executable} -m django")],
            env=env,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def test_a_script_that_waits(manage, service, blue, green):
    service.point("night", blue, "shop")
    script = manage(f"manage.py pg_hot_status --wait 60 --expect {green.major}")
    first = script.stdout.readline()
    assert first == f"default  {described(blue)['release']}, not {green.major}\n"
    service.point("night", green, "shop")
    out, err = script.communicate(timeout=60)
    assert (script.returncode, err) == (0, "")
    assert out.splitlines()[0] == f"default  {described(green)['release']}"


def test_exit_statuses(manage, service, blue):
    service.point("night", blue, "shop")
    for arguments, expected in {
        "": 0,
        "--expect 9.9": 2,
        "--expect 99": 1,
        "--database nobody": 2,
    }.items():
        script = manage(f"manage.py pg_hot_status {arguments}")
        _, err = script.communicate(timeout=60)
        assert script.returncode == expected, arguments
        assert "Traceback" not in err


def test_without_psycopg_3(manage):
    """Django takes psycopg 2 then, and starts; a script is not to wait for ever."""
    script = manage("PSYCOPG_IMPL=none manage.py pg_hot_status --expect 18")
    _, err = script.communicate(timeout=60)
    assert script.returncode == 2
    assert "CommandError: psycopg 3 cannot be imported (requested" in err


def test_help_says_what_it_cannot_see(manage):
    script = manage("manage.py pg_hot_status --help")
    out, _ = script.communicate(timeout=60)
    assert "running processes" in out
    assert "status()" in " ".join(out.split())
