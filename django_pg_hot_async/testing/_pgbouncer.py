"""A PgBouncer whose clients can be moved from one server to another."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from ._process import Keeper, NotInstalled
from ._server import HOST, USER, PostgreSQL

CONSOLE = "pgbouncer"
MODES = ("session", "transaction", "statement")
CONFIG: dict[str, str | int] = {
    "listen_addr": HOST,
    "unix_socket_dir": "",
    "auth_type": "trust",
    "admin_users": USER,
    "ignore_startup_parameters": "extra_float_digits",
    "max_client_conn": 1000,
    # Seconds until it tries again a server that refused it; 15 otherwise.
    "server_login_retry": 1,
}


class PgBouncer:
    """A PgBouncer on a loopback port, in front of one database of one server.

    Runs for the block as a context manager; gone, like a server, when this process
    is. Clients connect to the database *alias* as the user "postgres", without
    a password. *config* adds settings of the section ``[pgbouncer]``. 1.18 or newer
    has to be installed: `NotInstalled` is raised otherwise.

    *server* may be a list of servers on one port, each on a loopback address of its
    own. Each connection that PgBouncer opens then leads to the next one of them.
    """

    def __init__(
        self,
        server: PostgreSQL | Sequence[PostgreSQL],
        dbname: str,
        *,
        pool_mode: str = "transaction",
        alias: str | None = None,
        config: Mapping[str, str | int] | None = None,
        port: int | None = None,
    ) -> None:
        if pool_mode not in MODES:
            raise ValueError(f"one of {', '.join(MODES)} expected, got {pool_mode!r}")
        alias = alias or dbname
        # No other is read in pgbouncer.ini, quoted or not (1.18).
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", alias):
            raise ValueError(
                f"an alias of letters, digits, '_', '-' and '.' expected: {alias!r}"
            )
        self.program = _find()
        if self.program is None:
            raise NotInstalled(
                "pgbouncer is neither on the PATH nor in /usr/sbin; on Debian and"
                " Ubuntu: apt-get install pgbouncer"
            )
        self.host = HOST
        self.pool_mode = pool_mode
        self.alias = alias
        self.servers = _listed(server)
        self.dbname = dbname
        self._config = {**CONFIG, "pool_mode": pool_mode, **(config or {})}
        self._wanted_port = port
        self._port: int | None = None
        self._pid: int | None = None
        self._keeper: Keeper | None = None

    @classmethod
    def installed(cls) -> bool:
        """Tell whether there is a ``pgbouncer`` on the PATH or in /usr/sbin."""
        return _find() is not None

    def __repr__(self) -> str:
        where = f"{self.host}:{self._port}" if self._port else "not started"
        return f"<{type(self).__name__} {self.alias!r} {where}>"

    def __enter__(self) -> PgBouncer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def server(self) -> PostgreSQL:
        """The server that it leads to, the first of several."""
        return self.servers[0]

    @property
    def port(self) -> int:
        """The port it listens on; raise `RuntimeError` before the first start."""
        if self._port is None:
            raise RuntimeError(f"{self!r}: start() it first")
        return self._port

    @property
    def pid(self) -> int:
        if self._pid is None:
            raise RuntimeError(f"{self!r}: start() it first")
        return self._pid

    @property
    def running(self) -> bool:
        return self._keeper is not None and self._keeper.running()

    def conninfo(self, **params: Any) -> str:
        """Return a connection string for libpq; *params* add to it or replace."""
        return make_conninfo(
            **{
                "host": self.host,
                "port": self.port,
                "user": USER,
                "dbname": self.alias,
                **params,
            }
        )

    def database(self) -> dict[str, Any]:
        """Return an entry for Django's DATABASES.

        Without server-side cursors, unless a client keeps its server for a session.
        """
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": self.alias,
            "USER": USER,
            "PASSWORD": "",
            "HOST": self.host,
            "PORT": str(self.port),
            "DISABLE_SERVER_SIDE_CURSORS": self.pool_mode != "session",
        }

    def log(self) -> str:
        return self._keeper.log() if self._keeper else ""

    def start(self) -> None:
        """Start it; raise `StartError`, with the end of its log, if that fails."""
        if self.running:
            return
        keeper = self._keeper = self._keeper or Keeper()
        keeper.write("users.txt", f'"{USER}" ""\n')
        self._pid, self._port = keeper.start(
            repr(self),
            self._command,
            self._ready,
            self._port or self._wanted_port,
            ending=SIGKILL,
        )

    def stop(self) -> None:
        """End it at once, and with it every client's connection."""
        if self._keeper and self._keeper.running():
            self._keeper.signal(SIGKILL)
            self._keeper.wait(10)

    def close(self) -> None:
        """Stop it and remove what is left of it."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()

    # The cutover

    def switch(
        self,
        server: PostgreSQL | Sequence[PostgreSQL],
        dbname: str | None = None,
        *,
        kill: bool = False,
        timeout: float = 30,
    ) -> float:
        """Move to another server; return the seconds that clients were held.

        PAUSE, `point()`, RESUME. Live clients stay connected and find themselves on
        the new server.

        With session pooling a client keeps its server until it disconnects, and PAUSE
        waits for just that. With *kill* every client is disconnected instead (KILL).
        A third way there is `point()` alone: clients stay where they are, new ones go
        to the new server.

        Raise `TimeoutError`, with everything as before and clients let go, when the
        server is still in use after *timeout* seconds.
        """
        start = time.monotonic()
        with self.paused(kill=kill, timeout=timeout):
            self.point(server, dbname)
        return time.monotonic() - start

    @contextlib.contextmanager
    def paused(self, *, kill: bool = False, timeout: float = 30) -> Iterator[None]:
        """Hold the clients for the block, to `point()` elsewhere; always RESUME."""
        try:
            self.pause(kill=kill, timeout=timeout)
            yield
        finally:
            self.resume()

    def pause(self, *, kill: bool = False, timeout: float = 30) -> None:
        """Hold the clients once their transactions are over; close server connections.

        With *kill*, end transactions and client connections. Raise `TimeoutError` when
        a server is still in use after *timeout* seconds; `resume()` then.
        """
        verb = "KILL" if kill else "PAUSE"
        with self._console() as conn:
            self._await_logins(conn)
            _execute(conn, f"{verb} {_quoted(self.alias)}", timeout)

    def resume(self) -> None:
        """Let the clients go on."""
        with contextlib.suppress(NotPaused):
            self.command(f"RESUME {_quoted(self.alias)}")

    def point(
        self, server: PostgreSQL | Sequence[PostgreSQL], dbname: str | None = None
    ) -> None:
        """Name another server in the configuration and RELOAD.

        Connections to the server before are used no more than is needed: until the
        end of the transaction, with session pooling until the client disconnects.
        """
        before = self.servers, self.dbname
        self.servers, self.dbname = _listed(server), dbname or self.dbname
        try:
            if self._keeper and self._port:
                self._write(self._port)
            if self.running:
                self.command("RELOAD")
        except BaseException:
            self.servers, self.dbname = before
            raise

    def command(self, text: str, *, timeout: float = 30) -> list[dict[str, str | None]]:
        """Send a command to the admin console; return its rows: ``SHOW POOLS``.

        Raise `TimeoutError` when there is no answer after *timeout* seconds.
        """
        with self._console() as conn:
            return _execute(conn, text, timeout)

    # Private

    @contextlib.contextmanager
    def _console(self) -> Iterator[PGconn]:
        info = make_conninfo(self.conninfo(), dbname=CONSOLE, connect_timeout=10)
        conn = pq.PGconn.connect(info.encode())
        try:
            yield conn
        finally:
            conn.finish()

    def _await_logins(self, conn: PGconn) -> None:
        """Wait until no connection is logging in at the server, 2 seconds at most.

        PAUSE ends such a connection, takes that for a login that failed, and refuses
        clients for `server_login_retry` seconds (1.18; pgbouncer/pgbouncer#420).
        """
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pools = _execute(conn, "SHOW POOLS", 10)
            if all(p["sv_login"] == "0" for p in pools if p["database"] == self.alias):
                return
            time.sleep(0.001)

    def _command(self, port: int) -> list[str | Path]:
        assert self.program is not None
        return [self.program, self._write(port)]

    def _write(self, port: int) -> Path:
        assert self._keeper is not None
        settings = {
            **self._config,
            "listen_port": port,
            "auth_file": self._keeper.directory / "users.txt",
        }
        hosts = ",".join(server.host for server in self.servers)
        server = f"host={hosts} port={self.server.port} user={USER}"
        lines = [
            "[databases]",
            f"{self.alias} = {server} dbname={_value(self.dbname)}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        return self._keeper.write("pgbouncer.ini", "\n".join([*lines, ""]))

    def _ready(self, pid: int, port: int) -> bool:
        # Whoever else has the port would answer as well.
        if not self._keeper or f"[{pid}] LOG process up" not in self._keeper.log():
            return False
        info = make_conninfo(
            host=HOST, port=port, user=USER, dbname=CONSOLE, connect_timeout=2
        )
        conn = pq.PGconn.connect(info.encode())
        answers = conn.status == pq.ConnStatus.OK
        conn.finish()
        return answers


class NotPaused(psycopg.OperationalError):
    """RESUME without PAUSE, which is no error here."""


def _execute(conn: PGconn, text: str, timeout: float) -> list[dict[str, str | None]]:
    """Send one command, simple protocol (there is no other on the console)."""
    if conn.status != pq.ConnStatus.OK:
        raise psycopg.OperationalError(pq.error_message(conn))
    until = time.monotonic() + timeout
    conn.send_query(text.encode())
    rows: list[dict[str, str | None]] = []
    while True:
        while conn.is_busy():
            left = until - time.monotonic()
            if left <= 0 or not select.select([conn.socket], [], [], left)[0]:
                raise TimeoutError(f"no answer to {text!r} in {timeout} seconds")
            conn.consume_input()
        result = conn.get_result()
        if result is None:
            return rows
        if result.status == pq.ExecStatus.FATAL_ERROR:
            message = pq.error_message(result)
            raise (NotPaused if "not paused" in message else psycopg.OperationalError)(
                f"{text}: {message}"
            )
        names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
        for row in range(result.ntuples):
            values = (result.get_value(row, i) for i in range(result.nfields))
            texts = [None if v is None else bytes(v).decode() for v in values]
            rows.append(dict(zip(names, texts, strict=True)))


def _listed(server: PostgreSQL | Sequence[PostgreSQL]) -> tuple[PostgreSQL, ...]:
    """Return the servers to lead to; PgBouncer has one port for all of a list."""
    if not isinstance(server, Sequence):
        return (server,)
    servers = tuple(server)
    if len(servers) != 1 and len({one.port for one in servers}) != 1:
        raise ValueError(f"one server, or several on one port, expected: {servers!r}")
    return servers


def _find() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    return shutil.which("pgbouncer", path=path)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _value(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
