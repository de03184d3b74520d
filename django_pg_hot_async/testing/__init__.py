"""Real PostgreSQL servers to throw away, and a cutover between them.

    from django_pg_hot_async.testing import PostgreSQL, point_alias

    with PostgreSQL(15) as blue, PostgreSQL(18) as green:
        blue.create_database("shop")
        ...
        point_alias("default", green.database("shop"))

Servers listen on 127.0.0.1 only and are gone when the process is, however it ends.
Needs a POSIX system, and one of the PostgreSQL releases 14 to 18 installed, or uv or
pip to fetch it with.
"""

from __future__ import annotations

from ._alias import point_alias
from ._binaries import binaries
from ._pgbouncer import PgBouncer
from ._process import NotInstalled, StartError
from ._rehearsal import Rehearsal
from ._replication import Replication
from ._server import PostgreSQL, scatter_oids
from ._service import ServiceFile
from ._stage import Stage
from ._statements import Statement, Statements
from ._watch import Watcher, WrongRows

__all__ = [
    "NotInstalled",
    "PgBouncer",
    "PostgreSQL",
    "Rehearsal",
    "Replication",
    "ServiceFile",
    "Stage",
    "StartError",
    "Statement",
    "Statements",
    "Watcher",
    "WrongRows",
    "binaries",
    "point_alias",
    "scatter_oids",
]
