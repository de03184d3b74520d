"""In autocommit, a confirmation travels with the statement: in one message.

Behind a pooler nothing else is sure to reach the same server. What is added shows
nowhere but in the server's log.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from typing import Any, ClassVar

import psycopg
import pytest
from django.db import reset_queries
from django.test.utils import override_settings
from psycopg import errors, sql
from psycopg.adapt import Dumper, Loader
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import class_row, dict_row, namedtuple_row

from django_pg_hot_async import forget
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async.testing import PgBouncer, PostgreSQL

from .clients import (
    ALIAS,
    CLIENTS,
    SIZE,
    Async,
    Mood,
    Relay,
    Size,
    Sync,
    both,
    opened,
    ours,
    outcome,
    register_mood,
    register_size,
)
from .scenarios import (
    CITEXT,
    HSTORE,
    KINDS,
    MOOD,
    READ,
    ask_for,
    connection,
    database,
    has_binary_hstore,
    lead,
    trust,
)

pytestmark = pytest.mark.pgbouncer

TABLE = """
create table item (id int primary key, attrs hstore, tags citext[], feels mood,
    size size, moods mood[], parts hstore[]);
insert into item values
    (1, 'a=>1', '{X}', 'ok', '(1,ok)', '{ok,sad}', array['b=>2'::hstore]);
create table made (id serial primary key, attrs hstore, feels mood, size size);
create table other (id int primary key,
    item int references item deferrable initially deferred, attrs hstore);
create procedure saved(inout x hstore) language plpgsql as $$
    begin commit; x := x || 'saved=>1'; end $$;
create procedure named(inout x text) language plpgsql as $$ begin commit; end $$;
create function says(x text) returns text language plpgsql as $$
    begin raise notice 'said %', x; return x; end $$;
