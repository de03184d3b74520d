"""What `pg_hot_preflight` finds of the columns of the project's tables."""

from __future__ import annotations

from contextlib import contextmanager
from enum import Enum

import psycopg.types.composite as psycopg_composite
import psycopg.types.enum as psycopg_enum
import psycopg.types.multirange as psycopg_multirange
import psycopg.types.range as psycopg_range
import pytest
from django.db import models
from django.test.utils import isolate_apps

from django_pg_hot_async import register_type
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import connections as tracked_connections
from django_pg_hot_async._django.installed import GROUP
from django_pg_hot_async._operator.preflight.columns import Untracked, model_tables
from django_pg_hot_async._operator.preflight.facts import Wanted
from django_pg_hot_async._operator.preflight.output import as_text

from .preflight import found, of, run, upgrade, verdicts
from .scenarios import CITEXT, HSTORE, MOOD, connections

TYPES = [HSTORE, CITEXT, MOOD]
# As tests.scenarios has it, with room for what a test adds.
TABLE = """
create table product (id bigint primary key, name text not null, attrs hstore,
                      tags citext[], parts hstore[], {})
"""


@pytest.fixture
def sides(blue, green):
    with upgrade(blue, green, "preflight_columns") as sides:
        yield sides


@contextmanager
def declared():
    """Undo what is registered in the block."""
    before = runtime.group(GROUP)
    try:
        yield
    finally:
        runtime.track(GROUP, before)
        tracked_connections.renew()


def untracked(report) -> dict[str, Untracked]:
    return {one.type.name: one for one in report.untracked}


# What differs


def test_type_in_another_schema_is_no_other_type(sides):
    path = f"alter database {sides.dbname} set search_path = public, ext"
    ext = f"{HSTORE} schema ext"
    sides.create(
        ["create schema ext", path, *TYPES, TABLE.format("feels mood")],
        ["create schema ext", path, ext, *TYPES[1:], TABLE.format("feels mood")],
    )
    # With a search_path that leads there, and with one that does not.
    assert "column_type" not in found(sides.compare())
    sides.create([], [f"alter database {sides.dbname} reset search_path"])
    report = sides.compare()
    assert "not_visible" in found(report)
    assert "column_type" not in found(report)


def test_table_with_a_schema(sides):
    """What people write into db_table, since Django has no place for a schema."""
    sides.create(["create schema shop", *TYPES, 'create table shop."It""em" (x mood)'])
    names = ['shop"."It""em', '"shop"."It""em"', "It", "shop.It", "product"]
    # Django quotes names without a look at what is in them.
    found = sides.read("default").find_tables(one.replace('""', '"') for one in names)
    assert {name: row.name for name, row in found.items()} == {
        '"shop"."It"em"': 'shop."It""em"',
        'shop"."It"em': 'shop."It""em"',
        "product": "public.product",
    }


@isolate_apps("tests.shop")
def test_tables_of_models():
    """Those of every model that has one: not of a proxy, an abstract one's neither."""
    from django.apps import apps

    class Base(models.Model):
        feels = models.TextField(db_column="mood")

        class Meta:
            abstract = True
            app_label = "shop"

    class Shelf(Base):
        near = models.ManyToManyField("self")

        class Meta:
            app_label = "shop"

    class Other(Shelf):
        class Meta:
            proxy = True
            app_label = "shop"

    assert model_tables(Base._meta.apps) == {
        "shop_shelf": {"id", "mood"},
        "shop_shelf_near": {"id", "from_shelf_id", "to_shelf_id"},
    }
    assert model_tables(apps)["product"] == {"id", "name", "attrs", "tags", "parts"}


# What nobody tracks


USES = [
    "create type size as (width int, height int)",
    "create type span as range (subtype = text, multirange_type_name = spans)",
    "create domain email as citext check (value <> '')",
    "create domain emails as email[]",
    "create domain deep as email",
    'create type "Odd Mood" as enum ()',
    "create extension ltree",
]
COLUMNS = """
    feels mood, moods mood[], size size, sizes size[][], span span, spans spans,
    mail email, mails email[], book emails, deep deep, odd "Odd Mood", path ltree,
    paths ltree[], plain int4range, number numeric(6, 2)
"""


