"""The pytest plugin: would your own code survive a cutover? See docs/rehearsal.md.

At the top level, and with nothing but pytest imported: every run of pytest where
the package is installed loads it, and most have no use for Django and psycopg.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from django_pg_hot_async.testing import PostgreSQL, Rehearsal, Stage, Watcher

    Prepare = Callable[[PostgreSQL, str], Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, text in {
        "pg_hot_blue": "PostgreSQL release of the blue server (the newest but one)",
        "pg_hot_green": "PostgreSQL release of the green server (the newest)",
        "pg_hot_route": "how clients come to green: service (default) or pgbouncer",
    }.items():
        parser.addini(name, text, type="string", default="")
    for side in ("blue", "green"):
        parser.addini(
            f"pg_hot_{side}_schema",
            f"what {side} starts from instead of migrations, one for each database of"
            " pg_hot_aliases: a connection string, or a file of pg_dump --schema-only",
            type="linelist",
            default=[],
        )
    parser.addini(
        "pg_hot_aliases",
        "aliases of DATABASES that are cut over",
        type="args",
        default=["default"],
    )


@pytest.fixture(scope="session")
def pg_hot_prepare() -> Prepare | None:
    """To be overridden: a function of a server and of the name of an empty database.

    It is called with each of the two before your migrations are applied.
    """
    return None


@pytest.fixture(scope="session")
def pg_hot_stage(
    request: pytest.FixtureRequest, pg_hot_prepare: Prepare | None
) -> Iterator[Stage]:
    """Two servers, blue and green, with your migrations applied to both."""
    from django_pg_hot_async.testing import Stage

    config = request.config
    releases = {
        name: release
        for name in ("blue", "green")
        if (release := _release(config, f"pg_hot_{name}")) is not None
    }
    aliases = config.getini("pg_hot_aliases")
    for alias in aliases:
        _check_alias(alias)
    with ExitStack() as stack:
        with _access_to_databases(request), _skipped_if_not_installed():
            stage = Stage(
                **releases,
                aliases=aliases,
                prepare=pg_hot_prepare,
                blue_schema=config.getini("pg_hot_blue_schema"),
                green_schema=config.getini("pg_hot_green_schema"),
            )
            stack.enter_context(stage)
        yield stage


@pytest.fixture
def pg_hot_rehearsal(
    request: pytest.FixtureRequest, pg_hot_stage: Stage
) -> Iterator[Rehearsal]:
    """Your aliases lead to blue; `cutover()`, then `rollback()`, move them.

    The databases are new, and gone after the test. The fixture can be parametrised
    with the route, "service" or "pgbouncer" (``indirect=True``).
    """
    configured = request.config.getini("pg_hot_route") or "service"
    if configured not in ("service", "pgbouncer"):
        raise pytest.UsageError(
            f"pg_hot_route is {configured!r}; 'service' or 'pgbouncer' expected"
        )
    with ExitStack() as stack:
        stack.enter_context(_access_to_databases(request))
        with _skipped_if_not_installed():
            rehearsal = pg_hot_stage.rehearse(getattr(request, "param", configured))
            stack.enter_context(rehearsal)
        yield rehearsal


@pytest.fixture
def no_wrong_rows(pg_hot_rehearsal: Rehearsal) -> Iterator[Watcher]:
    """Fail if a row was read wrongly, or could not be: see `testing.Watcher`."""
    from django_pg_hot_async.testing import Watcher

    with Watcher(pg_hot_rehearsal) as watcher:
        yield watcher


def _release(config: pytest.Config, option: str) -> int | None:
    """Return the release of PostgreSQL that an option asks for, if it does."""
    from django_pg_hot_async.testing._binaries import MAJORS

    value = config.getini(option)
    if not value:
        return None
    if value not in map(str, MAJORS):
        raise pytest.UsageError(
            f"{option} is {value!r}; a release of PostgreSQL from {MAJORS[0]} to"
            f" {MAJORS[-1]} expected"
        )
    return int(value)


def _check_alias(alias: str) -> None:
    from django.conf import settings

    if alias not in settings.DATABASES:
        raise pytest.UsageError(
            f"pg_hot_aliases names {alias!r}, which is no alias in DATABASES; those"
            f" there are: {', '.join(map(repr, settings.DATABASES))}"
        )


@contextmanager
def _access_to_databases(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lift pytest-django's ban, where that is installed."""
    try:
        blocker: Any = request.getfixturevalue("django_db_blocker")
    except pytest.FixtureLookupError:
        blocker = None
    with blocker.unblock() if blocker else nullcontext():
        yield


@contextmanager
def _skipped_if_not_installed() -> Iterator[None]:
    """Skip where servers, or PgBouncer, are not to be had; fail if that is CI."""
    from django_pg_hot_async.testing import NotInstalled

    try:
        yield
    except NotInstalled as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
