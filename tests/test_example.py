"""The example project through a cutover, and the demo's judgement of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.http import HttpRequest, HttpResponse

from demo import load, middleware, report, routes, shop, tally, web
from demo.client import Answer
from django_pg_hot_async.testing import PostgreSQL, Replication

TOP = Path(__file__).resolve().parents[1]
EXAMPLE = TOP / "examples" / "asgi_project"
ROWS = 40


ROW: dict[str, Any] = {
    "id": 1,
    "server": "150019",
    "attributes": {"colour": "red", "size": None},
    "labels": ["New"],
    "status": "on sale",
    "dimensions": ["1.00", "2.00", "3.00", "cm"],
    "valid": ["2026-01-01", None],
    "stored_at": None,
}
ROW["proof"] = json.dumps({k: v for k, v in ROW.items() if k not in ("id", "server")})
SENT = {"proof": ROW["proof"]}


@pytest.fixture(scope="module")
def replication(blue: PostgreSQL, green: PostgreSQL) -> Iterator[Replication]:
    shop.prepare(blue, green, "example", ROWS, print)
    with Replication(blue, green, "example", name="example") as replication:
        replication.wait()
        yield replication
    for server in (blue, green):
        server.drop_database("example")


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def post(url: str, content: dict[str, Any]) -> Any:
    with urllib.request.urlopen(url, json.dumps(content).encode(), 30) as answer:
        return json.load(answer)


async def put_load(url: str, seconds: float, count: Any) -> None:
    task = asyncio.create_task(load.Load(url, count, rows=ROWS, clients=2).run())
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_example_through_cutover(replication: Replication) -> None:
    """Every view reads and writes right on blue, then, with no restart, on green."""
    blue, green = replication.source, replication.target
    types = [shop.find_types(server, "example") for server in (blue, green)]
    assert types[0]["hstore"] == types[1]["citext[]"]
    count = tally.Tally("test")
    with (
        routes.ServiceRoute(blue, "example") as route,
        web.Web({**route.environ, "DEMO_WITHOUT_APP": "0"}, workers=1) as site,
    ):
        for server in (blue, green):
            for url in (f"{site.url}/{how}products" for how in ("", "async/")):
                check_views(url, str(server.version))
            [row, *_] = get(f"{site.url}/raw/products/?after=9")["products"]
            assert row["id"] == 10 and len(row["labels"]) <= 4
            check_row(row, str(server.version))
            await put_load(site.url, 1, count)
            if server is blue:
                route.cut_over(replication, print)
    assert count.requests > 10, count
    assert sorted(count.servers) == [s.version // 10000 for s in (blue, green)]
    assert not (count.wrong or count.undecoded or count.other), count
    assert len(count.by_kind) > 3
    replication.wait()
    assert shop.count_stored_wrong(green, "example") == 0
    assert shop.count_lost(green, "example", count.created) == 0
    assert shop.count_lost(green, "example", {-1}) == 1
    assert shop.fingerprint(green, "example") == shop.fingerprint(blue, "example")


def check_views(url: str, version: str) -> None:
    """Read and write the catalogue at *url*."""
    rows = get(f"{url}/?after=3")["products"]
    assert [row["id"] for row in rows] == list(range(4, 14))
    for row in rows:
        check_row(row, version)
    sent: dict[str, Any] = {
        "attributes": {"a": "1", "b": None, 'c "': "'"},
        "labels": ["x", "Y,", "NULL"],
        "status": "on sale",
        "dimensions": ["12.50", "0.75", "3.00", "mm"],
        "valid": ["2026-01-01", None],
        "stored_at": [None, -18.5],
    }
    sent["proof"] = json.dumps(sent)
    [made] = post(f"{url}/", {"name": "made", **sent})["products"]
    [read] = get(f"{url}/{made['id']}/")["products"]
    assert made == read
    assert read | sent == read
    check_row(read, version)
    changed: dict[str, Any] = {
        "attributes": {},
        "labels": [],
        "status": "draft",
        "dimensions": None,
        "valid": None,
        "stored_at": [2.0, 8.0],
    }
    changed["proof"] = json.dumps(changed)
    [updated] = post(f"{url}/{made['id']}/", changed)["products"]
    assert updated == read | changed | {"status_label": "Draft"}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{url}/999999/")


def check_row(row: dict[str, Any], version: str) -> None:
    assert row["server"] == version
    assert tally.find_fault(row) is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"attributes": '"colour"=>"red", "size"=>NULL'}, "attributes is '"),
        ({"labels": "{New}"}, "labels is '{New}'"),
        ({"labels": ["new"]}, "labels is"),
        ({"attributes": {"colour": "red", "size": "None"}}, "attributes is {"),
        ({"attributes": None}, "attributes is None"),
        ({"status": "draft"}, "status is 'draft'"),
        ({"dimensions": "(1.00,2.00,3.00,cm)"}, "dimensions is '("),
        ({"dimensions": ["1.00", "2.00", "3.00"]}, "dimensions is"),
        ({"valid": ["2026-01-01", "2026-01-02"]}, "valid is"),
        ({"stored_at": "[2,8)"}, "stored_at is"),
        ({"proof": '{"labels":[]}'}, "not the one that was sent"),
    ],
)
def test_tally_wrong_row(wrong: dict[str, Any], says: str) -> None:
    fault = tally.find_fault(ROW | wrong, SENT)
    assert fault is not None
    assert says in fault
    count = tally.Tally("test")
    body = json.dumps({"pid": 1, "products": [ROW, ROW | wrong, ROW]}).encode()
    count.add("sync list", Answer(200, body), SENT)
    assert (count.requests, count.rows, count.wrong) == (1, 3, 1)
    assert report.find_problems(report.Result(count), clients_held=False)


def test_tally_right_row() -> None:
    count = tally.Tally("test")
    count.add(
        "sync create",
        Answer(201, json.dumps({"pid": 1, "products": [ROW]}).encode()),
        SENT,
    )
    assert (count.rows, count.wrong, count.failures) == (1, 0, 0)
    assert count.created == {1}
    assert count.versions() == "15"
    assert not report.find_problems(report.Result(count), clients_held=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (("DataError", "22P02", "error parsing hstore"), "undecoded"),
        (("DataError", None, "error parsing hstore"), "undecoded"),
        (("ProgrammingError", None, "cannot adapt type 'dict'"), "undecoded"),
        (("OperationalError", "57P01", "terminating connection"), "cut"),
        (("OperationalError", None, "server closed the connection"), "cut"),
        (("OperationalError", None, "the connection is lost"), "cut"),
        (("InterfaceError", None, "the connection is closed"), "cut"),
        (("OperationalError", "57014", "canceling statement"), "other"),
        (("OperationalError", None, "couldn't get a connection"), "other"),
        (("IntegrityError", "23505", "duplicate key"), "other"),
    ],
)
def test_tally_error(error: tuple[str, str | None, str], kind: str) -> None:
    told = dict(zip(("error", "sqlstate", "message"), error, strict=True))
    count = tally.Tally("test")
    count.add("raw list", Answer(500, json.dumps(told).encode()), None)
    counts = {name: getattr(count, name) for name in ("undecoded", "cut")}
    counts["other"] = sum(count.other.values())
    assert counts == {"undecoded": 0, "cut": 0, "other": 0} | {kind: 1}
    problems = report.find_problems(report.Result(count), clients_held=False)
    assert bool(problems) == (kind != "cut")
    assert report.find_problems(report.Result(count), clients_held=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.AdminShutdown("terminating connection"), "cut"),
        (psycopg.OperationalError("the connection is lost"), "cut"),
        (psycopg.errors.InvalidTextRepresentation("invalid input"), "undecoded"),
        (psycopg.errors.UndefinedFunction("no such operator"), "undecoded"),
        (AttributeError("'str' object has no attribute 'label'"), "undecoded"),
    ],
)
def test_tally_error_of_raw_sql(error: Exception, kind: str) -> None:
    """psycopg's own exceptions count as those that Django makes of them do."""
    tell = middleware.TellErrors(lambda request: HttpResponse())
    answer = tell.process_exception(HttpRequest(), error)
    assert answer is not None
    count = tally.Tally("test")
    count.add("raw list", Answer(500, answer.content), None)
    assert (count.undecoded, count.cut) == (kind == "undecoded", kind == "cut")


