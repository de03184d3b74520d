"""System checks: each id where it should be told, and where it should not."""

from __future__ import annotations

import ast
import os
import re
import select
import socket
import subprocess
import sys
import threading
import types
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import django
import psycopg
import psycopg2
import pytest
from django.apps import apps
from django.conf import settings
from django.core import checks as django_checks
from django.core.management import call_command
from django.db.backends.postgresql import psycopg_any
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.signals import connection_created
from django.test.utils import override_settings
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.string import TextLoader

import django_pg_hot_async
from django_pg_hot_async import checks, register_type
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import backend, installed, startup
from django_pg_hot_async._django.installed import GROUP
from django_pg_hot_async._operator import declared_types
from django_pg_hot_async.testing import PgBouncer

from .scenarios import ANVIL, KINDS, READ, connections, database, lead, trust

PAGE = (Path(__file__).parent.parent / "docs" / "checks.md").read_text()
SOURCE = "".join(
    Path(str(module.__file__)).read_text()
    for module in (checks, declared_types, installed)
)
POOL = {"OPTIONS": {"pool": True}}


def found(databases: Any = None) -> dict[str, Any]:
    """Run Django's checks; return this package's messages by number."""
    messages = [
        message
        for message in django_checks.run_checks(databases=databases)
        if str(message.id).startswith("django_pg_hot_async.")
    ]
    by_number = {str(message.id).rpartition(".")[2]: message for message in messages}
    assert len(by_number) == len(messages)
    return by_number


@pytest.fixture
def alias(monkeypatch):
    """Set an alias, by default "default", that leads nowhere."""

    def set_alias(alias="default", **database):
        database.setdefault("ENGINE", "django.db.backends.postgresql")
        configured = connections.configure_settings({"default": database})["default"]
        monkeypatch.setitem(connections.settings, alias, configured)
        monkeypatch.setitem(settings.DATABASES, alias, configured)

    set_alias()
    return set_alias


# E001


def test_e001_where_psycopg_3_cannot_be_imported(tmp_path):
    """Django takes psycopg 2 then. It starts, and says what is not done."""
    code = START.format(apps=["django_pg_hot_async", "django.contrib.postgres"])
    process = run(code, tmp_path, PSYCOPG_IMPL="none")
    reason = "requested psycopg implementation 'none' unknown"
    message = (
        "DATABASES['default']['ENGINE'] is 'django.db.backends.postgresql', which uses"
        f" psycopg 2, since psycopg 3 cannot be imported ({reason}). It registers OIDs"
        " for the whole process, and nothing keeps them right."
    )
    assert process.stdout.splitlines() == [f"django_pg_hot_async.E001 {message}"]
    assert process.stderr.strip() == message  # the log


def test_e001_of_a_backend_that_uses_psycopg_2(alias, monkeypatch):
    """Among others that do not, whose connections are tracked."""

    class Psycopg2Wrapper(DatabaseWrapper):
        Database: Any = psycopg2

    base: Any = types.ModuleType("psycopg2_engine.base")
    base.DatabaseWrapper = Psycopg2Wrapper
    monkeypatch.setitem(sys.modules, "psycopg2_engine", types.ModuleType("engine"))
    monkeypatch.setitem(sys.modules, "psycopg2_engine.base", base)
    alias("legacy", ENGINE="psycopg2_engine", PORT="6432")
    assert found().keys() == {"E001"}
    assert found()["E001"].msg == (
        "DATABASES['legacy']['ENGINE'] is 'psycopg2_engine', which uses psycopg 2. It"
        " registers OIDs for the whole process, and nothing keeps them right."
    )
    assert "PG_HOT_ASYNC['ALIASES'] = {'legacy': None}" in found()["E001"].hint
    assert found(["legacy"]).keys() == {"E001"}
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"legacy": None}}):
        assert found() == {}


START = """
import django, sys
from django.conf import settings
settings.configure(
    INSTALLED_APPS={apps},
    DATABASES={{
        "default": {{"ENGINE": "django.db.backends.postgresql"}},
        "lite": {{"ENGINE": "django.db.backends.sqlite3"}},
        "none": {{"ENGINE": "no.such.engine"}},
    }},
)
django.setup()
from django.core.checks import run_checks
for message in run_checks():
    print(message.id, message.msg)
"""


