"""A check for django-health-check 4: the extra "health-check".

from health_check.views import HealthCheckView

HealthCheckView.as_view(
    checks=[
        "health_check.Database",
        ("django_pg_hot_async.contrib.health_check.PostgreSQLServer", {"expect": "18"}),
    ]
)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

try:
    from health_check.base import HealthCheck
    from health_check.exceptions import ServiceUnavailable, ServiceWarning
except ImportError as error:
    raise ImportError(
        "django_pg_hot_async.contrib.health_check needs django-health-check 4:"
        ' pip install "django-pg-hot-async[health-check]"'
    ) from error

from django_pg_hot_async import status
from django_pg_hot_async._operator.status import is_version

__all__ = ["PostgreSQLServer"]


Expect = str | None | Callable[[], str | None] | Callable[[], Awaitable[str | None]]


@dataclasses.dataclass(repr=False)
class PostgreSQLServer(HealthCheck):  # type: ignore[misc]
    """Check what this process knows of the server behind an alias.

    *alias* is one of DATABASES, or the label of a pool. *expect* is the version that
    its server has to be of, "18", "18.6" or "180006", or a function, async or not, that
    returns it, and None while no version is expected: it is called each time, so what
    it reads can change without a deploy. *max_unexplained* is how many refused results
    are fine since the process began. Without the two nothing but the alias is checked.

    It does not connect, so it is content with an alias that nothing has used yet; the
    library's own ``Database`` check, before it, uses one.
    """

    alias: str = "default"
    expect: Expect = None
    max_unexplained: int | None = None

    async def run(self) -> None:
        """Raise `ServiceUnavailable` or `ServiceWarning`; ask no server."""
        expected = await self._expected()
        entry = next((e for e in status() if e["alias"] == self.alias), None)
        if entry is None:
            if self.alias not in connections:
                raise ServiceUnavailable(f"{self.alias!r} is no database alias")
            return
        server, unexplained = entry["server"], entry["counts"]["unexplained"]
        if (
            server is not None
            and expected is not None
            and not is_version(server["version"], expected)
        ):
            raise ServiceUnavailable(
                f"{self.alias} is on PostgreSQL {server['release']}, not {expected}"
            )
        if self.max_unexplained is not None and unexplained > self.max_unexplained:
            raise ServiceWarning(
                f"{unexplained} results of {self.alias} could not be explained"
            )

    async def _expected(self) -> str | None:
        expect: Any = self.expect
        if callable(expect):
            if not inspect.iscoroutinefunction(expect):
                # It may read a file, a cache or a database.
                expect = sync_to_async(expect)
            expect = await expect()
        return str(expect) if expect else None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(alias={self.alias!r},"
            f" expect={_shown(self.expect)!r}, max_unexplained={self.max_unexplained})"
        )

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels of the metric: those of the library, a function by name."""
        labels: dict[str, str] = super().labels
        shown = {"expect": str(_shown(self.expect))} if self.expect else {}
        return {**labels, **shown}


def _shown(expect: Any) -> Any:
    """Name a function without its address, which every process has another of."""
    return getattr(expect, "__qualname__", repr(expect)) if callable(expect) else expect
