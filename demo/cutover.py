"""The servers of compose.yaml: set up, and cut over by hand.

    docker compose exec web python -m demo.cutover green     # or: blue

``python -m demo.cutover setup`` makes the databases on both and replicates them; it
does nothing the second time.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.conninfo import make_conninfo

from django_pg_hot_async.testing import PostgreSQL, Replication

from . import shop

DATABASE = os.environ.get("DATABASE_NAME", "shop")
DATABASES = (DATABASE, f"{DATABASE}_without")
"""One for the workers with the app, one for those without: what these write, those
do not read."""
DATABASES_INI = Path(os.environ.get("DATABASES_INI", "/pool/databases.ini"))
PLACES = {
    "blue": os.environ.get("BLUE", "blue:5432"),
    "green": os.environ.get("GREEN", "green:5432"),
    "pgbouncer": os.environ.get("PGBOUNCER", "pgbouncer:6432"),
}


class Remote:
    """A server that somebody else runs, with what `Replication` asks of one."""

    running = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.host, _, port = PLACES[name].partition(":")
        self.port = int(port)

    def __repr__(self) -> str:
        return self.name

    @property
    def version(self) -> int:
        [[number]] = self.execute("SELECT current_setting('server_version_num')::int")
        return int(number)

    def log(self) -> str:
        return ""

    def conninfo(self, dbname: str = "postgres", **params: Any) -> str:
        place: dict[str, Any] = {"host": self.host, "port": self.port}
        return make_conninfo(**place | {"user": "postgres", "dbname": dbname} | params)

    def execute(
        self, sql: str, params: Any = None, *, dbname: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo(dbname), autocommit=True) as connection:
            cursor = connection.execute(sql.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str | None = None) -> None:
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}")


def replications(source: Remote, target: Remote) -> list[Replication]:
    ends = cast(PostgreSQL, source), cast(PostgreSQL, target)
    return [Replication(*ends, dbname, name=dbname) for dbname in DATABASES]


def set_up(blue: Remote, green: Remote) -> None:
    """Make and fill the databases, unless they are there; replicate blue to green."""
    query = "SELECT 1 FROM pg_database WHERE datname = %s"
    if green.execute(query, [DATABASES[-1]]):
        print("the databases are there already")
        return
    shop.prepare(blue, green, DATABASE, 5000, print)
    for server in (blue, green):
        shop.copy_database(server, *DATABASES)
    for forward in replications(blue, green):
        forward.start()
        forward.wait()
    print("green replicates from blue")


def cut_over(source: Remote, target: Remote) -> None:
    """Move PgBouncer's clients from *source* to *target*."""
    subscribed = "SELECT 1 FROM pg_subscription"
    if not target.execute(subscribed, dbname=DATABASE):
        raise SystemExit(f"{target} is where the clients are; nothing is done")
    paused = []
    try:
        for dbname in DATABASES:
            # Given up while it waits, it has to be resumed as well.
            paused.append(dbname)
            command(f"PAUSE {dbname}")
        for forward in replications(source, target):
            forward.reverse()
        lines = [f"{dbname} = {target.conninfo(dbname)}\n" for dbname in DATABASES]
        new = DATABASES_INI.with_suffix(".new")
        new.write_text("".join(["[databases]\n", *lines]))
        new.replace(DATABASES_INI)
        command("RELOAD")
    finally:
        for dbname in paused:
            command(f"RESUME {dbname}")
    print(f"moved from {shop.release(source)} to {shop.release(target)}")


def command(text: str) -> None:
    """Send a command to PgBouncer's console."""
    Remote("pgbouncer").execute(text, dbname="pgbouncer")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.cutover")
    parser.add_argument("what", choices=["setup", "blue", "green"])
    what = parser.parse_args().what
    blue, green = Remote("blue"), Remote("green")
    if what == "setup":
        set_up(blue, green)
    elif what == "green":
        cut_over(blue, green)
    else:
        cut_over(green, blue)


if __name__ == "__main__":
    main()
