"""``PG_HOT_ASYNC``: read in one place, wrong values named."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test.utils import override_settings

from django_pg_hot_async import conf
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.trust import Trust


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"TRUST": "always"},
            "PG_HOT_ASYNC['TRUST'] is 'always', which is not a valid TRUST level;"
            " choose from 'auto', 'connection', 'server', 'transaction'.",
        ),
        *(
            (
                {"TRUST": level},
                f"PG_HOT_ASYNC['TRUST'] is {level!r}, which is not a level any more;"
                ' leave it out, "auto" is right behind any pooler, or write'
                " 'transaction'.",
            )
            for level in ("checkout", "result")
        ),
        (
            {"ALIASES": {"default": {"TRUST": "checkout"}}},
            "PG_HOT_ASYNC['ALIASES']['default']['TRUST'] is 'checkout', which is not a"
            " level any more; leave it out",
        ),
        ({"TRUST": 1}, "PG_HOT_ASYNC['TRUST'] is 1, which is not a valid TRUST level"),
        (
            {"TRUST": ["server"]},
            "PG_HOT_ASYNC['TRUST'] is ['server'], which is not a valid TRUST",
        ),
        (
            {"TRUTS": "server"},
            "PG_HOT_ASYNC has the key 'TRUTS'; the keys it may have are 'ALIASES',"
            " 'TRUST'.",
        ),
        (
            {"ALIASES": {"reporting": {}}},
            "PG_HOT_ASYNC['ALIASES'] names 'reporting', which is no alias in"
            " DATABASES; it may name 'default'.",
        ),
        (
            {"ALIASES": ["default"]},
            "PG_HOT_ASYNC['ALIASES'] is ['default']; it must be a dict of database"
            " aliases.",
        ),
        (
            {"ALIASES": {"default": "server"}},
            "PG_HOT_ASYNC['ALIASES']['default'] is 'server'; it must be a dict with the"
            " keys 'TRUST', or None to leave it to Django.",
        ),
        (
            {"ALIASES": {"default": {"TRUST": "never"}}},
            "PG_HOT_ASYNC['ALIASES']['default']['TRUST'] is 'never', which is not",
        ),
        (
            {"ALIASES": {"default": {"trust": "server"}}},
            "PG_HOT_ASYNC['ALIASES']['default'] has the key 'trust'; the keys",
        ),
        ("server", "PG_HOT_ASYNC is 'server'; it must be a dict with the keys"),
    ],
)
def test_wrong_value_is_named(value, message):
    with pytest.raises(ImproperlyConfigured) as caught:  # noqa: SIM117
        with override_settings(PG_HOT_ASYNC=value):
            pass
    assert str(caught.value).startswith(message)
    assert conf.trust("default") is Trust.AUTO


@pytest.mark.parametrize("value", [None, {}, {"ALIASES": {}}])
def test_everything_is_optional(value):
    with override_settings(PG_HOT_ASYNC=value):
        assert conf.trust("default") is Trust.AUTO
        assert not conf.is_off("default")


def test_alias_goes_before_the_default():
    aliases = {"default": {"TRUST": "transaction"}}
    with override_settings(PG_HOT_ASYNC={"TRUST": "server", "ALIASES": aliases}):
        assert conf.trust("default") is Trust.TRANSACTION
        assert conf.trust("a pool's label") is Trust.SERVER
    with override_settings(
        PG_HOT_ASYNC={"TRUST": "server", "ALIASES": {"default": {}}}
    ):
        assert conf.trust("default") is Trust.SERVER


def test_override_reaches_what_is_remembered():
    alias = runtime.alias("default")
    with override_settings(PG_HOT_ASYNC={"TRUST": "transaction"}):
        assert alias.trust.name == "TRANSACTION"
    assert alias.trust.name == "AUTO"


def test_none_leaves_an_alias_to_django():
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}):
        assert conf.is_off("default")
        assert not conf.is_off("other")


def test_aliases_are_those_that_django_connects_to(monkeypatch):
    """`override_settings(DATABASES=...)` does not reach Django's connections."""
    monkeypatch.setitem(connections.settings, "off", {})
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"off": None}}):
        with (
            pytest.warns(UserWarning, match="Overriding setting DATABASES"),
            override_settings(DATABASES={"default": {}}),
        ):
            conf.read.cache_clear()
            assert conf.is_off("off")
        assert conf.is_off("off")


def test_an_alias_that_is_added_later_may_be_named(monkeypatch):
    """As projects add them that have a database a tenant."""
    monkeypatch.setitem(connections.settings, "tenant", {})
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"tenant": {"TRUST": "server"}}}):
        assert conf.trust("tenant") is Trust.SERVER
