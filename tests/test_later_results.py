"""Results that are taken later than they came: by what was so when they came.

Types are made anew on the server, or a pooler moves the connection, between the
execution and the fetch; others notice in the meantime. Fetching sends nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Any

import psycopg
import pytest

from django_pg_hot_async import forget
from django_pg_hot_async.testing import PgBouncer, PostgreSQL

from .clients import (
    ALIAS,
    SIZE,
    Async,
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
from .scenarios import (
    HSTORE,
    MOOD,
    create_at,
    find_oid,
    has_binary_hstore,
    own_database,
    trust,
)

TYPES = [HSTORE, MOOD, SIZE]
TABLE = """
create table item (id int, attrs hstore, feels mood, size size, parts hstore[]);
insert into item values (1, 'a=>1', 'ok', '(1,ok)', array['b=>2'::hstore]),
    (2, 'a=>1', 'ok', '(1,ok)', array['b=>2'::hstore]);
"""
COLUMNS = "attrs, feels, size, parts"
ROW = ({"a": "1"}, Mood.OK, Size(1, Mood.OK), [{"b": "2"}])
ANEW = """
drop table item; drop extension hstore; drop type size; drop type mood;
create type mood as enum ('sad', 'ok'); create extension hstore;
"""


@pytest.fixture(autouse=True)
def _types():
    register_mood()
    register_size()


def fill(server: Any, dbname: str, order: list[str]) -> None:
    for statement in [*order, TABLE]:
        server.execute(statement, dbname=dbname)


@pytest.fixture(scope="module")
def stale():
    """Two servers: what is hstore's OID on the one is an enum's array on the other."""
    with PostgreSQL(18, next_oid=60_000) as one, PostgreSQL(18) as two:
        for server in (one, two):
            server.create_database("shop")
        fill(one, "shop", TYPES)
        create_at(two, MOOD, "mood[]", find_oid(one, "hstore"))
        fill(two, "shop", [SIZE, HSTORE])
        yield one, two


@pytest.fixture(params=["anew", pytest.param("moved", marks=pytest.mark.pgbouncer)])
def world(request):
    """What leads to a server, and what makes everything of it stale."""
    if request.param == "moved":
        one, two = request.getfixturevalue("stale")
        with PgBouncer(one, "shop") as bouncer:
            ways = itertools.cycle([two, one])
            yield bouncer, lambda: bouncer.switch(next(ways))
        return
    green = request.getfixturevalue("green")
    with own_database(green, "later", []):
        fill(green, "later", TYPES)

        class Road:
            def conninfo(self) -> str:
                return str(green.conninfo("later"))

        def change() -> None:
            green.execute(ANEW, dbname="later")
            fill(green, "later", [SIZE])

        yield Road(), change


def stray(client: Any) -> None:
    """Have the connection meet what is there now."""
    for _ in range(2):
        found = outcome(client.row, f"select {COLUMNS} from item")
        if found == ROW:
            break
        # A plan of before is refused once, by the server.
        assert isinstance(found, psycopg.Error)
    assert client.row(f"select {COLUMNS} from item") == ROW
    assert client.row("select pg_typeof(%s)::text", [Mood.OK]) == ("mood",)


def settled(client: Any) -> None:
    """Have a pooler see that the connection is idle.

    psycopg's pipelines send a Flush behind the last Sync. Where PgBouncer 1.18 gets it
    after it has passed on the answer, it holds the server until the next statement.
    """
    client.row("select 1")


MANY = f"select {COLUMNS} from item where id = %s"
KEPT: Any = {
    "one": (lambda c: c.kept(f"select {COLUMNS} from item limit 1"), [[ROW]]),
    "several": (
        lambda c: c.kept(
            f"select 1; select {COLUMNS} from item; select feels from item"
        ),
        [[(1,)], [ROW] * 2, [(Mood.OK,)] * 2],
    ),
    "several without": (
        lambda c: c.kept(
            "select 1; create temp table x (n int) on commit drop;"
            f" select {COLUMNS} from item"
        ),
        [[(1,)], None, [ROW] * 2],
    ),
    "params": (lambda c: c.kept(MANY, [1]), [[ROW]]),
    "many": (lambda c: c.kept_many(MANY, [(1,), (2,)]), [[ROW], [ROW]]),
    "record": (
        lambda c: c.kept("select row(feels, size) from item limit 1", binary=True),
        [[((Mood.OK, Size(1, Mood.OK)),)]],
    ),
    "records": (
        lambda c: c.kept(
            "select array_agg(row(feels, row(size, id))) from item where id = 1",
            binary=True,
        ),
        [[([(Mood.OK, (Size(1, Mood.OK), 1))],)]],
    ),
    "many records": (
        lambda c: c.kept_many(
            "select row(feels) from item where id = %s", [(1,), (2,)], binary=True
        ),
        [[((Mood.OK,),)]] * 2,
    ),
}


class TestAfterAChange:
    @both
    @pytest.mark.parametrize(("keep", "expected"), KEPT.values(), ids=KEPT)
    def test_rows_are_of_the_server_that_sent_them(
        self, world, client_class, keep, expected
    ):
        road, change = world
        with opened(client_class, road) as client:
            client.row(f"select {COLUMNS} from item")
            for _ in range(2):
                cursor = keep(client)
                settled(client)
                change()
                stray(client)
                assert client.rest(cursor) == expected
                forget(ALIAS)

    @both
    @pytest.mark.parametrize(("keep", "expected"), KEPT.values(), ids=KEPT)
    def test_first_of_all_over_a_connection(self, world, client_class, keep, expected):
        """Nothing was known of the server when they came."""
        road, change = world
        with opened(client_class, road) as client:
            cursor = keep(client)
            settled(client)
            change()
            stray(client)
            assert client.rest(cursor) == expected

    @has_binary_hstore
    @both
    def test_a_record_of_an_extensions_type(self, world, client_class):
        road, change = world
        with opened(client_class, road) as client:
            cursor = client.kept("select row(attrs, parts) from item", binary=True)
            change()
            stray(client)
            assert client.rest(cursor) == [[((ROW[0], ROW[3]),)] * 2]

    @both
    @pytest.mark.parametrize("level", ["auto", "transaction"])
    def test_from_one_transaction_in_the_next(self, world, client_class, level):
        road, change = world
        with trust(level), opened(client_class, road) as client:
            client.results("begin")
            several = client.kept(f"select 1; select {COLUMNS} from item")
            record = client.kept("select row(feels, size) from item", binary=True)
            client.results("commit")
            change()
            forget(ALIAS)
            stray(client)
            assert client.rest(several) == [[(1,)], [ROW] * 2]
            assert client.rest(record) == [[((Mood.OK, Size(1, Mood.OK)),)] * 2]

    @both
    def test_two_cursors_by_turns(self, world, client_class):
        """Each goes by what held for its own execution."""
        road, change = world
        query = f"select {COLUMNS} from item"
        with opened(client_class, road) as client:
            old = client.kept(query)
            change()
            stray(client)
            new = client.kept(query)
            assert client.rest(old) == client.rest(new) == [[ROW] * 2]
            new = client.kept(query)
            change()
            stray(client)
            assert client.rest(new) == [[ROW] * 2]

    def test_scrolled_back(self, world):
        road, change = world
        with opened(Sync, road) as client:
            cursor = client.kept(f"select {COLUMNS} from item")
            assert cursor.fetchone() == ROW
            change()
            stray(client)
            cursor.scroll(0, mode="absolute")
            assert cursor.fetchmany(1) == [ROW]
            assert list(cursor) == [ROW]

    def test_a_pipelines(self, world):
        road, change = world
        with opened(Sync, road) as client:
            with client.connection.pipeline():
                cursors = [
                    client.connection.execute(f"select {COLUMNS} from item"),
                    client.connection.execute(
                        "select feels from item where %s", [True]
                    ),
                ]
            change()
            stray(client)
            assert cursors[0].fetchall() == [ROW] * 2
            assert cursors[1].fetchall() == [(Mood.OK,)] * 2


class TestFetchingSendsNothing:
    @both
    @pytest.mark.parametrize(("keep", "expected"), KEPT.values(), ids=KEPT)
    def test_it_sends_nothing(self, green, client_class, keep, expected):
        with own_database(green, "later", []):
            fill(green, "later", TYPES)
            with opened(client_class, green, "later") as client:
                cursor = keep(client)
                forget(ALIAS)
                with green.statements() as seen:
                    assert client.rest(cursor) == expected
        assert seen == []

    def test_beside_a_listener(self, green):
        """Another thread holds the connection's lock while it waits."""
        with own_database(green, "later", []):
            fill(green, "later", TYPES)
            with trust("transaction"), opened(Sync, green, "later") as client:
                client.results("listen here")
                cursors = [keep(client) for keep, _ in KEPT.values()]
                forget(ALIAS)
                is_over = threading.Event()

                def listen() -> None:
                    for _ in client.connection.notifies(timeout=20, stop_after=1):
                        pass
                    is_over.set()

                thread = threading.Thread(target=listen)
                thread.start()
                try:
                    while not client.connection.lock.locked():
                        time.sleep(0.001)
                    for cursor, (_, expected) in zip(
                        cursors, KEPT.values(), strict=True
                    ):
                        assert client.rest(cursor) == expected
                    assert not is_over.is_set()
                finally:
                    green.execute("notify here", dbname="later")
                    thread.join()
                assert client.row(f"select {COLUMNS} from item") == ROW

    def test_beside_a_task_that_listens(self, green):
        """It loses no notification, and the loop is not held."""
        with own_database(green, "later", []):
            fill(green, "later", TYPES)
            with trust("transaction"), opened(Async, green, "later") as client:
                client.results("listen here")
                kept = [
                    (keep(client), expected) for keep, expected in KEPT.values()
                ] * 1
                got = client.run(self._listen_and_fetch(client, green, kept))
        assert got == [str(number) for number in range(40)]

    @staticmethod
    async def _listen_and_fetch(client: Any, server: Any, kept: Any) -> list[str]:
        got: list[str] = []

        async def listen() -> None:
            async for notify in client.connection.notifies(timeout=20, stop_after=40):
                got.append(notify.payload)

        def send() -> None:
            for number in range(40):
                server.execute(f"notify here, '{number}'", dbname="later")

        task = asyncio.create_task(listen())
        await asyncio.sleep(0)
        sender = asyncio.create_task(asyncio.to_thread(send))
        for cursor, expected in kept:
            forget(ALIAS)
            found = []
            while True:
                found.append(await cursor.fetchall() if cursor.description else None)
                if not cursor.nextset():
                    break
                await asyncio.sleep(0.005)
            assert found == expected
        await sender
        await task
        return got

    @both
    def test_a_notification_that_comes_with_a_statement(self, green, client_class):
        """Whatever the message that a confirmation travels in."""
        with own_database(green, "later", []):
            fill(green, "later", TYPES)
            got: list[str] = []
            with trust("transaction"), opened(client_class, green, "later") as client:
                client.connection.add_notify_handler(
                    lambda notify: got.append(notify.payload)
                )
                client.results("listen here")
                for query, params in (
                    (f"select {COLUMNS} from item", None),
                    ("select %s, attrs from item", [Mood.OK]),
                    ("select attrs from item where id = %s", [1]),
                ):
                    client.results("select pg_notify('here', 'x')")
                    client.row(query, params)
        assert got == ["x"] * 3