def run(code, path, *, returncode=0, **env):
    (path / "start.py").write_text(code)
    root = Path(django_pg_hot_async.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, path / "start.py"],
        env={**os.environ, "PYTHONPATH": f"{root}:{path}", **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == returncode, done.stderr
    return done


# E002


def test_e002_receiver_was_disconnected(alias):
    assert "E002" not in found()
    assert connection_created.disconnect(dispatch_uid=backend.UID)
    try:
        assert found()["E002"].msg == (
            "This package's receiver of connection_created is not connected, so that"
            " connections are not tracked."
        )
        # Asking a server would only say the same in other words.
        assert found(["default"]).keys() == {"E002"}
    finally:
        startup.install()


def test_e002_ready_was_overridden(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from django_pg_hot_async.apps import DjangoPgHotAsyncConfig\n"
        "class Mine(DjangoPgHotAsyncConfig):\n"
        "    def ready(self): pass\n"
    )
    process = run(START.format(apps=["mine.Mine"]), tmp_path)
    lines = process.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["django_pg_hot_async.E002"]
    process = run(START.format(apps=["django_pg_hot_async"]), tmp_path)
    assert process.stdout == ""


def test_nothing_is_told_without_the_app(alias):
    alias(PORT="6432", **POOL)
    names = [config.name for config in apps.get_app_configs()]
    names.remove("django_pg_hot_async")
    with override_settings(INSTALLED_APPS=names):
        assert found() == found(["default"]) == {}
    with trust("connection"):
        assert found().keys() == {"W001", "W002"}


# E005


MISFIT = """
from django.db.backends.postgresql.base import DatabaseWrapper

original = DatabaseWrapper.init_connection_state
DatabaseWrapper.init_connection_state = lambda this: original(this)
"""
ASIDE = """
from django.core.management import call_command
from django.db import connection
from django.db.backends.signals import connection_created
from django_pg_hot_async import conf, forget, status
from django_pg_hot_async._core import cursors
from django_pg_hot_async._django import backend, contrib_postgres, version

patches = [
    *cursors.PATCHES,
    *backend.PATCHES,
    *contrib_postgres.PATCHES,
    *version.patches(),
]

def what_stands():
    return [vars(patch.owner).get(patch.name) for patch in patches]

before = what_stands()
django.setup()
assert len(before) > 20 and what_stands() == before
assert all(a is b for a, b in zip(what_stands(), before))
assert not conf.is_on
for receiver in connection_created._live_receivers(None)[0]:
    print(receiver.__module__, receiver.__name__)
from django.core.checks import run_checks
for message in run_checks() + run_checks(databases=["default"], tags=["database"]):
    print(message.id, message.msg)
with connection.cursor() as cursor:
    cursor.execute("select attrs, tags from product where name = 'anvil'")
    attrs, tags = cursor.fetchone()
    print(sorted(attrs), tags)
print(status(), forget())
call_command("pg_hot_status", no_color=True)
"""


def test_e005_a_patch_does_not_fit(tmp_path, green):
    """None is installed, then: Django starts, and does what it does without the app."""
    code = f"""
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_pg_hot_async", "django.contrib.postgres"],
    DATABASES={{"default": {green.database("shop")!r}}},
)
{MISFIT}{ASIDE}"""
    process = run(code, tmp_path, returncode=1)
    why = (
        "django.db.backends.postgresql.base.DatabaseWrapper.init_connection_state takes"
        " this; expected self"
    )
    assert process.stdout.splitlines() == [
        "django.contrib.postgres.signals register_type_handlers",
        "django_pg_hot_async.E005 This package stands aside, and Django works as"
        f" without it: {why}.",
        f"{sorted(str(key) for key in ANVIL['attrs'])} {ANVIL['tags']}",
        "[] None",
        "default",
        "  server      its connections are not tracked: the system check"
        " django_pg_hot_async.E005 tells why",
    ]
    log, *_, last = process.stderr.splitlines()
    assert log == f"standing aside, Django works as without this app: {why}"
    said = "CommandError: no answer from default; asking again would not help"
    assert last.endswith(said)


def test_a_patch_of_somebody_elses_fits(tmp_path):
    """One that is there before ours, and hands on whatever it is called with."""
    other = """
from django.db.backends.postgresql.base import DatabaseWrapper

original = DatabaseWrapper.init_connection_state

def taking_anything(*args, **kwargs):
    return original(*args, **kwargs)

DatabaseWrapper.init_connection_state = taking_anything
"""
    start = START.format(apps=["django_pg_hot_async", "django.contrib.postgres"])
    before, setup, after = start.partition("django.setup()")
    assert run(f"{before}{other}{setup}{after}", tmp_path).stdout == ""


# What settings show


CHECKED = {"CONN_HEALTH_CHECKS": True}
OWN_CHECK = {"OPTIONS": {"pool": {"check": print}}}


@pytest.mark.parametrize(
    "level, database, expected",
    [
        ("connection", {}, set()),
        ("connection", {"PORT": "5432"}, set()),
        ("connection", {"PORT": "16432"}, set()),
        ("connection", {"PORT": "6432"}, {"W001"}),
        ("connection", {"PORT": 6543}, {"W001"}),
        ("connection", {"PORT": "5432,6432"}, {"W001"}),
        ("connection", {"OPTIONS": {"port": 6432}}, {"W001"}),
        ("connection", {"DISABLE_SERVER_SIDE_CURSORS": True}, {"W001"}),
        ("connection", {"DISABLE_SERVER_SIDE_CURSORS": False}, set()),
        ("server", {"PORT": "6432"}, {"W001"}),
        ("server", {"HOST": "one,two"}, set()),
        ("auto", {"PORT": "6432"}, set()),
        ("auto", {"DISABLE_SERVER_SIDE_CURSORS": True}, set()),
        ("transaction", {"PORT": "6432"}, set()),
        ("connection", POOL, {"W002"}),
        ("connection", {**POOL, **CHECKED}, set()),
        ("connection", OWN_CHECK, set()),
        ("connection", {"OPTIONS": {"pool": {"check": None}}}, {"W002"}),
        ("connection", {"OPTIONS": {"pool": False}}, set()),
        ("connection", {"CONN_MAX_AGE": 60}, {"W002"}),
        ("connection", {"CONN_MAX_AGE": None}, {"W002"}),
        ("connection", {"CONN_MAX_AGE": None, **CHECKED}, set()),
        ("connection", {"OPTIONS": {"prepare_threshold": 5}}, set()),
        ("auto", {"PORT": 6432, "OPTIONS": {"prepare_threshold": 0}}, {"W003"}),
        ("transaction", {"PORT": 6432, "OPTIONS": {"prepare_threshold": 0}}, {"W003"}),
        ("auto", {"PORT": 6432, "OPTIONS": {"prepare_threshold": None}}, set()),
        ("auto", POOL, {"W002"}),
        ("auto", {}, set()),
        ("transaction", {}, set()),
        ("connection", {"ENGINE": "django.db.backends.sqlite3", "PORT": 6432}, set()),
    ],
)
def test_settings(alias, level, database, expected):
    """And nothing connects: the alias leads nowhere."""
    alias(**database)
    with trust(level):
        assert found().keys() == expected
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}):
        assert found() == {}


