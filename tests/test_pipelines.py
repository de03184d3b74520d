"""Pipelines: types are read in them as a part of them, or before they begin."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, errors
from psycopg.pq import TransactionStatus

from django_pg_hot_async import forget, pool
from django_pg_hot_async._django import connections as tracked_connections

from .scenarios import CITEXT, HSTORE, MOOD, READ, own_database
from .test_faults import types_locked

NEWS = "select feels from product where name = 'anvil'"
"""Of an enum that nobody tracks: it is asked about."""
LATE: list[list[Any]] = [[None], [None], [{"a": "1"}], [{"a": "2"}]]
"""Rows of which the first do not tell that types have to be read."""


@pytest.fixture(params=["blue", "green"])
def server(request):
    """The releases differ in what ends a transaction that a pipeline has begun."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def shop(server):
    with own_database(server, "piped", [HSTORE, CITEXT, MOOD]):
        server.execute("create table written (n int)", dbname="piped")
        yield server.conninfo("piped")


@pytest.fixture
def fresh(shop):
    """A tracked connection that has asked nothing."""
    with psycopg.connect(shop, autocommit=True) as conn:
        tracked_connections.track(conn, "mine")
        yield conn


def written(server):
    """What others see of the table."""
    [[count]] = server.execute("select count(*) from written", dbname="piped")
    return count


class TestAReadWithin:
    def test_what_was_written_before_is_there(self, server, fresh):
        with fresh.pipeline():
            fresh.execute("insert into written values (1)")
            assert fresh.execute(NEWS).fetchone() == ("ok",)
            fresh.execute("insert into written values (2)")
        assert written(server) == 2
        assert fresh.info.transaction_status == TransactionStatus.IDLE

    def test_its_transaction_is_undone_as_a_whole(self, server, fresh):
        with pytest.raises(errors.DivisionByZero), fresh.pipeline():
            fresh.execute("insert into written values (1)")
            assert fresh.execute(NEWS).fetchone() == ("ok",)
            fresh.execute("select 1 / 0").fetchone()
        assert written(server) == 0
        assert fresh.execute("select 1").fetchone() == (1,)

    def test_a_transaction_can_begin_after_it(self, server, fresh):
        with fresh.pipeline():
            fresh.execute("insert into written values (1)")
            assert fresh.execute(NEWS).fetchone() == ("ok",)
            with fresh.transaction():
                fresh.execute("insert into written values (2)")
        assert written(server) == 2

    def test_before_a_parameter(self, server, fresh):
        """Trust ends in it, and what has been sent has been answered."""
        pool.configure("mine")(fresh)
        with pytest.raises(errors.DivisionByZero), fresh.pipeline():
            fresh.execute("insert into written values (1)")
            assert fresh.execute("select 1").fetchone() == (1,)
            forget("mine")
            cursor = fresh.execute("select %s -> 'a'", [{"a": "1"}])
            assert cursor.fetchone() == ("1",)
            fresh.execute("select 1 / 0").fetchone()
        assert written(server) == 0

    def test_one_that_fails(self, server, fresh):
        """The database's own error, and the pipeline is undone."""
        pool.configure("mine")(fresh)
        fresh.execute("set lock_timeout = '10ms'")
        with (
            types_locked(server, "piped"),
            pytest.raises(errors.LockNotAvailable),
            fresh.pipeline(),
        ):
            fresh.execute("insert into written values (1)")
            assert fresh.execute("select 1").fetchone() == (1,)
            forget("mine")
            fresh.execute("select %s -> 'a'", [{"a": "1"}])
        assert written(server) == 0
        assert fresh.execute(NEWS).fetchone() == ("ok",)

    def test_after_an_error_of_the_pipelines(self, fresh):
        """The server would not answer; psycopg says that the pipeline is aborted."""
        pool.configure("mine")(fresh)
        fresh.execute("set statement_timeout = '5s'")
        with pytest.raises(psycopg.errors.PipelineAborted), fresh.pipeline():
            with pytest.raises(errors.DivisionByZero):
                fresh.execute("select 1 / 0").fetchone()
            forget("mine")
            cursor = fresh.execute("select %s -> 'a'", [{"a": "1"}])
            with pytest.raises(psycopg.errors.PipelineAborted):
                cursor.fetchone()
            fresh.cursor().executemany("select %s -> 'a'", [[{"a": "1"}]])
        assert fresh.execute("select %s -> 'a'", [{"a": "1"}]).fetchone() == ("1",)

    @pytest.mark.parametrize("rows", [1, 300])
    def test_rows_of_executemany_that_fill_the_servers_buffer(
        self, server, fresh, rows
    ):
        """They arrive before all is sent, with nothing to come at that moment."""
        sql = "insert into written values (1) returning 'ok'::mood, repeat(%s, 9000)"
        cursor = fresh.cursor()
        cursor.executemany(sql, [["x"]] * rows, returning=True)
        assert cursor.fetchone() == ("ok", "x" * 9000)
        assert written(server) == rows
        assert fresh.execute("select 1").fetchone() == (1,)


