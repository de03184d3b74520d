"""The example's admin, stream and jobs on real servers, and its own tests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest

from django_pg_hot_async.testing import PgBouncer, PostgreSQL

from .example import (
    DBNAME,
    EXAMPLE,
    PASSWORD,
    Events,
    Process,
    Shops,
    Site,
    environ,
    manage,
    to_address,
    wait_until,
)

pytestmark = pytest.mark.slow

UVICORN = (
    "uvicorn asgi_project.asgi:application --port 8000 --log-level=warning"
    " --timeout-graceful-shutdown 1"
)
HELD = """
    select name, attributes::text, labels::text, status::text, dimensions::text,
        valid::text, stored_at::text, proof
    from catalogue_product where id = %s
"""
MOVE = """
import asyncio, os
from types import SimpleNamespace
import django
django.setup()
from asgi_project import async_pool
from django_pg_hot_async.testing import PgBouncer

ports = [int(port) for port in os.environ["PORTS"].split()]
servers = [SimpleNamespace(host="127.0.0.1", port=port) for port in ports]

async def main(bouncer):
    check = async_pool._check
    async def check_and_move(connection):
        await check(connection)
        bouncer.switch(servers[1])
    async_pool._check = check_and_move
    async with async_pool.connection() as connection:
        # On the server before, this was the OID of hstore.
        for columns in ("labels", "*, current_setting('server_version_num') AS server"):
            cursor = await connection.execute(
                f"SELECT {columns} FROM catalogue_product WHERE id = 3"
            )
            print(await cursor.fetchone())
    await async_pool.close_pool()

with PgBouncer(servers[0], os.environ["DATABASE_NAME"]) as bouncer:
    os.environ["DATABASE_PORT"] = str(bouncer.port)
    from django.conf import settings
    settings.DATABASES["default"]["PORT"] = str(bouncer.port)
    asyncio.run(main(bouncer))
"""
SHOW_TRUST = """
from django.conf import settings
from django.db import connection
from django_pg_hot_async import status
connection.ensure_connection()
[alias] = status()
print(hasattr(settings, "PG_HOT_ASYNC"), alias["trust"])
"""
FAILED = "the next look will tell what has changed"
CUT = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where wait_event_type = 'Lock' and query like '%changed_at >%'
    and pid <> pg_backend_pid()
"""


class Form(HTMLParser):
    """The fields of a page's form, as a browser would send them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.data: dict[str, str] = {}
        self._name = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        attributes = dict(attrs)
        name = attributes.get("name")
        if tag == "input" and name and attributes.get("type") != "submit":
            self.data[name] = attributes.get("value") or ""
        elif tag in ("select", "textarea") and name:
            self._name, self.data[name] = name, ""
        elif tag == "option" and "selected" in attributes and self._name:
            self.data[self._name] = attributes.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            # Browsers drop the line break that follows the tag.
            self.data[self._name] = self.data[self._name].removeprefix("\n")
        if tag in ("select", "textarea"):
            self._name = ""

    def handle_data(self, data: str) -> None:
        if self._name and self.lasttag == "textarea":
            self.data[self._name] += data


class Admin:
    """A person at the admin."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.send("/admin/login/", username="admin", password=PASSWORD)

    def page(self, path: str) -> str:
        with self._site.open(path) as answer:
            text: str = answer.read().decode()
        return text

    def send(self, path: str, **changes: str) -> str:
        """Open the form at *path*, make *changes*, send it, and return the answer."""
        data = {**Form(self.page(path)).data, **changes}
        with self._site.open(path, urlencode(data).encode()) as answer:
            text: str = answer.read().decode()
        return text


