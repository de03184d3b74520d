"""What `pg_hot_preflight` finds of servers as such: settings, locale, replication."""

from __future__ import annotations

import re
import time

import psycopg
import pytest

from django_pg_hot_async.testing import Replication

from .preflight import connections_of, fail, found, point, run, two_databases, upgrade
from .scenarios import lead

ROLE = "preflight_night"
TABLE = "create table product (id bigint primary key, name text)"
ROWS = "insert into product select i, repeat('x', 100) from generate_series({}) i"


@pytest.fixture
def sides(blue, green):
    """Two databases that belong to a role of an application, which connects."""
    with upgrade(blue, green, ROLE) as sides:
        for server in (sides.blue, sides.green):
            server.execute(f"create role {ROLE} login")
            server.execute(f"alter database {ROLE} owner to {ROLE}")
        sides.create([TABLE, f"alter table product owner to {ROLE}"])
        lead("default", {**sides.blue.database(ROLE), "USER": ROLE})
        point("green", {**sides.green.database(ROLE), "USER": ROLE})
        yield sides
        for server in (sides.blue, sides.green):
            server.execute(f"alter database {ROLE} reset all")
            server.execute(f"drop owned by {ROLE} cascade", dbname=ROLE)
            server.execute(f"alter database {ROLE} owner to postgres")
            server.execute(f"drop role {ROLE}")


def told(report) -> dict[str, str]:
    """Return what is found by its object, with severity and code."""
    return {one.object: f"{one.severity} {one.code}" for one in report.findings}


# Settings


ON_BLUE = {
    "statement_timeout": ("'30s'", "warning setting"),
    "default_transaction_isolation": ("'repeatable read'", "warning setting"),
    "default_text_search_config": ("'pg_catalog.german'", "warning setting"),
    "timezone": ("'Europe/Berlin'", "warning setting"),
    "geqo": ("off", "warning setting"),
    "night.region": ("'north'", "break setting"),
}
ON_GREEN = {
    "datestyle": ("'SQL, DMY'", "break setting"),
    "intervalstyle": ("iso_8601", "break setting"),
    "standard_conforming_strings": ("off", "break setting"),
    "default_transaction_read_only": ("on", "break read_only"),
    "lock_timeout": ("'50ms'", "warning setting"),
    "enable_seqscan": ("off", "warning setting"),
}


def test_settings_of_role_and_database(sides):
    """What no dump of a database brings; half are set for the role, half for all."""
    targets = [f"role {ROLE}", f"database {ROLE}"]
    for server, settings in ((sides.blue, ON_BLUE), (sides.green, ON_GREEN)):
        for number, (name, (value, _)) in enumerate(settings.items()):
            server.execute(f"alter {targets[number % 2]} set {name} = {value}")
    got = {name.lower(): what for name, what in told(sides.compare()).items()}
    expected = {name: what for name, (_, what) in {**ON_BLUE, **ON_GREEN}.items()}
    assert {name: got.get(name) for name in expected} == expected


def test_search_path(sides):
    """What is in a schema that only blue's search_path leads to is not found."""
    sides.create(["create schema ext", f"grant usage on schema ext to {ROLE}"])
    sides.create([f"alter role {ROLE} set search_path = public, ext"], [])
    assert told(sides.compare())["search_path"] == "warning search_path"
    sides.create(["create function ext.f() returns int language sql as 'select 1'"])
    report = sides.compare()
    assert told(report)["search_path"] == "break search_path"
    finding = found(report)["search_path"]
    assert finding.hint == f"ALTER ROLE {ROLE} SET search_path = public, ext;"
    sides.create([], [finding.hint])
    assert "search_path" not in told(sides.compare())


def test_server_settings(sides, restarted):
    """What needs a restart: less of it is refused under load."""
    restarted(sides.green, max_connections=17, max_prepared_transactions=0)
    got = told(sides.compare())
    assert got["max_connections"] == "warning amount"
    assert got["max_prepared_transactions"] == "warning amount"


