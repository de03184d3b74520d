"""Never less than Django and psycopg: what this package does not track is theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.core.signals import setting_changed
from django.db import models
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.signals import connection_created
from django.test.utils import override_settings, register_lookup
from psycopg._cursor_base import BaseCursor
from psycopg.adapt import Loader
from psycopg.types import TypeInfo
from psycopg.types.hstore import HstoreLoader, register_hstore
from psycopg.types.json import JsonbDumper

from django_pg_hot_async import forget, pool, register_type
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime

from .clients import ALIAS, Mood, Sync, both, opened, outcome, register_mood
from .scenarios import ANVIL, KINDS, ask_for, connection, database, lead
from .shop.models import Product

SELECT = "select attrs, tags from product where name = 'anvil'"
ROW = (ANVIL["attrs"], ANVIL["tags"])


@pytest.fixture(autouse=True)
def _to_green(green):
    lead("default", database(green.database("shop"), KINDS["C2"]))


@pytest.fixture
def receiver():
    """Connect receivers of `connection_created` for the test."""
    connected = []

    def connect(function: Any) -> None:
        connection_created.connect(function)
        connected.append(function)

    yield connect
    for function in connected:
        connection_created.disconnect(function)


@pytest.fixture
def replaced(monkeypatch):
    """Wrap a private method of psycopg's, as an APM does; return the calls."""

    def wrap(name: str) -> list[Any]:
        calls: list[Any] = []
        there = vars(BaseCursor)[name]

        def traced(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return there(self, *args, **kwargs)

        monkeypatch.setattr(BaseCursor, name, traced)
        return calls

    return wrap


class TestReceivers:
    """What a project's receivers register on a connection stands."""

    @pytest.mark.parametrize("server_side", [False, True])
    def test_a_loader_by_the_name_of_the_type(self, green, receiver, server_side):
        class Frozen(HstoreLoader):
            def load(self, data: Any) -> Any:
                return tuple(sorted(super().load(data).items()))

        def freeze(connection: Any, **kwargs: Any) -> None:
            connection.connection.adapters.register_loader("hstore", Frozen)

        receiver(freeze)
        lead(
            "default",
            database(
                green.database("shop"), KINDS["C2"], server_side_binding=server_side
            ),
        )
        for _ in range(2):
            assert ask_for("select 'a=>1'::hstore, array['a=>1'::hstore]") == (
                (("a", "1"),),
                [(("a", "1"),)],
            ) or ask_for("select 'a=>1'::hstore") == ((("a", "1"),),)
            forget()

    def test_a_dumper_for_dicts_is_replaced_by_contrib_postgress(self, receiver):
        """Which registers hstore later, as without this package."""

        def dicts_as_jsonb(connection: Any, **kwargs: Any) -> None:
            connection.connection.adapters.register_dumper(dict, JsonbDumper)

        receiver(dicts_as_jsonb)
        # Ahead of the others, as it is where it was connected before they were.
        with connection_created.lock:
            receivers = connection_created.receivers
            receivers.insert(0, receivers.pop())
            connection_created.sender_receivers_cache.clear()
        product = Product.objects.create(name="made", attrs={"a": "1"})
        try:
            assert Product.objects.get(pk=product.pk).attrs == {"a": "1"}
        finally:
            product.delete()

    def test_a_dumper_of_a_class_of_its_own(self, receiver):
        class Tree(dict):  # type: ignore[type-arg]
            pass

        def trees(connection: Any, **kwargs: Any) -> None:
            connection.connection.adapters.register_dumper(Tree, JsonbDumper)

        receiver(trees)
        for _ in range(2):
            row = ask_for("select %s::jsonb, %s -> 'a'", [Tree(a=1), {"a": "1"}])
            assert row[1] == "1"
            forget()

    def test_a_type_of_its_own(self, receiver):
        """As pgvector's register_vector() does."""
        seen: list[Any] = []

        class Vector(Loader):
            def load(self, data: Any) -> Any:
                return tuple(bytes(data).decode().strip("()").split(","))

        def register(connection: Any, **kwargs: Any) -> None:
            found = connection.connection
            info = TypeInfo.fetch(found, "point")
            assert info is not None
            TypeInfo("own", 99_999_998, 99_999_997).register(found)
            found.adapters.register_loader(info.oid, Vector)
            seen.append(found)

        receiver(register)
        for _ in range(2):
            assert ask_for("select '(1,2)'::point, attrs from product limit 1") == (
                ("1", "2"),
                ANVIL["attrs"],
            )
            forget()
        assert seen[0].adapters.types["own"].oid == 99_999_998

    def test_that_queries(self, receiver):
        """A receiver may use the connection, by a cursor of Django's or psycopg's."""
        rows: list[Any] = []

        def look(connection: Any, **kwargs: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(SELECT)
                rows.append(cursor.fetchone())
            rows.append(connection.connection.execute(SELECT).fetchone())

        receiver(look)
        assert ask_for(SELECT) == ROW
        assert rows == [ROW, ROW]

    def test_global_registration(self, green):
        """What psycopg has been given for the whole process stays so."""
        with psycopg.connect(green.conninfo("shop")) as plain:
            info = TypeInfo.fetch(plain, "hstore")
            assert info is not None
            register_hstore(info, plain)
            assert plain.execute(SELECT).fetchone()[0] == ROW[0]  # type: ignore[index]
            # Not tracked: no state, and no statement more.
            assert state_of(plain) is None


class TestSomebodyElsesConnections:
    """A proxy of a connection, a duck, an alias that is left out."""

    class Proxy:
        """Stands before a connection, as pools of SQLAlchemy's do."""

        def __init__(self, inner: Any) -> None:
            self.__dict__["_inner"] = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self._inner, name, value)

    @pytest.mark.parametrize(
        "attribute", ["_inner", "driver_connection", "_connection"]
    )
    def test_a_backend_that_gives_out_proxies(self, green, monkeypatch, attribute):
        original = DatabaseWrapper.get_new_connection
        outer = self.Proxy

        class Proxied(outer):  # type: ignore[misc,valid-type]
            def __init__(self, inner: Any) -> None:
                super().__init__(inner)
                self.__dict__[attribute] = inner

        def proxied(self: Any, params: Any) -> Any:
            return Proxied(original(self, params))

        monkeypatch.setattr(DatabaseWrapper, "get_new_connection", proxied)
        lead("default", database(green.database("shop"), KINDS["C2"]))
        for _ in range(2):
            made = Product.objects.create(name="proxied", attrs={"b": "2"})
            try:
                assert Product.objects.get(pk=made.pk).attrs == {"b": "2"}
                assert ask_for(SELECT) == ROW
            finally:
                made.delete()
            connection.close()

    @pytest.mark.parametrize(
        "thing", [object(), None, 1, SimpleNamespace(pgconn=None), "dbname=shop"]
    )
    def test_what_is_no_connection(self, thing):
        found = outcome(pool.configure(ALIAS), thing)
        assert isinstance(found, TypeError)
        assert ALIAS in str(found)

    async def test_what_is_no_async_connection(self):
        with pytest.raises(TypeError, match=ALIAS):
            await pool.aconfigure(ALIAS)(object())  # type: ignore[arg-type]

    def test_an_alias_that_is_left_out(self, green):
        """Django's own receiver serves it: rows are right, nothing is tracked."""
        lead("default", database(green.database("shop"), KINDS["C2"]))
        with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}):
            connection.close()
            assert ask_for(SELECT) == ROW
            assert state_of(connection.connection) is None
            connection.close()
        assert ask_for(SELECT) == ROW
        assert state_of(connection.connection) is not None

    def test_a_cursor_class_of_its_own(self, green):
        """Whatever it overrides, and whatever it returns."""

        class Counting(psycopg.Cursor[Any]):
            count = 0

            def execute(self, *args: Any, **kwargs: Any) -> Any:
                type(self).count += 1
                return super().execute(*args, **kwargs)

        with psycopg.connect(
            green.conninfo("shop"), autocommit=True, cursor_factory=Counting
        ) as conn:
            pool.configure(ALIAS)(conn)
            for _ in range(2):
                assert conn.execute(SELECT).fetchone() == ROW
        assert Counting.count == 2

    def test_a_row_factory_of_the_connections(self, green):
        from psycopg.rows import dict_row

        with psycopg.connect(
            green.conninfo("shop"), autocommit=True, row_factory=dict_row
        ) as conn:
            pool.configure(ALIAS)(conn)
            for params in (None, ["anvil"]):
                query = "select attrs from product where name = "
                found = conn.execute(query + ("%s" if params else "'anvil'"), params)
                assert found.fetchall() == [{"attrs": ROW[0]}]


