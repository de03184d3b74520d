"""What `pg_hot_preflight` finds of tracked types, each for real on two servers."""

from __future__ import annotations

import os

import pytest
from psycopg.types.enum import EnumInfo, register_enum

from django_pg_hot_async import register_type
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import connections as tracked_connections
from django_pg_hot_async._django.installed import GROUP
from django_pg_hot_async._operator.preflight.facts import Wanted
from django_pg_hot_async._operator.preflight.output import as_text
from django_pg_hot_async._operator.preflight.report import wanted_types
from django_pg_hot_async.testing import PostgreSQL

from .preflight import found, of, run, two_databases, upgrade, verdicts
from .scenarios import CITEXT, HSTORE, ORDERS, TABLE

MOOD = Wanted("mood", None, "e")
SIZE = Wanted("size", None, "c")
SPAN = Wanted("span", None, "r")
SPANS = Wanted("span_multirange", None, "m")
EMAIL = Wanted("email", None, "bderm")


@pytest.fixture
def sides(blue, green):
    with upgrade(blue, green, "preflight") as sides:
        yield sides


def test_other_oids(sides):
    """The plain case: the same schema, made in another order."""
    sides.create([*ORDERS["blue"], TABLE], [*ORDERS["green"], TABLE])
    report = sides.compare(MOOD)
    assert set(verdicts(report).values()) == {"other_oid"}
    assert report.relation == "stranger"
    assert not found(report, "break") and not found(report, "warning")
    said = run()
    for pair in report.types[:2]:
        line = next(line for line in said.splitlines() if f"  {pair.wanted} " in line)
        assert str(pair.blue.oid) in line and str(pair.green.oid) in line
        assert line.endswith("other OID, handled")
    assert said.splitlines()[-1] == (
        "Ready: 2 tracked types, 2 with other OIDs, which is handled; 1 table or view,"
        " 1 sequence and 0 routines compared; 1 warning"
    )


def test_same_oids():
    """Clusters made apart may agree; here on OIDs beyond 2^31."""
    major = int(os.environ.get("GREEN", "18"))
    with (
        PostgreSQL(major, next_oid=3_000_000_000) as one,
        PostgreSQL(major, next_oid=3_000_000_000) as other,
        two_databases(one, other, "preflight") as sides,
    ):
        sides.create([*ORDERS["blue"], TABLE])
        report = sides.compare(MOOD)
        assert set(verdicts(report).values()) == {"same_oid"}
        assert all(pair.blue and pair.blue.oid > 2**31 for pair in report.types)
        assert report.relation == "stranger"
        assert report.verdict.startswith("Ready: 3 tracked types, with the same OIDs;")


def test_missing(sides):
    """What is missing would break, and can be created."""
    sides.create([HSTORE, CITEXT, "create type mood as enum ()"], [CITEXT])
    report = sides.compare(MOOD)
    assert verdicts(report) == {
        "hstore": "missing",
        "citext": "other_oid",
        "mood": "missing",
    }
    hstore, mood = (f for f in report.findings if f.code == "missing")
    assert hstore.hint == "CREATE EXTENSION hstore;"
    assert mood.hint == "Create it there."
    # It is said once, not of the extension as well.
    assert "extension_missing" not in found(report)
    said = run(status=1)
    assert said.splitlines()[-1] == (
        "Would break: hstore is missing on green (and 1 more)"
    )
    assert "MISSING, 1.8 is available" in said


def test_missing_though_the_extension_is_there(sides):
    sides.create([HSTORE], [HSTORE, "alter type hstore rename to h"])
    assert "ALTER EXTENSION hstore UPDATE;" in found(sides.compare())["missing"].hint


def test_absent_on_either_side(sides):
    """A type that blue has not got cannot go missing."""
    sides.create([], [CITEXT])
    report = sides.compare()
    assert verdicts(report) == {"hstore": "absent", "citext": "only_green"}
    assert report.verdict.startswith("Ready: no tracked types; 1 table")
    assert "on neither" in run()


@pytest.mark.parametrize(
    "statement", ["create table hstore (id int)", "create type hstore as enum ()"]
)
def test_other_kind(sides, statement):
    sides.create([HSTORE], [statement])
    report = sides.compare()
    assert verdicts(report)["hstore"] == "other_kind"
    finding = found(report, "break")["other_kind"]
    assert finding.sentence.startswith("hstore is of kind base, but of kind ")