@pytest.fixture
def restarted(request):
    """Restart a server with other settings; undo it at the end."""

    def restart(server, **settings) -> None:
        for name, value in settings.items():
            server.execute(f"alter system set {name} = {value}")
        server.stop()
        server.start()

    def undo() -> None:
        server = request.getfixturevalue("green")
        server.execute("alter system reset all")
        server.stop()
        server.start()

    request.addfinalizer(undo)
    return restart


def test_roles(sides):
    """What the role is, and of what it is a member."""
    for server in (sides.blue, sides.green):
        server.execute("create role preflight_group")
    sides.create(
        [f"grant preflight_group to {ROLE}", f"alter role {ROLE} bypassrls"], []
    )
    sides.create([], [f"alter role {ROLE} connection limit 5 valid until '2020-01-01'"])
    says = [f"{one.severity} {one.sentence}" for one in sides.compare().findings]
    for server in (sides.blue, sides.green):
        server.execute("drop role preflight_group")
    for line in (
        f"break {ROLE} bypasses row security on default alone",
        f"break the password of {ROLE} has expired on green",
        f"warning {ROLE} may have 5 connections at most on green",
    ):
        assert line in says
    assert any("not a member of preflight_group on green" in line for line in says)


def test_read_as_another_role(sides):
    """The rights are those of the application, whoever looks."""
    sides.create([], [f"revoke insert on product from {ROLE}"])
    point("green", sides.green.database(ROLE))
    got = told(sides.compare())
    assert got["postgres"] == "warning role"
    assert got["public.product"] == "break rights"


def test_role_missing(sides):
    sides.green.execute(f"alter role {ROLE} rename to preflight_other")
    point("green", sides.green.database(ROLE))
    finding = found(sides.compare(), "break")["role_missing"]
    sides.green.execute(f"alter role preflight_other rename to {ROLE}")
    assert finding.object == ROLE


def test_encoding_and_locale(blue, green):
    with two_databases(blue, green, "preflight_locale") as sides:
        sides.create([TABLE])
        green.drop_database("preflight_locale")
        green.execute(
            "create database preflight_locale encoding latin1 locale 'C' template"
            " template0"
        )
        sides.create([], [TABLE])
        codes = found(sides.compare())
        assert codes["encoding"].severity == "break"
        assert "LATIN1 on green, but UTF8" in codes["encoding"].sentence
        green.execute(
            "update pg_database set datcollversion = '1.2'"
            " where datname = 'preflight_locale'"
        )
        assert found(sides.compare())["collation_version"].severity == "warning"


# Django


def test_django_tables(sides):
    """Migrations both ways, and ids that mean something else."""
    sides.create(
        [
            "create table django_migrations (id bigint, app text, name text)",
            "create table django_content_type (id int, app_label text, model text)",
            "insert into django_migrations values (1, 'shop', '0001'), (2, 'a', 'b')",
            "insert into django_content_type values (1, 'shop', 'order')",
            f"grant all on django_migrations, django_content_type to {ROLE}",
        ]
    )
    sides.create(
        [],
        [
            "update django_migrations set name = '0002' where id = 1",
            "update django_content_type set model = 'customer' where id = 1",
        ],
    )
    report = sides.compare()
    says = [one.sentence for one in report.findings if one.code == "migrations"]
    assert len(says) == 2
    assert "not recorded on green" in says[0] and says[0].endswith("shop.0001")
    assert says[1] == "1 migration recorded on green alone: shop.0002"
    assert found(report)["content_types"].sentence.endswith(
        "1 is shop.customer instead of shop.order"
    )


def test_nothing_to_compare(sides):
    """Two databases without a table of the project: NAME may be wrong on both sides."""
    for server in (sides.blue, sides.green):
        server.execute("drop table product", dbname=ROLE)
    said = run(status=1)
    # However many models other tests have defined.
    none = r"Would break: default has none of the \d+ tables? of the models: "
    assert re.match(none, said.splitlines()[-1])


# Replication


