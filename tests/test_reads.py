"""When OIDs are read: not at connect, once at first use, and without a trace."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import django
import psycopg
import pytest
from django.db import ProgrammingError, reset_queries, transaction
from django.test.utils import CaptureQueriesContext, override_settings
from psycopg.pq import TransactionStatus

from django_pg_hot_async import forget
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._django import connections as tracked_connections

from .scenarios import (
    ANVIL,
    CITEXT,
    HSTORE,
    KINDS,
    READ,
    ask_for,
    connection,
    database,
    has_binary_hstore,
    lead,
    no_time_to_read,
    own_database,
    trust,
)
from .shop.models import Product

SELECT = "select attrs, tags, parts from product where name = 'anvil'"
ROW = tuple(ANVIL.values())
INSERT = "insert into product (name, attrs) values ('temporary', %s)"


@pytest.fixture
def shop(green):
    """The default alias leads to green, persistently; give options to add some."""

    def lead_to(server=green, dbname="shop", **options):
        lead("default", database(server.database(dbname), KINDS["C2"], **options))

    lead_to()
    yield lead_to
    if connection.connection is not None and not connection.connection.closed:
        if connection.in_atomic_block:
            connection.needs_rollback = True
        connection.rollback()


@pytest.fixture
def reads(green):
    """The reads of types that the server saw."""

    @contextmanager
    def recorded(expected):
        with green.statements() as statements:
            yield
        seen = [text for text in statements if READ in text]
        assert len(seen) == expected, statements

    return recorded


def test_nothing_is_sent_at_connect(shop, green):
    shop()
    connection.ensure_connection()  # Django asks once a process for the version
    connection.close()
    with green.statements() as statements:
        for _ in range(3):
            connection.ensure_connection()
            connection.close()
    assert statements == [] or all("TimeZone" in text for text in statements)


@pytest.mark.parametrize("kind", ["C1", "C2", "C3", "C4"])
def test_nothing_is_sent_at_connect_by_any_kind(green, kind):
    lead("default", database(green.database("shop"), KINDS[kind]))
    KINDS[kind].read()
    connection.close()
    connection.close_pool()
    with green.statements() as statements:
        connection.ensure_connection()
        connection.close()
    assert not [text for text in statements if READ in text or "pg_type" in text]


def test_first_use_is_one_read_and_later_uses_none(shop, reads):
    with reads(1):
        assert ask_for(SELECT) == ROW
    with reads(0):
        assert ask_for(SELECT) == ROW
        ask_for("select %s, %s", [{"a": "1"}, [{"a": "1"}]])
        list(Product.objects.all())


def test_each_connection_reads_for_itself(shop, reads):
    with reads(3):
        for _ in range(3):
            assert ask_for(SELECT) == ROW
            connection.close()


def test_server_trust_reads_once_a_server(shop, reads):
    with trust("server"), reads(1):
        for _ in range(3):
            assert ask_for(SELECT) == ROW
            connection.close()


def test_transaction_trust_asks_once_a_transaction(shop, reads):
    with trust("transaction"), reads(2):
        for _ in range(2):
            with transaction.atomic():
                assert ask_for(SELECT) == ROW
                assert ask_for(SELECT) == ROW
                with transaction.atomic():
                    assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)


def test_transaction_trust_asks_along_with_each_statement(shop, reads):
    """However many columns; and on one cursor that runs one query again."""
    with trust("transaction"), connection.cursor() as cursor:
        with reads(1):
            cursor.execute(SELECT)
            assert cursor.fetchone() == ROW
        with reads(3):
            for _ in range(3):
                cursor.execute(SELECT)
                assert cursor.fetchone() == ROW


def test_transaction_trust_with_parameters(shop, reads):
    """A server that nothing is known of is read first, as a message of its own."""
    for binding, count in ((False, 1 + 3), (True, 3)):
        shop(server_side_binding=binding)
        with trust("transaction"), connection.cursor() as cursor, reads(count):
            for value in ({"a": "1"}, {"b": None}, {}):
                cursor.execute("select %s -> 'a'", [value])
                assert cursor.fetchone() == (value.get("a"),)


def test_a_parameter_can_come_first(shop, reads):
    with reads(1):
        assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
        assert ask_for(SELECT) == ROW


def test_builtin_types_cost_nothing(shop, reads):
    """Only a statement met for the first time has a question with it."""
    query = "select 1, 'x', now(), '{}'::jsonb, '{a}'::text[], 'a'::tsvector"
    with trust("transaction"):
        with reads(1):
            ask_for(query)
        with reads(0):
            for _ in range(2):
                ask_for(query)
                connection.close()


def test_a_read_travels_in_the_message_of_the_first_statement(shop, green):
    connection.ensure_connection()
    with green.statements() as statements:
        assert ask_for(SELECT) == ROW
    [text] = statements
    assert text.startswith(f"{SELECT}\n;{READ}")


def test_an_untracked_type_is_asked_about_once(shop, reads):
    """After the read that travels with the statement: its OID has turned up then."""
    ask_for("select 1")
    with reads(1):
        for _ in range(3):
            assert ask_for("select feels, array[feels] from product limit 1") == (
                "ok",
                "{ok}",
            )
    # One that is made later may be a tracked one: a read, and the question what it is.
    ask_for("create type pg_temp.passing as enum ('x')")
    with reads(2):
        for _ in range(3):
            assert ask_for("select 'x'::pg_temp.passing") == ("x",)


def test_server_trust_shares_what_is_untracked(shop, reads):
    with trust("server"):
        with reads(2):
            assert ask_for("select feels from product limit 1") == ("ok",)
        connection.close()
        with reads(0):
            for _ in range(3):
                assert ask_for("select feels from product limit 1") == ("ok",)
                connection.close()


def test_what_is_untracked_is_confirmed_with_the_rest(shop, reads):
    with trust("transaction"):
        with reads(2):
            assert ask_for("select feels from product limit 1") == ("ok",)
        connection.close()
        with reads(3):
            for _ in range(3):
                assert ask_for("select feels from product limit 1") == ("ok",)
                connection.close()


def test_a_missing_type_costs_nothing_to_read_rows(green, shop, reads):
    green.create_database("bare")
    try:
        shop(dbname="bare")
        with reads(1):
            assert ask_for("select 1") == (1,)
        with reads(0):
            assert ask_for("select 2") == (2,)
        with (
            reads(1),
            pytest.raises(ProgrammingError, match="cannot adapt type 'dict'"),
        ):
            ask_for("select %s", [{"a": "1"}])
        with (
            reads(1),
            pytest.raises(ProgrammingError, match="cannot adapt type 'dict'"),
        ):
            ask_for("select %s", [{"a": "1"}])
    finally:
        connection.close()
        green.drop_database("bare")


def test_forget_makes_the_next_use_read(shop, reads):
    ask_for(SELECT)
    with reads(1):
        forget("default")
        assert ask_for(SELECT) == ROW
    with reads(1):
        forget()
        assert ask_for(SELECT) == ROW


def test_the_read_is_not_one_of_the_applications_queries(shop):
    with CaptureQueriesContext(connection) as queries:
        list(Product.objects.all())
    assert len(queries) == 1
    with override_settings(DEBUG=True):
        reset_queries()
        forget()
        ask_for(SELECT)
        assert [query["sql"] for query in connection.queries] == [SELECT]


def test_execute_wrappers_do_not_see_the_read(shop):
    seen = []

    def wrapper(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        ask_for(SELECT)
    assert seen == [SELECT]


class TestStatus:
    """The transaction is left as it was found."""

    def test_autocommit(self, shop):
        ask_for(SELECT)
        status = connection.connection.info.transaction_status
        assert status is TransactionStatus.IDLE

    def test_autocommit_off(self, shop, green):
        lead("default", {**connection.settings_dict, "AUTOCOMMIT": False})
        assert ask_for(SELECT) == ROW
        status = connection.connection.info.transaction_status
        assert status is TransactionStatus.INTRANS
        connection.rollback()
        status = connection.connection.info.transaction_status
        assert status is TransactionStatus.IDLE

    @pytest.mark.parametrize("binding", [False, True])
    def test_atomic_with_a_savepoint(self, shop, binding):
        shop(server_side_binding=binding)
        with transaction.atomic():
            with transaction.atomic():
                ask_for(INSERT, [{"a": "1"}])
            assert ask_for(SELECT) == ROW
            transaction.set_rollback(True)
        assert not Product.objects.filter(name="temporary").exists()

    def test_aborted_transaction(self, shop, caplog):
        """Nothing can be read in it: no wait, no other error than the server's."""
        with transaction.atomic():
            with pytest.raises(ProgrammingError), connection.cursor() as cursor:
                cursor.execute("select no_such_column")
            connection.needs_rollback = False
            with pytest.raises(Exception, match="aborted"):
                ask_for("select %s", [1])
            connection.needs_rollback = True
        assert ask_for(SELECT) == ROW


