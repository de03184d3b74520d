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
from django_pg_hot_async._operator.status import is_release

__all__ = ["PostgreSQLServer"]


@dataclasses.dataclass
class PostgreSQLServer(HealthCheck):  # type: ignore[misc]
    """Check what this process knows of the server behind an alias.

    *alias* is one of DATABASES, or the label of a pool. *expect* is the version that
    its server has to be of, "18" or "18.6"; *max_unexplained* how many refused results
    are fine since the process began. Without the two nothing but the alias is checked.

    It does not connect, so it is content with an alias that nothing has used yet; the
    library's own ``Database`` check, before it, uses one.
    """

    alias: str = "default"
    expect: str | None = None
    max_unexplained: int | None = None

    async def run(self) -> None:
        """Raise `ServiceUnavailable` or `ServiceWarning`; nothing is awaited."""
        entry = next((e for e in status() if e["alias"] == self.alias), None)
        if entry is None:
            if self.alias not in connections:
                raise ServiceUnavailable(f"{self.alias!r} is no database alias")
            return
        server, unexplained = entry["server"], entry["counts"]["unexplained"]
        if (
            server is not None
            and self.expect is not None
            and not is_release(server["release"], self.expect)
        ):
            raise ServiceUnavailable(
                f"{self.alias} is on PostgreSQL {server['release']}, not {self.expect}"
            )
        if self.max_unexplained is not None and unexplained > self.max_unexplained:
            raise ServiceWarning(
                f"{unexplained} results of {self.alias} could not be explained"
            )