def test_replication_from_behind_to_gone(sides):
    """Each way in which nothing comes any more, one after the other."""
    with Replication(sides.blue, sides.green, ROLE, name="night") as replication:
        replication.wait()
        assert not found(sides.compare(at_cutover=True))
        with psycopg.connect(sides.green.conninfo(ROLE)) as holder:
            holder.execute("begin; lock table product in share mode")
            sides.create([ROWS.format("1, 3000")], [])
            report = wait_for(sides, "subscription_behind")
            assert found(report)["subscription_behind"].severity == "note"
            assert report.is_ready
            report = sides.compare(at_cutover=True)
            assert found(report)["subscription_behind"].severity == "break"
        sides.create([], ["insert into product values (4000, 'green')"])
        sides.create(["insert into product values (4000, 'blue')"], [])
        report = wait_for(sides, "subscription_fails")
        assert found(report)["subscription_fails"].severity == "break"
        sides.create([], ["alter subscription night disable"])
        sentence = found(wait_for(sides, "subscription_off"))[
            "subscription_off"
        ].sentence
        assert "are waiting" in sentence
        drop = "select pg_drop_replication_slot('night')"
        inactive = (
            "select not active from pg_replication_slots where slot_name = 'night'"
        )
        while not sides.blue.execute(inactive)[0][0]:
            time.sleep(0.02)
        sides.create([drop], ["alter subscription night enable"])
        try:
            assert found(sides.compare())["slot_missing"].severity == "break"
        finally:
            alter = "alter subscription night"
            sides.create([], [f"{alter} disable", f"{alter} set (slot_name = none)"])


def test_open_transaction_at_the_cutover(sides):
    """Who has written and not committed is told, whatever role it is of."""
    with psycopg.connect(sides.blue.conninfo(ROLE)) as writer:
        writer.execute("insert into product values (1, 'x')")
        pid = str(writer.info.backend_pid)
        assert pid not in told(sides.compare())
        assert told(sides.compare(at_cutover=True))[pid] == "break long_transaction"
        writer.rollback()
        writer.execute("select 1")
        assert pid not in told(sides.compare(at_cutover=True))


def wait_for(sides, code):
    for _ in range(100):
        report = sides.compare()
        if code in found(report):
            return report
        time.sleep(0.1)
    raise AssertionError(f"{code} is not found: {sorted(found(report))}")


def test_sequences_are_a_break_at_the_cutover(sides):
    sides.create(
        ["create sequence invoice", f"grant all on sequence invoice to {ROLE}"]
    )
    sides.create(["select setval('invoice', 100)"], [])
    assert told(sides.compare())["public.invoice"] == "note sequence_behind"
    assert told(sides.compare(at_cutover=True))["public.invoice"] == (
        "break sequence_behind"
    )
    run("default", "green", "--at-cutover", status=1)


# The command


def test_green_dsn(sides):
    """Green need not be an alias; what the string leaves out is as in blue."""
    dsn = f"host={sides.green.host} port={sides.green.port} dbname={ROLE}"
    said = run("default", "--green-dsn", dsn)
    assert f"port={sides.green.port}" not in said
    assert f"at {sides.green.host}:{sides.green.port}/{ROLE}" in said
    assert "not a connection string" in fail("default", "--green-dsn", "5433")
    assert fail("default").startswith("name either an alias")
    assert fail("default", "green", "--green-dsn", dsn).startswith("name either")
    assert fail("defualt", "--green-dsn", dsn).startswith("'defualt' is no alias")


def test_receiver_that_raises(sides):
    """It could not be found out: exit status 2, and whose code it was."""
    with connections_of(raise_error):
        said = fail("default", "green")
    assert said == (
        "cannot connect to 'default': code of this project raised RuntimeError while"
        " Django connected: the project's own"
    )


def raise_error(**kwargs):
    raise RuntimeError("the project's own")


def test_a_table_that_is_locked(sides):
    """It holds nothing up for long, and what could not be read is said."""
    sides.create(
        ["create view v as select id from product", f"alter view v owner to {ROLE}"]
    )
    with psycopg.connect(sides.green.conninfo(ROLE)) as holder:
        holder.execute("begin; lock table product in access exclusive mode")
        report = sides.compare()
    assert "not read: " in report.verdict
    assert {one.object for one in report.findings if one.code == "not_read"} >= {
        "views"
    }