def test_w001_names_the_setting_that_decides(alias):
    alias(PORT="6432", DISABLE_SERVER_SIDE_CURSORS=True)
    assert found() == {}
    with trust("connection"):
        message = found()["W001"]
    assert message.msg == (
        "DATABASES['default']['PORT'] is '6432', PgBouncer's port and"
        " DATABASES['default']['DISABLE_SERVER_SIDE_CURSORS'] is True, as for a pooler;"
        " PG_HOT_ASYNC['TRUST'] is 'connection'. A pooler may move an open"
        " connection to another server, and nothing tells the client."
    )
    assert message.hint == (
        "Set PG_HOT_ASYNC['TRUST'] to 'auto', the default, which is right behind any"
        " pooler. Silence this where the pooler never moves an open connection."
    )
    with trust("server"):
        assert "; PG_HOT_ASYNC['TRUST'] is 'server'. " in found()["W001"].msg
    own = {"TRUST": "transaction", "ALIASES": {"default": {"TRUST": "server"}}}
    with override_settings(PG_HOT_ASYNC=own):
        path = "PG_HOT_ASYNC['ALIASES']['default']['TRUST']"
        assert f"; {path} is 'server'. " in found()["W001"].msg
        assert f"Set {path} to 'auto'" in found()["W001"].hint


