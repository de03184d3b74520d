"""Nothing that works without the app stops working with it.

Commands of a project of its own, run once with the app and once without; what they
print has to be the same.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from django_pg_hot_async.testing import PostgreSQL

from .conftest import GREEN

ROOT = Path(__file__).parent.parent
APP = pytest.mark.parametrize("app", [False, True], ids=["without", "with"])


@pytest.fixture(scope="module")
def server():
    with PostgreSQL(GREEN) as server:
        yield server


@pytest.fixture
def inner(server):
    """Run a command of the inner project, on a database of its own."""
    server.create_database("inner")
    yield Inner(server, "inner")
    for [name] in server.execute(
        "select datname from pg_database where datname like '%inner%'"
    ):
        server.drop_database(name)


class Inner:
    def __init__(self, server: PostgreSQL, dbname: str) -> None:
        self.server = server
        self.database: dict[str, Any] = server.database(dbname)

    def run(self, *arguments: str, app: bool, code: int = 0, script: str = "") -> Any:
        """Run ``django-admin``, or a *script*; return what it says."""
        command = ["-c", script] if script else ["-m", "django"]
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.inner.settings",
                "INNER_DATABASE": json.dumps(self.database),
                "INNER_APP": "yes" if app else "",
                "PATH": f"{self.server.bin_dir}{os.pathsep}{os.environ['PATH']}",
                "PYTHONWARNINGS": "default",
                # Some commands print what they took from a set.
                "PYTHONHASHSEED": "0",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    def both(self, *commands: tuple[str, ...]) -> list[str]:
        """Run commands without the app and with it; they have to say the same."""
        without, within = (
            self.run(json.dumps(commands), app=app, script=COMMANDS)
            for app in (False, True)
        )
        assert within.stderr == without.stderr
        said: list[str] = json.loads(within.stdout)
        assert said == json.loads(without.stdout)
        return said


COMMANDS = """
import io, json, sys
import django
django.setup()
from django.core.management import call_command

said = []
for command in json.loads(sys.argv[1]):
    out = io.StringIO()
    call_command(*command, stdout=out, stderr=out)
    said.append(out.getvalue())
print(json.dumps(said))
"""


@APP
@pytest.mark.parametrize("parallel", ["1", "3"])
def test_the_test_command(inner, app, parallel):
    """Creating, cloning and serialising a test database, and all that is in suite."""
    done = inner.run(
        "test",
        *("tests.inner.warehouse.suite", "--parallel", parallel, "--no-input", "-v2"),
        app=app,
    )
    assert "Ran 13 tests" in done.stderr and re.search(r"^OK$", done.stderr, re.M)
    clones = re.findall(r"Cloning test database .*inner", done.stdout + done.stderr)
    assert len(clones) == (0 if parallel == "1" else 3)


def test_the_test_database_is_kept(inner):
    """By a process with the app and by one without, in turn."""
    for app in (True, False, True):
        arguments = ("test", "tests.inner.warehouse.suite.Reading", "--keepdb")
        done = inner.run(*arguments, "-v2", app=app)
        assert "Ran 2 tests" in done.stderr


@APP
def test_migrations_there_and_back(inner, app):
    """In one process, which reads and writes in between: the OIDs differ each time."""
    done = inner.run(app=app, script=THERE_AND_BACK)
    assert done.stdout.splitlines()[-1] == "right 3 times"


THERE_AND_BACK = """
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from tests.inner.warehouse.models import Item

