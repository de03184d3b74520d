"""`manage.py pg_hot_preflight` as a command: what it is told, writes and returns."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import pytest
from django.contrib.postgres import signals
from django.core.management import call_command
from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQLWrapper
from django.db.backends.signals import connection_created
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite

from django_pg_hot_async._operator.preflight import types
from django_pg_hot_async.testing import PgBouncer

from .preflight import fail, point, run, upgrade
from .scenarios import CITEXT, HSTORE, ORDERS, TABLE, lead

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "preflight.md").read_text()


@pytest.fixture
def sides(blue, green):
    with upgrade(blue, green, "preflight_command") as sides:
        yield sides


# What it is told


def test_unknown_alias(sides):
    assert fail("default", "grene") == (
        "'grene' is no alias in DATABASES; those there are: 'default', 'green'"
    )
    assert fail("defualt", "green").startswith("'defualt' is no alias")


def test_same_alias_twice():
    assert fail("default", "default").startswith("'default' is given twice")


@pytest.mark.parametrize(
    "in_between", [False, pytest.param(True, marks=pytest.mark.pgbouncer)]
)
def test_same_database_twice(sides, in_between):
    """By two names, or by a pooler: it is one server that answers."""
    if not in_between:
        target = {**sides.blue.database(sides.dbname), "HOST": "localhost"}
        point("green", target)
        said = fail("default", "green")
    else:
        with PgBouncer(sides.blue, sides.dbname) as bouncer:
            point("green", bouncer.database())
            said = fail("default", "green")
        assert f"127.0.0.1:{bouncer.port}/" in said
    assert said.startswith("'default' and 'green' lead to one and the same database")
    assert f"127.0.0.1:{sides.blue.port}/{sides.dbname}" in said


def test_another_database_of_the_server(sides):
    """A copy within one server is another database: it can be compared."""
    sides.create([HSTORE, CITEXT])
    sides.blue.create_database("preflight_copy", template=sides.dbname)
    try:
        point("green", sides.blue.database("preflight_copy"))
        said = run()
    finally:
        sides.blue.drop_database("preflight_copy")
    assert "twins" in said
    assert "with the same OIDs" in said


def test_other_vendor(sides):
    point("green", {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
    assert fail("default", "green") == (
        "'green' is no PostgreSQL but SQLite: DATABASES['green']['ENGINE'] is"
        " 'django.db.backends.sqlite3'"
    )


class DatabaseWrapper(SQLite):
    """A backend for PostgreSQL whose connections are not psycopg 3's."""

    vendor = "postgresql"

    def get_connection_params(self):
        params = super().get_connection_params()
        del params["connect_timeout"]  # SQLite has none.
        return params


def test_other_driver(sides, monkeypatch, tmp_path):
    module = ModuleType("tests.other_driver.base")
    vars(module)["DatabaseWrapper"] = DatabaseWrapper
    monkeypatch.setitem(sys.modules, "tests.other_driver", ModuleType("other_driver"))
    monkeypatch.setitem(sys.modules, "tests.other_driver.base", module)
    point("green", {"ENGINE": "tests.other_driver", "NAME": str(tmp_path / "file")})
    # Django's own is called for what is not psycopg's, and fails with such a backend.
    assert connection_created.disconnect(signals.register_type_handlers)
    try:
        error = fail("default", "green")
    finally:
        connection_created.connect(signals.register_type_handlers)
    assert error == (
        "'green' leads to a server that is no PostgreSQL, though it speaks its"
        " protocol, or is not connected to by psycopg 3"
    )


class Psycopg2Wrapper(PostgreSQLWrapper):
    """A backend that has stayed with psycopg 2."""

    Database: Any = psycopg2


def test_psycopg_2(sides, monkeypatch):
    module = ModuleType("tests.other_driver.base")
    vars(module)["DatabaseWrapper"] = Psycopg2Wrapper
    monkeypatch.setitem(sys.modules, "tests.other_driver", ModuleType("other_driver"))
    monkeypatch.setitem(sys.modules, "tests.other_driver.base", module)
    target = sides.green.database(sides.dbname)
    point("green", {**target, "ENGINE": "tests.other_driver"})
    assert fail("default", "green").startswith(
        "'green' is connected to by psycopg 2: nothing is tracked with it"
    )


SECRET = "hunter2-is-no-password"


def test_unreachable(sides):
    """At once, pool or not; with the reason, and no password."""
    lead(
        "default",
        {
            **sides.blue.database(sides.dbname),
            "PORT": "1",
            "PASSWORD": SECRET,
            "OPTIONS": {"pool": True},
        },
    )
    said = fail("default", "green")
    assert said.startswith("cannot connect to 'default': ")
    assert "refused" in said
    assert "\n" not in said
    assert SECRET not in said


def test_no_password_in_an_error(sides):
    """Not even where it is what libpq complains of."""
    target = sides.blue.database(sides.dbname)
    point("green", {**target, "OPTIONS": {"sslmode": SECRET, "password": SECRET}})
    said = fail("default", "green")
    assert "sslmode" in said
    assert SECRET not in said


def test_nothing_to_connect_to(sides):
    point("green", {**sides.green.database(""), "OPTIONS": {}})
    assert "Please supply the NAME" in fail("default", "green")


def test_database_missing(sides):
    point("green", sides.green.database("nowhere"))
    assert 'database "nowhere" does not exist' in fail("default", "green")


# What it writes


