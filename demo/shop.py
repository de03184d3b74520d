"""The shop's database on two servers that agree on everything but the OIDs."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

TOP = Path(__file__).resolve().parents[1]
PROJECT = TOP / "examples" / "asgi_project"
ROLE = "shop"
TABLE = "catalogue_product"
# What a product's columns hold, in the form of its proof, by the server's account.
HELD = """jsonb_build_object(
    'attributes', hstore_to_jsonb(attributes),
    'labels', labels::text[],
    'status', status,
    'dimensions', CASE WHEN dimensions IS NOT NULL THEN jsonb_build_array(
        (dimensions).width::text, (dimensions).depth::text,
        (dimensions).height::text, (dimensions).unit) END,
    'valid', CASE WHEN valid IS NOT NULL THEN
        jsonb_build_array(lower(valid), upper(valid)) END,
    'stored_at', CASE WHEN stored_at IS NOT NULL THEN
        jsonb_build_array(lower(stored_at), upper(stored_at)) END
)"""


class Server(Protocol):
    """What is used of `django_pg_hot_async.testing.PostgreSQL`."""

    host: str

    @property
    def port(self) -> int: ...

    @property
    def version(self) -> int: ...

    def conninfo(self, dbname: str = ..., **params: Any) -> str: ...

    def execute(
        self, sql: str, params: Any = ..., *, dbname: str = ...
    ) -> list[tuple[Any, ...]]: ...

    def create_database(self, name: str) -> None: ...


class Copying(Server, Protocol):
    """A server that makes a database as a copy of another, OIDs included."""

    def create_database(self, name: str, template: str | None = None) -> None: ...


def prepare(
    blue: Server, green: Server, dbname: str, rows: int, tell: Callable[[str], object]
) -> None:
    """Make the database *dbname* on both servers and fill it on *blue*.

    The schema is the same. On *green* somebody made the extension citext before
    the first migration ran, and its type ``citext[]`` has got the very OID that
    ``hstore`` has on *blue*.
    """

    def migrate(server: Server) -> None:
        manage(server, dbname, "migrate", "--verbosity=0")

    aim(blue, green, dbname, migrate)
    with ThreadPoolExecutor() as threads:
        seeding = threads.submit(manage, blue, dbname, "seed", str(rows))
        migrate(green)
        # The rows come by replication, those of this table too.
        green.execute("TRUNCATE django_migrations", dbname=dbname)
        count = seeding.result().strip()
    for name, server in (("blue", blue), ("green", green)):
        types = find_types(server, dbname)
        tell(
            f"{name}: PostgreSQL {release(server)},"
            + ",".join(f" {type_} is OID {oid}" for type_, oid in types.items())
        )
    tell(f"{count} on blue")


def make_database(server: Server, dbname: str) -> None:
    """Make the database, and the role that the shop, and only it, logs in as."""
    if not server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]):
        server.execute(f"CREATE ROLE {ROLE}")
    server.execute(f"ALTER ROLE {ROLE} LOGIN")
    server.create_database(dbname)
    server.execute(f"ALTER DATABASE {dbname} OWNER TO {ROLE}")


def copy_database(server: Copying, dbname: str, copy: str) -> None:
    """Make the database *copy* with the rows, and the OIDs, of *dbname*."""
    server.create_database(copy, template=dbname)
    server.execute(f"ALTER DATABASE {copy} OWNER TO {ROLE}")


def use_oids(server: Server, dbname: str, count: int = 1) -> int:
    """Use up *count* OIDs and return the last one."""
    [[last]] = server.execute(
        "SELECT max(pg_nextoid('pg_type', 'oid', 'pg_type_oid_index')::int8)"
        " FROM generate_series(1, %s)",
        [max(count, 1)],
        dbname=dbname,
    )
    return int(last)


def aim(
    blue: Server, green: Server, dbname: str, migrate: Callable[[Any], object]
) -> None:
    """Make the database on both, migrate *blue*, and create citext on *green*.

    Its type ``citext[]`` gets the OID that hstore has on *blue*. Whatever else runs
    on a server takes OIDs from the same counter, such as an ANALYZE by autovacuum,
    and the counter never goes back: what it has missed is tried again further on.
    """
    for _ in range(10):
        for server in (blue, green):
            make_database(server, dbname)
        # An OID can only be met by a counter that is still below it.
        counter = use_oids(green, dbname)
        use_oids(blue, dbname, counter + 5000 - use_oids(blue, dbname))
        migrate(blue)
        wanted = find_types(blue, dbname)["hstore"]
        make_citext_at(green, dbname, wanted)
        found = find_types(green, dbname)["citext[]"]
        if found == wanted:
            return
        for server in (blue, green):
            server.execute(f"DROP DATABASE {dbname} WITH (FORCE)")
    raise RuntimeError(
        f"hstore has OID {wanted} on blue, and citext[] has {found} on green, not the"
        " same: something else on green takes OIDs all the time. End it, and try again"
    )


def make_citext_at(server: Server, dbname: str, oid: int) -> None:
    """Create the extension citext such that ``citext[]`` gets *oid*, if all is quiet.

    By trying it first: how many OIDs the extension takes before that type
    depends on its version.
    """
    before = use_oids(server, dbname)
    server.execute("CREATE EXTENSION citext", dbname=dbname)
    distance = find_types(server, dbname)["citext[]"] - before
    server.execute("DROP EXTENSION citext", dbname=dbname)
    use_oids(server, dbname, oid - distance - use_oids(server, dbname))
    server.execute("CREATE EXTENSION citext", dbname=dbname)


def find_types(server: Server, dbname: str) -> dict[str, int]:
    """Return the OIDs of the types that decide how a product is read."""
    found = server.execute(
        "SELECT format_type(oid, NULL), oid::int8 FROM pg_type"
        " WHERE typname IN"
        " ('hstore', '_citext', 'status', 'dimensions', 'celsius')"
        " AND typnamespace = 'public'::regnamespace"
        " ORDER BY typname = 'hstore' DESC, typname",
        dbname=dbname,
    )
    return dict(found)


def release(server: Server) -> str:
    """Return the server's version as people write it: 15.19."""
    return f"{server.version // 10000}.{server.version % 10000}"