class TestStreams:
    @pytest.fixture(
        params=["straight", pytest.param("pooler", marks=pytest.mark.pgbouncer)]
    )
    def road(self, request, stale):
        if request.param == "straight":
            yield stale[0]
            return
        with PgBouncer(stale[0], "shop") as bouncer:
            yield bouncer

    @both
    @pytest.mark.parametrize("binding", ["server", "client", "raw"])
    def test_rows(self, road, client_class, binding):
        mark = "$1" if binding == "raw" else "%s"
        with opened(client_class, road, binding=binding) as client:
            for _ in range(2):
                query = f"select {COLUMNS} from item, generate_series(1, 50)"
                assert client.stream(query) == [ROW] * 100
                query = f"select {mark}, attrs from item"
                assert client.stream(query, [Mood.OK]) == [(Mood.OK, {"a": "1"})] * 2
            assert client.row(f"select {COLUMNS} from item") == ROW

    @both
    def test_binary_records(self, road, client_class):
        """What they hold shows in the rows alone, and those come one by one."""
        query = "select row(feels, size) from item"
        with opened(client_class, road) as client:
            for _ in range(2):
                found = outcome(client.stream, query, binary=True)
                assert found == [((Mood.OK, Size(1, Mood.OK)),)] * 2

    def test_left_in_the_middle(self, road):
        with opened(Sync, road) as client:
            for _ in range(2):
                query = f"select {COLUMNS} from item, generate_series(1, 20000)"
                for row in client.connection.cursor().stream(query):
                    assert row == ROW
                    break
                assert client.row(f"select {COLUMNS} from item") == ROW

    @both
    @pytest.mark.parametrize(
        ("query", "params", "error"),
        [
            (
                "select attrs, 1 / (id - 2) from item order by id",
                None,
                "DivisionByZero",
            ),
            ("select nowhere from item", None, "UndefinedColumn"),
            ("select attrs from item where id = %s", [object()], "ProgrammingError"),
            ("set work_mem to default", None, "ProgrammingError"),
            ("select attrs from item; select 1", None, "SyntaxError"),
        ],
    )
    def test_that_fail(self, road, client_class, query, params, error):
        with opened(client_class, road) as client:
            for _ in range(2):
                found = outcome(client.stream, query, params)
                assert type(found).__name__ == error
                assert client.row(f"select {COLUMNS} from item") == ROW

    def test_in_a_transaction(self, road):
        with opened(Sync, road) as client, client.connection.transaction():
            assert client.stream(f"select {COLUMNS} from item") == [ROW] * 2
            assert client.stream("select %s, id from item", [ROW[0]])[0] == (ROW[0], 1)