class TestWrappedByOthers:
    """Others replace the same private names, before or after; all are called."""

    NAMES = ("_start_query", "_execute_gen", "_maybe_prepare_gen", "_set_results")

    @pytest.mark.parametrize("name", NAMES)
    def test_override_settings_keeps_it(self, replaced, name):
        ask_for("select 1")
        calls = replaced(name)

        def is_called() -> bool:
            before = len(calls)
            assert ask_for(SELECT) == ROW
            return len(calls) > before

        assert is_called()
        with override_settings(PG_HOT_ASYNC={"TRUST": "transaction"}):
            assert is_called()
        with override_settings(INSTALLED_APPS=["tests.shop"]):
            connection.close()
            before = len(calls)
            ask_for("select 1")
            assert len(calls) > before
        connection.close()
        assert is_called()

    @pytest.mark.parametrize("name", NAMES)
    def test_register_type_keeps_it(self, replaced, name):
        ask_for("select 1")
        calls = replaced(name)
        register_mood()
        assert ask_for("select 'ok'::mood, %s", [Mood.OK]) == (Mood.OK, Mood.OK)
        assert calls
        calls.clear()
        forget()
        assert ask_for("select 'ok'::mood") == (Mood.OK,)
        assert calls

    @both
    def test_one_that_changes_the_query(self, green, client_class, monkeypatch):
        """sqlcommenter appends, others put a comment in front."""
        there = vars(BaseCursor)["_execute_gen"]

        def commented(self: Any, query: Any, params: Any = None, **kwargs: Any) -> Any:
            return there(self, f"/* app; x */ {query} -- traced", params, **kwargs)

        monkeypatch.setattr(BaseCursor, "_execute_gen", commented)
        with opened(client_class, green) as client:
            for _ in range(2):
                assert client.row(SELECT) == ROW
                assert client.row("select %s -> 'a'", [{"a": "1"}]) == ("1",)


