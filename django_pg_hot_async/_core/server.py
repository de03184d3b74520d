"""What a connection shows of its server for nothing: no query, no waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn


@dataclass(frozen=True, slots=True)
class Server:
    """A database on a server, as a connection to it shows it.

    Different servers are sure to be two; equal ones may still be two (a pooler
    or a load balancer in front, a service moved in place). So a difference is
    evidence, equality is not: behind PgBouncer 1.18 a live client connection
    went on reporting 15.18 after it had been moved to 18.6.
    """

    version: int
    """``server_version_num``: 150018 is 15.18."""
    host: str
    """Numeric address, or the directory of the Unix socket."""
    port: str
    dbname: str

    @classmethod
    def of(cls, pgconn: PGconn) -> Server:
        """Read the identity off a live *pgconn*; libpq knows it without asking.

        Raise `psycopg.OperationalError` where the connection is lost.
        """
        return cls(
            version=pgconn.server_version,
            host=(pgconn.hostaddr or pgconn.host).decode(errors="replace"),
            port=pgconn.port.decode(errors="replace"),
            dbname=pgconn.db.decode(errors="replace"),
        )

    def __str__(self) -> str:
        place = f"{self.host}:{self.port}/{self.dbname}"
        if not place.isprintable():
            place = place.encode("unicode_escape").decode()
        return f"PostgreSQL {show_version(self.version)} at {place}"


def show_version(number: int) -> str:
    """Write ``server_version_num`` the way people do: 180006 is 18.6."""
    return f"{number // 10000}.{number % 10000}"
