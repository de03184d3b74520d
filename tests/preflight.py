"""Two databases to compare, and what comparing them says."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_pg_hot_async._operator.preflight.columns import model_tables
from django_pg_hot_async._operator.preflight.facts import Facts, Finding, Wanted
from django_pg_hot_async._operator.preflight.reading import read_side
from django_pg_hot_async._operator.preflight.report import Report, compare, wanted_types
from django_pg_hot_async.testing import PostgreSQL, scatter_oids

from .scenarios import connections, lead

APART = 1000
"""How far two servers' counters of OIDs are apart at least, when a test begins."""


@dataclass
class Sides:
    """A database on either of two servers, behind the aliases default and green."""

    blue: PostgreSQL
    green: PostgreSQL
    dbname: str

    def create(self, blue: list[str], green: list[str] | None = None) -> None:
        """Execute the statements *blue* on both sides, or others on *green*."""
        for server, statements in (
            (self.blue, blue),
            (self.green, blue if green is None else green),
        ):
            for statement in statements:
                server.execute(statement, dbname=self.dbname)

    def lead(self, **settings: Any) -> None:
        """Let the aliases lead to the two, default with *settings*."""
        lead("default", {**self.blue.database(self.dbname), **settings})
        point("green", self.green.database(self.dbname))

    def read(self, alias: str, *wanted: Wanted) -> Facts:
        names = [one.name for one in (*wanted_types(), *wanted)]
        return read_side(alias, names, model_tables())

    def compare(self, *wanted: Wanted) -> Report:
        """Compare as the command does, with more types tracked."""
        return compare(
            self.read("default", *wanted),
            self.read("green", *wanted),
            (*wanted_types(), *wanted),
            model_tables(),
            connections.settings["default"],
        )


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


def point(alias: str, target: dict[str, Any]) -> None:
    """Add *alias* to DATABASES, or point it elsewhere."""
    connections.settings[alias] = connections.configure_settings({"default": target})[
        "default"
    ]


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
    """Return the findings by code, the first of each; all, or those of *severity*."""
    findings: dict[str, Finding] = {}
    for finding in report.findings:
        if severity in (None, finding.severity):
            findings.setdefault(finding.code, finding)
    return findings


def verdicts(report: Report) -> dict[str, str]:
    return {str(pair.wanted): pair.verdict for pair in report.types}