class TestCursors:
    """Every way in which rows arrive."""

    @pytest.mark.parametrize("binding", [False, True])
    def test_iterator(self, shop, reads, binding):
        shop(server_side_binding=binding)
        with reads(1):
            rows = list(Product.objects.filter(name="anvil").iterator(chunk_size=1))
        assert [row.attrs for row in rows] == [ANVIL["attrs"]]

    def test_iterator_in_atomic(self, shop, reads):
        with transaction.atomic(), reads(1):
            rows = list(Product.objects.filter(name="anvil").iterator())
        assert [row.tags for row in rows] == [ANVIL["tags"]]

    def test_debug_cursor(self, shop):
        connection.force_debug_cursor = True
        try:
            assert ask_for(SELECT) == ROW
        finally:
            connection.force_debug_cursor = False

    @pytest.mark.parametrize(
        ("factory", "binary"),
        [
            (psycopg.Cursor, False),
            pytest.param(psycopg.Cursor, True, marks=has_binary_hstore),
            (psycopg.RawCursor, False),
            pytest.param(psycopg.RawCursor, True, marks=has_binary_hstore),
            (psycopg.ClientCursor, False),
        ],
    )
    def test_psycopg_cursors(self, shop, factory, binary):
        connection.ensure_connection()
        cursor = factory(connection.connection)
        cursor.execute(
            "select attrs, parts from product where name = 'anvil'", binary=binary
        )
        assert cursor.fetchone() == (ANVIL["attrs"], ANVIL["parts"])

    @has_binary_hstore
    def test_binary_record(self, shop, reads):
        """The elements' OIDs show when the row is fetched, outside any lock."""
        shop(server_side_binding=True)
        connection.ensure_connection()
        cursor = connection.connection.cursor()
        with reads(1):
            cursor.execute(
                "select row(attrs, 1) from product where name = 'anvil'", binary=True
            )
            assert cursor.fetchone() == ((ANVIL["attrs"], 1),)
        assert not connection.connection.lock.locked()

    def test_named_server_cursor(self, shop):
        connection.ensure_connection()
        with (
            connection.connection.transaction(),
            connection.connection.cursor("by_name") as cursor,
        ):
            cursor.execute(SELECT)
            assert cursor.fetchone()[:1] == ROW[:1]

    @pytest.mark.parametrize("binding", [False, True])
    @pytest.mark.parametrize("atomic", [False, True])
    def test_executemany_as_first_use(self, shop, reads, binding, atomic):
        """psycopg opens a pipeline for it; an empty one can be left and re-entered."""
        shop(server_side_binding=binding)
        values = [[{"n": str(number)}] for number in range(3)]
        with reads(1):
            if atomic:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.executemany(INSERT, values)
            else:
                with connection.cursor() as cursor:
                    cursor.executemany(INSERT, values)
        found = Product.objects.filter(name="temporary").order_by("id")
        assert [product.attrs for product in found] == [
            {"n": "0"},
            {"n": "1"},
            {"n": "2"},
        ]
        found.delete()

    def test_cursor_older_than_the_read(self, shop):
        """It has types of its own (psycopg 3.3), which have to follow."""
        with connection.cursor() as old, connection.cursor() as new:
            new.execute(SELECT)
            old.execute("select pg_typeof(%s)::text, pg_typeof(%s)::text", [{}, [{}]])
            assert old.fetchone() == ("hstore", "hstore[]")

    def test_type_display(self, shop):
        with connection.cursor() as cursor:
            cursor.execute(SELECT)
            displays = [column.type_display for column in cursor.description]
            assert displays == ["hstore", "citext[]", "hstore[]"]
            table = connection.introspection.get_table_description(cursor, "product")
        if django.VERSION >= (6, 1):
            # Before that, Django's introspection does not know hstore.
            codes = {column.name: column.type_code for column in table}
            assert codes["attrs"] == "hstore"


