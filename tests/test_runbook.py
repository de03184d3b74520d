"""docs/upgrade.md can be followed: its own commands, on two servers, forward and back.

Clients write all the time. Nothing may be lost, and nothing may stay on the wrong side;
through PgBouncer, which holds them meanwhile, no statement fails.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command

from django_pg_hot_async.testing import PgBouncer, PostgreSQL, ServiceFile

from .preflight import point
from .scenarios import CITEXT, HSTORE, MOOD, TABLE, close_all, connections, lead

PAGE = (Path(__file__).parent.parent / "docs" / "upgrade.md").read_text()
DB, APP = "runbook", "runbook_app"
SCHEMA = """
create sequence invoice;
create table sale (id bigserial primary key, worker int, n int, invoice int,
                   mood mood default 'ok', attrs hstore default 'a=>1');
create table log (worker int, n int);
create materialized view sold as select worker, count(*) from sale group by 1;
"""


def commands() -> Iterator[str]:
    """Yield what the page has to be pasted, and "move" where the traffic moves."""
    text = PAGE.partition("\n## Days before\n")[2].partition("\n## `pg_hot_seq")[0]
    for line in text.splitlines():
        if "**Move the traffic" in line:
            yield "move"
        elif line.strip().startswith("$ "):
            yield line.strip()[2:]


class ByService:
    """Traffic that a service file leads; the page's own commands stop writes."""

    role = APP

    def __init__(self, service: ServiceFile, blue: PostgreSQL) -> None:
        self.service = service
        self.move(blue)
        self.conninfo = f"service=runbook user={APP}"
        self.default = {**service.database("runbook"), "USER": APP}

    def stop_writes(self) -> bool:
        return False

    def move(self, server: PostgreSQL) -> None:
        self.service.point("runbook", server, DB)


class ByPgBouncer:
    """Traffic that PgBouncer leads, and holds while nobody is to write."""

    role = "postgres"

    def __init__(self, bouncer: PgBouncer) -> None:
        self.bouncer = bouncer
        self.conninfo = bouncer.conninfo()
        self.default = bouncer.database()

    def stop_writes(self) -> bool:
        self.bouncer.pause()
        return True

    def move(self, server: PostgreSQL) -> None:
        self.bouncer.point(server, DB)
        self.bouncer.resume()


class Client:
    """Writes rows, one after the other, and remembers those that were committed."""

    def __init__(self, conninfo: str, worker: int) -> None:
        self.conninfo = conninfo
        self.worker = worker
        self.committed: list[int] = []
        self.errors: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        n = 0
        while not self._stopped.wait(0.01):
            try:
                with psycopg.connect(
                    self.conninfo, prepare_threshold=None
                ) as connection:
                    while not self._stopped.wait(0.005):
                        n += 1
                        self._write(connection, n)
                        self.committed.append(n)
            except psycopg.Error as error:
                self.errors.add(type(error).__name__)

    def _write(self, connection: psycopg.Connection, n: int) -> None:
        with connection.transaction():
            row = [self.worker, n]
            connection.execute(
                "insert into sale (worker, n, invoice) values (%s, %s,"
                " nextval('invoice'))",
                row,
            )
            connection.execute("insert into log values (%s, %s)", row)
            connection.execute("delete from log where worker = %s and n < %s", row)


@pytest.fixture
def servers(blue, green):
    blue, green = sorted((blue, green), key=lambda server: server.major)
    if green.major < 18 or not (green.bin_dir / "psql").exists():
        pytest.skip("the page's commands are those of PostgreSQL 18")
    blue.execute(f"create role {APP} login")
    blue.execute(f"create database {DB} owner {APP}")
    with psycopg.connect(blue.conninfo(DB), autocommit=True) as connection:
        for extension in (HSTORE, CITEXT):
            connection.execute(extension)
        connection.execute(f"set role {APP}")
        for statement in (MOOD, TABLE, SCHEMA):
            connection.execute(statement)
    yield blue, green
    close_all()
    for kind in ("subscription", "publication"):
        for server in (blue, green):
            for name in ("pg_hot", "pg_hot_back"):
                drop(server, kind, name)
    for server in (blue, green):
        server.execute(f"drop database if exists {DB} with (force)")
        server.execute(f"drop role if exists {APP}")


