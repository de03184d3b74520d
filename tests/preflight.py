"""Two databases to compare, and what comparing them says."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.backends.signals import connection_created

from django_pg_hot_async._operator.preflight import examine
from django_pg_hot_async._operator.preflight.facts import Facts, Finding, Wanted
from django_pg_hot_async._operator.preflight.reading import open_side
from django_pg_hot_async._operator.preflight.report import Report, wanted_types
from django_pg_hot_async.testing import PostgreSQL, scatter_oids

from .scenarios import connections, lead

STAND_IN = "create table if not exists product (id bigint primary key, name text)"
BARE = {"superuser", "no_subscription"}
"""What is found of any two databases that no replication joins, as a superuser."""
APART = 1000
"""How far two servers' counters of OIDs are apart at least, when a test begins."""


@dataclass
class Sides:
    """A database on either of two servers, behind the aliases default and green."""

    blue: PostgreSQL
    green: PostgreSQL
    dbname: str

    def create(self, blue: list[str], green: list[str] | None = None) -> None:
        """Execute the statements *blue* on both sides, or others on *green*.

        A table of the project's model is there as well: two databases without any
        are a finding.
        """
        for server, statements in (
            (self.blue, blue),
            (self.green, blue if green is None else green),
        ):
            for statement in statements:
                server.execute(statement, dbname=self.dbname)
        exists = "select to_regclass('product') is not null"
        if not self.blue.execute(exists, dbname=self.dbname)[0][0]:
            for server in (self.blue, self.green):
                server.execute(STAND_IN, dbname=self.dbname)

    def lead(self, **settings: Any) -> None:
        """Let the aliases lead to the two, default with *settings*."""
        lead("default", {**self.blue.database(self.dbname), **settings})
        point("green", self.green.database(self.dbname))

    def read(self, alias: str, *wanted: Wanted) -> Facts:
        names = [one.name for one in (*wanted_types(), *wanted)]
        with open_side(alias) as side:
            return side.read(names)

    def compare(self, *wanted: Wanted, **options: Any) -> Report:
        """Compare as the command does, with more types tracked."""
        return examine("default", "green", also=wanted, **options)


@contextmanager
def two_databases(blue: PostgreSQL, green: PostgreSQL, dbname: str) -> Iterator[Sides]:
    for server in (blue, green):
        server.create_database(dbname)
    sides = Sides(blue, green, dbname)
    sides.lead()
    try:
        yield sides
    finally:
        connections.settings.pop("green", None)
        for server in (blue, green):
            server.drop_database(dbname)


def upgrade(one: PostgreSQL, other: PostgreSQL, dbname: str) -> Any:
    """A database on either of the servers, the older of which is blue.

    Whichever way round the tests are run: an older server is a finding of its own.
    """
    blue, green = sorted((one, other), key=lambda server: server.major)
    # The counters go their own ways, and are not to meet here.
    distance = scatter_oids(green, n=1) - scatter_oids(blue, n=1)
    if abs(distance) < APART:
        scatter_oids(green, n=2 * APART)
    return two_databases(blue, green, dbname)


def psql(client: PostgreSQL, server: PostgreSQL, dbname: str, text: str) -> None:
    """Run a script on *server*, by the programs of *client*."""
    program = client.bin_dir / "psql"
    options = ("-qX", "-v", "ON_ERROR_STOP=1", "-d", server.conninfo(dbname))
    done = subprocess.run(
        [program, *options], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def point(alias: str, target: dict[str, Any]) -> None:
    """Add *alias* to DATABASES, or point it elsewhere."""
    connections.settings[alias] = connections.configure_settings({"default": target})[
        "default"
    ]


@contextmanager
def connections_of(receiver: Any) -> Iterator[None]:
    """Let *receiver* hear of each connection that Django opens."""
    connection_created.connect(receiver)
    try:
        yield
    finally:
        connection_created.disconnect(receiver)


def run(*arguments: str, status: int = 0) -> str:
    """Run the command; return what it wrote, having checked its exit status."""
    out = io.StringIO()
    got: Any = 0
    try:
        call_command(
            "pg_hot_preflight", *(arguments or ("default", "green")), stdout=out
        )
    except SystemExit as end:
        got = end.code
    assert got == status, out.getvalue()
    return out.getvalue()


def fail(*arguments: str) -> str:
    """Run the command; return why it could not tell."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("pg_hot_preflight", *arguments, stdout=out)
    assert caught.value.returncode == 2
    assert out.getvalue() == ""
    return str(caught.value)


def found(report: Report, severity: str | None = None) -> dict[str, Finding]:
    """Return the findings by code, the first of each; all, or those of *severity*.

    But for those that each of these tests has.
    """
    findings: dict[str, Finding] = {}
    for finding in report.findings:
        if severity in (None, finding.severity) and finding.code not in BARE:
            findings.setdefault(finding.code, finding)
    return findings


def of(report: Report, severity: str) -> list[Finding]:
    """Return the findings of *severity*, but for those that each of these tests has."""
    return [finding for finding in report.of(severity) if finding.code not in BARE]


def verdicts(report: Report) -> dict[str, str]:
    return {str(pair.wanted): pair.verdict for pair in report.types}
