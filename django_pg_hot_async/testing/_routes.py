"""Ways that clients reach the one server or the other, for a rehearsal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ._pgbouncer import PgBouncer
from ._server import HOST, PostgreSQL
from ._service import ServiceFile

ROLE = "rehearsal"
"""Whom clients of a service file are: a superuser that can be kept out."""

# libpq's parameters that say where to connect and how to be trusted there.
PLACE = {
    "channel_binding",
    "dbname",
    "host",
    "hostaddr",
    "load_balance_hosts",
    "passfile",
    "password",
    "port",
    "require_auth",
    "requirepeer",
    "service",
    "servicefile",
    "target_session_attrs",
    "user",
}
SECURITY = ("gss", "krb", "ssl")


def elsewhere(settings: Mapping[str, Any], **place: Any) -> dict[str, Any]:
    """Return an alias's settings with all that says where to connect replaced.

    What says how, such as the pool or CONN_MAX_AGE, stays. ``assume_role`` goes:
    the role is not there.
    """
    options = {
        name: value
        for name, value in settings["OPTIONS"].items()
        if name not in PLACE | {"assume_role"} and not name.startswith(SECURITY)
    }
    empty = dict.fromkeys(("NAME", "USER", "PASSWORD", "HOST", "PORT"), "")
    where = {**empty, **place}
    where["OPTIONS"] = {**options, **place.get("OPTIONS", {})}
    return {**settings, **where}


class ByService:
    """New connections follow a service file; those to the old server are cut.

    What a change of DNS and a fail-over do. While rows are brought over, neither
    server lets clients in.
    """

    moves_open_connections = False

    def __init__(self, dbnames: Iterable[str]) -> None:
        self.dbnames = list(dbnames)
        self._file = ServiceFile()

    @contextlib.contextmanager
    def open(self, blue: PostgreSQL, green: PostgreSQL) -> Iterator[None]:
        _admit(blue, True)
        _admit(green, False)
        with self._file:
            self.point(blue)
            yield

    def place(self, dbname: str) -> dict[str, Any]:
        # NAME would do in the file as well; here, code that asks for it finds it.
        return {"NAME": dbname, "OPTIONS": {"service": dbname}}

    @contextlib.contextmanager
    def held(self, source: PostgreSQL, target: PostgreSQL) -> Iterator[None]:
        _admit(source, False)
        try:
            for dbname in self.dbnames:
                source.terminate(dbname)
            yield
            self.point(target)
        except BaseException:
            _admit(source, True)
            raise
        _admit(target, True)

    def point(self, server: PostgreSQL) -> None:
        for dbname in self.dbnames:
            # Else PGHOSTADDR of the environment would count.
            safe = {"hostaddr": HOST, "sslmode": "disable", "gssencmode": "disable"}
            self._file.point(dbname, server, dbname, **{**safe, "user": ROLE})


class ByPgBouncer:
    """PgBouncer moves connections that stay open: PAUSE, RELOAD, RESUME."""

    moves_open_connections = True

    def __init__(self, dbnames: Iterable[str]) -> None:
        self.dbnames = list(dbnames)
        self._bouncers: dict[str, PgBouncer] = {}

    @contextlib.contextmanager
    def open(self, blue: PostgreSQL, green: PostgreSQL) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for dbname in self.dbnames:
                bouncer = stack.enter_context(PgBouncer(blue, dbname))
                self._bouncers[dbname] = bouncer
            yield

    def place(self, dbname: str) -> dict[str, Any]:
        entry = self._bouncers[dbname].database()
        del entry["ENGINE"]
        return entry

    @contextlib.contextmanager
    def held(self, source: PostgreSQL, target: PostgreSQL) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for bouncer in self._bouncers.values():
                stack.enter_context(bouncer.paused())
            yield
            for bouncer in self._bouncers.values():
                bouncer.point(target)


ROUTES: dict[str, type[ByService] | type[ByPgBouncer]] = {
    "service": ByService,
    "pgbouncer": ByPgBouncer,
}


def create_role(server: PostgreSQL) -> None:
    server.execute(f"create role {ROLE} superuser nologin")


def _admit(server: PostgreSQL, admitted: bool) -> None:
    server.execute(f"alter role {ROLE} {'login' if admitted else 'nologin'}")