for turn in range(3):
    call_command("migrate", verbosity=0)
    assert Item.objects.get(name="seed").attrs == {"from": "migration"}
    values = {"attrs": {"turn": str(turn)}, "tags": ["X"], "parts": [{"a": None}]}
    item = Item.objects.create(name="new", **values)
    item.refresh_from_db()
    assert {name: getattr(item, name) for name in values} == values
    assert Item.objects.filter(attrs__turn=str(turn), tags=["x"]).count() == 1
    call_command("migrate", "warehouse", "zero", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_extension where extname = 'hstore'")
        assert cursor.fetchone() == (0,)
print("right", turn + 1, "times")
"""


def test_commands_say_the_same(inner):
    _, tables, data, sql, *_ = inner.both(
        ("migrate", "-v0"),
        ("inspectdb",),
        ("dumpdata", "warehouse"),
        ("sqlmigrate", "warehouse", "0001"),
        ("showmigrations",),
        ("makemigrations", "--check", "--dry-run"),
        ("migrate", "--check"),
        ("migrate", "--plan"),
        ("sqlflush",),
        ("sqlsequencereset", "warehouse"),
        ("check", "--tag", "models"),
    )
    assert "class WarehouseItem" in tables
    assert json.loads(json.loads(data)[0]["fields"]["attrs"]) == {"from": "migration"}
    assert "hstore" in sql


def test_dumped_data_can_be_loaded(inner, tmp_path):
    """By a process with the app, what one without it dumped; and the reverse."""
    first, second = str(tmp_path / "first.json"), str(tmp_path / "second.json")
    dump = ("dumpdata", "warehouse")
    for app, commands in (
        (False, [("migrate", "-v0"), (*dump, "-o", first)]),
        (True, [("flush", "--no-input"), ("loaddata", first), (*dump, "-o", second)]),
        (False, [("flush", "--no-input"), ("loaddata", second)]),
    ):
        done = inner.run(json.dumps([*commands, dump]), app=app, script=COMMANDS)
        [row] = json.loads(json.loads(done.stdout)[-1])
        assert json.loads(row["fields"]["attrs"]) == {"from": "migration"}


def test_the_sql_panel_of_django_debug_toolbar(inner):
    """It shows what the application sent, and no statement of ours."""
    without, within = (
        json.loads(inner.run(app=app, script=TOOLBAR).stdout) for app in (False, True)
    )
    assert within == without
    assert [(sql.split()[0], status) for sql, status in within] == [
        ("SELECT", "INTRANS"),
        ("INSERT", "INTRANS"),
        ("SELECT", "INTRANS"),
    ]


TOOLBAR = """
import json
import django
from django.conf import settings
settings.DEBUG = True
settings.ROOT_URLCONF = "debug_toolbar.urls"
settings.STATIC_URL = "static/"
settings.INSTALLED_APPS += ["django.contrib.staticfiles", "debug_toolbar"]
django.setup()
from debug_toolbar.panels.sql import SQLPanel
from debug_toolbar.toolbar import DebugToolbar
from django.core.management import call_command
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import RequestFactory
from tests.inner.warehouse.models import Item

SEED = {"from": "migration"}

def view(request):
    with transaction.atomic():
        assert Item.objects.get(name="seed").attrs == SEED
        Item.objects.create(name="new", attrs=SEED, tags=["x"], parts=[SEED, {}])
        assert Item.objects.filter(attrs__contains=SEED, parts=[SEED, {}]).count() == 1
        transaction.set_rollback(True)
    return HttpResponse()

call_command("migrate", verbosity=0)
connection.close()
connection.ensure_connection()  # Django alone asks for OIDs here
panel = SQLPanel(DebugToolbar(RequestFactory().get("/"), view), view)
panel.enable_instrumentation()
try:
    panel.process_request(panel.toolbar.request)
finally:
    panel.disable_instrumentation()
shown = [
    (query["raw_sql"], query["trans_status"])
    for query in panel._queries
    if query["raw_sql"].split()[0] in ("SELECT", "INSERT")
]
from psycopg.pq import TransactionStatus
print(json.dumps([(sql, TransactionStatus(status).name) for sql, status in shown]))
"""


def test_dbshell(inner):
    for app in (False, True):
        shell = ("dbshell", "--", "-XAtc", "select current_database(), 1 + 1")
        assert inner.run(*shell, app=app).stdout == "inner|2\n"


@APP
def test_system_checks_with_no_database(inner, app):
    """They connect to nothing, and need nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        inner.database["HOST"], inner.database["PORT"] = (
            "127.0.0.1",
            str(listener.getsockname()[1]),
        )
        done = inner.run("check", app=app)
        assert "no issues" in done.stdout + done.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()