class TestServerSideCursors:
    @pytest.mark.parametrize("hold", [False, True])
    @pytest.mark.parametrize("binary", [False, True])
    @pytest.mark.parametrize("level", ["auto", "transaction"])
    def test_each_fetch(self, green, level, hold, binary):
        """Types made anew while it is open: of what is held, and of what is not."""
        columns = "feels, size" if binary else COLUMNS
        row = ROW[1:3] if binary else ROW
        with own_database(green, "later", []), trust(level):
            fill(green, "later", TYPES)
            with opened(Sync, green, "later") as client:
                assert client.row(f"select {COLUMNS} from item") == ROW
                if hold:
                    cursor = client.connection.cursor(
                        "named", withhold=True, scrollable=True
                    )
                    cursor.execute(
                        f"select {columns} from item, generate_series(1, 3)",
                        binary=binary,
                    )
                    assert cursor.fetchone() == row
                    forget(ALIAS)
                    assert client.row(f"select {COLUMNS} from item") == ROW
                    assert cursor.fetchmany(2) == [row] * 2
                    cursor.scroll(0, mode="absolute")
                    assert cursor.fetchall() == [row] * 6
                    cursor.close()
                    return
                with client.connection.transaction():
                    cursor = client.connection.cursor("named")
                    cursor.execute(
                        f"select {columns} from item, generate_series(1, 3)",
                        binary=binary,
                    )
                    assert cursor.fetchone() == row
                    forget(ALIAS)
                    assert client.row(f"select {COLUMNS} from item") == ROW
                    assert cursor.fetchmany(2) == [row] * 2
                    assert list(cursor) == [row] * 3
                    cursor.close()

    @pytest.mark.pgbouncer
    @both
    def test_in_a_transaction_of_a_pooler(self, stale, client_class):
        one, two = stale
        with (
            PgBouncer(one, "shop") as bouncer,
            opened(client_class, bouncer) as client,
        ):
            for server in (one, two, one):
                bouncer.switch(server)
                client.results("begin")
                cursor = client.connection.cursor("named")
                if isinstance(client, Async):
                    client.run(cursor.execute(f"select {COLUMNS} from item"))
                    assert client.run(cursor.fetchall()) == [ROW] * 2
                    client.run(cursor.close())
                else:
                    cursor.execute(f"select {COLUMNS} from item")
                    assert cursor.fetchall() == [ROW] * 2
                    cursor.close()
                client.results("commit")


def test_a_large_result_costs_no_look_at_each_row(green):
    """Each binary record tells its types; they are asked about once."""
    with own_database(green, "later", []):
        fill(green, "later", TYPES)
        with opened(Sync, green, "later") as client:
            query = "select row(feels, n) from item, generate_series(1, 5000) n"
            client.row(query, binary=True)
            with green.statements() as seen:
                rows = client.results(query, binary=True)[0]
        assert len(rows) == 10_000
        assert rows[-1] == ((Mood.OK, 5000),)
        assert ours(seen) == []