def test_w002_names_settings_and_values(alias):
    alias(CONN_MAX_AGE=60)
    assert found()["W002"].msg.startswith(
        "DATABASES['default']['CONN_HEALTH_CHECKS'] is False, and"
        " DATABASES['default']['CONN_MAX_AGE'] is 60."
    )
    alias(**POOL)
    assert "DATABASES['default']['OPTIONS']['pool'] is set." in found()["W002"].msg


def test_w003_names_settings_and_values(alias):
    alias(PORT="6543", OPTIONS={"prepare_threshold": 5})
    assert found()["W003"].msg.startswith(
        "DATABASES['default']['OPTIONS']['prepare_threshold'] is 5, and"
        " DATABASES['default']['PORT'] is '6543', Supabase's pooler's port."
    )


@pytest.fixture
def process_wide():
    """Have a registration with psycopg, for the whole process, end with the test."""
    types, loaders = psycopg.adapters.types, psycopg.adapters._loaders
    before = dict(types._registry), [dict(one) for one in loaders]
    yield
    types._registry, loaders[:] = before
    # What was made of it meanwhile has a copy.
    template: Any = psycopg_any.get_adapters_template
    template.cache_clear()


@pytest.mark.parametrize("oid, expected", [(16383, set()), (16384, {"W007"})])
def test_w007_a_type_registered_for_the_whole_process(
    alias, process_wide, oid, expected
):
    TypeInfo("ltree", oid, oid - 1).register()
    assert found().keys() == expected
    if expected:
        assert found()["W007"].msg == (
            "The type 'ltree' is registered in psycopg.adapters, for the whole"
            " process, under the OID that one server has for it. On another server"
            " that OID may be another type, and nothing can make it follow."
        )
        assert "register_type('ltree', ...)" in found()["W007"].hint


def test_w007_an_array_or_a_loader_is_enough(alias, process_wide):
    TypeInfo("built_in", 25, 16400).register()
    assert "'built_in'" in found()["W007"].msg


def test_w007_a_loader_alone(alias, process_wide):
    psycopg.adapters.register_loader(16400, TextLoader)
    assert "The type 'OID 16400' is registered" in found()["W007"].msg


def test_silenced_by_id(alias, capsys):
    alias(PORT="6432")
    with trust("connection"):
        call_command("check")
        assert "(django_pg_hot_async.W001)" in capsys.readouterr().err
        with override_settings(SILENCED_SYSTEM_CHECKS=["django_pg_hot_async.W001"]):
            call_command("check")
        assert "W001" not in capsys.readouterr().err


# What servers say


def test_no_server_is_asked_unless_django_asks_for_it(alias, green):
    lead("default", green.database("shop"))
    with green.statements() as statements:
        found()
        call_command("check")
        assert checks.check_servers(None) == []
        assert checks.check_servers(None, databases=[]) == []
    assert statements == []
    with green.statements() as statements:
        assert found(["default"]) == {}
    assert len([text for text in statements if "pg_catalog" in text]) == 2


@pytest.mark.skipif(django.VERSION < (6, 1), reason="5.2 and 6.0 ask with --database")
def test_check_by_tag_asks_all(alias, green):
    lead("default", green.database("shop"))
    with green.statements() as statements:
        call_command("check", tags=["database"])
    assert statements