class TestReadAhead:
    """While rows arrive nothing can be asked: it is done before, where it is due."""

    @pytest.mark.parametrize("level", ["auto", "server", "connection", "transaction"])
    def test_stream_in_a_fresh_process(self, shop, reads, caplog, level):
        with trust(level), connection.cursor() as cursor:
            with reads(1):
                assert list(cursor.stream(SELECT)) == [ROW]
            with reads(1 if level == "transaction" else 0):
                assert list(cursor.stream(SELECT)) == [ROW]
            sql = "select feels from product where name = 'anvil'"
            assert list(cursor.stream(sql)) == [("ok",)]
        assert not [one for one in caplog.records if one.levelno >= logging.WARNING]

    def test_stream_of_a_type_that_was_created_since(self, shop, green):
        """Another connection was told of fewer types: that does not do here."""
        with own_database(green, "ahead", []):
            green.execute(CITEXT, dbname="ahead")
            shop(dbname="ahead")
            assert ask_for("select '{x}'::citext[]") == (["x"],)
            connection.close()
            green.execute(HSTORE, dbname="ahead")
            with connection.cursor() as cursor:
                rows = list(cursor.stream("select 'a=>1'::hstore"))
            assert rows == [({"a": "1"},)]

    def test_in_the_transaction_that_psycopg_begins(self, green):
        """So that no pooler sends them to two servers."""
        with psycopg.connect(green.conninfo("shop")) as conn:
            tracked_connections.track(conn, "mine")
            with green.statements() as statements:
                assert list(conn.cursor().stream(SELECT)) == [ROW]
            said = [text.split()[0] for text in statements]
            assert said == ["BEGIN", "/*", "select"]

    async def test_what_an_async_connection_awaits(self, green):
        async with await psycopg.AsyncConnection.connect(
            green.conninfo("shop"), autocommit=True
        ) as conn:
            state = tracked_connections.track(conn, "mine")
            rows = [row async for row in conn.cursor().stream(SELECT)]
            assert rows == [ROW]
            forget("mine")
            async with conn.cursor().copy(f"copy ({SELECT}) to stdout") as copy:
                copy.set_types(["hstore", "citext[]", "hstore[]"])
                assert [row async for row in copy.rows()] == [ROW]
            forget("mine")
            async with conn.pipeline():
                cursor = await conn.execute("select %s -> 'a'", [{"a": "1"}])
                assert await cursor.fetchone() == ("1",)
        assert state.alias.reads == 3

    def test_nothing_is_sent_where_there_is_nothing_to_read(self, green, reads):
        with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn, reads(0):
            assert list(conn.cursor().stream("select 1")) == [(1,)]
            cursor = conn.cursor()
            cursor.close()
            with pytest.raises(psycopg.InterfaceError, match="the cursor is closed"):
                list(cursor.stream("select 1"))
        with (
            psycopg.connect(green.conninfo("shop"), autocommit=True) as conn,
            reads(0),
            conn.pipeline(),
        ):
            assert conn.execute("select 1").fetchone() == (1,)

    def test_copy_in_a_pipeline_is_psycopgs_error(self, shop):
        connection.ensure_connection()
        conn = connection.connection
        refusal = pytest.raises(psycopg.NotSupportedError, match="COPY cannot be used")
        with refusal, conn.pipeline(), conn.cursor().copy(f"copy ({SELECT}) to stdout"):
            pass

    @pytest.mark.parametrize("level", ["auto", "server", "connection", "transaction"])
    def test_copy(self, shop, level):
        with (
            trust(level),
            connection.cursor() as cursor,
            cursor.copy(f"copy ({SELECT}) to stdout") as copy,
        ):
            copy.set_types(["hstore", "citext[]", "hstore[]"])
            assert list(copy.rows()) == [ROW]

    @pytest.mark.parametrize(
        "format", ["text", pytest.param("binary", marks=has_binary_hstore)]
    )
    def test_copy_from_with_types(self, shop, format):
        """Types are named, or given by OID, where COPY cannot tell them."""
        into = "copy product (name, attrs, parts) from stdin"
        with (
            connection.cursor() as cursor,
            cursor.copy(f"{into} (format {format})") as copy,
        ):
            copy.set_types(["text", "hstore", "hstore[]"])
            copy.write_row(["copied", {"a": "1"}, [{"b": "2"}, {}]])
        product = Product.objects.get(name="copied")
        assert (product.attrs, product.parts) == ({"a": "1"}, [{"b": "2"}, {}])
        product.delete()

    def test_copy_over_a_cursor_that_is_older_than_the_read(self, shop, green):
        """It has types of its own, by name."""
        connection.ensure_connection()
        cursor = connection.connection.cursor()
        ask_for(SELECT)
        with cursor.copy(f"copy ({SELECT}) to stdout") as copy:
            copy.set_types(["hstore", "citext[]", "hstore[]"])
            assert list(copy.rows()) == [ROW]

    def test_copy_of_a_type_that_nobody_tracks(self, shop):
        """psycopg's own error."""
        (oid,) = ask_for("select 'mood'::regtype::oid")
        with (
            pytest.raises(psycopg.ProgrammingError, match="cannot find a dumper"),
            connection.cursor() as cursor,
            cursor.copy("copy product (feels) from stdin") as copy,
        ):
            copy.set_types([oid])

    @pytest.mark.parametrize("level", ["auto", "server", "connection", "transaction"])
    def test_pipeline_of_ones_own(self, shop, green, level):
        with trust(level):
            shop(server_side_binding=True)
            connection.ensure_connection()
            conn = connection.connection
            with green.statements() as statements, conn.pipeline() as pipeline:
                first = conn.execute("select %s -> 'a'", [{"a": "1"}])
                second = conn.execute(SELECT)
                third = conn.execute(SELECT)
                pipeline.sync()
                assert first.fetchone() == ("1",)
                assert second.fetchone() == third.fetchone() == ROW
        # The pipeline has one sync: it is one transaction.
        seen = len([text for text in statements if READ in text])
        assert seen == 1

    @pytest.mark.parametrize("level", ["auto", "server", "connection", "transaction"])
    def test_rows_that_executemany_returns(self, shop, reads, level):
        sql = "select 'a=>1'::hstore where %s::text is not null"
        with trust(level):
            connection.ensure_connection()
            cursor = connection.connection.cursor()
            with reads(1):
                cursor.executemany(sql, [["x"]] * 3, returning=True)
                assert cursor.fetchone() == ({"a": "1"},)

    def test_executemany_that_returns_nothing(self, shop, reads):
        with connection.cursor() as cursor, reads(0):
            cursor.executemany("select %s", [["x"]] * 3)


