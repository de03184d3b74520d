"""What the watcher finds, and what it lets pass."""

from __future__ import annotations

import enum
import threading
import warnings
from typing import Any

import pytest
from django.apps import apps
from django.contrib.postgres.fields import (
    ArrayField,
    DateRangeField,
    HStoreField,
    IntegerRangeField,
)
from django.db import DataError, InternalError, models
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models import F, Func, Value
from django.db.utils import DatabaseErrorWrapper
from django.test.utils import isolate_apps
from psycopg.types import TypeInfo
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.hstore import register_hstore
from psycopg.types.range import Range

from django_pg_hot_async.testing import Stage, Watcher, WrongRows, _watch
from django_pg_hot_async.testing._expectations import expectation

from .conftest import BLUE, GREEN
from .scenarios import ANVIL, connection
from .shop.models import Product
from .test_rehearsal import create, lead_on, prepare


@pytest.fixture(scope="module")
def stage():
    with Stage(BLUE, GREEN, prepare=prepare) as stage:
        yield stage


@pytest.fixture
def rehearsal(request, stage):
    """After `without_app`, where that is asked for."""
    if "without_app" in request.fixturenames:
        request.getfixturevalue("without_app")
    with stage.rehearse() as rehearsal:
        yield rehearsal


class Plain:
    def __repr__(self):
        return f"<Plain at {id(self)}>"


LISTS = ArrayField(ArrayField(models.TextField()))


@pytest.mark.parametrize(
    "field, good, bad",
    [
        (HStoreField(), {"a": None}, '"a"=>NULL'),
        (IntegerRangeField(), Range(1, 2), "[1,2)"),
        (DateRangeField(), Range(empty=True), "empty"),
        (ArrayField(models.TextField()), ["a", None], "{a,NULL}"),
        (ArrayField(HStoreField()), [{"a": "1"}, None], ['"a"=>"1"']),
        (ArrayField(IntegerRangeField()), [], ["[1,2)", None]),
        (LISTS, [["a"], ["b"]], ["{a}", "{b}"]),
    ],
)
def test_what_is_expected_of_a_field(field, good, bad):
    expected: Any = expectation(field)
    assert expected.is_met(good)
    assert not expected.is_met(bad)


def test_nothing_is_expected_of_what_may_be_a_string():
    assert expectation(models.TextField()) is None
    assert expectation(models.JSONField()) is None
    assert expectation(None) is None
    expected: Any = expectation(LISTS)
    assert expected.noun == "a list, each item a list"


@pytest.mark.parametrize(
    "before, now, same",
    [
        ({"a": "1"}, {"a": "1"}, True),
        ({"a": "1"}, {"a": "2"}, False),
        ("1", 1, False),
        (float("nan"), float("nan"), True),
        ([float("nan")], [float("nan")], True),
        (Plain(), Plain(), True),
        (Plain(), object(), False),
    ],
)
def test_what_is_the_same(before, now, same):
    assert _watch._is_same(before, now) is same


def test_right_rows_pass(rehearsal):
    """And are counted: three columns of one row, read again on either server."""
    with Watcher(rehearsal) as watcher:
        create()
        Product.objects.create(name="empty")
        rehearsal.cutover()
        rehearsal.rollback()
    assert watcher.compared == 6


def test_a_row_nobody_reads(without_app, rehearsal):
    """The watcher does, before the way back and at the end."""
    with Watcher(rehearsal):
        create()
        rehearsal.cutover()
        with pytest.raises(WrongRows) as raised:
            rehearsal.rollback()
        assert rehearsal.server is rehearsal.green
    assert str(raised.value).splitlines()[0] == (
        "6 values wrong or not to be decoded (3 compared):"
    )
    green = f"  'default' on green (PostgreSQL {GREEN}): shop.Product."
    for line in (
        green + "tags: '{Heavy,\"two words\"}' where a list is expected",
        green + "tags: '{Heavy,\"two words\"}' where it was ['Heavy', 'two words'] on"
        f" blue (PostgreSQL {BLUE})",
        green + 'attrs: \'"gone"=>NULL, "weight"=>"9 kg"\' where a dict is expected',
    ):
        assert line in str(raised.value).splitlines()
    with pytest.raises(WrongRows), Watcher(rehearsal):
        pass


def read_instances():
    list(Product.objects.all())


def read_an_annotation():
    rows = Product.objects.annotate(also=F("attrs"))
    list(rows.values_list("also"))


def read_an_expression():
    rows = Product.objects.values_list(
        Func(F("tags"), Value("x"), function="array_append", output_field=LISTS)
    )
    list(rows)


def read_raw():
    list(Product.objects.raw("select id, attrs from product"))


@pytest.mark.parametrize(
    "read, what",
    [
        (read_instances, "shop.Product.attrs: "),
        (read_an_annotation, "shop.Product.attrs: "),
        (read_an_expression, "an expression: "),
        (read_raw, "shop.Product.attrs: "),
    ],
)
def test_a_value_that_some_thread_reads(without_app, rehearsal, read, what):
    """Whatever becomes of it there; the rows themselves are gone at the end."""
    create()
    # As a process does that will be wrong later.
    assert Product.objects.values(*ANVIL).get() == ANVIL
    rehearsal.cutover()
    with pytest.raises(WrongRows) as raised, Watcher(rehearsal):
        thread = threading.Thread(target=lambda: (read(), connection.close()))
        thread.start()
        thread.join()
        Product.objects.all().delete()
    assert what in str(raised.value)