def test_w006_a_server_that_cannot_be_reached(alias, green):
    """Only of the databases that were named; and the check itself goes on."""
    secret = "do not tell"
    alias("default", HOST="127.0.0.1", PORT="1", NAME="shop", PASSWORD=secret)
    alias("other", **green.database("shop"))
    message = found(["default", "other"])["W006"]
    assert message.msg.startswith(
        "The server behind DATABASES['default'] was not checked: "
    )
    assert "refused" in message.msg
    assert secret not in message.msg + message.hint
    assert found(["other"]) == {}


@pytest.mark.pgbouncer
def test_w004_a_pooler_in_between(alias, green):
    with PgBouncer(green, "shop") as bouncer:
        target = bouncer.database()
        # No port that is known, and nothing else in settings that would show it.
        lead("default", {**target, "DISABLE_SERVER_SIDE_CURSORS": False})
        for level in ("server", "connection"):
            with trust(level):
                assert found(["default"]).keys() == {"W004"}
                message = found(["default"])["W004"]
                assert (
                    f":{bouncer.port}/shop through a pooler; PG_HOT_ASYNC['TRUST'] is"
                    f" {level!r}. "
                ) in message.msg
                assert message.hint.startswith("Set PG_HOT_ASYNC['TRUST'] to 'auto', ")
        for level in ("auto", "transaction"):
            with trust(level):
                assert found(["default"]) == {}


@pytest.fixture
def declare():
    before = runtime.group(GROUP)
    yield register_type
    runtime.track(GROUP, before)


class Mood(Enum):
    sad = "sad"
    ok = "ok"


@pytest.fixture
def by_hand():
    """Have a receiver register a type on each connection, as psycopg's manual does."""

    def register_mood(connection: Any, **kwargs: Any) -> None:
        info = EnumInfo.fetch(connection.connection, "mood")
        assert info is not None
        register_enum(info, connection.connection, Mood)

    connection_created.connect(register_mood)
    yield
    connection_created.disconnect(register_mood)


def test_w008_a_receiver_registers_a_type_by_hand(alias, green, by_hand):
    lead("default", green.database("shop"))
    assert found() == {}
    message = found(["default"])["W008"]
    assert message.msg.startswith(
        "The type 'mood' is registered on connections of DATABASES['default'] under the"
        " OID that PostgreSQL"
    )
    assert message.msg.endswith(
        " has for it. A connection that is moved to another server keeps it."
    )
    assert message.hint.startswith("Declare it with register_type(), and remove")
    assert found(["default"]).keys() == {"W008"}


def test_w008_is_not_told_of_what_w007_tells(tmp_path, green):
    """Django's connections have what is registered for the whole process."""
    code = f"""
import django
from django.conf import settings
from psycopg.types import TypeInfo
TypeInfo("ltree", 20000, 20001).register()
settings.configure(
    INSTALLED_APPS=["django_pg_hot_async"],
    DATABASES={{"default": {green.database("shop")!r}}},
)
django.setup()
from django.core.checks import run_checks
for message in run_checks(databases=["default"]):
    print(message.id)
"""
    assert run(code, tmp_path).stdout == "django_pg_hot_async.W007\n"


def test_w005_a_type_that_the_server_lacks(alias, green, declare):
    lead("default", green.database("shop"))
    declare("mood", EnumInfo, register_enum)
    declare("positive")
    message = found(["default"])["W005"]
    assert message.msg.startswith(
        "register_type() declares 'positive', a TypeInfo, and PostgreSQL"
    )
    assert message.msg.endswith(
        ", to which DATABASES['default'] leads, has no such type."
    )
    green.execute("create domain positive as int", dbname="shop")
    try:
        assert found(["default"]) == {}
    finally:
        green.execute("drop domain positive", dbname="shop")


def test_an_app_listed_by_its_class_stays(tmp_path):
    """After somebody's override_settings(), too."""
    (tmp_path / "mine.py").write_text(
        "from django_pg_hot_async.apps import DjangoPgHotAsyncConfig\n"
        "class Mine(DjangoPgHotAsyncConfig): pass\n"
    )
    override = """
from django.test.utils import override_settings
with override_settings(INSTALLED_APPS=["django.contrib.sessions"]):
    pass
for message in run_checks():
    print(message.id, message.msg)
"""
    for name in ("mine.Mine", "django_pg_hot_async.apps.DjangoPgHotAsyncConfig"):
        process = run(START.format(apps=[name]) + override, tmp_path)
        assert process.stdout == "", name