class TestTrustEndsInAPipeline:
    """Trust ends within a pipeline: the server is asked in it."""

    def test_pipeline_in_which_trust_ends(self, shop, reads, caplog):
        ask_for(SELECT)
        with reads(1), no_time_to_read(connection.connection) as ask:
            forget("default")
            assert ask("attrs, tags, parts") == ROW
        assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
        with reads(0):
            assert ask_for(SELECT) == ROW

    def test_what_another_connection_was_told_explains_nothing_here(self, shop, blue):
        """Two servers behind one address: the other's OIDs explain nothing here."""
        shop(blue)
        assert ask_for(SELECT) == ROW
        other = state_of(connection.connection)
        shop()
        assert ask_for(SELECT) == ROW
        state = state_of(connection.connection)
        assert other is not None and other.snapshot and state is not None
        with no_time_to_read(connection.connection) as ask:
            state.alias.learn(state.server, other.snapshot)
            assert state.snapshot is None
            assert ask("attrs, tags, parts") == ROW

    def test_fetch_after_close(self, shop):
        shop(server_side_binding=True)
        connection.ensure_connection()
        cursor = connection.connection.execute(
            "select row(feels) from product limit 1", binary=True
        )
        connection.close()
        assert cursor.fetchone() == ((b"ok",),)


