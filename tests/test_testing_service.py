"""A service file that can name another server."""

import os

import psycopg
import pytest

from django_pg_hot_async.testing import PostgreSQL, ServiceFile


@pytest.fixture(scope="module")
def blue():
    with PostgreSQL(15) as server:
        yield server


@pytest.fixture(scope="module")
def green():
    with PostgreSQL(18) as server:
        yield server


def version(service):
    with psycopg.connect(f"service={service}") as connection:
        return connection.info.server_version


def test_point_moves_new_connections(blue, green):
    with ServiceFile() as service:
        service.point("shop", blue, dbname="postgres")
        service.point("other", green, "template1", application_name="x")
        with psycopg.connect("service=shop") as before:
            assert version("shop") == blue.version
            service.point("shop", green, dbname="postgres")
            assert version("shop") == green.version
            assert before.info.server_version == blue.version
            before.execute("select 1")
        with psycopg.connect("service=other") as connection:
            row = connection.execute(
                "select current_database(), current_setting('application_name')"
            ).fetchone()
            assert row == ("template1", "x")


def test_environment_is_restored(monkeypatch):
    monkeypatch.delenv("PGSERVICEFILE", raising=False)
    service = ServiceFile()
    assert service.path.exists()
    assert str(service.path) in repr(service)
    assert "PGSERVICEFILE" not in os.environ
    with service:
        assert os.environ["PGSERVICEFILE"] == str(service.path)
        assert service.environ == {"PGSERVICEFILE": str(service.path)}
        with ServiceFile() as inner, inner:
            assert os.environ["PGSERVICEFILE"] == str(inner.path)
        assert not inner.path.exists()
        assert os.environ["PGSERVICEFILE"] == str(service.path)
    assert "PGSERVICEFILE" not in os.environ
    assert not service.path.exists()
    with ServiceFile():
        del os.environ["PGSERVICEFILE"]
    assert "PGSERVICEFILE" not in os.environ


def test_database():
    with ServiceFile() as service:
        assert service.database("shop") == {
            "ENGINE": "django.db.backends.postgresql",
            "OPTIONS": {"service": "shop"},
        }


@pytest.mark.parametrize("name", ["", "a]b", "a\nb"])
def test_name_that_will_not_do(blue, name):
    with ServiceFile() as service, pytest.raises(ValueError, match="brackets"):
        service.point(name, blue, "postgres")