class TestExecutemany:
    """A value may be in any row; in the middle it would be too late to read."""

    @pytest.mark.parametrize("make", [list, tuple, iter], ids=lambda one: one.__name__)
    @pytest.mark.parametrize("cursor_class", [psycopg.Cursor, psycopg.ClientCursor])
    def test_the_first_rows_do_not_tell(self, server, fresh, make, cursor_class):
        sql = "insert into product (name, attrs) values ('late', %s)"
        with server.statements() as statements:
            cursor_class(fresh).executemany(sql, make(LATE))
            cursor_class(fresh).executemany(sql, make(LATE))
        assert len([text for text in statements if READ in text]) == 1
        rows = server.execute(
            "select attrs::text from product where name = 'late'", dbname="piped"
        )
        assert sorted(map(str, rows)) == sorted(
            map(str, 2 * [(None,), (None,), ('"a"=>"1"',), ('"a"=>"2"',)])
        )

    def test_named_parameters_and_lists(self, server, fresh):
        sql = "insert into product (name, parts) values ('late', %(parts)s)"
        rows = [{"parts": None}, {"parts": []}, {"parts": [{"a": "1"}]}]
        fresh.cursor().executemany(sql, rows)
        found = server.execute(
            "select parts::text from product where name = 'late'", dbname="piped"
        )
        assert sorted(map(str, found)) == [
            '(\'{"\\\\"a\\\\"=>\\\\"1\\\\""}\',)',
            *("('{}',)", "(None,)"),
        ]

    @pytest.mark.parametrize("rows", [[["x"]], [[["x", None]]], [[(1, 2)]], []])
    def test_nothing_is_read_for_values_of_other_types(self, server, fresh, rows):
        with server.statements() as statements:
            fresh.cursor().executemany("select %s", rows)
        assert [text for text in statements if READ in text] == []

    def test_a_type_created_since_one_was_sent(self, server, fresh):
        """However short a time ago it was that the server had none."""
        sql = "insert into product (name, attrs) values ('late', %s)"
        server.execute("drop extension hstore cascade", dbname="piped")
        for _ in range(2):
            with pytest.raises(psycopg.ProgrammingError, match="cannot adapt type"):
                fresh.execute("select %s", [{"a": "1"}])
        server.execute(HSTORE, dbname="piped")
        server.execute("alter table product add attrs hstore", dbname="piped")
        fresh.cursor().executemany(sql, LATE)

    def test_rows_without_parameters(self, fresh):
        rows: Any = [None, None]
        fresh.cursor().executemany("select 1", rows)

    def test_a_closed_cursor_is_psycopgs_error(self, shop):
        with psycopg.connect(shop) as conn:
            tracked_connections.track(conn, "mine")
            cursor = conn.cursor()
            cursor.close()
            with pytest.raises(psycopg.InterfaceError, match="the cursor is closed"):
                cursor.executemany("select %s", LATE)
            assert conn.info.transaction_status == TransactionStatus.IDLE

    def test_in_a_transaction_whose_level_is_set_when_it_begins(self, server, shop):
        """PostgreSQL refuses to set it after any other query."""
        with psycopg.connect(shop) as conn:
            conn.isolation_level = IsolationLevel.SERIALIZABLE
            tracked_connections.track(conn, "mine")
            sql = "insert into product (name, attrs) values ('late', %s)"
            conn.cursor().executemany(sql, LATE)
            isolation = conn.execute("show transaction_isolation").fetchone()
        assert isolation == ("serializable",)

    async def test_async(self, server, shop):
        async with await psycopg.AsyncConnection.connect(shop, autocommit=True) as conn:
            state = tracked_connections.track(conn, "mine")
            sql = "insert into product (name, attrs) values ('late', %s)"
            await conn.cursor().executemany(sql, LATE)
        assert state.alias.reads == 1
        count = "select count(*) from product where name = 'late'"
        assert server.execute(count, dbname="piped") == [(4,)]


async def test_nothing_is_sent_when_one_is_entered(server, shop):
    """So a task that is cancelled then is psycopg's to deal with."""
    async with await psycopg.AsyncConnection.connect(shop, autocommit=True) as conn:
        tracked_connections.track(conn, "mine")
        with server.statements() as statements:
            async with conn.pipeline():
                pass
        assert statements == []
        rows = [row async for row in conn.cursor().stream("select 'a=>1'::hstore")]
        assert rows == [({"a": "1"},)]
