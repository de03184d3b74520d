"""What a project may ask of a rehearsal. No assertion but those of the watcher,
where it is asked for."""

import json
from urllib.request import urlopen

import pytest
from django.contrib.contenttypes.models import ContentType
from django.contrib.sites.models import Site
from django.db import connection, connections
from shop.models import Order

BOTH = pytest.mark.parametrize(
    "pg_hot_rehearsal", ["service", "pgbouncer"], indirect=True
)


def place():
    return Order.objects.create(attrs={"gift": "yes"}, tags=["New"])


def major(alias):
    with connections[alias].cursor() as cursor:
        cursor.execute("select current_setting('server_version_num')::int / 10000")
        return cursor.fetchone()[0]


@BOTH
def test_watched(pg_hot_rehearsal, no_wrong_rows):
    place()
    pg_hot_rehearsal.cutover()
    pg_hot_rehearsal.rollback()


async def test_async(pg_hot_rehearsal, no_wrong_rows):
    await Order.objects.acreate(attrs={"gift": "yes"})
    await pg_hot_rehearsal.acutover()
    await Order.objects.aget()
    await pg_hot_rehearsal.arollback()


@BOTH
def test_aliases(pg_hot_rehearsal):
    """All that take part follow; a mirror reads what was written to the other."""
    assert Order.objects.count() == 0
    place()
    Order.objects.using("archive").create(attrs={"old": "yes"})
    sides = [pg_hot_rehearsal.blue, pg_hot_rehearsal.green, pg_hot_rehearsal.blue]
    steps = [lambda: None, pg_hot_rehearsal.cutover, pg_hot_rehearsal.rollback]
    for step, side in zip(steps, sides, strict=True):
        step()
        assert pg_hot_rehearsal.server is side
        for alias in connections:
            assert major(alias) == side.major
        assert Order.objects.get().attrs == {"gift": "yes"}
        assert Order.objects.using("replica").get().attrs == {"gift": "yes"}
        assert Order.objects.using("archive").get().attrs == {"old": "yes"}


def test_what_migrations_wrote(pg_hot_rehearsal):
    """Rows of migrations are brought over as well, not made anew."""
    Site.objects.update(domain="shop.example")
    expected = ContentType.objects.get_for_model(Order)
    pg_hot_rehearsal.cutover()
    ContentType.objects.clear_cache()
    Site.objects.clear_cache()
    assert Site.objects.get_current().domain == "shop.example"
    assert ContentType.objects.get_for_model(Order) == expected


def test_live_server(live_server, pg_hot_rehearsal):
    """Other threads follow; pytest-django's test database is another one."""

    def ask():
        with urlopen(live_server.url) as response:
            return json.load(response)

    place()
    order = {"attrs": {"gift": "yes"}, "tags": ["New"]}
    for switch in (None, pg_hot_rehearsal.cutover, pg_hot_rehearsal.rollback):
        if switch:
            switch()
        answer = ask()
        assert answer == {"version": pg_hot_rehearsal.server.major, "orders": [order]}


def test_own_database(transactional_db):
    """After a rehearsal, settings and connections are as they were before it."""
    assert connection.settings_dict["NAME"] == "test_shop"
    assert connection.settings_dict["OPTIONS"] == {"sslmode": "disable"}
    assert connection.get_autocommit()
    ContentType.objects.get_for_model(Order)
    assert Order.objects.count() == 0


def test_transactional_db(pg_hot_rehearsal, transactional_db):
    place()
    pg_hot_rehearsal.cutover()
    assert Order.objects.get().attrs == {"gift": "yes"}


@pytest.mark.django_db
def test_db(pg_hot_rehearsal):
    raise AssertionError("not reached")