def errors_of_ours(responses: Any) -> list[Any]:
    """The errors that receivers of this package raised; Django's raise some."""
    return [
        response
        for receiver, response in responses
        if receiver.__module__.startswith("django_pg_hot_async")
        and isinstance(response, Exception)
    ]


class TestSignals:
    """Others send `setting_changed` too, and as they please."""

    @pytest.mark.parametrize(
        "arguments",
        [
            {"setting": "CACHES", "enter": False},
            {"setting": "CACHES"},
            {"setting": "DATABASES", "value": None},
            {"setting": "PG_HOT_ASYNC"},
            {"setting": "INSTALLED_APPS", "enter": True},
            {"setting": "INSTALLED_APPS", "value": None, "enter": False, "more": 1},
            {"setting": "USE_TZ", "value": True, "enter": True},
        ],
        ids=lambda arguments: " ".join(map(str, arguments.values())),
    )
    def test_setting_changed(self, arguments):
        ask_for(SELECT)
        responses = setting_changed.send_robust(object, **arguments)
        assert errors_of_ours(responses) == []
        assert ask_for(SELECT) == ROW
        connection.close()
        assert ask_for(SELECT) == ROW

    def test_connection_created_by_somebody_else(self):
        """Of another database, or with nothing but its settings."""
        for found in (
            SimpleNamespace(alias="x", vendor="mysql", connection=object()),
            SimpleNamespace(vendor="sqlite", settings_dict={"NAME": "shop"}),
        ):
            responses = connection_created.send_robust(
                sender=type(found), connection=found
            )
            assert errors_of_ours(responses) == []


