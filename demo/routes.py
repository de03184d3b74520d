"""The two ways from the example to its database, and how each is cut over.

Either way nobody writes while the old server's last changes reach the new one.
Then replication turns round, so that the way back stays open, and the clients
follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import psycopg

from django_pg_hot_async.testing import (
    PgBouncer,
    PostgreSQL,
    Replication,
    ServiceFile,
)

from .shop import ROLE, TABLE, release

SERVICE = "shop"
END_SESSIONS = (
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE usename = %s AND datname = %s"
)

Tell = Callable[[str], object]


class Route(Protocol):
    """A way to the database that can be led elsewhere."""

    name: str
    holds_clients: bool
    """Whether no request need fail: clients wait, and keep their connections."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *exc_info: object) -> None: ...

    @property
    def environ(self) -> dict[str, str]:
        """What the example's settings need to take this route."""
        ...

    def cut_over(self, replication: Replication, tell: Tell) -> None:
        """Move all traffic from the replication's source to its target."""
        ...


class ServiceRoute:
    """New connections look up a service file, the old ones are cut.

    A request in flight at that moment fails; that is this route's price.
    """

    name = "service file"
    holds_clients = False

    def __init__(self, server: PostgreSQL, dbname: str) -> None:
        self._file = ServiceFile()
        self._dbname = dbname
        self._point(server)

    def __enter__(self) -> ServiceRoute:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    @property
    def environ(self) -> dict[str, str]:
        return {**self._file.environ, "DATABASE_SERVICE": SERVICE}

    def cut_over(self, replication: Replication, tell: Tell) -> None:
        source, target = replication.source, replication.target
        with psycopg.connect(source.conninfo(self._dbname)) as admin:
            # Reads go on, writes wait; those begun are over when this returns.
            admin.execute(f"LOCK TABLE {TABLE} IN EXCLUSIVE MODE")
            tell(f"{release(source)} takes no more writes")
            replication.reverse()
            tell(f"{release(target)} has everything, replication turned round")
            # A process that read the file just before must not get in after: no
            # connection is left to anybody but superusers, such as replication.
            dbname = self._dbname
            target.execute(f"ALTER DATABASE {dbname} CONNECTION LIMIT -1")
            source.execute(f"ALTER DATABASE {dbname} CONNECTION LIMIT 0")
            self._point(target)
            while source.execute(END_SESSIONS, [ROLE, dbname]):
                pass
            # Only now the lock goes: who waited for it was cut before.
        tell(f"service points at {release(target)}, old connections cut")

    def _point(self, server: PostgreSQL) -> None:
        self._file.point(SERVICE, server, self._dbname, user=ROLE)


class PgBouncerRoute:
    """PgBouncer holds the clients, changes the server, and lets them go on."""

    name = "PgBouncer"
    holds_clients = True

    def __init__(self, server: PostgreSQL, dbname: str) -> None:
        self._bouncer = PgBouncer(server, dbname, pool_mode="transaction")

    def __enter__(self) -> PgBouncerRoute:
        self._bouncer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bouncer.close()

    @property
    def environ(self) -> dict[str, str]:
        database = self._bouncer.database()
        return {
            "DATABASE_HOST": database["HOST"],
            "DATABASE_PORT": database["PORT"],
            "DATABASE_NAME": database["NAME"],
            "DATABASE_USER": database["USER"],
        }

    def cut_over(self, replication: Replication, tell: Tell) -> None:
        source, target = replication.source, replication.target
        with self._bouncer.paused():
            tell(f"PAUSE: no transaction left on {release(source)}")
            replication.reverse()
            tell(f"{release(target)} has everything, replication turned round")
            self._bouncer.point(target)
        tell(f"RESUME: live connections are on {release(target)}")
