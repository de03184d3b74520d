"""What this process knows of servers, as plain dicts: for logs, pages, exporters."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from django_pg_hot_async._django.driver import why_no_psycopg

if TYPE_CHECKING:
    from django_pg_hot_async._core.runtime import Alias
    from django_pg_hot_async._core.server import Server
    from django_pg_hot_async._core.snapshot import Snapshot


class ServerStatus(TypedDict):
    """A database on a server."""

    version: int
    release: str
    host: str
    port: str
    dbname: str


class TypeStatus(TypedDict):
    """A type, as one server has it."""

    schema: str
    oid: int
    array_oid: int


class RememberedStatus(TypedDict):
    """What was last read from one server."""

    server: ServerStatus
    types: dict[str, TypeStatus]
    is_trusted: bool


class Counts(TypedDict):
    """What happened since the process began."""

    reads: int
    changes: int
    differences: int
    unexplained: int


class AliasStatus(TypedDict):
    """What is known of one alias."""

    alias: str
    trust: str
    server: ServerStatus | None
    since: str | None
    types: dict[str, TypeStatus] | None
    counts: Counts
    servers: list[RememberedStatus]


def status() -> list[AliasStatus]:
    """Tell what this process knows of servers: one dict an alias, by name.

    Nothing is sent, opened or waited for; safe in any thread, event loop and signal
    handler. An alias, or label of a pool, that nothing has used yet is left out;
    without psycopg 3 the list is empty. The dicts hold strings, numbers, booleans,
    None, lists and dicts alone, so `json` takes them, and nothing of users or
    passwords::

        {
            "alias": "default",
            "trust": "auto",
            "server": {                  # None before the first connection
                "version": 180006,       # server_version_num
                "release": "18.6",       # the same, to show
                "host": "10.0.0.9",      # numeric, or the directory of a socket
                "port": "5432",
                "dbname": "shop",
            },
            "since": "2026-11-22T02:14:07.113+00:00",   # UTC; None as "server"
            "types": {                   # None before the first read from there
                "hstore": {"schema": "public", "oid": 16497, "array_oid": 16502},
            },
            "counts": {
                "reads": 12,
                "changes": 1,
                "differences": 0,
                "unexplained": 0,
            },
            "servers": [{"server": {...}, "types": {...}, "is_trusted": True}, ...],
        }

    ``server`` is the one that the newest connection reached; older connections may
    still lead to another. ``since`` is when it was reached, or when its OIDs changed.
    ``types`` lacks those that the server does not have; where one name is that of
    several, each is under "schema.name". ``servers`` are those remembered, the last to
    change at the end, 64 at most; ``is_trusted`` is False after `forget()`, until they
    are read again.

    The counts begin with the process and never fall: ``reads`` of types from a server;
    ``changes``, servers or OIDs that were not reached before; ``differences``, reads
    that found other OIDs than were known, so values that stale OIDs would have decoded
    or sent wrongly; ``unexplained``, results that no server asked could explain, and
    that were refused.

    Each fact is read once, with no lock: while an alias is changing, one of them may
    be a moment older than the next. ``types`` are always those of ``server``.
    """
    if why_no_psycopg():
        return []
    from django_pg_hot_async._core.runtime import runtime

    return [_alias(memory) for _, memory in sorted(runtime.aliases.items())]


def _alias(memory: Alias) -> AliasStatus:
    server, servers, since = memory.current, memory.servers, memory.since
    known = None if server is None else servers.get(server)
    snapshot = None if known is None else known.snapshot
    return {
        "alias": memory.name,
        "trust": memory.trust.value,
        "server": None if server is None else describe_server(server, snapshot),
        "since": None if since is None else since.isoformat(timespec="milliseconds"),
        "types": None if snapshot is None else describe_types(snapshot),
        "counts": {
            "reads": memory.reads,
            "changes": memory.changes,
            "differences": memory.differences,
            "unexplained": memory.unexplained,
        },
        "servers": [
            {
                "server": describe_server(server, known.snapshot),
                "types": describe_types(known.snapshot),
                "is_trusted": known.is_trusted,
            }
            for server, known in servers.items()
        ],
    }


def describe_server(server: Server, snapshot: Snapshot | None) -> ServerStatus:
    """Describe *server*, by its own word on the version where it was read."""
    from django_pg_hot_async._core.server import show_version

    # What a connection reports may be stale behind a pooler.
    version = server.version if snapshot is None else snapshot.version
    return {
        "version": version,
        "release": show_version(version),
        "host": server.host,
        "port": server.port,
        "dbname": server.dbname,
    }


def describe_types(snapshot: Snapshot) -> dict[str, TypeStatus]:
    """Describe the tracked types that a server has, by name."""
    return {
        name: {"schema": row.schema, "oid": row.oid, "array_oid": row.array_oid}
        for name, row in snapshot.by_name().items()
    }


def is_version(version: int, expected: str) -> bool:
    """Whether *version*, such as 180006, is *expected*: "18", "18.6" or "180006"."""
    from django_pg_hot_async._core.server import show_version

    return expected in (str(version), show_version(version), str(version // 10000))