def test_admin(shops: Shops) -> None:
    """A product saved as it was shown is as it was, on blue and then on green."""
    shops.lead_to(shops.blue)
    with Site(UVICORN, shops.environ) as site:
        admin = Admin(site)
        for server in (shops.blue, shops.green):
            shops.lead_to(server)
            listed = admin.page("/admin/catalogue/product/?status__exact=on+sale&q=uct")
            assert ">On Sale<" in listed and ">84.17, 54.24, 590.71, mm<" in listed
            for pk in range(1, 13):
                path = f"/admin/catalogue/product/{pk}/change/"
                [before] = server.execute(HELD, [pk], dbname=DBNAME)
                answer = admin.send(path)
                assert "was changed successfully" in answer
                assert server.execute(HELD, [pk], dbname=DBNAME) == [before]
            admin.send(path, status="retired", labels="Öko\r\na, b", dimensions_0="7")
            [after] = server.execute(HELD, [pk], dbname=DBNAME)
            assert after[2:4] == ('{Öko,"a, b"}', "retired")
            assert json.loads(after[-1])["status"] == "retired"
            refused = admin.send(path, dimensions_0="-7", valid_0="2026-99-99")
            assert "Three lengths above 0" in refused and "a valid date" in refused
            assert server.execute(HELD, [pk], dbname=DBNAME) == [after]
            answer = admin.send(
                "/admin/catalogue/product/add/",
                name="new",
                attributes='{"a": null}',
                valid_0="2026-01-01",
                stored_at_1="4.5",
            )
            assert "was added successfully" in answer


def test_stream_resumes(shops: Shops) -> None:
    """A client that was away over a cutover is told what it missed."""
    shops.lead_to(shops.blue)
    with Site(UVICORN, shops.environ) as site:
        with Events(site) as events:
            site.post("/products/1/", {"name": "one"})
            assert events.next()["name"] == "one"
        # As on green by replication.
        for server in (shops.blue, shops.green):
            server.execute(
                "update catalogue_product set name = 'two', changed_at = now()"
                " where id = 2",
                dbname=DBNAME,
            )
        shops.lead_to(shops.green)
        with Events(site, events.last_id) as events:
            # What is told again is at most some seconds old.
            while (told := events.next())["name"] != "two":
                pass
            assert told["server"] == str(shops.green.version)
            assert json.loads(told["proof"])["attributes"] == told["attributes"]
        with Events(site, "no time") as events:
            site.post("/products/3/", {"name": "three"})
            assert events.next()["name"] == "three"


def test_stream_after_a_change(shops: Shops) -> None:
    """What has just been changed is no news, and the stream is alive all the same."""
    shops.lead_to(shops.green)
    with Site(UVICORN, shops.environ) as site:
        site.post("/products/4/", {"name": "before"})
        with Events(site) as events:
            site.post("/products/4/", {"name": "after"})
            assert events.next()["name"] == "after"


def test_stream_waits_for_the_database(shops: Shops) -> None:
    """Nothing is lost while the server is away, and the stream stays open.

    What was there before is no news, even if it is the first look that fails.
    """
    shops.lead_to(shops.green)
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(Site(UVICORN, shops.environ))
        site.post("/products/2/", {"name": "before"})
        with cut_look(shops, site):
            events = stack.enter_context(Events(site))
        for name in ("again", "and again"):
            site.post("/products/1/", {"name": name})
            assert events.next()["name"] == name
            with cut_look(shops, site):
                pass


@contextlib.contextmanager
def cut_look(shops: Shops, site: Site) -> Iterator[None]:
    """Have the stream's next look wait for the table, and cut it there."""
    failed = site.log().count(FAILED)
    with psycopg.connect(shops.green.conninfo(DBNAME)) as connection:
        connection.execute("lock table catalogue_product")
        yield
        wait_until(lambda: shops.green.execute(CUT, dbname=DBNAME))
    wait_until(lambda: site.log().count(FAILED) > failed)


