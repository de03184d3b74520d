"""Real servers, and aliases that lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import psycopg
import psycopg_pool.base
import pytest
from psycopg import pq

from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._django import (
    connections as tracked_connections,
)
from django_pg_hot_async._django import (
    contrib_postgres,
    startup,
)
from django_pg_hot_async._django.installed import GROUP
from django_pg_hot_async.testing import PgBouncer, PostgreSQL, ServiceFile

from .example import shops
from .scenarios import ORDERS, close_all, connections, create_shop, lead

__all__ = ["shops"]

BLUE = int(os.environ.get("BLUE", "15"))
GREEN = int(os.environ.get("GREEN", "18"))
# An ANALYZE uses up OIDs, and tests aim at some.
CONFIG: dict[str, str | int] = {
    "max_connections": 300,
    "autovacuum": "off",
    "max_prepared_transactions": 5,
}


def pytest_report_header() -> str:
    return (
        f"PostgreSQL {BLUE} and {GREEN}, libpq {pq.version()},"
        f" psycopg {psycopg.__version__} ({pq.__impl__})"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PgBouncer.installed():
        return
    if os.environ.get("CI"):
        raise pytest.UsageError("pgbouncer is not installed, and this is CI")
    for item in items:
        if item.get_closest_marker("pgbouncer"):
            item.add_marker(pytest.mark.skip("pgbouncer is not installed"))


@pytest.fixture(scope="session", autouse=True)
def _impatient_pools() -> None:
    """psycopg_pool 3.3 sleeps 1, 2, 4 ... seconds after checks that failed; ours not.

    With a pool of 24 whose connections were all cut, that adds up to its timeout.
    """
    if attempts := getattr(psycopg_pool.base, "AttemptWithBackoff", None):
        attempts.INITIAL_DELAY = 0.02
        attempts.DELAY_BACKOFF = 1.0


@pytest.fixture(scope="session", autouse=True)
def _database_access(django_db_blocker: Any) -> Iterator[None]:
    """Tests use servers of their own, not Django's test database."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="session")
def blue() -> Iterator[PostgreSQL]:
    with PostgreSQL(BLUE, config=CONFIG) as server:
        create_shop(server, "shop", ORDERS["blue"])
        yield server


@pytest.fixture(scope="session")
def green() -> Iterator[PostgreSQL]:
    with PostgreSQL(GREEN, config=CONFIG) as server:
        create_shop(server, "shop", ORDERS["green"])
        yield server


@pytest.fixture(scope="session")
def twin() -> Iterator[PostgreSQL]:
    """Same version as green, other OIDs."""
    with PostgreSQL(GREEN, config=CONFIG) as server:
        create_shop(server, "shop", ORDERS["twin"])
        yield server


@pytest.fixture(scope="session")
def service() -> Iterator[ServiceFile]:
    """For the whole session: each one is looked after by a process of its own."""
    with ServiceFile() as service:
        yield service


@pytest.fixture(scope="session")
def _databases() -> dict[str, Any]:
    """DATABASES as the settings have it."""
    return {alias: deepcopy(connections.settings[alias]) for alias in connections}


@pytest.fixture(autouse=True)
def _clean(_databases: dict[str, Any]) -> Iterator[None]:
    """Each test begins with nothing remembered, and leaves no connection.

    Nor a type declared, nor an alias that leads to where the test led it.
    """
    runtime.aliases = {}
    contrib_postgres.clear_caches()
    declared = runtime.group(GROUP)
    yield
    close_all()
    if runtime.group(GROUP) != declared:
        runtime.track(GROUP, declared)
        tracked_connections.renew()
    for alias, settings in _databases.items():
        if connections.settings[alias] != settings:
            lead(alias, deepcopy(settings))


@pytest.fixture
def without_app() -> Iterator[None]:
    """As if django_pg_hot_async were not in INSTALLED_APPS."""
    startup.stop()
    try:
        yield
    finally:
        close_all()
        startup.install()
