"""Ours in the place of django.contrib.postgres's receiver, Django none the wiser."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from django.contrib.postgres import apps as postgres_apps
from django.contrib.postgres import operations, signals
from django.contrib.postgres.operations import (
    CITextExtension,
    CreateExtension,
    HStoreExtension,
)
from django.db import ProgrammingError
from django.db.backends.signals import connection_created
from django.db.migrations.state import ProjectState
from django.test.utils import modify_settings, override_settings
from psycopg.types.json import JsonbDumper
from psycopg.types.string import TextLoader

from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import contrib_postgres

from .scenarios import KINDS, READ, ask_for, connection, database, lead

contrib: Any = signals  # its functions have what lru_cache adds to them
ROW = "select 'a=>1'::hstore, array['x'::citext]"


def live_receivers():
    return connection_created._live_receivers(None)[0]


@pytest.fixture
def bare(green):
    """The default alias leads to a database without extensions."""
    green.create_database("bare")
    lead("default", database(green.database("bare"), KINDS["C2"]))
    yield green
    connection.close()
    green.drop_database("bare")


def migrate(operation, *, backwards=False):
    state = ProjectState()
    with connection.schema_editor() as editor:
        method = (
            operation.database_backwards if backwards else operation.database_forwards
        )
        method("shop", editor, state, state)


def test_ours_is_connected_and_named_everywhere():
    ours = signals.register_type_handlers
    assert ours.__module__ == contrib_postgres.__name__
    for holder in (postgres_apps, operations):
        assert holder.register_type_handlers is ours
    receivers = live_receivers()
    assert receivers.count(ours) == 1
    assert signals.__name__ not in [one.__module__ for one in receivers]


def test_django_takes_ours_away_with_its_app():
    """What Django's own test of its app asks for."""
    with override_settings(INSTALLED_APPS=["django_pg_hot_async", "tests.shop"]):
        pass
    assert signals.register_type_handlers in live_receivers()
    connection_created.disconnect(signals.register_type_handlers)
    try:
        with modify_settings(INSTALLED_APPS={"append": "django.contrib.staticfiles"}):
            assert signals.register_type_handlers in live_receivers()
    finally:
        connection_created.connect(signals.register_type_handlers)


ORDERS = """
import sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=sys.argv[1:], SECRET_KEY="x", USE_TZ=True)
django.setup()
from django.db.backends.signals import connection_created
for receiver in connection_created._live_receivers(None)[0]:
    print(receiver.__module__, receiver.__name__)
"""