def test_colours(sides):
    """Where the terminal has them, and the severity in words all the same."""
    sides.create([HSTORE, CITEXT], [CITEXT])
    out = io.StringIO()
    with pytest.raises(SystemExit):
        call_command(
            "pg_hot_preflight", "default", "green", stdout=out, force_color=True
        )
    assert "\x1b[31;1mBREAKS  missing: hstore" in out.getvalue()
    assert "\x1b[31;1mWould break: " in out.getvalue()
    assert "\x1b" not in run(status=1)


KEYS = {
    "": "format ready verdict relation at_cutover compared not_read blue green types"
    " extensions untracked findings",
    "blue": "alias version version_number host port dbname system_identifier is_standby"
    " is_pooled role search_path publications subscriptions",
    "subscriptions": "name enabled publications uncopied",
    "types": "name schema verdict blue green",
    "type": "name schema kind extension oid array_oid is_visible shape",
    "extensions": "name verdict blue green available_on_green",
    "extension": "version schema",
    "untracked": "name schema kind extension columns in_array on suggestion",
    "findings": "severity code object sentence hint",
}


def test_json(sides):
    """Its keys are a promise: one more may come, none goes."""
    sides.create(
        [*ORDERS["blue"], TABLE, "create publication shop"],
        [*ORDERS["green"], TABLE, "alter table product drop tags"],
    )
    conninfo = sides.blue.conninfo(sides.dbname)
    sides.create(
        [],
        [
            f"create subscription shop connection '{conninfo}' publication shop"
            " with (connect = false)"
        ],
    )
    try:
        data = json.loads(run("default", "green", "--json", status=1))
    finally:
        sides.create(
            [],
            [
                "alter subscription shop set (slot_name = none)",
                "drop subscription shop",
            ],
        )
    parts = {
        "": data,
        "blue": data["blue"],
        "subscriptions": data["green"]["subscriptions"][0],
        "types": data["types"][0],
        "type": data["types"][0]["green"],
        "extensions": data["extensions"][0],
        "extension": data["extensions"][0]["green"],
        "untracked": data["untracked"][0],
        "findings": data["findings"][0],
    }
    for part, keys in KEYS.items():
        assert list(parts[part]) == keys.split(), part
    assert data["green"].keys() == data["blue"].keys()
    assert data["format"] == 1
    assert data["ready"] is False
    assert data["verdict"].startswith("Would break: public.product.tags is missing")
    assert data["blue"]["version_number"] == sides.blue.version
    assert data["blue"]["port"] == str(sides.blue.port)
    assert data["blue"]["publications"] == ["shop"]
    assert parts["subscriptions"]["publications"] == ["shop"]
    assert isinstance(data["blue"]["system_identifier"], str)
    assert [one["name"] for one in data["types"]] == ["hstore", "citext"]


def test_json_of_what_is_not_there(sides):
    sides.create([HSTORE], [])
    data = json.loads(run("default", "green", "--json", status=1))
    hstore, citext = data["types"]
    assert hstore["verdict"] == "missing" and hstore["green"] is None
    assert citext["verdict"] == "absent" and citext["blue"] is None


# As a process


@pytest.fixture
def manage(sides, tmp_path):
    """manage.py of a project with the two aliases, as people run it."""
    databases = {
        "default": sides.blue.database(sides.dbname),
        "green": sides.green.database(sides.dbname),
    }
    (tmp_path / "settings.py").write_text(
        textwrap.dedent(
            f"""
            INSTALLED_APPS = ["django_pg_hot_async", "django.contrib.postgres"]
            DATABASES = {databases!r}
            SECRET_KEY = "tests only"
            USE_TZ = True
            """
        )
    )
    (tmp_path / "manage.py").write_text(
        textwrap.dedent(
            """
            import os
            import sys

            from django.core.management import execute_from_command_line

            os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
            execute_from_command_line(sys.argv)
            """
        )
    )

    def run_it(*arguments, **environment):
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "manage.py", "pg_hot_preflight", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
        )

    return run_it


def test_exit_status(sides, manage):
    """0 it would work, 1 it would break, 2 that could not be found out."""
    sides.create([HSTORE, CITEXT])
    done = manage("default", "green")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Ready: 2 tracked types")
    assert done.stderr == ""

    sides.create([], ["drop extension citext"])
    done = manage("default", "green", "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["ready"] is False
    assert done.stderr == ""

    done = manage("default", "grene")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("CommandError: 'grene' is no alias in DATABASES")

    # Django takes psycopg 2 then, and starts.
    done = manage("default", "green", PSYCOPG_IMPL="none")
    assert done.returncode == 2
    assert "CommandError: psycopg 3 cannot be imported (requested" in done.stderr


# What is written about it


CODE_AT = {"Finding": 1, "Rule": 1, "_finding": 2}


def codes() -> set[str]:
    """Return the names of findings, as the source has them."""
    found = {"content_types", "permissions"}
    for path in Path(types.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            place = CODE_AT.get(getattr(node.func, "id", ""), len(node.args))
            for code in node.args[place : place + 1]:
                if isinstance(code, ast.Constant):
                    found.add(str(code.value))
    return found


def test_every_finding_is_told():
    """By name, and no other is."""
    assert codes() > {"missing", "standby", "health_checks", "untracked", "rights"}
    findings = PAGE.partition("## Findings")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)` \|", findings, re.MULTILINE))
    assert told == codes()


def test_every_key_is_told():
    for keys in KEYS.values():
        for key in keys.split():
            assert f"`{key}`" in PAGE, key


def test_every_verdict_is_told():
    for word in types.VERDICTS:
        assert f"`{word}`" in PAGE, word
