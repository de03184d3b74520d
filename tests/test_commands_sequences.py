"""manage.py pg_hot_sequences: what it sets, and what it leaves."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from .preflight import point, upgrade
from .scenarios import close_all

TABLES = """
create table s_serial (id serial primary key, other smallserial);
create table "S identity" (id bigint generated always as identity primary key);
create table s_up (id int primary key);
create sequence free;
create sequence "Odd ""1"" one" increment 10;
create sequence down increment -1;
create sequence unused;
create sequence early start 5;
create schema apart; create sequence apart.free;
"""
USED = """
select nextval('s_serial_id_seq') from generate_series(1, 40);
insert into "S identity" select from generate_series(1, 7);
select nextval('free') from generate_series(1, 3);
select nextval('"Odd ""1"" one"'), nextval('"Odd ""1"" one"');
select nextval('down'), nextval('down');
select setval('early', 90, false);
select setval('apart.free', 9223372036854775806);
"""


@pytest.fixture(scope="module")
def sides(blue, green):
    with upgrade(blue, green, "sequences") as sides:
        yield sides
        close_all()


@pytest.fixture
def replica(sides):
    """A green that was filled by logical replication: its sequences are at the start"""
    sides.lead()
    drop = "drop schema if exists apart cascade; drop schema public cascade"
    sides.create([drop + "; create schema public; " + TABLES])
    sides.create([USED], [])
    return sides


def run(*arguments, status=0):
    out = StringIO()
    got, error = 0, ""
    try:
        call_command("pg_hot_sequences", "default", "green", *arguments, stdout=out)
    except CommandError as caught:
        got, error = caught.returncode, str(caught)
    assert got == status, (out.getvalue(), error)
    return out.getvalue() + error


def verdicts(*arguments, status=0):
    out = StringIO()
    try:
        call_command(
            "pg_hot_sequences", "default", "green", "--json", *arguments, stdout=out
        )
    except CommandError as error:
        assert error.returncode == status
    return {one["sequence"]: one["verdict"] for one in json.loads(out.getvalue())}


def position(server, name):
    query = f"select last_value, is_called from {name}"
    [row] = server.execute(query, dbname="sequences")
    return row


NAMES = ["s_serial_id_seq", '"S identity_id_seq"', "free", '"Odd ""1"" one"', "down"]
NAMES += ["unused", "early", "apart.free", "s_serial_other_seq"]


def test_what_is_carried(replica):
    before = {name: position(replica.green, name) for name in NAMES}
    text = run("--dry-run", status=1)
    assert "public.s_serial_id_seq" in text
    assert text.endswith("(behind) and others")
    assert {name: position(replica.green, name) for name in NAMES} == before
    assert run().endswith("9 sequences, 7 set\n")
    for name in NAMES:
        assert position(replica.green, name) == position(replica.blue, name), name
    assert run() == "9 sequences, 0 set\n"
    assert run("--dry-run") == "9 sequences, 0 set\n"


def test_never_backwards(replica):
    for name, value in (("free", 500), ("down", -500), ("s_serial_id_seq", 41)):
        replica.green.execute(f"select setval('{name}', {value})", dbname="sequences")
    verdict = verdicts()
    for name, value in (("free", 500), ("down", -500), ("s_serial_id_seq", 41)):
        assert verdict[f"public.{name}"] == "ahead"
        assert position(replica.green, name) == (value, True)


def test_it_goes_past_the_values_in_the_column(replica):
    """Rows that were inserted with an id of their own are on green, too."""
    insert = "insert into s_serial (id) values (1000)"
    replica.create([insert])
    run()
    assert position(replica.green, "s_serial_id_seq") == (1000, True)


def test_a_sequence_of_another_name(replica):
    """A table that was renamed has one; its column tells which it is."""
    rename = 'alter sequence "S identity_id_seq" rename to other'
    replica.create([], [rename])
    assert verdicts()["public.S identity_id_seq"] == "carried"
    assert position(replica.green, "other") == (7, True)


def test_what_cannot_be_carried(replica):
    replica.create(
        [],
        [
            "drop sequence free",
            "alter sequence early as smallint maxvalue 50",
        ],
    )
    text = run(status=1)
    assert "public.free" in text
    assert "missing" in text
    assert "out of bounds" in text
    assert "2 sequences would give values that blue gave" in text
    assert position(replica.green, "s_serial_id_seq") == (40, True)


def test_a_role_that_may_not(replica):
    replica.green.execute("create role poor login")
    try:
        replica.create(
            [],
            [
                "grant usage on schema public to poor",
                "grant select on sequence free, down to poor",
                "grant update on sequence free to poor",
            ],
        )
        point("green", {**replica.green.database("sequences"), "USER": "poor"})
        verdict = verdicts(status=1)
    finally:
        replica.green.execute("drop owned by poor", dbname="sequences")
        replica.green.execute("drop role poor")
    assert verdict["public.free"] == "carried"
    assert verdict["public.down"] == "not_allowed"
    assert verdict["public.unused"] == verdict["apart.free"] == "not_readable"


def test_what_cannot_be_asked(replica):
    for arguments, said in (
        (("default", "default"), "is given twice"),
        (("default", "no_such"), "'no_such' is no alias in DATABASES"),
    ):
        with pytest.raises(CommandError, match=said) as caught:
            call_command("pg_hot_sequences", *arguments)
        assert caught.value.returncode == 2
    point("green", replica.blue.database("sequences"))
    assert "lead to one and the same database" in run(status=2)
