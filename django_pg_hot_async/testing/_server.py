"""A PostgreSQL server to throw away."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, Signals
from typing import Any, TypeVar

import psycopg
from psycopg import sql as composed
from psycopg.conninfo import make_conninfo

from ._binaries import binaries, checked
from ._cluster import make_data
from ._process import Keeper, StartError, poll
from ._statements import APPLICATION_NAME, LOG_LINE_PREFIX, MARK, Statements

T = TypeVar("T")

HOST = "127.0.0.1"
USER = "postgres"

# Fast rather than durable, and ready to replicate: a commit outlives the server's
# end, not the machine's. The last four are delays that would otherwise be most of the
# time a cutover takes.
CONFIG: dict[str, str | int] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "log_line_prefix": LOG_LINE_PREFIX,
    "lc_messages": "C",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    # Files in the data directory: a killed server leaves nothing in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "max_wal_size": "256MB",
    "max_connections": 200,
    "jit": "off",
    "wal_level": "logical",
    "max_wal_senders": 20,
    "max_replication_slots": 20,
    "max_worker_processes": 20,
    "max_logical_replication_workers": 10,
    "max_sync_workers_per_subscription": 4,
    "wal_retrieve_retry_interval": "50ms",
    "wal_receiver_status_interval": "1s",
    "wal_writer_delay": "10ms",
    "log_min_messages": "warning",
}
MODES = {"smart": SIGTERM, "fast": SIGINT, "immediate": SIGQUIT}


class PostgreSQL:
    """A server of a release (14 to 18), on a loopback port, for as long as it is used.

    As a context manager it runs for the block, and nothing of it is left after that.
    Nor is when this process ends in any other way, killed included: a supervisor
    process sees to it. Root runs it as the user "postgres" or "nobody". It trusts
    everybody and keeps its data as carelessly as PostgreSQL allows.

    *bin_dir* names the directory of its programs, see `binaries()` for where they
    are found otherwise. *config* adds settings of ``postgresql.conf``. *data_dir*
    names a directory to keep the data in, which is then not removed; one with
    a cluster in it is used as it is. *port* asks for a port; a free one is found
    otherwise and kept over restarts. *host* is the loopback address to listen on: on
    Linux, "127.0.0.2" is another one, where a second server can have the same port.
    *next_oid* is the OID that a new cluster's counter starts with, such as
    3_000_000_000.

    A fork of this process can connect, but neither start nor stop it.
    """

    def __init__(
        self,
        major: int,
        *,
        bin_dir: str | Path | None = None,
        config: Mapping[str, str | int] | None = None,
        data_dir: str | Path | None = None,
        host: str = HOST,
        port: int | None = None,
        next_oid: int | None = None,
    ) -> None:
        if next_oid is not None and not 16384 <= next_oid < 2**32:
            raise ValueError(f"an OID from 16384 to 2**32 - 1 expected: {next_oid!r}")
        self.major = major
        self.host = host
        self.bin_dir = checked(Path(bin_dir), major) if bin_dir else binaries(major)
        self._config = {**CONFIG, "listen_addresses": host, **(config or {})}
        self._data_dir = Path(data_dir).absolute() if data_dir else None
        self._wanted_port = port
        self._next_oid = next_oid
        self._port: int | None = None
        self._version: int | None = None
        self._keeper: Keeper | None = None
        self._pid: int | None = None
        self._lock = threading.Lock()
        self._readers = 0

    def __repr__(self) -> str:
        where = f"{self.host}:{self._port}" if self._port else "not started"
        return f"<{type(self).__name__} {self.major} {where}>"

    def __enter__(self) -> PostgreSQL:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # Facts

    @property
    def port(self) -> int:
        """The port it listens on; raise `RuntimeError` before the first start."""
        return _started(self, self._port)

    @property
    def version(self) -> int:
        """The version as PostgreSQL counts it: 150019."""
        return _started(self, self._version)

    @property
    def pid(self) -> int:
        """The process id of the postmaster, the last one if it is not running."""
        return _started(self, self._pid)

    @property
    def running(self) -> bool:
        """Whether the postmaster is there, suspended or not."""
        return self._keeper is not None and self._keeper.running()

    @property
    def data_dir(self) -> Path:
        return self._data_dir or _started(self, self._keeper).directory / "data"

    def conninfo(self, dbname: str = "postgres", **params: Any) -> str:
        """Return a connection string for libpq; *params* add to it or replace."""
        return make_conninfo(
            **{
                "host": self.host,
                "port": self.port,
                "user": USER,
                "dbname": dbname,
                **params,
            }
        )

    def database(self, name: str) -> dict[str, Any]:
        """Return an entry for Django's DATABASES."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": USER,
            "PASSWORD": "",
            "HOST": self.host,
            "PORT": str(self.port),
        }

    def log(self) -> str:
        """Return the text of the server's log."""
        return self._keeper.log().replace(MARK, "|") if self._keeper else ""

    # Life

    def start(self) -> None:
        """Start it, or start it again with the data and the port it had.

        Raise `StartError`, with the end of its log, when it does not come up.
        """
        if self.running:
            return
        keeper = self._keeper = self._keeper or Keeper()
        if not (self.data_dir / "PG_VERSION").exists():
            make_data(self.bin_dir, self.data_dir, self._next_oid)
        keeper.write("pg_hba.conf", "host all,replication all 127.0.0.1/32 trust\n")
        keeper.write("postgresql.conf", self._configuration(keeper))
        self._pid, self._port = keeper.start(
            repr(self),
            self._command,
            self._ready,
            self._port or self._wanted_port,
            ending=SIGQUIT,
        )
        with self._connect("postgres") as connection:
            self._version = connection.info.server_version

    def stop(self, mode: str = "fast") -> None:
        """Stop it and keep its data; *mode* is "smart", "fast" or "immediate".

        "smart" waits for the clients to leave. Raise `TimeoutError` after 60 seconds.
        """
        if mode not in MODES:
            raise ValueError(f"one of {', '.join(MODES)} expected, got {mode!r}")
        if self._keeper and self._keeper.running():
            self._keeper.signal_tree(SIGCONT)
            self._keeper.signal(MODES[mode])
            if not self._keeper.wait(60):
                raise TimeoutError(f"{self!r} did not stop in 60 seconds")

    def kill(self) -> None:
        """Kill the postmaster and all its children at once, as a crash would.

        `start()` recovers.
        """
        self._signal_tree(SIGKILL)

    def suspend(self) -> None:
        """Halt the postmaster and all its children: every connection hangs."""
        self._signal_tree(SIGSTOP)

    def resume(self) -> None:
        """Let a suspended server go on."""
        self._signal_tree(SIGCONT)

    def close(self) -> None:
        """Stop it and remove what is left of it. `start()` then makes a new one."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            if self._data_dir:
                with contextlib.suppress(StartError, RuntimeError):
                    keeper.signal_tree(SIGCONT)
                    keeper.signal(SIGINT)
                    keeper.wait(10)
            keeper.close()

    # Databases and sessions

    def execute(
        self, sql: str, params: Any = None, *, dbname: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Execute a statement in autocommit on a connection of its own.

        Return the rows, none for a statement without a result. Several statements
        at once are possible without *params*.
        """
        with self._connect(dbname) as connection:
            cursor = connection.execute(sql.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str | None = None) -> None:
        query = composed.SQL("create database {}").format(composed.Identifier(name))
        if template:
            query += composed.SQL(" template {}").format(composed.Identifier(template))
        with self._connect("postgres") as connection:
            connection.execute(query)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the connections to it."""
        query = composed.SQL("drop database {} with (force)")
        with self._connect("postgres") as connection:
            connection.execute(query.format(composed.Identifier(name)))

    def terminate(self, dbname: str | None = None) -> int:
        """End every client connection, or those to one database; return how many.

        Each has ended when this returns. This package's own go on.
        """
        [[count]] = self.execute(
            """
            select count(*) filter (where pg_terminate_backend(pid, 5000))
            from pg_stat_activity
            where backend_type = 'client backend'
            and application_name is distinct from %s
            and datname = coalesce(%s::text, datname)
            """,
            [APPLICATION_NAME, dbname],
        )
        return int(count)

    @contextlib.contextmanager
    def statements(self) -> Iterator[Statements]:
        """Record every statement that reaches the server during the block.

        It is the server that tells, by its log, so nothing a client does goes unseen:
        simple and extended protocol, a failed statement, statements of poolers. Those
        of this package's own connections are left out. A session that set
        ``log_statement`` itself has its own way. Blocks may be nested.
        """
        keeper = _started(self, self._keeper)
        try:
            self._log_statements(+1)
            start = keeper.log_size()
            seen = Statements(lambda: self._flushed(keeper, start))
            try:
                yield seen
            finally:
                seen._end()
        finally:
            self._log_statements(-1)

    # Private

    def _connect(self, dbname: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.Connection[tuple[Any, ...]].connect(
            self.conninfo(
                dbname,
                application_name=APPLICATION_NAME,
                connect_timeout=10,
                sslmode="disable",
                gssencmode="disable",
            ),
            autocommit=True,
            prepare_threshold=None,
        )

    def _command(self, port: int) -> list[str | Path]:
        keeper = _started(self, self._keeper)
        return [
            self.bin_dir / "postgres",
            "-D",
            self.data_dir,
            "-p",
            str(port),
            "-c",
            f"config_file={keeper.directory / 'postgresql.conf'}",
        ]

    def _configuration(self, keeper: Keeper) -> str:
        settings = {**self._config, "hba_file": f"{keeper.directory / 'pg_hba.conf'}"}
        lines = [f"{name} = {_quoted(value)}\n" for name, value in settings.items()]
        lines.append(f"log_statement = '{'all' if self._readers else 'none'}'\n")
        return "".join(lines)

    def _ready(self, pid: int, port: int) -> bool:
        # What pg_ctl waits for. Unlike a connection, it cannot be another server's.
        with contextlib.suppress(OSError, IndexError):
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
            return lines[0] == str(pid) and lines[7].strip() == "ready"
        return False

    def _signal_tree(self, number: Signals) -> None:
        _started(self, self._keeper).signal_tree(number)

    def _log_statements(self, more: int) -> None:
        """Count blocks that read the log, and have it written while there are any."""
        keeper = _started(self, self._keeper)
        with self._lock:
            self._readers += more
            keeper.write("postgresql.conf", self._configuration(keeper))
            wanted = "all" if self._readers else "none"
        if not keeper.running():
            return
        keeper.signal(SIGHUP)
        # The postmaster reads the file, then signals its children, then forks again:
        # once a new backend knows, every other one knows before its next statement.
        for _ in poll(10):
            if self.execute("show log_statement") == [(wanted,)]:
                return
        raise TimeoutError(f"{self!r} did not reload its configuration")

    def _flushed(self, keeper: Keeper, start: int) -> str:
        """Return the log from an offset on, up to and with all sent before now."""
        if not self.running:
            return keeper.log(start)
        marker = uuid.uuid4().hex
        self.execute(f"select '{marker}'")
        for _ in poll(10):
            log, found, _ = keeper.log(start).partition(marker)
            if found:
                return log.rpartition("\n")[0]
        raise TimeoutError(f"{self!r} did not log a statement it was sent")


def scatter_oids(server: PostgreSQL, dbname: str = "postgres", n: int = 1000) -> int:
    """Use up *n* OIDs, so that what is created next gets others; return the last.

    The counter is the server's, whatever the database. No lock, no object is left
    (``pg_nextoid``, 14 and on).
    """
    [[last]] = server.execute(
        "select max(pg_nextoid('pg_type', 'oid', 'pg_type_oid_index')::int8)"
        " from generate_series(1, %s)",
        [n],
        dbname=dbname,
    )
    return int(last)


def _quoted(value: str | int) -> str:
    text = ("off", "on")[value] if isinstance(value, bool) else str(value)
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _started(server: PostgreSQL, value: T | None) -> T:
    if value is None:
        raise RuntimeError(f"{server!r}: start() it first")
    return value