def test_a_lost_connection_is_the_databases_own_error(shop, green):
    ask_for("select 1")
    green.terminate("shop")
    with pytest.raises(psycopg.OperationalError):
        connection.connection.execute(SELECT)
    connection.close()
    assert ask_for(SELECT) == ROW


def test_a_psycopg_connection_that_is_not_ours_is_left_alone(shop, green):
    """The template may be anybody's; untracked, psycopg's own rules hold."""
    with psycopg.connect(
        green.conninfo("shop"), context=connection.get_connection_params()["context"]
    ) as conn:
        assert state_of(conn) is None
        row = conn.execute(SELECT).fetchone()
        assert row is not None and isinstance(row[0], str)
        with pytest.raises(psycopg.ProgrammingError, match="cannot adapt type 'dict'"):
            conn.execute("select %s", [{}])


def test_oids_above_two_to_the_31st(shop, reads):
    from django_pg_hot_async.testing import PostgreSQL

    from .scenarios import ORDERS, create_shop

    with PostgreSQL(18, next_oid=3_000_000_000) as server:
        create_shop(server, "shop", ORDERS["green"])
        for binding in (False, True):
            shop(server, server_side_binding=binding)
            KINDS["C2"].read()
            KINDS["C2"].write()
            assert ask_for("select feels from product limit 1") == ("ok",)
        connection.close()