@pytest.mark.parametrize(
    ("apps", "receivers"),
    [
        (
            ["django_pg_hot_async", "django.contrib.postgres"],
            [
                "django_pg_hot_async._django.backend connected",
                "django_pg_hot_async._django.contrib_postgres register_type_handlers",
            ],
        ),
        (
            ["django.contrib.postgres", "django_pg_hot_async"],
            [
                "django_pg_hot_async._django.contrib_postgres register_type_handlers",
                "django_pg_hot_async._django.backend connected",
            ],
        ),
        (["django_pg_hot_async"], ["django_pg_hot_async._django.backend connected"]),
        (
            ["django.contrib.postgres"],
            ["django.contrib.postgres.signals register_type_handlers"],
        ),
    ],
)
def test_order_of_installed_apps(apps, receivers):
    done = subprocess.run(
        [sys.executable, "-c", ORDERS, *apps],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == receivers


def test_without_contrib_postgres_its_types_are_not_tracked(green):
    lead("default", database(green.database("shop"), KINDS["C1"]))
    with override_settings(INSTALLED_APPS=["django_pg_hot_async"]):
        assert runtime.registry.question.names == ()
        with green.statements() as statements:
            assert ask_for(ROW) == ('"a"=>"1"', "{x}")
            with pytest.raises(ProgrammingError, match="cannot adapt type 'dict'"):
                ask_for("select %s", [{}])
        assert not [text for text in statements if READ in text or "pg_type" in text]
    assert ask_for(ROW) == ({"a": "1"}, ["x"])


def test_taken_out_with_its_app(green):
    """As it was before, for whoever takes the app away by override_settings()."""
    with override_settings(INSTALLED_APPS=["django.contrib.postgres"]):
        assert signals.register_type_handlers in live_receivers()
        lead("default", database(green.database("shop"), KINDS["C1"]))
        assert ask_for(ROW) == ({"a": "1"}, ["x"])
        assert state_of(connection.connection) is None
        connection.close()
    assert ask_for(ROW) == ({"a": "1"}, ["x"])
    assert state_of(connection.connection) is not None


def test_create_extension_is_used_at_once(bare):
    ask_for("select 1")
    migrate(HStoreExtension())
    assert ask_for("select 'a=>1'::hstore, %s -> 'b'", [{"b": "2"}]) == (
        {"a": "1"},
        "2",
    )
    migrate(CITextExtension())
    assert ask_for(ROW) == ({"a": "1"}, ["x"])


def test_extension_removed_and_created_anew(bare):
    lead(
        "default",
        database(bare.database("bare"), KINDS["C2"], server_side_binding=True),
    )
    for operation in (HStoreExtension(), CITextExtension()):
        migrate(operation)
    for order in ((0, 1), (1, 0)):
        assert ask_for(ROW) == ({"a": "1"}, ["x"])
        assert ask_for("select %s -> 'b'", [{"b": "2"}]) == ("2",)
        both = (HStoreExtension(), CITextExtension())
        for operation in both:
            migrate(operation, backwards=True)
        with pytest.raises(ProgrammingError, match="cannot adapt type 'dict'"):
            ask_for("select %s", [{}])
        for number in order:
            migrate(both[number])
    assert ask_for(ROW) == ({"a": "1"}, ["x"])
    assert ask_for("select %s -> 'b'", [{"b": "2"}]) == ("2",)


def test_extension_whose_migration_is_rolled_back(bare):
    with (
        pytest.raises(RuntimeError, match="rolled back"),
        connection.schema_editor() as e,
    ):
        HStoreExtension().database_forwards("shop", e, ProjectState(), ProjectState())
        assert ask_for("select 'a=>1'::hstore") == ({"a": "1"},)
        raise RuntimeError("rolled back")
    migrate(CreateExtension("citext"))
    migrate(HStoreExtension())
    assert ask_for(ROW) == ({"a": "1"}, ["x"])


def test_clearing_djangos_cache_withdraws_trust():
    """It is what a migration does, and whoever knew the remedy of old."""
    alias = runtime.alias("default")
    holders: list[Any] = [signals, operations]
    for function in [holder.get_citext_oids for holder in holders]:
        before = alias.generation
        function.cache_clear()
        assert alias.generation == before + 1


def test_djangos_functions_answer_for_the_server_at_hand(blue, green):
    lead("default", database(blue.database("shop"), KINDS["C1"]))
    before = signals.get_hstore_oids("default")
    assert contrib.get_hstore_oids.cache_info().currsize == 1
    lead("default", database(green.database("shop"), KINDS["C1"]))
    connection.ensure_connection()
    assert signals.get_hstore_oids("default") != before
    connection.close()


# Receivers of a project's own


def test_a_receiver_after_djangos_is_over_it(green, receiver):
    """It comes later, and what comes later counts, as it does by Django alone."""
    lead("default", database(green.database("shop"), KINDS["C1"]))
    receiver(as_jsonb)
    assert ask_for("select pg_typeof(%s)::text", [{"a": 1}]) == ("jsonb",)


def test_a_receiver_before_djangos_is_under_it(green, receiver):
    """Whose register_hstore() takes dicts; ours does, in its place."""
    lead("default", database(green.database("shop"), KINDS["C1"]))
    receiver(as_jsonb, first=True)
    for _ in range(2):
        assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
        connection.close()


def test_a_receiver_before_djangos_where_there_is_no_hstore(bare, receiver):
    """Django registers nothing there, and the project's dumper is what there is."""
    receiver(as_jsonb, first=True)
    assert ask_for("select pg_typeof(%s)::text", [{"a": 1}]) == ("jsonb",)


@pytest.mark.parametrize("first", [False, True])
def test_by_django_alone_receivers_count_in_the_same_order(
    green, receiver, without_app, first
):
    """What the tests before this one hold the app to."""
    lead("default", database(green.database("shop"), KINDS["C1"]))
    receiver(as_jsonb, first=first)
    if first:
        assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
    else:
        assert ask_for("select pg_typeof(%s)::text", [{"a": 1}]) == ("jsonb",)


@pytest.mark.parametrize("first", [False, True])
def test_a_receiver_that_registers_a_loader_by_name(blue, green, receiver, first):
    """psycopg looks the name up in what is registered: the types of this server."""
    for server in (blue, green):
        lead("default", database(server.database("shop"), KINDS["C1"]))
        receiver(as_upper_case, first=first)
        assert ask_for(ROW) == ('"A"=>"1"', ["x"])
        connection.close()


def as_jsonb(connection: Any, **kwargs: Any) -> None:
    connection.connection.adapters.register_dumper(dict, JsonbDumper)


class UpperLoader(TextLoader):
    def load(self, data: Any) -> Any:
        return super().load(data).upper()


def as_upper_case(connection: Any, **kwargs: Any) -> None:
    connection.connection.adapters.register_loader("hstore", UpperLoader)


@pytest.fixture
def receiver():
    """Connect a receiver, behind the others or before them, until the test ends."""
    connected = []

    def connect(function: Any, *, first: bool = False) -> None:
        connection_created.connect(function)
        connected.append(function)
        if first:
            with connection_created.lock:
                receivers = connection_created.receivers
                receivers.insert(0, receivers.pop())
                connection_created.sender_receivers_cache.clear()

    yield connect
    for function in connected:
        connection_created.disconnect(function)


BACKEND = """
import sys
import types
import django
from django.conf import settings
from django.db.backends.postgresql import base

class DatabaseWrapper(base.DatabaseWrapper):
    def init_connection_state(self):
        super().init_connection_state()
        from django.contrib.postgres.signals import register_type_handlers
        register_type_handlers(self)

engine = types.ModuleType("own_engine.base")
engine.DatabaseWrapper = DatabaseWrapper
sys.modules["own_engine"] = types.ModuleType("own_engine")
sys.modules["own_engine.base"] = engine

settings.configure(
    INSTALLED_APPS=[{app}],
    DATABASES={{"default": {{**{target!r}, "ENGINE": "own_engine"}}}},
)
django.setup()
from django.db import connection

for _ in range(2):
    with connection.cursor() as cursor:
        cursor.execute("{row}, %s -> 'b'", [{{"b": "2"}}])
        print(cursor.fetchone())
    connection.close()
"""


@pytest.mark.parametrize("app", ["", "'django_pg_hot_async'"], ids=["without", "with"])
def test_a_backend_that_registers_by_itself(green, app):
    """Without django.contrib.postgres: the call is what says that they are wanted."""
    code = BACKEND.format(app=app, target=green.database("shop"), row=ROW)
    with green.statements() as statements:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
    assert done.stderr == ""
    assert done.stdout == "({'a': '1'}, ['x'], '2')\n" * 2
    asked = [text for text in statements if "typname = 'hstore'" in text]
    assert len(asked) == (0 if app else 1)


# Left to Django


def test_an_alias_left_to_django(green):
    """PG_HOT_ASYNC["ALIASES"][alias] = None: Django's own receiver serves it."""
    lead("default", database(green.database("shop"), KINDS["C1"]))
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}):
        with green.statements() as statements:
            assert ask_for(ROW) == ({"a": "1"}, ["x"])
            assert state_of(connection.connection) is None
            connection.close()
        sent = [text for text in statements if "typname = 'hstore'" in text]
        assert len(sent) == 1
