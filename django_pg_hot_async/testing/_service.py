"""A libpq service file that can be made to name another server."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

from ._process import Keeper
from ._server import USER

VARIABLE = "PGSERVICEFILE"


class Server(Protocol):
    """What listens somewhere: `PostgreSQL` or `PgBouncer`."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class ServiceFile:
    """A temporary ``pg_service.conf``, gone after the block, or when this process is.

    For the block of a ``with`` statement, and for this process and those it starts,
    it is the file libpq reads. Each new connection reads it anew.
    """

    def __init__(self) -> None:
        self._keeper = Keeper()
        self._services: dict[str, dict[str, Any]] = {}
        self._before: list[str | None] = []
        self._write()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.path)!r}>"

    def __enter__(self) -> ServiceFile:
        self._before.append(os.environ.get(VARIABLE))
        os.environ.update(self.environ)
        return self

    def __exit__(self, *exc_info: object) -> None:
        before = self._before.pop()
        if before is None:
            with contextlib.suppress(KeyError):
                del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        if not self._before:
            self.close()

    @property
    def path(self) -> Path:
        return self._keeper.directory / "pg_service.conf"

    @property
    def environ(self) -> dict[str, str]:
        """What to add to a process's environment for libpq to read the file."""
        return {VARIABLE: str(self.path)}

    def point(self, service: str, server: Server, dbname: str, **params: Any) -> None:
        """Make a service name a database of a server, in one step.

        *params* are further parameters of libpq, such as ``connect_timeout``.
        """
        if not service or set(service) & set("[]\r\n"):
            raise ValueError(f"a name without brackets expected, got {service!r}")
        values = {"host": server.host, "port": server.port, "dbname": dbname}
        self._services[service] = {**values, "user": USER, **params}
        self._write()

    def database(self, service: str) -> dict[str, Any]:
        """Return an entry for Django's DATABASES."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "OPTIONS": {"service": service},
        }

    def close(self) -> None:
        """Remove the file."""
        self._keeper.close()

    def _write(self) -> None:
        lines = []
        for service, values in self._services.items():
            lines.append(f"[{service}]")
            # libpq takes no blanks around the equals sign.
            lines += [f"{name}={value}" for name, value in values.items()]
        self._keeper.write(self.path.name, "\n".join([*lines, ""]))
