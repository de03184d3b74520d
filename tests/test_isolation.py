"""Transactions that see the catalog as it was when they began, and types made since."""

from __future__ import annotations

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from django_pg_hot_async import _catalog, pool
from django_pg_hot_async._link import link_of

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
LEVELS = ["server", "connection", "checkout", "result"]


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
        link = link_of(mine)
        assert link is not None
        link.memory.withdraw()
        mine.execute("select 1")
        make_anew(green)
        with green.statements() as statements:
            for _ in range(3):
                assert mine.execute("select 'ok'::mood").fetchone() == ("ok",)
        assert len([one for one in statements if READ in one]) == 2


@pytest.mark.parametrize("level", LEVELS)
def test_read_committed_sees_it(shop, green, level):
    with trust(level):
        lead("default", shop)
        with transaction.atomic():
            assert ask_for("select 1") == (1,)
            make_anew(green)
            assert ask_for(LITERALS) == ({"a": "1"}, ["x"])
        assert connection.connection.info.transaction_status == 0


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("hstore", "hstore"),
        ("hstore[]", "hstore"),
        ("extensions.hstore[]", "hstore"),
        ('"Ext.1".hstore', "hstore"),
        ('ext."a.b"', "a.b"),
        ('"say ""no"".x"."say ""yes"".y"[]', 'say "yes".y'),
        ("???", "???"),
    ],
)
def test_what_format_type_says(said, name):
    assert _catalog._bare(said) == name