"""
COLUMNS = "attrs, tags, feels, size, moods, parts"
SELECT = f"select {COLUMNS} from item"
ROW = ({"a": "1"}, ["X"], Mood.OK, Size(1, Mood.OK), [Mood.OK, Mood.SAD], [{"b": "2"}])
VALUES = [{"a": "1"}, Mood.OK, Size(1, Mood.OK), [Mood.OK, Mood.SAD], [{"b": "2"}]]
COMPARE = (
    "select {0} = attrs, {0} = feels, {0} = size, {0} = moods, {0} = parts from item"
)
ORDERS = (
    [HSTORE, CITEXT, MOOD, SIZE],
    [MOOD, SIZE, CITEXT, HSTORE],
    [CITEXT, MOOD, HSTORE, SIZE],
)


@pytest.fixture(scope="module")
def servers():
    """Three with other OIDs, the second of another release."""
    with PostgreSQL(18) as one, PostgreSQL(15) as two, PostgreSQL(18) as three:
        for server, order in zip((one, two, three), ORDERS, strict=True):
            server.create_database("shop")
            for statement in [*order, TABLE]:
                server.execute(statement, dbname="shop")
        yield one, two, three


@pytest.fixture(scope="module")
def _bouncer(servers):
    with PgBouncer(servers[0], "shop") as bouncer:
        yield bouncer


@pytest.fixture
def bouncer(_bouncer, servers):
    _bouncer.switch(servers[0])
    return _bouncer


@pytest.fixture(autouse=True)
def _types():
    register_mood()
    register_size()


@pytest.fixture(params=["straight", "pooler"])
def road(request, servers, bouncer):
    return servers[0] if request.param == "straight" else bouncer


bindings = pytest.mark.parametrize("binding", ["server", "client"])


def about(statements: Any, word: str = "item") -> list[str]:
    return [text for text in statements if word in text]


def idle(client: Any) -> bool:
    """Whether the connection is as it was found."""
    found: Any = client.connection
    return (found.info.transaction_status, found.pgconn.pipeline_status) == (
        TransactionStatus.IDLE,
        PipelineStatus.OFF,
    )


class TestWhatIsSent:
    @both
    @bindings
    def test_straight_the_first_statement_carries_and_no_other(
        self, servers, client_class, binding
    ):
        with opened(client_class, servers[0], binding=binding) as client:
            assert client.row(SELECT) == ROW
        with (
            opened(client_class, servers[0], binding=binding) as client,
            servers[0].statements() as seen,
        ):
            assert client.row(SELECT) == ROW
            assert client.row(SELECT) == ROW
            assert client.row("select attrs from item where id = %s", [1]) == ROW[:1]
        assert len(seen) == 3
        assert [READ in text for text in seen] == [True, False, False]
        assert seen[0].startswith(SELECT)
        assert seen[1] == SELECT

    @both
    @bindings
    def test_behind_a_pooler_each_statement_carries(
        self, servers, bouncer, client_class, binding
    ):
        """As one record of the log, which begins with the statement."""
        with opened(client_class, bouncer, binding=binding) as client:
            client.row(SELECT)
            with servers[0].statements() as seen:
                for _ in range(3):
                    assert client.row(SELECT) == ROW
        assert [text.startswith(SELECT) and READ in text for text in seen] == [True] * 3

    @both
    @pytest.mark.parametrize(
        ("query", "params"),
        [
            (SELECT, None),
            (SELECT + " where id = %s", [1]),
            (COMPARE.format("%s"), VALUES),
            (COMPARE.format("%b"), VALUES),
            (f"{SELECT}; {SELECT}", None),
            ("insert into made (attrs) values (%s) returning attrs", [{"a": "1"}]),
        ],
        ids=["simple", "extended", "asserted", "binary", "several", "returning"],
    )
    def test_a_statement_is_one_transaction_of_the_poolers(
        self, bouncer, client_class, query, params
    ):
        """That is what a pooler cannot split."""

        def transactions() -> int:
            [row] = [
                one
                for one in bouncer.command("show stats")
                if one["database"] == "shop"
            ]
            return int(row["total_xact_count"])

        with opened(client_class, bouncer) as client:
            client.results(query, params)
            before = transactions()
            client.results(query, params)
            assert transactions() - before == 1
            assert idle(client)

    @both
    def test_what_has_no_such_type_goes_without(self, servers, bouncer, client_class):
        """From the second time on, until somebody says that it may have changed."""
        with opened(client_class, bouncer) as client:
            with servers[0].statements() as seen:
                for _ in range(3):
                    assert client.row("select id from item") == (1,)
            assert [READ in text for text in about(seen)] == [True, False, False]
            forget(ALIAS)
            with servers[0].statements() as seen:
                client.row("select id from item")
            assert len(ours(seen)) == 1

    @both
    def test_a_text_that_turns_out_to_have_one_is_asked_about_again(
        self, servers, bouncer, client_class
    ):
        """At most one refusal, then right: the table has another column since."""
        server = servers[0]
        server.execute(
            "create table grows (id int); insert into grows values (1)", dbname="shop"
        )
        try:
            with opened(client_class, bouncer) as client:
                for _ in range(2):
                    assert client.row("select * from grows") == (1,)
                server.execute(
                    "alter table grows add attrs hstore default 'a=>1'", dbname="shop"
                )
                first = outcome(client.row, "select * from grows")
                if isinstance(first, Exception):
                    assert isinstance(first, psycopg.OperationalError)
                    assert "run the statement again" in str(first)
                else:
                    assert first == (1, {"a": "1"})
                for _ in range(2):
                    assert client.row("select * from grows") == (1, {"a": "1"})
        finally:
            server.execute("drop table grows", dbname="shop")

    @both
    def test_what_writes_and_returns_always_carries(
        self, servers, bouncer, client_class
    ):
        """It could not be refused afterwards: it has been committed."""
        query = "insert into made default values returning 1"
        with opened(client_class, bouncer) as client, servers[0].statements() as seen:
            for _ in range(3):
                client.row(query)
        assert [READ in text for text in about(seen, "made")] == [True] * 3

    @both
    def test_nothing_is_sent_for_a_transactions_own_statements(
        self, servers, bouncer, client_class
    ):
        with opened(client_class, bouncer) as client:
            client.row(SELECT)
            with servers[0].statements() as seen:
                client.results("begin")
                client.results("set local work_mem = '1MB'")
                client.results("rollback")
            assert ours(seen) == []
            assert idle(client)

    def test_nothing_is_sent_where_no_type_is_tracked(self, servers, bouncer):
        with override_settings(INSTALLED_APPS=["django_pg_hot_async", "tests.shop"]):
            declared = runtime.group("declared")
            runtime.track("declared", ())
            try:
                with opened(Sync, bouncer) as client, servers[0].statements() as seen:
                    assert client.row("select feels from item") == ("ok",)
                    assert client.row("select feels from item") == ("ok",)
                assert ours(seen) == []
            finally:
                runtime.track("declared", declared)


# How a statement can go, and how a confirmation goes with it.
WAYS: dict[str, tuple[Any, Any, str]] = {
    "simple": ("select feels, size from item", None, "server"),
    "extended": ("select feels, size from item where id = %s", [1], "server"),
    "asserted": ("select %s, size from item", [Mood.OK], "server"),
    "binding": ("select %s, size from item", [Mood.OK], "client"),
    "composed": (
        sql.SQL("select {}, size from item").format(sql.Literal(Mood.OK)),
        None,
        "server",
    ),
    "bytes": (b"select feels, size from item", None, "server"),
}
ways = pytest.mark.parametrize(("query", "params", "binding"), WAYS.values(), ids=WAYS)


class TestInvisible:
    """A project sees its own statement and nothing else."""

    @both
    @ways
    def test_of_a_cursor(self, road, client_class, query, params, binding):
        with opened(client_class, road, binding=binding) as client:
            for _ in range(2):
                cursor = client.kept(query, params)
                assert cursor.rowcount == 1
                assert cursor.rownumber == 0
                assert cursor.statusmessage == "SELECT 1"
                assert [column.name for column in cursor.description][1:] == ["size"]
                assert cursor.pgresult.nfields == 2
                assert client.rest(cursor) == [[(Mood.OK, Size(1, Mood.OK))]]
                assert cursor.nextset() is None
                assert idle(client)

    @ways
    def test_of_row_factories(self, road, query, params, binding):
        made = []

        def factory(cursor: Any) -> Any:
            made.append([column.name for column in cursor.description or ()])
            return list

        with opened(Sync, road, binding=binding) as client:
            cursor = client.connection.cursor(row_factory=factory)
            assert list(cursor.execute(query, params)) == [[Mood.OK, Size(1, Mood.OK)]]
        # psycopg makes one for each result that a cursor is given.
        assert all(names[1:] == ["size"] for names in made if names)

    @pytest.mark.parametrize("factory", [dict_row, namedtuple_row, class_row(dict)])
    def test_of_psycopgs_row_factories(self, road, factory):
        with opened(Sync, road) as client:
            cursor = client.connection.cursor(row_factory=factory)
            row: Any = cursor.execute("select feels as it from item").fetchone()
        assert (row if isinstance(row, dict) else row._asdict()) == {"it": Mood.OK}

    @both
    @bindings
    @pytest.mark.parametrize("params", [None, ["x"]], ids=["plain", "params"])
    def test_of_notices(self, road, client_class, binding, params):
        said = []
        with opened(client_class, road, binding=binding) as client:
            client.connection.add_notice_handler(
                lambda diagnostic: said.append(diagnostic.message_primary)
            )
            query = "select says({}), attrs from item".format("%s" if params else "'x'")
            assert client.row(query, params) == ("x", {"a": "1"})
        assert said == ["said x"]

    @both
    @bindings
    @pytest.mark.parametrize(
        ("query", "params"),
        [
            ("select attrs, nowhere from item", None),
            ("select attrs, nowhere from item where id = %s", [1]),
            ("select %s, nowhere from item", [{"a": "1"}]),
        ],
    )
    def test_of_the_place_of_an_error(self, road, client_class, binding, query, params):
        with opened(client_class, road, binding=binding) as client:
            for _ in range(2):
                error = outcome(client.row, query, params)
                assert isinstance(error, errors.UndefinedColumn)
                position = int(error.diag.statement_position or "0")
                if binding == "server" or params is None:
                    sent = query.replace("%s", "$1")
                    assert sent[position - 1 :].startswith("nowhere")
                assert idle(client)
            assert client.row(SELECT) == ROW

    @pytest.mark.parametrize("server_side", [False, True])
    def test_of_what_django_records(self, servers, bouncer, server_side):
        lead(
            "default",
            database(bouncer.database(), KINDS["C2"], server_side_binding=server_side),
        )
        wrapped = []

        def wrapper(execute, query, params, many, context):
            wrapped.append(query)
            return execute(query, params, many, context)

        queries = [("select attrs from item", None), ("select %s -> 'a'", [{"a": "1"}])]
        with override_settings(DEBUG=True), connection.execute_wrapper(wrapper):
            reset_queries()
            assert ask_for(*queries[0]) == ({"a": "1"},)
            assert ask_for(*queries[1]) == ("1",)
            recorded = [query["sql"] for query in connection.queries]
        assert wrapped == [query for query, _ in queries]
        assert len(recorded) == 2
        assert not ours(recorded)

    @both
    @bindings
    def test_of_an_error_at_commit(self, road, client_class, binding):
        """A deferred constraint fails after the statement, and the confirmation."""
        with opened(client_class, road, binding=binding) as client:
            for query, params in (
                ("insert into other values (1, 7, 'a=>1')", None),
                ("insert into other values (1, 7, 'a=>1') returning attrs", None),
                ("insert into other values (%s, 7) returning attrs", [1]),
                ("insert into other values (1, 7, %s) returning attrs", [{"a": "1"}]),
            ):
                error = outcome(client.results, query, params)
                assert isinstance(error, errors.ForeignKeyViolation), error
                assert idle(client)
            assert client.row("select count(*) from other") == (0,)

    @both
    def test_of_a_statement_that_times_out(self, road, client_class):
        with opened(client_class, road) as client:
            client.results("set statement_timeout = '50ms'")
            try:
                for query, params in (
                    ("select attrs, pg_sleep(9) from item", None),
                    ("select attrs, pg_sleep(9) from item where id = %s", [1]),
                    ("select %s, pg_sleep(9)", [{"a": "1"}]),
                ):
                    error = outcome(client.row, query, params)
                    assert isinstance(error, errors.QueryCanceled), error
                    assert idle(client)
            finally:
                # The pooler's connection to the server is everybody's.
                client.results("reset statement_timeout")
            assert client.row(SELECT) == ROW


class TestOnItsOwn:
    """What may not stand in a transaction block goes as it is."""

    @both
    @bindings
    @pytest.mark.parametrize(
        "statement",
        [
            "vacuum item",
            "VACUUM (analyze) item;",
            "/* why; because */ vacuum item",
            "-- select 1; select 2\nvacuum item",
            "/* a /* b; */ c; */ vacuum item",
            "reindex table concurrently item",
            "create index concurrently if not exists by_tags on item (tags)",
            "do $$ begin commit; end $$",
            "do 'begin commit; rollback; end'",
            "do $x$ begin perform 1; commit; end; $x$",
            "call named('a')",
            "call named('a;b'); ",
            r"call named(E'it\'s; fine')",
            'call "named"($q$a;b$q$)',
        ],
    )
    def test_statement(self, road, client_class, binding, statement):
        with opened(client_class, road, binding=binding) as client:
            client.results(statement)
            client.results(statement)
            assert idle(client)
            assert client.row(SELECT) == ROW
        with opened(client_class, road, binding=binding) as client:
            # As the first one that is sent over a connection.
            client.results(statement)

    @both
    def test_databases(self, bouncer, client_class):
        with opened(client_class, bouncer) as client:
            client.results('create database "made;here" template template0')
            client.results('drop database "made;here"')
            assert client.row(SELECT) == ROW

    @both
    @bindings
    @pytest.mark.parametrize("major", [0, 1], ids=["18", "15"])
    def test_a_procedure_that_commits_and_returns(
        self, servers, bouncer, client_class, binding, major
    ):
        """Its result has a type that has to be explained, whoever answers."""
        bouncer.switch(servers[major])
        expected = {"a": "1", "saved": "1"}
        with opened(client_class, bouncer, binding=binding) as client:
            for _ in range(2):
                assert client.row("call saved(%s)", [{"a": "1"}]) == (expected,)
                assert client.row("call saved('a=>1')") == (expected,)
            assert idle(client)

    @both
    def test_a_procedure_of_the_server_moved_to(self, servers, bouncer, client_class):
        with opened(client_class, bouncer) as client:
            for server in (*servers, *servers):
                bouncer.switch(server)
                row = client.row("call saved(%s)", [{"a": "1"}])
                assert row == ({"a": "1", "saved": "1"},)


class TestSeveralStatements:
    """A string of statements is one message already."""

    @both
    @bindings
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (f"{SELECT}; {SELECT}", [[ROW], [ROW]]),
            (f"select 1; {SELECT};", [[(1,)], [ROW]]),
            (f"set work_mem = '4MB'; {SELECT}", [None, [ROW]]),
            (f";; {SELECT}", [[ROW]]),
            (f"{SELECT}; select 'x;y' -- ; the end", [[ROW], [("x;y",)]]),
            (f"begin; {SELECT}; commit", [None, [ROW], None]),
            (f"begin; {SELECT}; commit; {SELECT}", [None, [ROW], None, [ROW]]),
            (f"select $$;$$; {SELECT}", [[(";",)], [ROW]]),
        ],
        ids=range(8),
    )
    def test_each_has_its_rows_wherever_it_is_sent(
        self, servers, bouncer, client_class, binding, query, expected
    ):
        with opened(client_class, bouncer, binding=binding) as client:
            for server in (servers[0], servers[1], servers[2], servers[0]):
                bouncer.switch(server)
                assert client.results(query) == expected
                assert idle(client)

    @both
    def test_on_a_connection_that_prepares_at_once(self, road, client_class):
        """With prepare=False, as psycopg itself wants it for several."""
        with opened(client_class, road) as client:
            client.connection.prepare_threshold = 0
            found = client.results(f"select 1; {SELECT}", prepare=False)
            assert found == [[(1,)], [ROW]]

    @both
    def test_that_leave_a_transaction_open(self, servers, bouncer, client_class):
        with opened(client_class, bouncer) as client:
            for server in (servers[1], servers[2], servers[1]):
                bouncer.switch(server)
                assert client.results(f"{SELECT}; begin; {SELECT}")[-1] == [ROW]
                assert client.row(COMPARE.format("%s"), VALUES) == (True,) * 5
                assert client.results(f"commit; {SELECT}") == [None, [ROW]]
                assert idle(client)

    @both
    def test_one_that_fails_undoes_them_all(self, road, client_class):
        query = f"insert into made (feels) values ('sad'); select 1/0; {SELECT}"
        with opened(client_class, road) as client:
            for _ in range(2):
                assert isinstance(outcome(client.results, query), errors.DivisionByZero)
                assert idle(client)
            found = client.row("select count(*) from made where feels = 'sad'")
            assert found == (0,)


class TestKeptByTheServer:
    """FETCH, EXECUTE and prepared statements: a session's own."""

    @pytest.fixture
    def session(self, servers):
        with PgBouncer(servers[0], "shop", pool_mode="session") as bouncer:
            yield bouncer

    @pytest.fixture(params=["straight", "session"])
    def kept(self, request, servers, session):
        return servers[0] if request.param == "straight" else session

    @both
    @bindings
    def test_fetch(self, kept, client_class, binding):
        with opened(client_class, kept, binding=binding) as client:
            client.results("declare held cursor with hold for select feels from item")
            assert client.row("fetch 1 from held") == (Mood.OK,)
            assert client.results("fetch all from held") == [[]]
            client.results("close held")

    @both
    @bindings
    def test_execute(self, kept, client_class, binding):
        with opened(client_class, kept, binding=binding) as client:
            client.results(f"prepare found as {SELECT}")
            for _ in range(2):
                assert client.row("execute found") == ROW
            client.results("deallocate found")

    @both
    @pytest.mark.parametrize("level", ["auto", "connection", "transaction", "server"])
    def test_prepared_by_psycopg(self, kept, client_class, level):
        with trust(level), opened(client_class, kept, prepare_threshold=1) as client:
            for _ in range(4):
                assert client.row(SELECT) == ROW
                assert client.row(SELECT + " where id = %s", [1]) == ROW
                assert client.row(COMPARE.format("%s"), VALUES) == (True,) * 5
                assert client.row(COMPARE.format("%b"), VALUES) == (True,) * 5
            assert idle(client)

    @both
    def test_prepared_when_told_to(self, kept, client_class):
        with opened(client_class, kept) as client:
            for _ in range(3):
                assert client.row(SELECT, prepare=True) == ROW
                row = client.row("select %s, attrs from item", [Mood.OK], prepare=True)
                assert row == (Mood.OK, {"a": "1"})


