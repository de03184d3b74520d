"""Who is told of a checkout, and that the signal is spared nobody who wants it."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch.dispatcher import NO_RECEIVERS
from django.test.utils import override_settings

from django_pg_hot_async import conf
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._django import startup

from .scenarios import KINDS, READ, close_all, connection, database, lead, trust


@pytest.fixture(autouse=True)
def _to_green(green):
    pool = {"min_size": 1, "max_size": 1}
    lead("default", database(green.database("shop"), KINDS["C3"], pool=pool))


def check_out() -> Any:
    connection.ensure_connection()
    try:
        return state_of(connection.connection)
    finally:
        connection.close()


def query() -> None:
    """Check out, and load a value of a tracked type; stay connected."""
    with connection.cursor() as cursor:
        cursor.execute("select attrs from product")
        cursor.fetchall()


def is_spared() -> bool:
    cache = connection_created.sender_receivers_cache
    return cache.get(DatabaseWrapper) is NO_RECEIVERS


def test_the_signal_is_spared_while_nobody_else_listens():
    check_out()
    assert check_out().notes_checkouts
    assert is_spared()


def test_whoever_listens_is_told_of_each():
    seen = []

    def receiver(connection: Any, **kwargs: Any) -> None:
        seen.append(connection.alias)

    check_out()
    check_out()
    assert is_spared()
    connection_created.connect(receiver, sender=DatabaseWrapper)
    try:
        for _ in range(3):
            check_out()
        assert seen == ["default"] * 3
        assert not is_spared()
    finally:
        connection_created.disconnect(receiver, sender=DatabaseWrapper)
    check_out()
    assert is_spared()
    assert seen == ["default"] * 3


def test_a_receiver_that_is_gone_is_waited_for_no_more():
    def receiver(**kwargs: Any) -> None:
        raise AssertionError

    connection_created.connect(receiver)
    del receiver
    check_out()
    check_out()
    assert is_spared()


def test_djangos_receiver_is_not_spared_an_alias_that_is_switched_off():
    check_out()
    check_out()
    assert is_spared()
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}):
        assert conf.is_any_off()
        check_out()
        check_out()
        assert not is_spared()


def test_a_checkout_changes_no_trust(green):
    """It is the server that is asked, not the pool: nothing is sent at a checkout."""
    state = check_out()
    query()
    snapshot = state.snapshot
    assert state.is_straight
    assert snapshot is not None
    connection.close()
    with green.statements() as statements:
        for _ in range(3):
            assert check_out() is state
            assert state.snapshot is snapshot
    assert [text for text in statements if READ in text] == []


def test_a_checkout_needs_no_telling_that_a_transaction_has_ended(green):
    with trust("transaction"):
        state = check_out()
        with transaction.atomic():
            query()
            assert state.snapshot is not None
        connection.close()
        assert check_out() is state
        with green.statements() as statements:
            query()
        assert len([text for text in statements if READ in text]) == 1


def test_a_backend_that_does_not_tell(monkeypatch):
    """One whose init_connection_state() does not call Django's."""
    monkeypatch.setattr(DatabaseWrapper, "init_connection_state", lambda wrapper: None)
    state = check_out()
    assert not state.notes_checkouts
    for _ in range(2):
        query()
        assert state.snapshot is not None
        connection.close()
        assert check_out() is state
    assert not is_spared()


def test_without_the_app_the_signal_is_spared_nobody():
    check_out()
    check_out()
    assert is_spared()
    ours: Any = DatabaseWrapper.init_connection_state
    startup.stop()
    try:
        # It stays where it is, and passes through.
        assert DatabaseWrapper.init_connection_state is ours
        assert not is_spared()
        close_all()
        assert check_out() is None
        assert not is_spared()
    finally:
        startup.install()
    assert DatabaseWrapper.init_connection_state is ours
    close_all()
    assert check_out().notes_checkouts