def test_other_kind_of_those_tracked(sides):
    """A plain TypeInfo takes domains and enums alike."""
    sides.create(["create domain email as text"], ["create type email as enum ()"])
    finding = found(sides.compare(EMAIL), "break")["other_kind"]
    assert finding.sentence == "email is of kind domain, but of kind enum on green"


ENUM = "create type mood as enum ({})"
SHAPES = {
    # The type, the two definitions, what is said and how bad it is.
    "label-lost": (
        MOOD,
        ENUM.format("'sad', 'it''s ok'"),
        ENUM.format("'sad', 'glad'"),
        ("break", "it lacks 'it''s ok', and has 'glad'"),
    ),
    "labels-lost": (
        MOOD,
        ENUM.format("'sad', 'so', 'ok'"),
        ENUM.format("'ok'"),
        ("break", "it lacks 'sad', 'so'"),
    ),
    "label-more": (
        MOOD,
        ENUM.format("'sad', 'ok'"),
        ENUM.format("'sad', 'soso', 'ok'"),
        ("warning", "it has 'soso' as well"),
    ),
    "labels-in-other-order": (
        MOOD,
        ENUM.format("'sad', 'ok'"),
        ENUM.format("'ok', 'sad'"),
        ("warning", "its labels are in another order"),
    ),
    "attribute-lost": (
        SIZE,
        'create type size as ("Width" int, height numeric(6, 2))',
        'create type size as ("Width" int)',
        (
            "break",
            '("Width" integer) instead of ("Width" integer, height numeric(6,2))',
        ),
    ),
    "attribute-of-other-type": (
        SIZE,
        "create type size as (width int)",
        "create type size as (width bigint[])",
        ("break", "(width bigint[]) instead of (width integer)"),
    ),
    "attribute-more": (
        SIZE,
        "create type size as (width int)",
        "create type size as (width int, height int)",
        ("warning", "(width integer, height integer) instead of (width integer)"),
    ),
    "range": (
        SPAN,
        "create type span as range (subtype = int)",
        "create type span as range (subtype = text)",
        ("break", "of text instead of integer"),
    ),
    "multirange": (
        SPANS,
        "create type span as range (subtype = int, multirange_type_name = {})".format(
            "span_multirange"
        ),
        "create type span as range (subtype = text, multirange_type_name = {})".format(
            "span_multirange"
        ),
        ("break", "of text instead of integer"),
    ),
    "domain": (
        EMAIL,
        "create domain email as varchar(80)",
        "create domain email as text",
        ("warning", "of text instead of character varying(80)"),
    ),
}


@pytest.mark.parametrize("case", SHAPES)
def test_other_shape(sides, case):
    wanted, blue, green, (severity, says) = SHAPES[case]
    sides.create([blue], [green])
    report = sides.compare(wanted)
    assert verdicts(report)[wanted.name] == "other_shape"
    finding = found(report, severity)["other_shape"]
    assert finding.sentence.endswith(f"has another shape on green: {says}")
    assert finding.hint
    assert report.is_ready == (severity == "warning")


def test_same_shape_in_another_schema(sides):
    """Where an extension is does not make a composite type with it another one."""
    size = "create type size as (attrs ext.hstore[], at timestamptz(3))"
    sides.create(
        ["create schema ext", f"{HSTORE} schema ext", size],
        ["create schema ext", f"{HSTORE} schema ext", size],
    )
    sides.create([], [f"alter database {sides.dbname} set search_path = ext, public"])
    pair = sides.compare(SIZE).types[-1]
    assert pair.verdict == "other_oid"
    assert pair.blue.shape == pair.green.shape
    assert pair.blue.shape[0] == "attrs hstore[]"


def test_off_the_search_path(sides):
    """A dump of a schema leaves ALTER DATABASE ... SET search_path behind."""
    ext = ["create schema ext", f"{HSTORE} schema ext"]
    path = f"alter database {sides.dbname} set search_path = public, ext"
    sides.create([*ext, path], ext)
    report = sides.compare()
    assert verdicts(report)["hstore"] == "not_visible"
    finding = found(report, "break")["not_visible"]
    assert finding.sentence == "hstore is in schema ext on green, off the search_path"
    assert "leads to public there, to public, ext on default" in finding.hint
    sides.create([], [path])
    assert sides.compare().is_ready


