"""A schema of somebody's real server, brought to one to throw away."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ._server import PostgreSQL

_DUMP = (
    "--schema-only",
    "--no-owner",
    "--no-privileges",
    "--no-tablespaces",
    "--no-publications",
    "--no-subscriptions",
)
"""Roles, and what replicates, are not there; clients of a rehearsal are superusers."""
_LOAD = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null")


class SchemaError(RuntimeError):
    """A schema could not be read, or not be made again; the text says why."""


def load_schema(server: PostgreSQL, dbname: str, source: str) -> None:
    """Create in the empty database *dbname* what *source* has.

    *source* is a file that ``pg_dump --schema-only`` wrote, or a connection string for
    libpq: then it is dumped, by the ``pg_dump`` of *server*'s release, which refuses a
    newer server. Nothing is written there. Raise `SchemaError` with what they said.
    """
    path = Path(source)
    if "=" not in source and "://" not in source:
        if not path.is_file():
            raise SchemaError(
                f"{source!r} is neither a file that pg_dump wrote nor a connection"
                " string for libpq"
            )
        script = path.read_bytes()
    else:
        script = _run(server, "pg_dump", *_DUMP, f"--dbname={source}")
    conninfo = server.conninfo(dbname)
    _run(server, "psql", *_LOAD, f"--dbname={conninfo}", script=script)


def _run(
    server: PostgreSQL, program: str, *arguments: str, script: bytes = b""
) -> bytes:
    path = server.bin_dir / program
    if not path.exists():
        raise SchemaError(f"{program} of PostgreSQL {server.major} is not installed")
    done = subprocess.run(
        [path, *arguments],
        input=script,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PGCLIENTENCODING": "UTF8"},
    )
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise SchemaError(f"{program} of PostgreSQL {server.major}: {said}")
    return done.stdout