class TestMoving:
    """The pooler moves the connection between any two messages."""

    @pytest.fixture
    def relay(self, bouncer):
        with Relay(bouncer) as relay:
            yield relay

    @pytest.fixture
    def move(self, bouncer, servers):
        ways = itertools.cycle([*servers[1:], servers[0]])

        def move() -> None:
            # It may be in a transaction, which no pooler splits.
            with contextlib.suppress(TimeoutError):
                bouncer.switch(next(ways), timeout=0.1)

        return move

    STEPS: ClassVar[dict[str, Any]] = {
        "simple": lambda client: client.row(SELECT) == ROW,
        "extended": lambda client: client.row(SELECT + " where id = %s", [1]) == ROW,
        "asserted": lambda client: (
            client.row(COMPARE.format("%s"), VALUES) == (True,) * 5
        ),
        "returning": lambda client: (
            client.row(
                "insert into made (attrs, size) values (%s, %s) returning attrs, size",
                [VALUES[0], VALUES[2]],
            )
            == (VALUES[0], VALUES[2])
        ),
        "several": lambda client: (
            client.results(f"{SELECT}; {SELECT}") == [[ROW], [ROW]]
        ),
        "stream": lambda client: client.stream(SELECT) == [ROW],
        "stream with": lambda client: (
            client.stream(COMPARE.format("%s"), VALUES) == [(True,) * 5]
        ),
        "many": lambda client: (
            client.many(COMPARE.format("%s"), [VALUES] * 2) == [[(True,) * 5]] * 2
        ),
        "copy": lambda client: (
            client.copy_out(
                "copy item (feels, size) to stdout (format binary)", ["mood", "size"]
            )
            == [(Mood.OK, Size(1, Mood.OK))]
        ),
        "transaction": lambda client: (
            client.in_transaction(
                (SELECT, None), (COMPARE.format("%s"), VALUES), (SELECT, None)
            )
            == [ROW, (True,) * 5, ROW]
        ),
        "pipeline": lambda client: (
            client.in_pipeline(
                (SELECT, None), (COMPARE.format("%s"), VALUES), (SELECT, None)
            )
            == [ROW, (True,) * 5, ROW]
        ),
    }

    @pytest.mark.parametrize(
        ("client_class", "binding"),
        [(Sync, "server"), (Async, "server"), (Sync, "client"), (Async, "client")],
        ids=["sync", "async", "sync client", "async client"],
    )
    @pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
    def test_before_any_message(self, relay, move, client_class, binding, step):
        with opened(client_class, relay, binding=binding) as client:
            for _ in range(3):
                move()  # So that all of them are known.
                assert step(client)
            for moment in ({0}, {1}, {0, 1}, {1, 2}):
                relay.count(lambda number, at=moment: move() if number in at else None)
                assert step(client), moment
                assert idle(client)
            relay.count(lambda number: None)
            assert step(client)

    @pytest.mark.parametrize("step", ["simple", "asserted", "returning", "stream"])
    def test_twice_from_a_server_that_nobody_knew(self, relay, move, step):
        """What it sent cannot be explained any more: an error says so, soon."""
        with opened(Sync, relay) as client:
            client.row("select 1")
            relay.count(lambda number: move() if number < 2 else None)
            found = outcome(self.STEPS[step], client)
            if found is not True:
                assert isinstance(found, psycopg.OperationalError)
                assert "run the statement again" in str(found)
            assert relay.sent < 25
            relay.count(lambda number: None)
            assert self.STEPS[step](client)

    @pytest.mark.parametrize("step", ["simple", "extended", "returning", "several"])
    def test_twice_from_a_server_that_another_connection_has_read(
        self, relay, move, step
    ):
        with opened(Sync, relay) as client, opened(Sync, relay) as other:
            assert self.STEPS[step](client)

            def before(number: int) -> None:
                if number == 0:
                    move()
                elif number == 1:
                    relay.count(lambda number: None)
                    assert other.row(SELECT) == ROW
                    move()

            relay.count(before)
            assert self.STEPS[step](client)

    @pytest.mark.parametrize("step", ["simple", "asserted", "stream", "pipeline"])
    def test_before_the_first_message_to_a_server_nobody_knows(self, relay, move, step):
        with opened(Sync, relay) as client:
            for _ in range(3):
                forget(ALIAS)
                runtime.aliases = {}
                client.close()
                with opened(Sync, relay) as fresh:
                    relay.count(lambda number: move() if number == 0 else None)
                    assert self.STEPS[step](fresh)
                    relay.count(lambda number: None)

    @both
    @bindings
    @pytest.mark.parametrize(
        "value", VALUES, ids=["dict", "enum", "composite", "enums", "dicts"]
    )
    def test_between_one_parameter_and_the_next(
        self, bouncer, servers, client_class, binding, value
    ):
        """The first has its OID already when the second moves the connection."""
        ways = itertools.cycle([*servers[1:], servers[0]])

        class Move(str):
            pass

        class Moving(Dumper):
            def dump(self, obj: Any) -> bytes:
                bouncer.switch(next(ways))
                return str(obj).encode()

        query = "select %s = {} and %s = 'x' from item"
        column = ("attrs", "feels", "size", "moods", "parts")[VALUES.index(value)]
        with opened(client_class, bouncer, binding=binding) as client:
            client.connection.adapters.register_dumper(Move, Moving)
            for _ in range(4):
                row = client.row(query.format(column), [value, Move("x")])
                assert row == (True,)

    @both
    def test_between_one_column_and_the_next(self, bouncer, servers, client_class):
        """Rows are of the server that sent them, however late they are loaded."""
        ways = itertools.cycle([*servers[1:], servers[0]])

        class Moving(Loader):
            def load(self, data: Any) -> int:
                bouncer.switch(next(ways))
                return int(bytes(data))

        with opened(client_class, bouncer) as client:
            client.connection.adapters.register_loader("int4", Moving)
            for _ in range(4):
                assert client.row(f"select id, {COLUMNS} from item") == (1, *ROW)
                assert client.stream(f"select id, {COLUMNS} from item") == [(1, *ROW)]

    @both
    @bindings
    def test_a_statement_that_is_sent_again_is_executed_once(
        self, servers, bouncer, client_class, binding
    ):
        query = "insert into made (attrs, feels, size) values (%s, %s, %s)"
        with opened(client_class, bouncer, binding=binding) as client:
            for server in (*servers, *servers):
                bouncer.switch(server)
                count = "select count(*) from made"
                [[before]] = server.execute(count, dbname="shop")
                client.results(query, VALUES[:3])
                assert server.execute(count, dbname="shop") == [(before + 1,)]

    @has_binary_hstore
    @both
    def test_in_binary(self, servers, bouncer, client_class):
        query = "select attrs, feels, size, moods, parts from item"
        with opened(client_class, bouncer) as client:
            for server in (*servers, *servers):
                bouncer.switch(server)
                row = client.row(query, binary=True)
                assert row == (ROW[0], *ROW[2:])
                assert client.row(COMPARE.format("%b"), VALUES) == (True,) * 5
                assert client.row("select row(feels, size) from item", binary=True) == (
                    (Mood.OK, Size(1, Mood.OK)),
                )

    @pytest.mark.parametrize("home", ["ext", "public"])
    @both
    @bindings
    def test_to_where_the_type_is_in_another_schema(
        self, servers, client_class, binding, home
    ):
        """Its name goes into the text with client-side binding: that of this server."""
        ddl = (
            "create schema ext; create extension hstore schema {0};"
            "create table kept (attrs {0}.hstore)"
        )
        places = dict.fromkeys(servers[:2], "public")
        places[servers[1]] = "ext"
        if home == "ext":
            places = dict(zip(places, reversed(places.values()), strict=True))
        for server, place in places.items():
            server.create_database("placed")
            server.execute(ddl.format(place), dbname="placed")
        try:
            with (
                PgBouncer(servers[0], "placed") as bouncer,
                opened(client_class, bouncer, binding=binding) as client,
            ):
                for server in (*places, *places):
                    bouncer.switch(server)
                    for _ in range(2):
                        client.results("insert into kept values (%s)", [{"a": "1"}])
                    found = server.execute("table kept", dbname="placed")
                    assert {str(row) for row in found} == {'(\'"a"=>"1"\',)'}
        finally:
            for server in places:
                server.terminate("placed")
                server.drop_database("placed")

    def test_under_load(self, servers, bouncer):
        """No row is wrong, none is an error."""
        stop, seen = threading.Event(), Counter[str]()

        def work(client_class: Any, binding: str) -> None:
            with opened(client_class, bouncer, binding=binding) as client:
                while not stop.is_set():
                    for step in (
                        lambda: client.row(SELECT) == ROW,
                        lambda: client.row(COMPARE.format("%s"), VALUES) == (True,) * 5,
                    ):
                        seen[repr(outcome(step))] += 1

        with opened(Sync, bouncer) as client:
            for server in servers:
                # One that nobody has read may be left before the read arrives.
                bouncer.switch(server)
                assert client.row(SELECT) == ROW
        threads = [
            threading.Thread(target=work, args=(client_class, binding))
            for client_class in CLIENTS.values()
            for binding in ("server", "client")
        ]
        for thread in threads:
            thread.start()
        for server in [*servers] * 5:
            bouncer.switch(server)
        while len(seen) < 2 and sum(seen.values()) < 20:
            stop.wait(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) == {"True"}, seen


class TestStraight:
    """Whether a connection leads straight to its backend is learned, not configured."""

    @both
    def test_is_learned_from_the_first_answer(self, servers, bouncer, client_class):
        for road, is_straight in ((servers[0], True), (bouncer, False)):
            with opened(client_class, road) as client:
                state = state_of(client.connection)
                assert state is not None
                assert state.is_straight is None
                client.row(SELECT)
                assert state.is_straight is is_straight

    def test_a_proxy_passes_it_on(self, servers):
        with Relay(servers[0]) as relay, opened(Sync, relay) as client:
            with servers[0].statements() as seen:
                for _ in range(3):
                    assert client.row(SELECT) == ROW
            assert len(ours(seen)) == 1
