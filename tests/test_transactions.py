"""Transactions: what is true in one, what ends with it, what must not be in its way."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, errors, sql
from psycopg.pq import TransactionStatus

from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async.testing import PgBouncer, PostgreSQL

from .clients import (
    SIZE,
    Mood,
    Size,
    Sync,
    both,
    opened,
    ours,
    outcome,
    register_mood,
    register_size,
)
from .scenarios import HSTORE, MOOD, trust

bindings = pytest.mark.parametrize("binding", ["server", "client"])
LEVELS = ["auto", "connection", "transaction"]
levels = pytest.mark.parametrize("level", LEVELS)
every_level = pytest.mark.parametrize("level", [*LEVELS, "server"])

TABLE = """
create table item (attrs hstore, feels mood, size size);
insert into item values ('a=>1', 'ok', '(1,ok)');
"""
SELECT = "select attrs, feels, size from item"
ROW = ({"a": "1"}, Mood.OK, Size(1, Mood.OK))
SEND = "select %s = attrs, %s = feels, %s = size from item"
VALUES = list(ROW)
SENT = (True,) * 3
WIPE = (
    "drop schema public cascade; create schema public; drop schema if exists x cascade"
)


@pytest.fixture(scope="module")
def _old():
    with PostgreSQL(15) as server:
        server.create_database("shop")
        yield server


@pytest.fixture(scope="module")
def _new():
    with PostgreSQL(18) as server:
        server.create_database("shop")
        yield server


def fill(server: Any, *order: str) -> None:
    for statement in [*order, TABLE]:
        server.execute(statement, dbname="shop")


@pytest.fixture(params=["_old", "_new"], ids=["15", "18"])
def empty(request):
    """A server without a type."""
    server = request.getfixturevalue(request.param)
    yield server
    server.terminate("shop")
    server.execute(WIPE, dbname="shop")


@pytest.fixture
def server(empty):
    fill(empty, HSTORE, MOOD, SIZE)
    return empty


@pytest.fixture
def moving(_old, _new):
    """A PgBouncer, and what moves it from one server to another."""
    fill(_old, HSTORE, MOOD, SIZE)
    fill(_new, MOOD, SIZE, HSTORE)
    try:
        with PgBouncer(_new, "shop") as bouncer:
            ways = itertools.cycle([_old, _new])

            def move() -> None:
                # psycopg's pipelines send a Flush behind the last Sync, and it may
                # keep PgBouncer 1.18 from letting go of the server.
                with suppress(TimeoutError):
                    bouncer.switch(next(ways), timeout=2)

            yield bouncer, move
    finally:
        for server in (_old, _new):
            server.terminate("shop")
            server.execute(WIPE, dbname="shop")


@pytest.fixture(autouse=True)
def _types():
    register_mood()
    register_size()


class TestRolledBack:
    """A type that was created in a transaction goes with it."""

    @both
    @bindings
    @every_level
    def test_created_and_rolled_back(self, empty, client_class, binding, level):
        """Untyped while there is none; and what is created next counts at once."""
        with trust(level), opened(client_class, empty, binding=binding) as client:
            for end in ("rollback", "rollback", "commit"):
                client.results("begin")
                client.results(MOOD)
                row = client.row("select 'ok'::mood, pg_typeof(%s)::text", [Mood.OK])
                assert row == (Mood.OK, "mood")
                client.results(end)
                if end == "rollback":
                    # By its name, as psycopg sends an Enum that it does not know.
                    assert client.row("select %s::text", [Mood.OK]) == ("OK",)
            row = client.row("select 'ok'::mood, pg_typeof(%s)::text", [Mood.OK])
            assert row == (Mood.OK, "mood")

    @both
    @every_level
    @pytest.mark.parametrize("end", ["rollback", "rollback to here", "commit"])
    def test_made_anew(self, server, client_class, level, end):
        """The connection itself made it, so it sends the new one from then on."""
        query = "select 'ok'::mood, pg_typeof(%s)::oid = 'mood'::regtype, %s::mood"
        expected = (Mood.OK, True, Mood.OK)
        with trust(level), opened(client_class, server) as client:
            assert client.row(query, [Mood.OK] * 2) == expected
            client.results("begin")
            client.results("savepoint here")
            client.results("drop type mood cascade")
            client.results(MOOD)
            assert client.row(query, [Mood.OK] * 2) == expected
            client.results(end)
            assert client.row(query, [Mood.OK] * 2) == expected
            if end == "rollback to here":
                client.results("commit")
            assert client.row(query, [Mood.OK] * 2) == expected

    @every_level
    def test_nobody_else_hears_of_it(self, server, level):
        """What is not committed is there for nobody else."""
        query, sent = "select pg_typeof(%s)::oid = 'mood'::regtype", [Mood.OK]
        with (
            trust(level),
            opened(Sync, server) as client,
            opened(Sync, server) as other,
        ):
            assert client.row(query, sent) == other.row(query, sent) == (True,)
            state = state_of(client.connection)
            assert state is not None
            alias = state.alias
            before = alias.generation, alias.differences, alias.since
            client.results("begin")
            client.results("alter type mood rename to was")
            client.results(MOOD)
            assert client.row(query, sent) == (True,)
            client.results("rollback")
            assert client.row(query, sent) == other.row(query, sent) == (True,)
            assert (alias.generation, alias.differences, alias.since) == before

    @both
    @pytest.mark.parametrize(
        "change",
        [
            "do $$ begin drop type mood cascade;"
            " create type mood as enum ('sad', 'ok'); end $$",
            "drop type mood cascade; create type mood as enum ('sad', 'ok')",
            "select remake()",
            "alter type mood rename to was; create type mood as enum ('sad', 'ok')",
            "create schema x; alter type mood set schema x;"
            " create type public.mood as enum ('sad', 'ok')",
        ],
        ids=["do", "several", "function", "renamed", "moved"],
    )
    def test_made_anew_however_that_is_written(self, server, client_class, change):
        """At most one statement is refused, where no command tag tells."""
        server.execute(
            "create function remake() returns int language plpgsql as"
            " $$ begin drop type mood cascade;"
            " create type mood as enum ('sad', 'ok'); return 1; end $$",
            dbname="shop",
        )
        query = "insert into fresh values (%s) returning m"
        with opened(client_class, server) as client:
            assert client.row("select %s", [Mood.OK]) == (Mood.OK,)
            client.results(change)
            client.results("create table fresh (m mood)")
            found = [outcome(client.row, query, [Mood.OK]) for _ in range(3)]
            assert found[1:] == [(Mood.OK,)] * 2
            assert found[0] == (Mood.OK,) or isinstance(found[0], psycopg.Error)

    @both
    def test_an_extension(self, server, client_class):
        query = "select 'a=>1'::hstore, %s -> 'a'"
        with opened(client_class, server) as client:
            for end in ("rollback", "commit"):
                assert client.row(query, [{"a": "1"}]) == ({"a": "1"}, "1")
                client.results("begin")
                client.results("drop extension hstore cascade")
                client.results(HSTORE)
                assert client.row(query, [{"a": "1"}]) == ({"a": "1"}, "1")
                client.results(end)
                assert client.row(query, [{"a": "1"}]) == ({"a": "1"}, "1")

    def test_nested(self, server):
        query = "select pg_typeof(%s)::oid = 'mood'::regtype"
        with opened(Sync, server) as client:
            connection = client.connection
            with connection.transaction():
                assert client.row(query, [Mood.OK]) == (True,)
                with pytest.raises(ZeroDivisionError), connection.transaction():
                    client.results("drop type mood cascade")
                    client.results(MOOD)
                    assert client.row(query, [Mood.OK]) == (True,)
                    with connection.transaction():
                        assert client.row(query, [Mood.OK]) == (True,)
                    raise ZeroDivisionError
                assert client.row(query, [Mood.OK]) == (True,)
                assert client.row(SELECT) == ROW
            assert client.row(query, [Mood.OK]) == (True,)


class TestLeftAsFound:
    @both
    @levels
    @pytest.mark.parametrize(
        "statement",
        [
            "set transaction isolation level serializable",
            "set transaction read only",
            "set local transaction_isolation = 'repeatable read'",
            "set transaction isolation level repeatable read, read only",
        ],
    )
    def test_set_transaction_comes_first(self, server, client_class, level, statement):
        """PostgreSQL wants it before any query, and nothing is read ahead of it."""
        with trust(level), opened(client_class, server) as client:
            for _ in range(2):
                client.results("begin")
                client.results(statement)
                assert client.row(SELECT) == ROW
                assert client.row(SEND, VALUES) == SENT
                client.results("commit")
            assert client.row("show transaction_isolation") == ("read committed",)

    @both
    @levels
    @pytest.mark.parametrize("autocommit", [True, False])
    def test_set_transaction_in_a_pipeline(
        self, server, client_class, level, autocommit
    ):
        async def pipe(connection: Any) -> Any:
            async with connection.transaction(), connection.pipeline():
                await connection.execute("set transaction read only")
                one = await connection.execute(SELECT)
                two = await connection.execute(SEND, VALUES)
            return await one.fetchone(), await two.fetchone()

        def sync_pipe(connection: Any) -> Any:
            with connection.transaction(), connection.pipeline():
                connection.execute("set transaction read only")
                one = connection.execute(SELECT)
                two = connection.execute(SEND, VALUES)
            return one.fetchone(), two.fetchone()

        with (
            trust(level),
            opened(client_class, server, autocommit=autocommit) as client,
        ):
            for _ in range(2):
                if client_class is Sync:
                    assert sync_pipe(client.connection) == (ROW, SENT)
                else:
                    assert client.run(pipe(client.connection)) == (ROW, SENT)

    @levels
    @pytest.mark.parametrize("isolation", IsolationLevel)
    def test_with_a_level_of_isolation(self, server, level, isolation):
        with trust(level), opened(Sync, server, autocommit=False) as client:
            client.connection.isolation_level = isolation
            client.connection.read_only = True
            for query, params, expected in (
                (SEND, VALUES, SENT),
                (SELECT, None, ROW),
                (sql.SQL(SELECT), None, ROW),
            ):
                assert client.row(query, params) == expected
                status = client.connection.info.transaction_status
                assert status == TransactionStatus.INTRANS
                found = client.row("show transaction_isolation")
                assert found == (isolation.name.lower().replace("_", " "),)
                client.connection.rollback()

    @both
    @levels
    def test_an_error_in_it_is_the_projects(self, server, client_class, level):
        with trust(level), opened(client_class, server) as client:
            client.results("begin")
            assert isinstance(outcome(client.row, "select 1/0"), errors.DivisionByZero)
            for query, params in ((SELECT, None), (SEND, VALUES)):
                found = outcome(client.row, query, params)
                assert isinstance(found, errors.InFailedSqlTransaction)
            client.results("rollback")
            assert client.row(SELECT) == ROW
            assert client.row(SEND, VALUES) == SENT

    @both
    def test_one_question_a_transaction_at_most(self, server, client_class):
        with trust("transaction"), opened(client_class, server) as client:
            client.row(SELECT)
            for expected, statements in (
                (0, ["select 1", "set local work_mem = '1MB'"]),
                (1, [SELECT, SELECT, SELECT]),
                (1, ["select 1", SELECT, "savepoint x", SELECT]),
            ):
                client.results("begin")
                with server.statements() as seen:
                    for statement in statements:
                        client.results(statement)
                client.results("commit")
                assert len(ours(seen)) == expected


class TestPipelines:
    @both
    @levels
    def test_values_and_rows(self, server, client_class, level):
        with trust(level), opened(client_class, server) as client:
            for _ in range(2):
                found = client.in_pipeline(
                    (SELECT, None), (SEND, VALUES), (SELECT + " where %s", [True])
                )
                assert found == [ROW, SENT, ROW]

    @both
    @pytest.mark.parametrize(
        "query",
        [
            sql.SQL(SELECT),
            SELECT.encode(),
            sql.SQL("select {} from item").format(
                sql.SQL(", ").join(map(sql.Identifier, ["attrs", "feels", "size"]))
            ),
            f"/* why */ {SELECT}",
            f"-- why\n{SELECT}",
            f"({SELECT})",
            f"with x as ({SELECT}) table x",
        ],
        ids=["sql", "bytes", "composed", "comment", "line", "parentheses", "with"],
    )
    def test_however_a_query_is_written(self, server, client_class, query):
        with opened(client_class, server) as client:
            assert client.in_pipeline((query, None), (query, None)) == [ROW] * 2
            assert client.in_transaction((query, None)) == [ROW]
            assert client.row(query) == ROW

    def test_an_error_in_the_middle(self, server):
        with opened(Sync, server) as client:
            for _ in range(2):
                with suppress(psycopg.Error), client.connection.pipeline() as pipeline:
                    before = client.connection.execute(SELECT)
                    pipeline.sync()
                    with pytest.raises(errors.DivisionByZero):
                        # Either of these, by when the answer comes.
                        client.connection.execute("select 1/0")
                        client.connection.execute(SELECT)
                        pipeline.sync()
                    assert before.fetchone() == ROW
                assert client.row(SELECT) == ROW
                assert client.row(SEND, VALUES) == SENT

    @pytest.mark.pgbouncer
    def test_a_pooler_moves_it_between_syncs(self, moving):
        """A sync ends its transaction; what comes next may go elsewhere."""
        road, move = moving
        with opened(Sync, road) as client:
            for _ in range(4):
                with client.connection.pipeline() as pipeline:
                    one = client.connection.execute(SELECT)
                    two = client.connection.execute(SEND, VALUES)
                    pipeline.sync()
                    assert one.fetchone() == ROW
                    assert two.fetchone() == SENT
                    move()
                    three = client.connection.execute(SEND, VALUES)
                    four = client.connection.execute(SELECT)
                    pipeline.sync()
                    assert three.fetchone() == SENT
                    assert four.fetchone() == ROW
                    move()
                    five = client.connection.execute(SELECT)
                assert five.fetchone() == ROW

    @pytest.mark.pgbouncer
    @both
    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_a_pooler_moves_it_between_transactions(self, moving, client_class, end):
        road, move = moving
        with opened(client_class, road) as client:
            for _ in range(4):
                move()
                client.results("begin")
                assert client.row(SEND, VALUES) == SENT
                assert client.row(SELECT) == ROW
                assert client.many(SEND, [VALUES] * 2) == [[SENT]] * 2
                assert client.stream(SELECT) == [ROW]
                client.results(end)

    @pytest.mark.pgbouncer
    def test_a_chain_of_transactions(self, moving):
        road, move = moving
        with opened(Sync, road) as client:
            for _ in range(3):
                move()
                client.results("begin")
                for _ in range(2):
                    assert client.row(SELECT) == ROW
                    client.results("commit and chain")
                    assert client.row(SEND, VALUES) == SENT
                client.results("rollback")


class TestPrepared:
    """Statements that the server keeps, for a connection that stays open."""

    @both
    @levels
    def test_of_types_made_anew(self, server, client_class, level):
        """At most one statement of each text is refused, and says why."""
        anew = (
            "drop table item; drop type size; drop type mood; drop extension hstore;"
            f"{HSTORE}; {MOOD}; {SIZE};"
        )
        with (
            trust(level),
            opened(client_class, server, prepare_threshold=0) as client,
        ):
            for _ in range(3):
                assert client.row(SELECT) == ROW
                assert client.row(SEND, VALUES) == SENT
            server.execute(anew + TABLE, dbname="shop")
            for query, params, expected in ((SELECT, None, ROW), (SEND, VALUES, SENT)):
                found = [outcome(client.row, query, params) for _ in range(3)]
                assert found[1:] == [expected] * 2
                assert found[0] == expected or isinstance(found[0], psycopg.Error)

    @both
    @pytest.mark.parametrize("within", ["autocommit", "transaction"])
    def test_not_refused_where_trust_is_a_transactions(
        self, server, client_class, within
    ):
        """Each of them is asked about before, so that what is gone is prepared anew."""
        anew = f"drop table item; drop extension hstore; {HSTORE};"
        with (
            trust("transaction"),
            opened(client_class, server, prepare_threshold=1) as client,
        ):

            def read() -> Any:
                if within == "autocommit":
                    return client.row(SELECT)
                return client.in_transaction((SELECT, None))[0]

            for _ in range(5):
                assert read() == ROW
            server.execute(anew + TABLE, dbname="shop")
            assert [outcome(read) for _ in range(4)] == [ROW] * 4

    @pytest.mark.parametrize("kept", [None, 8])
    def test_none_is_left_behind(self, server, kept):
        """The server keeps as many as psycopg does, however often types change."""
        queries = [f"select %s::int + {number}" for number in range(12)]
        with opened(Sync, server, prepare_threshold=1) as client:
            connection = client.connection
            if kept is not None:
                connection.prepared_max = kept
            limit = connection.prepared_max + len(queries)
            for number in range(12):
                server.execute(
                    f"create schema x; create type x.mood as enum ('ok', 'n{number}')",
                    dbname="shop",
                )
                assert client.row("select 'ok'::x.mood") == (Mood.OK,)
                for query in queries:
                    for _ in range(3):
                        client.row(query, [1])
                server.execute("drop schema x cascade", dbname="shop")
            [count] = client.row("select count(*) from pg_prepared_statements")
            assert count <= limit

    @both
    def test_deallocated_by_the_project(self, server, client_class):
        """As psycopg has it, which forgets its statements then in later releases."""
        query = f"{SELECT} where %s"

        def turns(execute: Any) -> list[Any]:
            found = []
            for _ in range(3):
                found += [outcome(execute, query, [True]) for _ in range(3)]
                found.append(outcome(execute, "deallocate all"))
            return [type(one) if isinstance(one, Exception) else "" for one in found]

        with psycopg.connect(
            server.conninfo("shop"), autocommit=True, prepare_threshold=1
        ) as plain:
            expected = turns(plain.execute)
        with opened(client_class, server, prepare_threshold=1) as client:
            assert turns(client.results) == expected