def test_untracked(sides):
    """Enums, composites, ranges, domains, extensions' types, and arrays of them."""
    sides.create([*TYPES, *USES, TABLE.format(COLUMNS)])
    report = sides.compare()
    found_ones = untracked(report)
    assert {
        name: (one.suggestion, one.in_array) for name, one in found_ones.items()
    } == {
        "mood": ('register_type("mood", EnumInfo, register_enum, enum=Mood)', True),
        "Odd Mood": (
            "register_type('\"Odd Mood\"', EnumInfo, register_enum, enum=OddMood)",
            False,
        ),
        "size": ('register_type("size", CompositeInfo, register_composite)', True),
        "span": ('register_type("span", RangeInfo, register_range)', False),
        "spans": (
            'register_type("spans", MultirangeInfo, register_multirange)',
            False,
        ),
        "email": ('register_type("email")', True),
        "emails": (None, False),
        "deep": (None, False),
        "ltree": ('register_type("ltree")', True),
    }
    assert found_ones["mood"].columns == ("product.feels", "product.moods")
    assert found_ones["email"].columns == (
        "product.mail",
        "product.mails",
        "product.book",
        "product.deep",
    )
    for one in found_ones.values():
        assert one.sides == ("default", "green")
    assert report.is_ready and not of(report, "warning")
    notes = of(report, "note")
    assert {finding.code for finding in notes} == {"untracked"}
    assert len(notes) == len(found_ones)
    [deep] = [f for f in notes if f.object == "public.deep"]
    assert deep.sentence.endswith("loads as what it is made of, email")


def test_untracked_and_registered_as_suggested(sides):
    """Each suggestion is a call that registers the type: then it is tracked."""
    sides.create([*TYPES, *USES, TABLE.format(COLUMNS)])
    suggestions = [one.suggestion for one in sides.compare().untracked]
    names = {
        **vars(psycopg_enum),
        **vars(psycopg_composite),
        **vars(psycopg_range),
        **vars(psycopg_multirange),
        "register_type": register_type,
        "Mood": Enum("Mood", "ok"),
        "OddMood": Enum("OddMood", "ok"),
    }
    with declared():
        for suggestion in filter(None, suggestions):
            eval(suggestion, names)
        report = sides.compare()
        said = run()
    assert {one.type.name for one in report.untracked} == {"emails", "deep"}
    expected = "hstore citext mood Odd_Mood size span spans email ltree"
    assert verdicts(report) == {
        name.replace("_", " "): "other_oid" for name in expected.split()
    }
    assert "Ready: 9 tracked types, 9 with other OIDs" in said


def test_untracked_as_it_is_loaded(sides):
    """What the notes say psycopg makes of such values is what it makes of them."""
    sides.create([*TYPES, *USES])
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "select 'ok'::mood, array['ok'::mood], '(1,2)'::size, '[a,b)'::span,"
            " 'a@b'::email, array['a@b'::email], array['a@b'::email]::emails,"
            " 'a.b'::ltree, array['a.b'::ltree]"
        )
        assert cursor.fetchone() == (
            *("ok", "{ok}", "(1,2)", "[a,b)"),
            *("a@b", "{a@b}", "{a@b}", "a.b", "{a.b}"),
        )
        # The server sends a domain as what it is made of: nothing to track.
        citext = "select 'citext'::regtype::oid::int8, 'x'::email"
        cursor.execute(citext)
        oid = cursor.fetchone()[0]
        assert cursor.description[1].type_code == oid


def test_untracked_on_one_side(sides):
    sides.create(
        [*TYPES, TABLE.format("feels text")], [*TYPES, TABLE.format("feels mood")]
    )
    [mood] = sides.compare().untracked
    assert mood.sides == ("green",)
    assert mood.columns == ("product.feels",)


def test_tracked_is_not_untracked(sides):
    sides.create([*TYPES, TABLE.format("feels mood, moods mood[]")])
    assert untracked(sides.compare())
    assert not sides.compare(Wanted("mood", None, "e")).untracked
    assert not sides.compare(Wanted("mood", "public", "e")).untracked
    # A tracked composite of that name is another type.
    assert sides.compare(Wanted("mood", None, "c")).untracked


def test_untracked_hstore(sides, settings):
    """Without django.contrib.postgres nobody tracks it."""
    settings.INSTALLED_APPS = [
        app for app in settings.INSTALLED_APPS if app != "django.contrib.postgres"
    ]
    sides.create([*TYPES, TABLE.format("feels mood")])
    report = sides.compare()
    assert report.types == ()
    assert report.verdict.startswith("Ready: no tracked types;")
    suggestion = 'register_type("hstore", register=register_hstore)'
    assert untracked(report)["hstore"].suggestion == suggestion
    assert untracked(report)["citext"].suggestion == 'register_type("citext")'
    assert "Tracked types\n  none\n" in as_text(report)


def test_many_columns_are_not_all_listed(sides):
    columns = ", ".join(f"m{number} mood" for number in range(9))
    sides.create([*TYPES, TABLE.format(columns)])
    [finding] = of(sides.compare(), "note")
    assert "product.m4 and 4 more" in finding.sentence