def test_other_schema(sides):
    """Where the search_path leads to it, only SQL that names the schema fails."""
    path = f"alter database {sides.dbname} set search_path = public, ext"
    sides.create(
        ["create schema ext", path, f"{HSTORE} schema ext"],
        ["create schema ext", path, HSTORE],
    )
    report = sides.compare()
    assert verdicts(report)["hstore"] == "other_schema"
    finding = found(report, "warning")["other_schema"]
    assert finding.sentence == "hstore is in schema ext, but in public on green"
    assert "ALTER EXTENSION hstore SET SCHEMA ext;" in finding.hint
    assert report.is_ready
    sides.create([], ["alter extension hstore set schema ext"])
    assert sides.compare().types[0].verdict == "other_oid"


@pytest.mark.parametrize(
    ("wanted", "type", "what"),
    [
        (Wanted("mood", "shop", "e"), "type mood as enum ()", "TYPE mood"),
        (Wanted("email", "shop", "bderm"), "domain email as text", "DOMAIN email"),
    ],
)
def test_other_schema_than_declared(sides, wanted, type, what):
    """One that is tracked as schema.name is not found elsewhere."""
    sides.create(
        ["create schema shop", f"create {type.replace(' ', ' shop.', 1)}"],
        [f"create {type}"],
    )
    report = sides.compare(wanted)
    assert verdicts(report)[str(wanted)] == "other_schema"
    finding = found(report, "break")["other_schema"]
    assert f"ALTER {what} SET SCHEMA shop;" in finding.hint


def test_schema_declared_apart(sides):
    """One declared with its schema is not compared by its name alone as well."""
    sides.create(["create schema shop", "create type shop.mood as enum ()"], [])
    everywhere = Wanted("mood", None, "e", frozenset({"shop"}))
    report = sides.compare(everywhere, Wanted("mood", "shop", "e"))
    assert verdicts(report)["mood"] == "absent"
    assert verdicts(report)["shop.mood"] == "missing"


def test_tenants_by_schema(sides):
    """What is wrong in many schemas is said once; the table stays short."""
    tenants = [f"t{number}" for number in range(9)]
    schemas = [f"create schema {tenant}" for tenant in tenants]
    moods = [f"create type {tenant}.mood as enum ('ok')" for tenant in tenants]
    renamed = "alter type t7.mood rename value 'ok' to 'fine'"
    sides.create([*schemas, *moods], [*schemas, *moods[2:], renamed])
    report = sides.compare(MOOD)
    assert [f.sentence for f in of(report, "break")] == [
        "mood is missing on green (of schema t0, t1)",
        "mood (enum) has another shape on green: it lacks 'ok', and has 'fine'"
        " (of schema t7)",
    ]
    said = [line for line in as_text(report).splitlines() if "  mood" in line]
    assert [line.split()[-1] for line in said[:3]] == ["MISSING", "MISSING", "SHAPE"]
    assert "and 4 more in other schemas" in said[-1]
    assert len(said) == 6


def test_names_that_need_quotes(sides):
    """Names are data: with quotes, percent signs, braces, capitals, 63 bytes."""
    name = 'It\'s "%s" 100% {side} \\ ä'
    wanted = Wanted(name, None, "e")
    quoted = '"' + name.replace('"', '""') + '"'
    sides.create(
        [f"create type {quoted} as enum ('{{0}} %s')"],
        [f"create type {quoted} as enum ('%(x)s')"],
    )
    finding = found(sides.compare(wanted), "break")["other_shape"]
    assert finding.sentence.startswith(f"{name} (enum) has another shape on green:")
    assert f"ALTER TYPE {quoted} RENAME VALUE '%(x)s' TO '{{0}} %s';" == finding.hint


def test_schema_declared_apart_is_known():
    """What is wanted follows what is declared by `register_type`."""
    before = runtime.group(GROUP)
    try:
        register_type("preflight_mood", EnumInfo, register_enum)
        register_type("shop.preflight_mood", EnumInfo, register_enum)
        assert wanted_types() == (
            Wanted("hstore", None, "b"),
            Wanted("citext", None, "b"),
            Wanted("preflight_mood", None, "e", frozenset({"shop"})),
            Wanted("preflight_mood", "shop", "e"),
        )
    finally:
        runtime.track(GROUP, before)
        tracked_connections.renew()
