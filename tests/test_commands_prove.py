"""manage.py pg_hot_prove: what it proves, and what makes it say no."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command

from django_pg_hot_async._operator import sums
from django_pg_hot_async.testing import Replication

from .preflight import point, upgrade
from .scenarios import close_all

SCHEMA = """
create table item (id bigserial primary key, name text, at timestamptz default now(),
                   price money, ratio float8, span tstzrange);
create table pair (a int, b text, primary key (a, b));
create table part (id int, at date, primary key (id, at)) partition by range (at);
create table part_1 partition of part for values from ('2020-01-01') to ('2021-01-01');
create unlogged table scratch (id int);
create extension hstore;
create table "Odd one" ("a""b" hstore, id int primary key);
"""
ROWS = """
insert into item (name, price, ratio, span)
    select 'n' || n, n, 1.0 / n, tstzrange('2020-01-01', null)
    from generate_series(1, 3000) n;
insert into pair select n, 'é' || n from generate_series(1, 10) n;
insert into part values (1, '2020-05-01'); insert into scratch values (1);
insert into "Odd one" values ('b=>1, a=>2', 1);
"""
TABLES = ["Odd one", "item", "pair", "part", "product"]
CONDITIONS = [
    "green has reached the mark",
    "rows agree",
    "blue stands still",
    "sequences are ahead",
    "nobody is left on blue",
]


@pytest.fixture(scope="module")
def replicated(blue, green):
    """A green that gets what is written to blue, under other settings."""
    with upgrade(blue, green, "prove") as sides:
        sides.create([SCHEMA])
        sides.create([ROWS], ["alter database prove set \"DateStyle\" = 'SQL, DMY'"])
        with Replication(sides.blue, sides.green, "prove") as replication:
            replication.wait()
            yield replication
        close_all()


@pytest.fixture
def sides(replicated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for alias, server in (("default", "source"), ("green", "target")):
        point(alias, getattr(replicated, server).database("prove"))
    call_command("pg_hot_sequences", "default", "green", stdout=StringIO())
    replicated.wait()
    return replicated


def on(server, statement):
    return server.execute(statement, dbname="prove")


def prove(action, *arguments, status=0):
    out = StringIO()
    got, error = 0, ""
    try:
        arguments = ("default", "green", action, *arguments)
        call_command("pg_hot_prove", *arguments, stdout=out)
    except CommandError as caught:
        got, error = caught.returncode, str(caught)
    assert got == status, (out.getvalue(), error)
    return out.getvalue() or error


def failed(*arguments):
    """Check; return what does not hold, and why."""
    data = json.loads(prove("check", "--json", *arguments, status=1))
    assert data["proved"] is False
    return {
        one["name"]: one["sentence"] for one in data["conditions"] if not one["holds"]
    }


@pytest.mark.parametrize("full", [[], ["--full"]])
def test_it_is_proved(sides, full):
    assert prove("mark", *full).endswith("Marked\n")
    with sides.source.statements() as statements:
        text = prove("check", "--wait", "20")
    assert not [one for one in statements if one.lower().startswith(("insert", "lock"))]
    assert text.splitlines()[0] == "default -> green"
    names = [*json.loads(Path("pg_hot_prove.json").read_text())["sums"]]
    assert names == [f"public.{name}" for name in TABLES]
    assert re.search(r"rows agree: 5 tables, 3,0\d\d rows\n", text)
    assert text.count("holds  ") == 5
    assert text.endswith("\nProved\n")
    data = json.loads(prove("check", "--json"))
    assert data["proved"] is True
    assert [one["name"] for one in data["conditions"]] == CONDITIONS
    assert data["sums"]["public.part"]["rows"] == 1


def test_it_stays_proved_when_green_is_written_to(sides):
    """What was seen in the pause counts; without it, nobody can tell."""
    prove("mark")
    prove("check", "--before-move", "--wait", "20")
    on(sides.target, "insert into item (name) values ('on green')")
    try:
        assert "rows agree: so it was at 20" in prove("check")
        prove("mark")
        assert failed() == {"rows agree": "public.item has 1 row more"}
    finally:
        on(sides.target, "delete from item where name = 'on green'")


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("insert into pair values (11, 'x')", "public.pair has 1 row more"),
        ("update item set name = 'x' where id = 2", "public.item has other values"),
        ("delete from item where id = 3", "public.item has 1 row less"),
    ],
)
def test_blue_that_is_written_to(sides, statement, sentence):
    prove("mark")
    on(sides.source, statement)
    sides.wait()
    found = failed("--wait", "1")
    assert found["blue stands still"] == sentence
    assert found["rows agree"] == sentence
    prove("mark")
    prove("check", "--wait", "20")


def test_a_transaction_that_was_open_at_the_mark(sides):
    """It has its number from before, and commits after."""
    conninfo = sides.source.conninfo("prove")
    with psycopg.connect(conninfo) as late:
        late.execute("insert into pair values (12, 'late')")
        prove("mark")
    assert failed("--wait", "1")["blue stands still"] == "public.pair has 1 row more"


def test_a_row_that_green_lacks(sides):
    on(sides.target, 'delete from "Odd one"')
    try:
        prove("mark")
        assert failed("--wait", "1") == {"rows agree": "public.Odd one has 1 row less"}
    finally:
        on(sides.target, "insert into \"Odd one\" values ('a=>2, b=>1', 1)")


def test_replication_that_is_behind(sides):
    on(sides.target, "alter subscription django_pg_hot_async disable")
    try:
        prove("mark")
        said = failed()["green has reached the mark"]
        assert said == "no subscription of green's is enabled"
        on(sides.target, "alter subscription django_pg_hot_async enable")
        with psycopg.connect(sides.target.conninfo("prove")) as lock:
            lock.execute("lock table pair in share mode")
            on(sides.source, "insert into pair values (13, 'late')")
            prove("mark")
            assert "has confirmed" in failed()["green has reached the mark"]
    finally:
        on(sides.target, "alter subscription django_pg_hot_async enable")
    prove("check", "--wait", "20")


def test_a_sequence_that_is_behind(sides):
    on(sides.source, "select nextval('item_id_seq')")
    prove("mark")
    found = failed("--wait", "1")
    assert "public.item_id_seq is at" in found["sequences are ahead"]
    assert len(found) == 1


def test_somebody_left_on_blue(sides):
    prove("mark")
    conninfo = sides.source.conninfo("prove", application_name="web")
    with psycopg.connect(conninfo):
        said = failed("--wait", "1")["nobody is left on blue"]
        assert said.startswith("web at 127.0.0.1, idle since 20")
        text = prove("check", "--before-move")
        assert text.endswith("\nProved, as far as it can be before the move\n")


def test_large_tables(sides, monkeypatch):
    """By their last rows; where no key orders them, it says that it did not look."""
    monkeypatch.setattr(sums, "ALL_BYTES", 0)
    prove("mark")
    text = prove("check", "--wait", "20")
    assert "of 3 large tables the last rows alone" in text
    assert "not looked at: public.pair" in text
    on(sides.target, "delete from item where id = 3000")
    try:
        prove("mark")
        assert failed("--wait", "1") == {"rows agree": "public.item has other values"}
    finally:
        on(
            sides.target,
            "insert into item select 3000, 'n3000', at, 3000, 1.0 / 3000, span"
            " from item limit 1",
        )


def test_what_cannot_be_told(sides, tmp_path):
    assert "is not there: mark first" in prove("check", status=2)
    (tmp_path / "other.json").write_text("{}")
    assert "not what mark" in prove("check", "--file", "other.json", status=2)
    prove("mark")
    point("default", sides.target.database("prove"))
    assert "lead to one and the same database" in prove("check", status=2)
    point("green", sides.source.database("prove"))
    assert "'default' is not what was marked: version is" in prove("check", status=2)