def test_without_psycopg_3_nothing_public_breaks(tmp_path):
    """A health view, and a nightly job, of a project that is on its way from 2."""
    code = """
from django_pg_hot_async import forget, status
print(status())
forget(); forget("default")
"""
    start = START.format(apps=["django_pg_hot_async"]).partition("from django.core")[0]
    process = run(start + code, tmp_path, PSYCOPG_IMPL="none")
    assert process.stdout == "[]\n"


@pytest.fixture
def size(green):
    green.execute("create type size as (width int, height int)", dbname="shop")
    yield
    green.execute("drop type size", dbname="shop")


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (["product", EnumInfo, register_enum], "the row type of a table", "Correct"),
        (["public.mood", CompositeInfo], "an enum", "('public.mood', EnumInfo, reg"),
        (["size"], "a composite type", "('size', CompositeInfo, register_composite, f"),
    ],
)
def test_w005_a_type_of_another_kind(
    alias, green, declare, size, arguments, what, hint
):
    lead("default", green.database("shop"))
    declare(*arguments)
    message = found(["default"])["W005"]
    name = arguments[0].removeprefix("public.")
    assert message.msg.endswith(f"leads, public.{name} is {what}.")
    assert hint in message.hint


def test_w009_an_enum_declared_as_any_type(alias, green, declare):
    lead("default", green.database("shop"))
    declare("mood")
    message = found(["default"])["W009"]
    assert message.msg.startswith("register_type() declares 'mood', a TypeInfo, and on")
    assert message.msg.endswith(" it is an enum: its values stay strings.")
    assert "register_type('mood', EnumInfo, register_enum, enum=...)." in message.hint
    assert message.hint.endswith("For strings, register_type('mood', EnumInfo).")
    runtime.track(GROUP, ())
    declare("mood", EnumInfo)
    assert found(["default"]) == {}
    runtime.track(GROUP, ())
    declare("mood", register=lambda info, context: None)
    assert found(["default"]) == {}


def test_w010_register_type_without_the_app(tmp_path):
    """A warning in every process where it can be told, and a check."""
    (tmp_path / "early").mkdir()
    call = "from django_pg_hot_async import register_type; register_type('x')"
    (tmp_path / "early" / "__init__.py").write_text(call)
    process = run(START.format(apps=["early"]), tmp_path)
    assert process.stdout == (
        "django_pg_hot_async.W010 register_type() is called, and 'django_pg_hot_async'"
        " is not in INSTALLED_APPS: no declared type is loaded or sent.\n"
    )
    with_app = START.format(apps=["early", "django_pg_hot_async"])
    assert run(with_app, tmp_path).stdout == ""
    process = run(START.format(apps=[]) + call, tmp_path)
    assert "start.py:" in process.stderr
    assert (
        "RuntimeWarning: register_type('x', ...) does nothing: 'django_pg_hot_async' is"
        " not in INSTALLED_APPS"
    ) in process.stderr


def test_e006_a_factory_that_takes_something_else(alias, green, declare, size):
    class Box(NamedTuple):
        width: int
        height: int
        depth: int

    lead("default", green.database("shop"))
    declare("size", CompositeInfo, register_composite, factory=Box)
    message = found(["default"])["E006"]
    assert "The factory of the type 'size', " in message.msg
    assert message.msg.endswith(
        "(width, height): missing a required argument: 'depth'."
    )
    runtime.track(GROUP, ())
    declare("size", CompositeInfo, register_composite, factory=lambda *args: args)
    assert found(["default"]) == {}


def test_e003_a_register_function_that_raises(alias, green, declare):
    def register_no_ok(info, context):
        if "ok" in info.labels:
            raise LookupError("no such mood")
        register_enum(info, context)

    lead("default", green.database("shop"))
    declare("mood", EnumInfo, register_no_ok)
    message = found(["default"])["E003"]
    assert message.msg.startswith(
        "The register function of the type 'mood' raised LookupError('no such mood'),"
        " given the type as it is on PostgreSQL"
    )


