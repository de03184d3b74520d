"""``pg_version`` and what depends on it: of the server connected to now."""

from __future__ import annotations

import time

import django
import pytest
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.postgresql.features import DatabaseFeatures
from django.utils.functional import cached_property

from django_pg_hot_async._django import startup
from django_pg_hot_async._django import version as live_version

from .conftest import BLUE, GREEN
from .scenarios import KINDS, ask_for, connection, connections, database, lead

# The releases of PostgreSQL that Django has a feature for; of one, if there is one,
# that only the newer of the two servers has.
RELEASES = [n for n in range(15, 19) if hasattr(DatabaseFeatures, f"is_postgresql_{n}")]
RELEASE = max(n for n in RELEASES if n <= max(BLUE, GREEN))
FEATURE = f"is_postgresql_{RELEASE}"


def has_feature(server):
    return server.major >= RELEASE


@pytest.fixture
def moved(service, blue, green):
    """Point the alias at a server, by a service file; nothing is open then."""
    service.point("shop", blue, "shop")
    lead("default", database(service.database("shop"), KINDS["C1"]))

    def move(server):
        connection.close()
        service.point("shop", server, "shop")

    return move


def test_both_directions(moved, blue, green):
    for server in (blue, green, blue, green):
        moved(server)
        connection.ensure_connection()
        assert connection.pg_version == server.version
        assert getattr(connection.features, FEATURE) is has_feature(server)
        # A property made from one for 16 (Django 6.0 and on).
        is_16 = server.major >= 16
        assert getattr(connection.features, "supports_any_value", is_16) is is_16


def test_the_first_query_is_written_for_the_server_it_goes_to(
    moved, blue, green, monkeypatch
):
    """SQL is compiled before the connection is opened."""
    moved(green)
    connection.ensure_connection()
    assert getattr(connection.features, FEATURE) is has_feature(green)
    moved(blue)
    monkeypatch.setattr(live_version, "FRESH_SECONDS", 0.0)
    assert connection.connection is None
    assert getattr(connection.features, FEATURE) is has_feature(blue)


def test_without_a_connection_it_serves_for_a_second(moved, green, monkeypatch):
    moved(green)
    connected: list[int] = []
    connection.close()
    ensure = connection.ensure_connection

    def counted() -> None:
        connected.append(1)
        ensure()

    # Not for longer than this wrapper lives.
    with monkeypatch.context() as patch:
        patch.setattr(connection, "ensure_connection", counted)
        assert connection.pg_version == connection.pg_version == green.version
        assert connection.connection is None
        once = len(connected)
        now = time.monotonic() + 2
        patch.setattr(live_version, "monotonic", lambda: now)
        assert connection.pg_version == green.version
        assert len(connected) == 2 * once > 0


@pytest.fixture
def feature(monkeypatch):
    """Add a cached property to Django's features, as a release of it might."""

    def add(func):
        original = cached_property(func)
        original.__set_name__(DatabaseFeatures, "a_feature")
        ours = live_version.PerVersion(original, "a_feature")
        monkeypatch.setattr(DatabaseFeatures, "a_feature", ours, raising=False)

    return add


def test_a_feature_is_computed_once_a_version(moved, blue, green, feature):
    computed = []
    feature(lambda self: computed.append(self.connection.pg_version))
    for server in (blue, blue, green, green):
        moved(server)
        connection.ensure_connection()
        connection.features.a_feature  # noqa: B018
    assert computed == [blue.version, green.version]


def test_a_feature_without_a_version_is_kept_as_django_keeps_it(moved, feature):
    """And asking for it connects to nothing."""
    feature(lambda self: object())
    features = type(connection.features)(connection)
    assert features.a_feature is features.a_feature
    assert connection.connection is None
    assert "a_feature" in vars(features)


def test_a_test_can_set_a_feature(moved, green):
    moved(green)
    connection.ensure_connection()
    setattr(connection.features, FEATURE, "mine")
    assert getattr(connection.features, FEATURE) == "mine"
    delattr(connection.features, FEATURE)
    assert getattr(connection.features, FEATURE) is has_feature(green)
    connection.pg_version = 1
    assert connection.pg_version == 1
    del connection.pg_version


@pytest.mark.pgbouncer
def test_the_servers_own_word_goes_before_the_connections(blue, green):
    """A client connection that PgBouncer moved goes on reporting the old version."""
    from django_pg_hot_async.testing import PgBouncer

    from .scenarios import trust

    with PgBouncer(blue, "shop") as bouncer, trust("transaction"):
        lead("default", database(bouncer.database(), KINDS["C2"]))
        KINDS["C2"].read()
        assert connection.pg_version == blue.version
        bouncer.switch(green)
        KINDS["C2"].read()
        assert connection.connection.info.server_version == blue.version
        assert connection.pg_version == green.version
        connection.close()


def test_of_a_connection_that_was_cut(moved, green):
    moved(green)
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    connection.connection.close()
    assert connection.pg_version == green.version
    connection.close()


def test_without_the_app_it_is_kept_as_django_keeps_it(moved, blue, green, without_app):
    """What stands in Django's place passes through: computed once a wrapper."""
    moved(blue)
    wrapper = connections.create_connection("default")
    try:
        assert wrapper.pg_version == blue.version
        assert getattr(wrapper.features, FEATURE) is has_feature(blue)
        assert vars(wrapper)["pg_version"] == blue.version
        assert vars(wrapper.features)[FEATURE] is has_feature(blue)
        wrapper.close()
        moved(green)
        assert wrapper.pg_version == blue.version
        assert getattr(wrapper.features, FEATURE) is has_feature(blue)
    finally:
        wrapper.close()


def test_installed_again_it_is_not_wrapped_twice():
    startup.install()
    live = vars(DatabaseWrapper)["pg_version"]
    assert isinstance(live, live_version.LiveVersion)
    assert isinstance(live._original, cached_property)
    assert type(live).__get__(live, None) is live
    assert isinstance(getattr(DatabaseFeatures, FEATURE), live_version.PerVersion)


@pytest.mark.skipif(django.VERSION < (6, 1), reason="UUID7 came with Django 6.1")
def test_sql_that_only_18_knows_is_sent_to_no_other(moved, blue, green, monkeypatch):
    from django.db.models.functions import UUID7
    from django.db.utils import NotSupportedError

    from .shop.models import Product

    monkeypatch.setattr(live_version, "FRESH_SECONDS", 0.0)
    query = Product.objects.annotate(key=UUID7()).filter(name="anvil")
    for server in (green, blue, green):
        moved(server)
        if server.major >= 18:
            assert query.get().key.version == 7
        else:
            with pytest.raises(NotSupportedError):
                query.get()
    assert ask_for("select 1") == (1,)