def test_a_value_that_its_field_makes_something_of(without_app, rehearsal, monkeypatch):
    def from_db_value(self, value, expression, connection):
        return {} if value else None

    monkeypatch.setattr(HStoreField, "from_db_value", from_db_value, raising=False)
    with pytest.raises(WrongRows) as raised, Watcher(rehearsal):
        Product.objects.create(attrs={"a": "1"})
        rehearsal.cutover()
    assert str(raised.value).splitlines()[1:] == [
        f"  'default' on green (PostgreSQL {GREEN}): shop.Product.attrs: '\"a\"=>\"1\"'"
        " where a dict is expected"
    ]


def test_a_value_that_could_not_be_decoded(rehearsal):
    """Though somebody caught the error."""
    connection.ensure_connection()
    # What is a date is hstore to this connection: an OID of another type.
    register_hstore(TypeInfo("hstore", 1082, 1182), connection.connection)
    with (
        pytest.raises(WrongRows, match="DataError: error parsing hstore"),
        Watcher(rehearsal),
    ):
        with pytest.raises(DataError), connection.cursor() as cursor:
            cursor.execute("select current_date")
            cursor.fetchone()
        connection.close()


def test_a_parameter_of_a_type_that_is_gone(without_app, rehearsal):
    options = connection.settings_dict["OPTIONS"]
    lead_on(OPTIONS={**options, "server_side_binding": True})
    create().delete()
    rehearsal.cutover()
    with (
        pytest.raises(WrongRows, match="cache lookup failed for type"),
        Watcher(rehearsal),
        pytest.raises(InternalError),
    ):
        create()


def test_errors_that_say_nothing_of_types(rehearsal):
    """A value that the server refuses is a `DataError` too, with an SQLSTATE."""
    with Watcher(rehearsal):
        create()
        with pytest.raises(DataError), connection.cursor() as cursor:
            cursor.execute("select 'x'::int")
        with pytest.raises(InternalError), connection.cursor() as cursor:
            cursor.execute("do $$ begin raise 'odd' using errcode = 'XX000'; end $$")
        rehearsal.cutover()


class Mood(enum.Enum):
    SAD = "sad"
    OK = "ok"


@isolate_apps("tests.shop")
def test_a_value_of_which_no_class_is_expected(rehearsal, monkeypatch):
    """An enum, a string at first, has to stay one."""

    class Feeling(models.Model):
        feels = models.TextField()

        class Meta:
            managed = False
            app_label = "shop"
            db_table = "product"

    monkeypatch.setattr(apps, "get_models", lambda **kwargs: [Feeling])
    with connection.cursor() as cursor:
        cursor.execute("insert into product (name, feels) values ('a', 'ok')")
    wrong = r"feels: <Mood.OK: 'ok'> where it was 'ok' on b"
    with pytest.raises(WrongRows, match=wrong), Watcher(rehearsal):
        rehearsal.cutover()
        connection.ensure_connection()
        info = EnumInfo.fetch(connection.connection, "mood")
        mapping = {mood: mood.value for mood in Mood}
        register_enum(info, connection.connection, Mood, mapping=mapping)
        lead_on(CONN_MAX_AGE=60)
        connection.close_at = None


def test_a_model_that_cannot_be_read(rehearsal, monkeypatch):
    def from_db_value(self, value, expression, connection):
        raise LookupError("no such key")

    wrong = r"shop\.Product: LookupError: no such key"
    with pytest.raises(WrongRows, match=wrong), Watcher(rehearsal):
        create()
        with monkeypatch.context() as patch:
            patch.setattr(HStoreField, "from_db_value", from_db_value, raising=False)
            rehearsal.cutover()


@pytest.mark.parametrize("circumstance", ["no cutover", "no row", "no value"])
def test_nothing_to_compare_is_told(rehearsal, circumstance):
    with pytest.warns(UserWarning, match="nothing was compared"), Watcher(rehearsal):
        if circumstance == "no cutover":
            create()
        else:
            if circumstance == "no value":
                Product.objects.create(name="empty")
            rehearsal.cutover()


def test_only_the_first_wrong_rows_are_listed(without_app, rehearsal):
    for number in range(12):
        Product.objects.create(name="anvil", attrs={"number": str(number)})
    rehearsal.cutover()
    with pytest.raises(WrongRows) as raised, Watcher(rehearsal) as watcher:
        watcher.check()
    assert len(str(raised.value).splitlines()) == 12
    assert str(raised.value).endswith("\n  ... and 2 more")


def test_an_error_of_the_tests_own_is_not_replaced(without_app, rehearsal):
    create()
    with pytest.raises(ZeroDivisionError), Watcher(rehearsal):
        rehearsal.cutover()
        raise ZeroDivisionError


def test_nothing_is_watched_any_more_afterwards(rehearsal):
    """The names it takes the place of are Django's (5.2.19, 6.0.9 and 6.1.3)."""
    before = vars(DatabaseErrorWrapper)["__exit__"]
    assert "get_db_converters" not in vars(DatabaseOperations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Watcher(rehearsal) as watcher, Watcher(rehearsal):
            assert "get_db_converters" in vars(DatabaseOperations)
            assert repr(watcher).startswith("<Watcher of <Rehearsal on blue")
    assert vars(DatabaseErrorWrapper)["__exit__"] is before
    assert "get_db_converters" not in vars(DatabaseOperations)
    assert rehearsal.before_switch == []