def test_tally_answer_that_is_no_json() -> None:
    count = tally.Tally("test")
    count.add("raw list", Answer(500, b"Internal Server Error"), None)
    count.add_broken("raw list", ConnectionResetError())
    assert sum(count.other.values()) == count.requests == 2


def test_tally_pause_until_the_end_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1.0, 2.5, 10.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    count = tally.Tally("test", began=0.0)
    body = json.dumps({"pid": 1, "products": []}).encode()
    count.add("sync list", Answer(200, body), None)
    count.add("sync list", Answer(200, body), None)
    count.end()
    assert count.longest_pause == 7.5


def test_report_table() -> None:
    results = [report.Result(tally.Tally(title)) for title in ("without", "with")]
    results[1].servers_agree = False
    lines = report.table(results).splitlines()
    assert lines[0].split() == ["without", "with"]
    assert ["wrong", "rows", "0", "0"] in [line.split() for line in lines]
    assert lines[-1].split()[-3:] == ["not", "checked", "no"]
    assert report.find_problems(results[1], clients_held=False)


@pytest.mark.parametrize(
    "directory", [EXAMPLE, TOP / "demo"], ids=lambda path: path.name
)
def test_readme_names_files_that_exist(directory: Path) -> None:
    links = re.findall(r"\]\(([\w/.]+)\)", (directory / "README.md").read_text())
    assert len(links) > 5
    assert not [link for link in links if not (directory / link).exists()]
