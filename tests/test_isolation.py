"""Transactions that see the catalog as it was when they began, and types made since."""

from __future__ import annotations

import psycopg
import pytest
from django.db import OperationalError, ProgrammingError, connection, transaction
from psycopg import sql

from django_pg_hot_async import pool, register_type, status
from django_pg_hot_async._core.connection import state_of

from .scenarios import (
    ANVIL,
    ORDERS,
    READ,
    ask_for,
    create_types,
    drop_types,
    lead,
    own_database,
    trust,
)

SELECT = "select attrs, tags from product where name = 'anvil'"
LITERALS = "select 'a=>1'::hstore, array['x'::citext]"
FROZEN = [
    psycopg.IsolationLevel.REPEATABLE_READ,
    psycopg.IsolationLevel.SERIALIZABLE,
]
LEVELS = ["auto", "server", "connection", "transaction"]


@pytest.fixture
def shop(green):
    with own_database(green, "isolated", ORDERS["green"]):
        yield green.database("isolated")


def make_anew(green):
    drop_types(green, "isolated")
    create_types(green, "isolated", ORDERS["blue"])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("isolation", FROZEN, ids=lambda one: one.name.lower())
def test_a_type_younger_than_the_transaction(shop, green, isolation, level):
    """It is refused, as what cannot be serialised is: run again, it is right."""
    shop["OPTIONS"] = {**shop.get("OPTIONS", {}), "isolation_level": isolation}
    with trust(level):
        lead("default", shop)
        assert ask_for(SELECT) == (ANVIL["attrs"], ANVIL["tags"])
        with (
            pytest.raises(
                OperationalError, match=r"hstore was created after"
            ) as caught,
            transaction.atomic(),
        ):
            assert ask_for("select 1") == (1,)
            make_anew(green)
            ask_for(LITERALS)
        cause = caught.value.__cause__
        assert isinstance(cause, psycopg.errors.SerializationFailure)
        assert cause.sqlstate == "40001"
        for _ in range(2):
            with transaction.atomic():
                assert ask_for(LITERALS) == ({"a": "1"}, ["x"])
            assert ask_for(SELECT) == (ANVIL["attrs"], ANVIL["tags"])
            assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)


@pytest.mark.parametrize("level", LEVELS)
def test_a_transaction_that_goes_on_after_it(shop, green, level):
    """What it could not say of a type is not remembered as said."""
    shop["OPTIONS"] = {**shop.get("OPTIONS", {}), "isolation_level": FROZEN[0]}
    with trust(level):
        lead("default", shop)
        with transaction.atomic():
            assert ask_for("select 1") == (1,)
            make_anew(green)
            for _ in range(2):
                with pytest.raises(OperationalError, match="run the transaction again"):
                    ask_for("select array['x'::citext]")
            assert ask_for("select 'ok'::mood, 2") == ("ok", 2)
        assert ask_for("select array['x'::citext]") == (["x"],)
        assert ask_for(SELECT) == (ANVIL["attrs"], ANVIL["tags"])


def test_a_type_nobody_tracks_is_looked_up_once(shop, green):
    """That it is none of the tracked ones, the transaction can tell for certain."""
    with psycopg.connect(green.conninfo("isolated")) as mine:
        mine.isolation_level = FROZEN[0]
        pool.configure("isolated")(mine)
        state = state_of(mine)
        assert state is not None
        state.alias.withdraw()
        mine.execute("select 1")
        make_anew(green)
        with green.statements() as statements:
            for _ in range(3):
                assert mine.execute("select 'ok'::mood").fetchone() == ("ok",)
        assert len([one for one in statements if READ in one]) == 2


@pytest.mark.parametrize("level", LEVELS)
def test_what_it_saw_replaces_nothing_that_is_known(shop, green, level):
    """Others go on sending by what the server has now."""
    shop["OPTIONS"] = {**shop.get("OPTIONS", {}), "server_side_binding": True}
    with trust(level), psycopg.connect(green.conninfo("isolated")) as old:
        lead("default", shop)
        assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
        old.isolation_level = FROZEN[0]
        pool.configure("default")(old)
        old.execute("select 1")
        make_anew(green)
        assert ask_for(LITERALS) == ({"a": "1"}, ["x"])
        known = status()[0]["types"]
        assert old.execute("select 'ok'::mood").fetchone() == ("ok",)
        for _ in range(2):
            assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)
        assert status()[0]["types"] == known


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("binding", ["by name", "by OID"])
def test_a_type_dropped_under_the_transaction(shop, green, binding, level):
    """It sees the type in pg_type, and the server has no name for it any more."""
    options = {"isolation_level": FROZEN[0], "server_side_binding": binding == "by OID"}
    shop["OPTIONS"] = {**shop.get("OPTIONS", {}), **options}
    with trust(level):
        lead("default", shop)
        with pytest.raises(ProgrammingError, match="adapt"), transaction.atomic():
            assert ask_for("select 1") == (1,)
            make_anew(green)
            ask_for("select %s -> 'a'", [{"a": "1"}])
        for _ in range(2):
            assert ask_for("select %s -> 'a'", [{"a": "1"}]) == ("1",)


@pytest.mark.parametrize("level", LEVELS)
def test_read_committed_sees_it(shop, green, level):
    with trust(level):
        lead("default", shop)
        with transaction.atomic():
            assert ask_for("select 1") == (1,)
            make_anew(green)
            assert ask_for(LITERALS) == ({"a": "1"}, ["x"])
        assert connection.connection.info.transaction_status == 0


@pytest.mark.parametrize("name", ['say "no".x', "Größe 数", "a.b", "hstore]"])
@pytest.mark.parametrize("schema", ["public", None], ids=["visible", "not visible"])
def test_names_that_need_quotes(green, name, schema):
    """They are compared as the server writes them: quoted, and with their schema."""
    quoted = sql.Identifier(name).as_string(None)
    schema = schema or quoted
    register_type(quoted)
    with own_database(green, "isolated", []):
        green.execute(f"create schema if not exists {schema}", dbname="isolated")
        lead("default", green.database("isolated"))
        with transaction.atomic():
            ask_for("set transaction isolation level repeatable read")
            ask_for("select 1")
            for other in (quoted, "other"):
                green.execute(
                    f"create type {schema}.{other} as (a int)", dbname="isolated"
                )
            assert ask_for(f"select row(1)::{schema}.other") == ("(1)",)
            with pytest.raises(OperationalError, match="was created after"):
                ask_for(f"select array[row(1)::{schema}.{quoted}]")


def test_a_client_encoding_that_cannot_write_a_name(green):
    """Of a type that nobody tracks; the transaction would be aborted."""
    with own_database(green, "isolated", []):
        green.execute("create type \"気分\" as enum ('ok')", dbname="isolated")
        with psycopg.connect(
            green.conninfo("isolated", client_encoding="latin1")
        ) as mine:
            mine.isolation_level = FROZEN[0]
            pool.configure("isolated")(mine)
            mine.execute("select 1")
            found = mine.execute("select 'ok'::U&\"\\6C17\\5206\" as x").fetchone()
            assert found == ("ok",)