def manage(server: Server, dbname: str, *arguments: str) -> str:
    """Run a command of manage.py on one server, as a deployment would."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=environ(server, dbname),
        text=True,
        capture_output=True,
    )
    if done.returncode:
        raise RuntimeError(f"manage.py {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def environ(server: Server, dbname: str) -> dict[str, str]:
    """Return the environment in which the example talks to *server* directly."""
    return {
        **child_environ(),
        "DATABASE_HOST": server.host,
        "DATABASE_PORT": str(server.port),
        "DATABASE_NAME": dbname,
    }


def child_environ() -> dict[str, str]:
    """Return the environment for the example's processes, without a database."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DATABASE_")}
    if kept.pop("PYTHONDONTWRITEBYTECODE", None):
        # A dozen processes that compile Django anew take 10 seconds for it.
        kept["PYTHONPYCACHEPREFIX"] = bytecode_directory()
    return {
        **kept,
        "DJANGO_SETTINGS_MODULE": "demo.settings",
        # What can be imported here can be imported there.
        "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(TOP)])),
    }


@functools.cache
def bytecode_directory() -> str:
    """Make a directory for compiled code that is gone at the end."""
    path = tempfile.mkdtemp(prefix="asgi-project-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def count_lost(server: Server, dbname: str, acknowledged: set[int]) -> int:
    """Count acknowledged new rows that *server* does not have."""
    rows = server.execute(
        f"SELECT count(*) FROM unnest(%s::int8[]) AS made(id)"
        f" WHERE NOT EXISTS (SELECT FROM {TABLE} p WHERE p.id = made.id)",
        [sorted(acknowledged)],
        dbname=dbname,
    )
    return int(rows[0][0])


def count_stored_wrong(server: Server, dbname: str) -> int:
    """Count rows whose columns differ from their proof, as the server sees it."""
    rows = server.execute(
        f"SELECT count(*) FROM {TABLE} WHERE {HELD} IS DISTINCT FROM proof::jsonb",
        dbname=dbname,
    )
    return int(rows[0][0])


def fingerprint(server: Server, dbname: str) -> tuple[Any, ...]:
    """Return the number of rows and a hash over all of them."""
    rows = server.execute(
        "SELECT count(*), md5(string_agg(md5(p::text), '' ORDER BY id))"
        f" FROM {TABLE} p",
        dbname=dbname,
    )
    return rows[0]