PROGRAM = """
import logging, sys
levels = []
handler = logging.Handler()
handler.emit = lambda record: levels.append(record.levelname)
logging.getLogger("django_pg_hot_async").addHandler(handler)
{before}
import django
from django.conf import settings
settings.configure(
    DATABASES={{"default": {database!r}}},
    INSTALLED_APPS=["django_pg_hot_async", "django.contrib.postgres"],
    USE_TZ=True,
    SECRET_KEY="x",
)
django.setup()
from django.core.checks import run_checks
from django.db import connection
found = [m.id for m in run_checks() if str(m.id).startswith("django_pg_hot_async.E")]
with connection.cursor() as cursor:
    for _ in range(2):
        cursor.execute("select attrs, tags, %s -> 'a' from product", [{{"a": "1"}}])
        print(cursor.fetchone() == ({attrs!r}, {tags!r}, "1"))
connection.close()
print("ERROR" in levels, bool(found))
from django_pg_hot_async import register_type, forget, status, pool
forget()
status()
import psycopg
with psycopg.connect(**{{k: v for k, v in (
    ("host", connection.settings_dict["HOST"]),
    ("port", connection.settings_dict["PORT"]),
    ("user", "postgres"), ("dbname", "shop"))}}, autocommit=True) as mine:
    try:
        pool.configure("mine")(mine)
    except Exception as error:
        print(type(error).__name__)
    print(mine.execute("select 1").fetchone())
"""


class TestANameThatIsMissing:
    """With a psycopg, or a Django, that nobody has tried, this package stands aside."""

    @pytest.mark.parametrize(
        "before",
        [
            "from psycopg._cursor_base import BaseCursor as B; del B._start_copy_gen",
            "from psycopg._cursor_base import BaseCursor as B;"
            " del B._maybe_prepare_gen",
            "from psycopg._server_cursor_base import ServerCursorMixin as S;"
            " del S._describe_gen",
            "from psycopg._pipeline_base import BasePipeline as P; del P._fetch_gen",
        ],
        ids=["copy", "prepare", "server cursor", "pipeline"],
    )
    def test_in_psycopg(self, green, before):
        """Django boots and works as without the app; the log and a check say so."""
        # What psycopg itself needs of that name is called through its caller alone.
        done = self._run(green, before, "")
        lines = done.stdout.split("\n")
        if "prepare" in before:
            # psycopg cannot execute without it; it is the boot that counts.
            assert "Traceback" in done.stderr
            assert "_maybe_prepare_gen" in done.stderr.splitlines()[-1]
            assert "django_pg_hot_async/_core" not in done.stderr.split("Traceback")[-1]
            return
        assert done.returncode == 0, done.stderr
        assert lines[:3] == ["True", "True", "True True"]

    @pytest.mark.parametrize(
        "before",
        [
            "from django.db.backends.postgresql.base import DatabaseWrapper as D;"
            " original = D.init_connection_state;"
            " D.init_connection_state = lambda myself: original(myself)",
        ],
        ids=["renamed parameter"],
    )
    def test_in_django(self, green, before):
        done = self._run(green, before, "")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[:3] == ["True", "True", "True True"]

    def test_nothing_is_missing(self, green):
        done = self._run(green, "", "")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[:3] == ["True", "True", "False False"]

    @staticmethod
    def _run(green: Any, before: str, after: str) -> Any:
        program = PROGRAM.format(
            before=before,
            database=green.database("shop"),
            attrs=ANVIL["attrs"],
            tags=ANVIL["tags"],
        )
        return subprocess.run(
            [sys.executable, "-c", program + after],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": ""},
            capture_output=True,
            text=True,
            timeout=120,
        )


def test_a_built_in_type_is_registered_once_for_all(green):
    """Its OID is the same on every server: rows load as psycopg has them."""

    class Point(Loader):
        def load(self, data: Any) -> Any:
            return tuple(map(float, bytes(data).decode().strip("()").split(",")))

    def register(info: Any, context: Any) -> None:
        info.register(context)
        context.adapters.register_loader(info.oid, Point)

    register_type("point", register=register)
    for query in (SELECT, "select 1"):
        with opened(Sync, green) as client:
            client.row(query)
            row = client.row("select '(1,2)'::point, array['(1,2)'::point]")
            assert row == ((1.0, 2.0), [(1.0, 2.0)])


def test_lookups_of_a_project_still_apply():
    """What it registers with Django is none of this package's."""

    class Loud(models.Transform):
        lookup_name = "loud"
        function = "upper"
        output_field = models.TextField()

    with register_lookup(models.TextField, Loud):
        assert Product.objects.filter(name__loud="ANVIL").count() == 1


def test_what_was_made_before_the_app_is_tracked_with_the_next_connection(without_app):
    """While the app is off nothing is tracked, and Django is right by itself."""
    connection.close()
    assert ask_for(SELECT) == ROW
    assert state_of(connection.connection) is None
    assert runtime.aliases == {}