def test_e004_a_register_function_that_needs_labels(alias, declare, caplog):
    """Else the Enum would be sent by psycopg's dumper, whatever it was given."""

    def register_first(info, context):
        assert info.labels[0]
        register_enum(info, context)

    declare("mood", EnumInfo, register_first)
    assert found()["E004"].msg == (
        "The register function of the type 'mood' raised"
        " IndexError('list index out of range'), given a type without labels or"
        " attributes, as on a server that lacks the type. So it is not known for which"
        " Python types it registers dumpers, and psycopg's own send them."
    )
    assert "function of the type mood raised IndexError" in caplog.text


class Posing:
    """A server in front of *server* that says what CockroachDB says of itself."""

    VALUE = b"crdb_version\0CockroachDB CCL v26.1.0\0"

    def __init__(self, server):
        self._server = server
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        with self._socket:
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self):
        """Serve clients, each in a thread of its own, until the socket is shut down."""
        threads = []
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                break
            threads.append(threading.Thread(target=self._pass_on, args=(client,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _pass_on(self, client):
        with (
            client,
            socket.create_connection(("127.0.0.1", self._server.port)) as server,
        ):
            self._start_and_pass_on(client, server)

    def _start_and_pass_on(self, client, server):
        server.sendall(client.recv(65536))
        # AuthenticationOk, and behind it one more ParameterStatus.
        ok = server.recv(9, socket.MSG_WAITALL)
        assert ok == b"R" + bytes([0, 0, 0, 8, 0, 0, 0, 0])
        length = (4 + len(self.VALUE)).to_bytes(4, "big")
        client.sendall(ok + b"S" + length + self.VALUE)
        while True:
            for one in select.select([client, server], [], [], 30)[0]:
                if not (data := one.recv(65536)):
                    return
                (server if one is client else client).sendall(data)


def test_i002_a_server_that_only_speaks_the_protocol(alias, green):
    with Posing(green) as posing:
        target = green.database("shop")
        options = {"sslmode": "disable", "gssencmode": "disable"}
        lead("default", {**target, "PORT": str(posing.port), "OPTIONS": options})
        with green.statements() as statements:
            message = found(["default"])["I002"]
        assert not [text for text in statements if READ in text]
        assert not [text for text in statements if "pg_catalog." in text]
        assert message.msg == (
            "DATABASES['default'] leads to a server that speaks PostgreSQL's protocol"
            " and is not PostgreSQL. This app ignores it."
        )
        with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}):
            assert found(["default"]) == {}


def test_a_pool_and_an_open_connection_stay_as_they_are(alias, green):
    lead("default", database(green.database("shop"), KINDS["C3"]))
    KINDS["C3"].read()
    before = connections["default"].pool.get_stats()["pool_size"]
    assert found(["default"]) == {}
    assert connections["default"].pool.get_stats()["pool_size"] == before


# docs/checks.md


def test_the_page_lists_them_all():
    """Once each, in order: errors, warnings, hints; and the level is the letter's."""
    numbers = re.findall(r"^\| `django_pg_hot_async\.(\w+)` \|", PAGE, re.MULTILINE)
    assert numbers == sorted(set(numbers), key=lambda one: ("EWI".index(one[0]), one))
    levels = {"E": "Error", "W": "Warning", "I": "Info"}
    calls = ast.walk(ast.parse(SOURCE))
    told = [
        (call.func.id, ast.unparse(keyword.value).rpartition(".")[2].rstrip("'"))
        for call in calls
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        for keyword in call.keywords
        if keyword.arg == "id"
    ]
    assert sorted(number for _, number in told) == sorted(numbers)
    assert all(level == levels[number[0]] for level, number in told)


def test_each_has_a_test():
    text = Path(__file__).read_text()
    for number in re.findall(r"APP\}\.(\w+)", SOURCE):
        assert f"def test_{number.lower()}_" in text
