"""What `pg_hot_preflight` finds of servers, extensions, settings and rights."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import OperationalError
from django.test.utils import override_settings
from psycopg_pool import ConnectionPool

from django_pg_hot_async._operator.preflight import reading, statements
from django_pg_hot_async._operator.preflight.facts import PreflightError
from django_pg_hot_async.testing import PgBouncer, PostgreSQL, Replication
from django_pg_hot_async.testing._process import run as run_program
from django_pg_hot_async.testing._process import run_user

from .preflight import found, of, point, run, two_databases, upgrade, verdicts
from .scenarios import CITEXT, HSTORE, ORDERS, TABLE, connections, lead, trust

TYPES = [HSTORE, CITEXT]


@pytest.fixture
def sides(blue, green):
    with upgrade(blue, green, "preflight_servers") as sides:
        yield sides


# Extensions


def test_extension_missing(sides):
    """Statements that need it fail, though no tracked type is of it."""
    sides.create([*TYPES, "create extension pg_trgm"], TYPES)
    finding = found(sides.compare(), "break")["extension_missing"]
    assert finding.sentence == "extension pg_trgm is not installed on green"
    assert finding.hint == "CREATE EXTENSION pg_trgm;"
    sides.create(['create extension "uuid-ossp"', "create extension amcheck"], [])
    [finding] = of(sides.compare(), "warning")
    assert finding.hint == "CREATE EXTENSION amcheck;"
    [_, finding] = of(sides.compare(), "break")
    assert finding.hint == 'CREATE EXTENSION "uuid-ossp";'


def test_extension_not_available(sides):
    """No release has what all the others have; then its package comes first."""
    select = "select name from pg_available_extensions"
    here, there = (
        {name for [name] in server.execute(select)}
        for server in (sides.blue, sides.green)
    )
    # adminpack, up to 16, and old_snapshot: of use with PostgreSQL 17 and later.
    gone = sorted((here - there) & {"adminpack", "old_snapshot"})
    if not gone:
        pytest.skip("blue has no extension that green has not")
    sides.create([f"create extension {gone[0]}"], [])
    finding = found(sides.compare(), "warning")["extension_missing"]
    assert finding.hint.startswith("It is not available there: install its package")


def test_extension_older(sides):
    sides.create(TYPES, [f"{HSTORE} version '1.4'", CITEXT])
    report = sides.compare()
    assert report.is_ready
    finding = found(report, "warning")["extension_older"]
    assert finding.sentence == "extension hstore is 1.4 on green, older than 1.8"
    assert (
        finding.hint == "ALTER EXTENSION hstore UPDATE; there, where 1.8 is available."
    )
    assert [pair.verdict for pair in report.extensions if pair.name == "hstore"] == [
        "older"
    ]


def test_extension_newer(sides):
    """A newer one is what an upgrade brings: no finding."""
    sides.create([f"{HSTORE} version '1.4'"], [HSTORE, "create extension ltree"])
    report = sides.compare()
    assert {pair.name: pair.verdict for pair in report.extensions} == {
        "hstore": "newer",
        "ltree": "only_green",
        "plpgsql": "same",
    }
    assert not found(report, "warning")


# Servers and replication


@contextmanager
def standby_of(server: PostgreSQL):
    """Run a hot standby, made as PostgreSQL documents it."""
    # Beside the other clusters: the user that runs servers has to get at it.
    directory = Path(tempfile.mkdtemp(dir=server.data_dir.parent.parent))
    data = directory / "data"
    try:
        if user := run_user():
            os.chown(directory, *user)
        program = server.bin_dir / "pg_basebackup"
        run_program([program, "-d", server.conninfo(), "-D", data, "-R", "-c", "fast"])
        with PostgreSQL(server.major, data_dir=data) as standby:
            yield standby
    finally:
        shutil.rmtree(directory)


def test_standby(request):
    """A physical copy is a twin, with the same OIDs, and read-only until promoted."""
    major = int(os.environ.get("GREEN", "18"))
    with PostgreSQL(major) as primary:
        primary.create_database("copied")
        for statement in [*ORDERS["blue"], TABLE]:
            primary.execute(statement, dbname="copied")
        with standby_of(primary) as standby:
            lead("default", primary.database("copied"))
            point("green", standby.database("copied"))
            request.addfinalizer(lambda: connections.settings.pop("green"))
            said = run()
            assert "  primary\n" in said and "  standby\n" in said
            assert "twins" in said
            assert "WARNING standby: green is a standby and takes no writes" in said
            assert "SELECT pg_promote();" in said
            assert said.count("  same OID") == 2
            assert "; 1 warning" in said
            standby.execute("select pg_promote()")
            said = run()
            assert "twins" in said and "standby" not in said


def test_replication(sides):
    """Publications and subscriptions are told, and what is not ready of them."""
    table = TABLE.replace("mood", "text")
    sides.create([*TYPES, table], [*TYPES, table, "delete from product"])
    with Replication(sides.blue, sides.green, sides.dbname, name="shop") as replication:
        replication.wait()
        report = sides.compare()
        assert report.blue.part == "primary, publishes shop"
        assert report.green.part == "primary, subscribes by shop"
        assert not found(report, "warning")
        sides.create([], ["alter subscription shop disable"])
        finding = found(sides.compare(), "break")["subscription_off"]
        assert finding.hint == "ALTER SUBSCRIPTION shop ENABLE;"


def test_replication_not_copied_yet(sides):
    sides.create([*TYPES, TABLE.replace("mood", "text")])
    sides.create(["create publication shop for all tables"], [])
    conninfo = sides.blue.conninfo(sides.dbname)
    sides.create(
        [],
        [
            f"create subscription shop connection '{conninfo}' publication shop"
            " with (enabled = false)"
        ],
    )
    try:
        report = sides.compare()
        finding = found(report, "warning")["subscription_copying"]
        assert finding.sentence == (
            "subscription shop of green has 1 table not copied yet: public.product"
        )
    finally:
        sides.create([], ["drop subscription shop"])


def test_older_server(sides):
    """The two in the wrong order, or a way back."""
    sides.create(TYPES)
    lead("default", sides.green.database(sides.dbname))
    point("green", sides.blue.database(sides.dbname))
    older = sides.blue.major < sides.green.major
    assert ("version_older" in found(sides.compare(), "warning")) == older


# Rights, and what there is in the way


@pytest.fixture
def least(sides):
    """A role that may connect and see the tables, on servers that hide the rest."""
    for server in (sides.blue, sides.green):
        server.execute("create role preflight_least login")
    sides.create(
        [
            *TYPES,
            TABLE.replace("mood", "text"),
            "grant usage on schema public to preflight_least",
            "revoke all on function pg_control_system() from public",
            "revoke all on function pg_available_extensions() from public",
            "revoke all on pg_publication from public",
            "revoke all on pg_subscription_rel from public",
        ]
    )
    sides.lead(USER="preflight_least")
    point("green", {**sides.green.database(sides.dbname), "USER": "preflight_least"})
    yield sides
    for server in (sides.blue, sides.green):
        server.execute("drop owned by preflight_least", dbname=sides.dbname)
        server.execute("drop role preflight_least")


def test_least_rights(least):
    """What a server does not tell is unknown, and the rest is told."""
    report = least.compare()
    assert verdicts(report) == {"hstore": "other_oid", "citext": "other_oid"}
    assert report.relation == "unknown"
    for facts in (report.blue, report.green):
        assert facts.system_identifier is None
        assert not facts.has("available")
        assert facts.publications is None
        assert not facts.has("subscribed")
        assert facts.part == "primary"
    assert report.is_ready
    assert "unknown" in run()


def test_least_rights_and_a_missing_extension(least):
    """Where nobody tells what is available, creating it is worth trying."""
    least.create([], ["drop extension hstore cascade"])
    assert found(least.compare())["missing"].hint == "CREATE EXTENSION hstore;"


def test_no_usage_on_the_schema(least):
    least.create([], ["revoke usage on schema public from public, preflight_least"])
    report = least.compare()
    assert verdicts(report)["hstore"] == "not_visible"
    assert "has USAGE on schema public" in found(report)["not_visible"].hint
    assert found(report)["table_not_visible"].object == "product"


def test_hostile_search_path(sides):
    """No name in a statement leads where a search_path would have it lead."""
    tables = ["pg_type", "pg_class", "pg_namespace", "pg_database", "pg_extension"]
    evil = [
        "create schema evil",
        *(f"create table evil.{table} (oid oid, typname name)" for table in tables),
        "create function evil.equal(oid, oid) returns bool language sql"
        " as 'select false'",
        "create function evil.equal(name, name) returns bool language sql"
        " as 'select false'",
        "create function evil.equal(name, text) returns bool language sql"
        " as 'select false'",
        *(
            f"create operator evil.= (leftarg = {left}, rightarg = {right},"
            " function = evil.equal)"
            for left, right in [("oid", "oid"), ("name", "name"), ("name", "text")]
        ),
        "create function evil.unnest(anyarray) returns setof text language sql"
        " as 'select null::text where false'",
        "create function evil.pg_is_in_recovery() returns bool language sql"
        " as 'select true'",
        "create domain evil.text as pg_catalog.text check (false)",
        f"alter database {sides.dbname} set search_path = evil, pg_catalog, public",
    ]
    sides.create([*ORDERS["blue"], TABLE, *evil], [*ORDERS["green"], TABLE, *evil])
    report = sides.compare()
    assert report.blue.search_path[0] == "evil"
    assert verdicts(report) == {"hstore": "other_oid", "citext": "other_oid"}
    assert report.green.part == "primary"
    assert {row.plain for row in report.green.of("columns").values()} >= {
        "attrs",
        "feels",
    }
    assert report.is_ready


def test_every_name_is_qualified():
    """Those too that no test above would be led astray by."""
    sent = [text for name, text in vars(statements).items() if name.isupper()]
    texts = [text for text in sent if isinstance(text, str)]
    assert len(texts) == 4
    for text in texts:
        rest = re.sub(r"OPERATOR\(pg_catalog\.(=|<>|>=|>)\)", "", text)
        assert not re.search("[<>=|~+/-]", rest), rest
        assert not re.findall(r"::(?!pg_catalog\.)", rest)
        assert not re.findall(r"\b(?:FROM|JOIN) (?!\(?pg_catalog\.|ROWS)\S+", rest)
        called = set(re.findall(r"(?<![.\w])(\w+)\(", rest))
        # Keywords, an alias with its columns, and what EXTRACT is short for.
        assert called <= {"EXTRACT", "ARRAY", "wanted"}, called


def test_nothing_is_written(sides):
    """It sends a handful of statements, read-only, and leaves no connection."""
    sides.create([*ORDERS["blue"], TABLE])
    run()
    with sides.green.statements() as statements:
        run()
    sent = [text.split("\n")[0] for text in statements]
    read_only = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"
    assert read_only in sent
    allowed = ("SELECT", "BEGIN", read_only, "SAVEPOINT", "RELEASE")
    assert all(text.startswith((*allowed, "ROLLBACK")) for text in sent), sent
    assert sum(text.startswith("SELECT") for text in sent) <= 42, sent
    [[left]] = sides.green.execute(
        "select count(*) from pg_stat_activity where datname = %s", [sides.dbname]
    )
    assert left == 0


def test_a_connection_that_is_open_is_let_be(sides):
    """One that the thread holds open may be older than a switch; it stays open."""
    sides.create(TYPES)
    connections["default"].ensure_connection()
    pid = connections["default"].connection.info.backend_pid
    run()
    assert connections["default"].connection.info.backend_pid == pid
    with connections["default"].cursor() as cursor:
        cursor.execute("select 1")


# Settings


POOLED: dict[str, Any] = {"OPTIONS": {"pool": {"min_size": 0}}}
SETTINGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "pool": (POOLED, {"health_checks"}),
    "pool-checked": ({**POOLED, "CONN_HEALTH_CHECKS": True}, set()),
    "pool-with-own-check": (
        {
            "OPTIONS": {
                "pool": {"min_size": 0, "check": ConnectionPool.check_connection}
            }
        },
        set(),
    ),
    "persistent": ({"CONN_MAX_AGE": None}, {"health_checks"}),
    "persistent-checked": ({"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}, set()),
    "a-request": ({"DISABLE_SERVER_SIDE_CURSORS": True}, set()),
    "pooler-told": (
        {**POOLED, "CONN_HEALTH_CHECKS": True, "DISABLE_SERVER_SIDE_CURSORS": True},
        set(),
    ),
    "prepared": ({"OPTIONS": {"prepare_threshold": 5}}, set()),
    "prepared-behind-pooler": (
        {"OPTIONS": {"prepare_threshold": 0}, "DISABLE_SERVER_SIDE_CURSORS": True},
        {"prepare_threshold"},
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings(sides, case):
    settings, expected = SETTINGS[case]
    sides.create(TYPES)
    sides.lead(**settings)
    report = sides.compare()
    assert set(found(report, "warning")) == expected
    for finding in of(report, "warning"):
        assert finding.object.startswith(("DATABASES['default']", "PG_HOT_ASYNC"))
        assert finding.hint
    assert report.is_ready


@pytest.mark.pgbouncer
def test_pooler(sides):
    """A pooler shows, whatever the settings say of it."""
    sides.create(TYPES)
    with PgBouncer(sides.blue, sides.dbname) as bouncer:
        target = bouncer.database()
        target.pop("DISABLE_SERVER_SIDE_CURSORS")
        target["OPTIONS"] = {**target.get("OPTIONS", {}), "prepare_threshold": 5}
        sides.lead(**target, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
        report = sides.compare()
        assert report.blue.pooled and not report.green.pooled
        assert set(found(report, "warning")) == {"prepare_threshold"}
        assert f"a pooler answers at 127.0.0.1:{bouncer.port}" in run()
        assert "primary, behind a pooler" in run()
        for level in ("auto", "transaction"):
            with trust(level):
                assert set(found(sides.compare(), "warning")) == {"prepare_threshold"}
        for level in ("server", "connection"):
            with trust(level):
                finding = found(sides.compare(), "warning")["trust"]
                assert finding.object == "PG_HOT_ASYNC['TRUST']"
                assert finding.sentence == (
                    f"OIDs of default are trusted for a {level}, and a pooler answers"
                    f" at 127.0.0.1:{bouncer.port}/{sides.dbname}: a pooler can move"
                    " connections that are open"
                )
                assert finding.hint == (
                    "PG_HOT_ASYNC['TRUST'] = \"auto\", or leave it out."
                )
        with override_settings(
            PG_HOT_ASYNC={
                "TRUST": "transaction",
                "ALIASES": {"default": {"TRUST": "server"}},
            }
        ):
            finding = found(sides.compare(), "warning")["trust"]
            assert finding.object == "PG_HOT_ASYNC['ALIASES']['default']['TRUST']"


def test_trust_by_server_version(green, twin):
    """Two servers of one version are told apart by their address alone."""
    with two_databases(green, twin, "preflight_servers") as sides:
        sides.create(TYPES)
        with override_settings(PG_HOT_ASYNC={"TRUST": "server"}):
            finding = found(sides.compare(), "warning")["trust"]
        assert finding.hint == "PG_HOT_ASYNC['TRUST'] = \"auto\", or leave it out."
        assert not found(sides.compare(), "warning")


def test_left_to_django(sides):
    """An alias that nobody looks after goes wrong."""
    sides.create(TYPES, TYPES[::-1])
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}):
        report = sides.compare()
        said = run(status=1)
    finding = found(report, "break")["not_handled"]
    assert finding.sentence == (
        "hstore has another OID there, and default is left to Django"
    )
    assert said.count("OTHER OID, NOT HANDLED") == 2
    assert {pair.verdict for pair in report.types} == {"not_handled"}
    sides.create([], ["drop extension citext"])
    with override_settings(PG_HOT_ASYNC={"ALIASES": {"default": None}}):
        codes = [finding.code for finding in of(sides.compare(), "break")]
    assert codes == ["not_handled", "missing"]


# A server that goes away


def test_server_lost_in_the_middle(sides, monkeypatch):
    """It is the connection that is lost, not a right that is lacking."""
    sides.create(TYPES)
    attempt = reading.Side.attempt

    def cut(side, query, parameters):
        sides.blue.terminate(sides.dbname)
        return attempt(side, query, parameters)

    monkeypatch.setattr(reading.Side, "attempt", cut)
    with pytest.raises(PreflightError, match="'default'") as caught:
        sides.read("default")
    assert isinstance(caught.value.__cause__, OperationalError)
    assert isinstance(caught.value.__cause__.__cause__, psycopg.OperationalError)
