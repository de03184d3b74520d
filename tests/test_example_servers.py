"""The example under each web server that its README names, through a cutover."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .example import DBNAME, EXAMPLE, Events, Shops, Site, wait_until

# The rows of the README's table: the command, and whether it tells of the lifespan.
TABLE = re.findall(
    r"^\| `((\w+) [^`]*asgi_project\.asgi[^`]*)` \|.*\| (yes|no) \|$",
    (EXAMPLE / "README.md").read_text(),
    re.MULTILINE,
)
WORKERS = {"uvicorn": 2, "granian": 2, "hypercorn": 2, "daphne": 1}
SENT = {
    "name": "sent",
    "attributes": {"a": "1", "b": None, 'c "': "'"},
    "labels": ["x", "Y,", "NULL"],
    "status": "on sale",
    "dimensions": ["12.50", "0.75", "3.00", "mm"],
    "valid": ["2026-01-01", None],
    "stored_at": [None, -18.5],
}


def test_each_server_is_tried() -> None:
    assert [name for _, name, _ in TABLE] == list(WORKERS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name", "lifespan"), TABLE, ids=[name for _, name, _ in TABLE]
)
def test_server(shops: Shops, command: str, name: str, lifespan: str) -> None:
    """Every view on blue, then on green; streams go on; it ends when told to."""
    shops.lead_to(shops.blue)
    with Site(command, shops.environ) as site:
        wait_until(lambda: len(workers(site)) == WORKERS[name])
        # Before the first query: only the pools of the lifespan are open.
        opened = WORKERS[name] if lifespan == "yes" else 0
        wait_until(lambda: sessions(shops) >= opened)
        assert sessions(shops) == opened
        with Events(site) as events:
            for server in (shops.blue, shops.green):
                if server is shops.green:
                    shops.lead_to(server)
                made = check_views(site, str(server.version))
                while (told := events.next())["id"] != made["id"]:
                    pass
                assert told == {**told, **{k: made[k] for k in told.keys() & made}}
                assert told["server"] == str(server.version)
        assert site.stop() in (0, -15)
        assert not site.errors()


def workers(site: Site) -> set[int]:
    return {site.get("/health/")["pid"] for _ in range(20)}


def sessions(shops: Shops) -> int:
    [[count]] = shops.blue.execute(
        "select count(*) from pg_stat_activity where datname = %s", [DBNAME]
    )
    return int(count)


def check_views(site: Site, version: str) -> Any:
    """Write one product, and read it in every way there is; return it."""
    made = None
    for way in ("", "/async"):
        [made] = site.post(f"{way}/products/", SENT)["products"]
        assert made == {**made, **SENT, "server": version, "status_label": "On Sale"}
        # By every worker, more or less.
        for _ in range(4):
            assert site.get(f"/products/{made['id']}/")["products"] == [made]
            assert site.get(f"/async/products/{made['id']}/")["products"] == [made]
            for path in ("/products/", "/async/products/", "/raw/products/"):
                path += f"?after={made['id'] - 1}&status=on+sale&on=2026-11-22"
                [row] = site.get(path)["products"]
                assert row == {name: made[name] for name in row}
    return made
