"""Logical replication, there and back."""

import time

import psycopg
import pytest

from django_pg_hot_async.testing import PostgreSQL, Replication

SCHEMA = """
    create table item (id serial primary key, name text);
    create table "Odd's" ("Id" bigint generated always as identity primary key);
    create sequence "Seq's";
"""


@pytest.fixture(scope="module")
def blue():
    with PostgreSQL(14) as server:
        yield server


@pytest.fixture(scope="module")
def green():
    with PostgreSQL(18) as server:
        yield server


@pytest.fixture
def shop(blue, green):
    for server in (blue, green):
        server.create_database("shop")
        server.execute(SCHEMA, dbname="shop")
    yield
    for server in (blue, green):
        server.drop_database("shop")


def add(server, name):
    [[number]] = server.execute(
        "insert into item (name) values (%s) returning id", [name], dbname="shop"
    )
    return number


def names(server):
    rows = server.execute("select name from item order by id", dbname="shop")
    return [name for [name] in rows]


def remains(*servers):
    """What is left of replication on the servers."""
    return [
        name
        for server in servers
        for table, column in [
            ("pg_publication", "pubname"),
            ("pg_subscription", "subname"),
            ("pg_replication_slots", "slot_name"),
        ]
        for [name] in server.execute(f"select {column} from {table}", dbname="shop")
    ]


def test_there_and_back(blue, green, shop):
    """Nothing is lost by the cutover, nor by going back; no number is given twice."""
    add(blue, "copied")
    with Replication(blue, green, "shop") as replication:
        replication.wait()
        assert names(green) == ["copied"]
        add(blue, "sent")
        replication.wait()
        assert names(green) == ["copied", "sent"]

        start = time.monotonic()
        replication.reverse()
        assert time.monotonic() - start < 5
        assert (replication.source, replication.target) == (green, blue)
        assert add(green, "after the cutover") == 3
        replication.wait()
        assert names(blue) == ["copied", "sent", "after the cutover"]

        replication.reverse()
        assert add(blue, "after going back") == 4
        replication.wait()
        assert names(green)[-1] == "after going back"
        assert "from <PostgreSQL 14" in repr(replication)
    assert remains(blue, green) == []


def test_carry_sequences(blue, green, shop):
    """Those used and those not, whatever their names."""
    blue.execute(
        """select nextval('"Seq''s"') from generate_series(1, 7);
        insert into "Odd's" default values""",
        dbname="shop",
    )
    Replication(blue, green, "shop").carry_sequences()
    rows = green.execute(
        """select nextval('"Seq''s"'), nextval('item_id_seq'),
        nextval(pg_get_serial_sequence('"Odd''s"', 'Id'))""",
        dbname="shop",
    )
    assert rows == [(8, 1, 2)]


def test_carry_sequences_none(blue, green, shop):
    for server in (blue, green):
        server.execute("drop schema public cascade", dbname="shop")
    Replication(blue, green, "shop").carry_sequences()


def test_carry_sequences_missing_on_the_target(blue, green, shop):
    green.execute('drop sequence "Seq\'s"', dbname="shop")
    with pytest.raises(LookupError, match=r"PostgreSQL 18.* has no sequence .*Seq"):
        Replication(blue, green, "shop").carry_sequences()


def test_start_that_fails_leaves_nothing(blue, green, shop):
    green.execute("drop table item", dbname="shop")
    replication = Replication(blue, green, "shop")
    with pytest.raises(psycopg.errors.UndefinedTable, match="item"), replication:
        pass
    assert remains(blue, green) == []


def test_wait_names_tables_that_cannot_be_copied(blue, green, shop):
    add(blue, "one")
    add(green, "also one")
    with (
        Replication(blue, green, "shop") as replication,
        pytest.raises(
            # Others may be on their way still.
            TimeoutError,
            match=r"(?s)not copied: .*item \(.*log says.*item_pkey",
        ),
    ):
        replication.wait(0.7)
    assert remains(blue, green) == []


def test_wait_tells_how_far_behind(blue, green, shop):
    with Replication(blue, green, "shop", name="another") as replication:
        replication.wait()
        with psycopg.connect(green.conninfo("shop")) as connection:
            connection.execute("lock table item")
            add(blue, "held up")
            with pytest.raises(TimeoutError, match=r"[1-9]\d* bytes behind"):
                replication.wait(0.3)
        replication.wait()
    assert remains(blue, green) == []


def test_wait_without_a_target(blue, green, shop):
    with pytest.raises(TimeoutError, match="not connected"):
        Replication(blue, green, "shop").wait(0.1)


def test_stop_with_the_source_dead(blue, green, shop):
    """The target is left clean."""
    replication = Replication(blue, green, "shop")
    replication.start()
    replication.wait()
    blue.kill()
    replication.stop()
    assert remains(green) == []
    blue.start()
    blue.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
    replication.stop()
    assert remains(blue) == []


def test_stop_with_the_target_dead(blue, green, shop):
    """The source is left clean."""
    replication = Replication(blue, green, "shop")
    replication.start()
    replication.wait()
    green.kill()
    replication.stop()
    assert remains(blue) == []
    green.start()
    for command in ("disable", "set (slot_name = none)"):
        green.execute(f"alter subscription {replication.name} {command}", dbname="shop")
    replication.stop()
    assert remains(green) == []


def test_name_that_is_none_of_a_slot(blue, green):
    with pytest.raises(ValueError, match="'Odd-name'"):
        Replication(blue, green, "shop", name="Odd-name")