def test_jobs(shops: Shops) -> None:
    """The jobs' process does its work on blue and, with no restart, on green."""
    shops.lead_to(shops.blue)
    command = [sys.executable, "manage.py", "jobs", "--every=0.2"]
    with Process(command, shops.environ) as jobs:
        for server in (shops.blue, shops.green):
            shops.lead_to(server)
            [[pk]] = server.execute(
                "insert into catalogue_product"
                " (name, price, attributes, labels, status, valid, changed_at, proof)"
                " values ('due', 1, 'a=>1', '{x}', 'draft', '[2026-01-01,)', now(), '')"
                " returning id",
                dbname=DBNAME,
            )

            def held(server: PostgreSQL = server, pk: int = pk) -> Any:
                [row] = server.execute(HELD, [pk], dbname=DBNAME)
                return row

            wait_until(lambda held=held: held()[3] == "on sale")
            assert held()[1:3] == ('"a"=>"1"', "{x}")
            assert json.loads(held()[-1])["attributes"] == {"a": "1"}
        assert jobs.stop() == 0
        assert not jobs.errors()
    assert manage(shops.environ, "jobs", "--once") == ""


@pytest.mark.pgbouncer
def test_raw_sql_that_is_moved_after_its_check(shops: Shops) -> None:
    """The types are those of the server that each statement runs on."""
    done = subprocess.run(
        [sys.executable, "-c", MOVE],
        cwd=EXAMPLE,
        env=environ(
            PORTS=f"{shops.blue.port} {shops.green.port}",
            DATABASE_NAME=DBNAME,
            DATABASE_USER="postgres",
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"'server': '{shops.green.version}'" in done.stdout
    assert done.stdout.startswith("{'labels': ['Vegan', 'Organic', 'Fair Trade']}\n")
    assert "{'sku': 'P-000003', " in done.stdout and "Status.ON_SALE" in done.stdout


def test_checks_have_nothing_to_say(shops: Shops) -> None:
    """Whichever way is in the settings: no hint about what people copy."""
    shops.lead_to(shops.blue)
    for env in (to_address(shops.blue), shops.environ):
        manage(env, "check", "--fail-level=INFO", "--database=default")


@pytest.mark.pgbouncer
def test_checks_have_nothing_to_say_through_pgbouncer(shops: Shops) -> None:
    """With the server behind it asked, too; nor about the settings of the demo."""
    with PgBouncer(shops.blue, DBNAME) as bouncer:
        for settings in ("asgi_project.settings", "demo.settings"):
            env = to_address(bouncer, DJANGO_SETTINGS_MODULE=settings)
            manage(env, "check", "--fail-level=INFO", "--database=default")
            told = manage(env, "shell", "-c", SHOW_TRUST)
            assert told.split()[-2:] == ["False", "auto"]


def test_own_tests(blue: PostgreSQL, green: PostgreSQL) -> None:
    """``manage.py test`` makes a database, types and all, and passes."""
    # A database that is there: for one that is not, the pool would wait.
    env = to_address(blue, DATABASE_NAME="postgres")
    manage(env, "makemigrations", "--check", "--dry-run")
    for server in (blue, green):
        manage(to_address(server, DATABASE_NAME="example_own"), "test", "--noinput")


def test_sandbox() -> None:
    """One command shows the example, and leaves nothing behind."""
    command = [sys.executable, "-m", "demo.sandbox", "--port=8000"]
    with Sandbox(" ".join(command), environ()) as site:
        [row, *_] = site.get("/products/?after=41")["products"]
        assert row["id"] == 42 and row["server"].startswith("15")
        password = site.log().split("as admin, password ")[1].split()[0]
        with site.open("/admin/login/") as answer:
            form = Form(answer.read().decode()).data
        form |= {"username": "admin", "password": password}
        with site.open("/admin/login/", urlencode(form).encode()) as answer:
            assert "Log out" in answer.read().decode()
        with site.open("/static/admin/css/base.css") as answer:
            assert answer.status == 200
        assert site.stop() == 0


class Sandbox(Site):
    def answers(self) -> bool:
        return "password" in self.log() and super().answers()