def drop(server: PostgreSQL, kind: str, name: str) -> None:
    """Drop what a test that failed has left."""
    if server.execute("select 1 from pg_database where datname = %s", [DB]):
        server.execute(f"drop {kind} if exists {name}", dbname=DB)


@contextmanager
def aliases(blue, green, traffic):
    lead("default", traffic.default)
    for alias, server in (("blue", blue), ("green", green)):
        point(alias, {**server.database(DB), "USER": traffic.role})
    try:
        yield
    finally:
        for alias in ("blue", "green"):
            connections.settings.pop(alias, None)


def run(command: str, env: dict[str, str], where: Path) -> None:
    """Run a command of the page; raise if it fails."""
    words = shlex.split(command)
    if words[:2] != ["python", "manage.py"]:
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            env=env,
            cwd=where,
            capture_output=True,
            text=True,
            timeout=60,
        )
        # A role that is there already is an error that changes nothing, the page says.
        is_bad = "ERROR" in done.stderr and "--roles-only" not in command
        assert done.returncode == 0 and not is_bad, (command, done.stderr)
        return
    # As Django runs it, without the second that a process takes to start.
    out = StringIO()
    rest = " ".join(words[2:])
    arguments = re.split(r" \|\| true| > ", rest)[0].split()
    try:
        with redirect_stdout(out):
            call_command(*arguments, stdout=out)
    except SystemExit as end:
        assert not end.code, f"{command}: {out.getvalue()}"
    except CommandError as error:
        assert error.returncode == 1, error
        assert rest.endswith("|| true"), f"{command}: {error}\n{out.getvalue()}"


def rows(server: PostgreSQL) -> set[tuple[int, int]]:
    return set(server.execute("select worker, n from sale", dbname=DB))


@pytest.fixture
def service_file(servers, service, monkeypatch):
    monkeypatch.setenv("PGSERVICEFILE", str(service.path))
    return ByService(service, servers[0])


@pytest.fixture
def pgbouncer(servers):
    with PgBouncer(servers[0], DB) as bouncer:
        yield ByPgBouncer(bouncer)
        close_all()


@pytest.mark.parametrize(
    "route", ["service_file", pytest.param("pgbouncer", marks=pytest.mark.pgbouncer)]
)
def test_the_page_can_be_followed(servers, route, tmp_path, monkeypatch, request):
    blue, green = servers
    traffic = request.getfixturevalue(route)
    monkeypatch.chdir(tmp_path)
    env = {
        **os.environ,
        "PATH": f"{green.bin_dir}{os.pathsep}{os.environ['PATH']}",
        "BLUE": f"postgresql://postgres@127.0.0.1:{blue.port}/{DB}",
        "GREEN": f"postgresql://postgres@127.0.0.1:{green.port}/{DB}",
        "DB": DB,
        "APP": APP,
    }
    targets = [green, blue]
    written = list[int]()
    with (
        aliases(blue, green, traffic),
        Client(traffic.conninfo, 1) as one,
        Client(traffic.conninfo, 2) as two,
    ):
        for command in commands():
            if command == "move":
                traffic.move(targets.pop(0))
                continue
            stops = "default_transaction_read_only = on" in command
            if stops and traffic.stop_writes():
                continue
            command = command.replace("--expect 18", f"--expect {green.major}")
            command = command.replace("--expect 15", f"--expect {blue.major}")
            run(command, env, tmp_path)
            if "ENABLE" in command or "--expect" in command:
                # Rows of this side, to be on the other one later.
                written.append(len(one.committed))
                time.sleep(0.3)
        time.sleep(0.3)
    assert targets == []
    assert written == sorted(set(written)), "clients wrote nothing in a while"
    on_blue, on_green = rows(blue), rows(green)
    lost = {
        (client.worker, n) for client in (one, two) for n in client.committed
    } - on_blue
    assert lost == set()
    assert on_green - on_blue == set(), "left on green"
    assert len(on_green) > len(on_blue) / 10
    [[count, ids, invoices]] = blue.execute(
        "select count(*), count(distinct id), count(distinct invoice) from sale",
        dbname=DB,
    )
    assert count == ids == invoices
    expected = {"ReadOnlySqlTransaction", "AdminShutdown", "OperationalError"}
    assert {*one.errors, *two.errors} <= (expected if route != "pgbouncer" else set())
