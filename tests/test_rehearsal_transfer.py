"""Rows that are brought over to another server."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from django_pg_hot_async.testing._transfer import transfer

NAME = "moving"
TYPES = ["create extension hstore", "create extension citext"]
SCHEMA = """
create type mood as enum ('sad', 'ok');
create schema "Odd";
create table item (
    id bigint generated always as identity primary key,
    gone text,
    attrs hstore, tags citext[], feels mood[], size int,
    twice int generated always as (size * 2) stored
);
alter table item drop column gone;
create table "Odd"."It's" (
    "Item" bigint not null references item, note text check (note <> 'never')
);
create table nothing ();
create table part (day date not null) partition by range (day);
create table part_1 partition of part for values from ('2026-01-01') to ('2027-01-01');
create function refuse() returns trigger language plpgsql as
    $$ begin raise 'written twice'; end $$;
create materialized view sizes as select sum(size) as total from item;
"""
# Only of the columns that differ in order: those of the table are named.
TRIGGER = "create trigger refuse before insert on item execute function refuse()"
ROWS = """
insert into item (attrs, tags, feels, size) values
    (E'a=>"1\\t2", b=>NULL', '{X,"y z"}', '{sad,NULL}', 3), (NULL, NULL, NULL, NULL);
insert into "Odd"."It's" select id, E'\\\\N \\n' from item;
insert into nothing default values;
insert into part values ('2026-05-05');
"""


@pytest.fixture
def servers(blue, green):
    for server, types in ((blue, TYPES), (green, TYPES[::-1])):
        server.create_database(NAME)
        for statement in (*types, SCHEMA):
            server.execute(statement, dbname=NAME)
    yield blue, green
    for server in (blue, green):
        server.drop_database(NAME)


def rows(server):
    return [
        server.execute(query, dbname=NAME)
        for query in (
            "select id, attrs::text, tags::text, feels::text, size, twice from item"
            " order by id",
            """select * from "Odd"."It's" order by 1""",
            "select count(*) from nothing",
            "select day::text from part",
        )
    ]


def test_rows_become_those_of_the_source(servers):
    """Types of any OID, partitions, names that need quotes; triggers do not run."""
    blue, green = servers
    green.execute(ROWS + "delete from nothing; update item set size = 9", dbname=NAME)
    green.execute(TRIGGER, dbname=NAME)
    blue.execute(ROWS + "update item set size = 5", dbname=NAME)
    transfer(blue, green, NAME)
    assert rows(green) == rows(blue)
    assert rows(green)[0][0] == (
        *(1, '"a"=>"1\t2", "b"=>NULL', '{X,"y z"}', "{sad,NULL}"),
        *(5, 10),
    )


def test_sequences_go_on_and_views_are_refreshed(servers):
    blue, green = servers
    blue.execute(ROWS + 'delete from "Odd"."It\'s"; delete from item', dbname=NAME)
    blue.execute("insert into item (size) values (7)", dbname=NAME)
    transfer(blue, green, NAME)
    assert green.execute("select total from sizes", dbname=NAME) == [(7,)]
    new = "insert into item (size) values (1) returning id"
    assert green.execute(new, dbname=NAME) == [(4,)]


def test_columns_in_another_order(servers):
    blue, green = servers
    for server, columns in ((blue, "a int, b int"), (green, "b int, a int")):
        server.execute(f"create table swapped ({columns})", dbname=NAME)
    blue.execute("insert into swapped (a, b) values (1, 2)", dbname=NAME)
    transfer(blue, green, NAME)
    assert green.execute("select a, b from swapped", dbname=NAME) == [(1, 2)]


def test_tables_of_extensions_stay(servers):
    """PostGIS fills spatial_ref_sys itself, say: here a table made its member."""
    blue, green = servers
    for server in servers:
        server.execute(
            "create table member (x text); alter extension hstore add table member",
            dbname=NAME,
        )
        server.execute("insert into member values (version())", dbname=NAME)
    transfer(blue, green, NAME)
    [[found]] = green.execute("select x from member", dbname=NAME)
    assert found.startswith(f"PostgreSQL {green.major}")


def test_nobody_writes_meanwhile(servers):
    """A session that was let in before waits, and can be ended before it writes."""
    blue, green = servers
    blue.execute(ROWS, dbname=NAME)
    with psycopg.connect(blue.conninfo(NAME), autocommit=True) as client:
        client.execute("set lock_timeout = '50ms'")
        seen: list[Any] = []

        def try_to_write():
            with pytest.raises(psycopg.errors.LockNotAvailable):
                client.execute("insert into item (size) values (1)")
            seen.extend(client.execute("select count(*) from item"))
            blue.terminate(NAME)

        transfer(blue, green, NAME, before_commit=try_to_write)
        assert seen == [(2,)]
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            client.execute("select 1")
    assert rows(green) == rows(blue)


def test_a_table_that_is_not_there(servers):
    """Nothing is lost on the target then."""
    blue, green = servers
    green.execute(ROWS, dbname=NAME)
    before = rows(green)
    blue.execute('create table "Late"()', dbname=NAME)
    with pytest.raises(LookupError, match=r'has no table public\."Late"'):
        transfer(blue, green, NAME)
    assert rows(green) == before


def test_a_row_that_does_not_fit(servers):
    blue, green = servers
    green.execute(ROWS, dbname=NAME)
    before = rows(green)
    blue.execute("alter type mood add value 'glad'", dbname=NAME)
    blue.execute("insert into item (feels) values ('{glad}')", dbname=NAME)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="glad"):
        transfer(blue, green, NAME)
    assert rows(green) == before
