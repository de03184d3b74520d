"""The demo's page and controls, as a program that is no browser sees them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from demo import gauge, stage, tally

from .demo import TOP, Demo, descendants, running, wait_for_end

pytestmark = pytest.mark.slow
IMPORT = "from demo import web"
DAY = 86400


class Site(httpx.Client):
    """The page, and its buttons."""

    def __init__(self, demo: Demo) -> None:
        super().__init__(base_url=demo.url, timeout=30)
        self.token = ""

    def enter(self) -> None:
        """Open the page, and keep what its buttons need."""
        text = self.get("/").text
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', text)
        assert found
        self.token = found[1]

    def press(self, button: str, **headers: str) -> httpx.Response:
        data = {"csrfmiddlewaretoken": self.token}
        return self.post(f"/press/{button}/", data=data, headers=headers)

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[tuple[str, Any]]]:
        """Follow the events for the block, each with its name and its data."""
        with self.stream("GET", "/events/") as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            yield read_events(answer.iter_lines())


def read_events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def find(events: Iterator[tuple[str, Any]], wanted: Callable[[Any], Any]) -> Any:
    """Return the first state that is *wanted*, of at most some minutes."""
    for _, (name, state) in zip(range(300), events, strict=False):
        assert name == "tick"
        if wanted(state):
            return state
    raise AssertionError("300 events, and none of them the one")


def serves(state: Any, server: int) -> bool:
    return bool(state["serving"] == server and not state["doing"])


def bring_back(site: Site, events: Iterator[tuple[str, Any]]) -> Any:
    """Have the old server serve; return the state."""
    state = find(events, lambda state: not state["doing"])
    if state["serving"]:
        assert site.press("roll-back").status_code == 302
        state = find(events, lambda state: serves(state, 0))
    return state


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """One demo for all, which would cut over unasked in a day.

    SIGHUP, of a terminal that is closed, ends it as Ctrl-C does, and nothing is left.
    """
    with running("--service", "--rate=40", f"--first={DAY}") as demo:
        with Site(demo) as site, site.events() as events:
            next(events)
            assert DAY - 3600 < find(events, lambda state: True)["due"] < DAY
        yield demo
        with Site(demo) as site, site.events() as events:
            next(events)
            processes = descendants(demo.process.pid)
            assert len(processes) > 10
            status = demo.end(signal.SIGHUP)
            assert [name for name, _ in events][-1] == "end"
    assert status == 0, demo.output
    assert "servers hold the same at the end" in demo.output
    assert demo.output.splitlines()[-1] == "With the app: not one row read wrong."
    assert not wait_for_end(processes, 0)


@pytest.fixture
def site(demo: Demo) -> Iterator[Site]:
    with Site(demo) as site:
        yield site


def test_every_answer_is_hardened(site: Site) -> None:
    for path, status in (("/", 200), ("/assets/page.js", 200), ("/nowhere", 404)):
        answer = site.get(path)
        assert answer.status_code == status
        policy = answer.headers["Content-Security-Policy"]
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["frame-ancestors"] == "'none'"
        for kind in ("script-src", "style-src", "img-src", "connect-src"):
            assert rules[kind] == "'self'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_page_needs_nothing_from_elsewhere(site: Site) -> None:
    text = site.get("/").text
    assets = re.findall(r'(?:src|href)="(/assets/[^"]+)"', text)
    assert len(assets) >= 3
    text += "".join(site.get(path).text for path in assets)
    assert not re.findall(r"(?:src|href)=\"https?:|@import|url\(|<style|style=", text)
    assert not re.findall(r"<script(?![^>]*src=)|\son\w+=", text)


def test_answers_to_its_own_name_alone(site: Site) -> None:
    """A site whose name is made to lead to 127.0.0.1 sees nothing."""
    for path in ("/", "/events/", "/assets/page.js"):
        answer = site.get(path, headers={"Host": "elsewhere.example"})
        assert answer.status_code == 400


def test_button_wants_a_token(site: Site) -> None:
    for button in ("cut-over", "roll-back", "app", "automatic"):
        assert site.press(button).status_code == 403
        assert site.get(f"/press/{button}/").status_code == 405
    site.enter()
    answer = site.press("cut-over", Origin="http://elsewhere.example")
    assert answer.status_code == 403
    assert site.press("nothing").status_code == 404


def test_cut_over_and_back(site: Site) -> None:
    """As the buttons do without JavaScript; the events tell what came of it."""
    site.enter()
    with site.events() as events:
        name, state = next(events)
        assert name == "all"
        assert state["route"] == "service file"
        assert len(state["samples"]) == len(state["fleets"]) == 2
        releases = [server["release"] for server in state["servers"]]
        before = bring_back(site, events)
        answer = site.press("roll-back", Accept="application/json")
        assert answer.status_code == 409
        expected = f"PostgreSQL {releases[0]} serves both fleets already"
        assert answer.json() == {"problem": expected}

        answer = site.press("cut-over")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/")
        answer = site.press("app")
        assert answer.status_code == 409
        assert answer.json()["problem"].startswith("still cutting over")
        state = find(events, lambda state: serves(state, 1))
        switch = state["switches"][-1]
        assert [switch["from"], switch["to"]] == releases

        wrong = before["fleets"][0]["wrong"] + 20
        state = find(events, lambda state: state["fleets"][0]["wrong"] > wrong)
        assert state["fleets"][0]["fault"]["must"]
        right = state["fleets"][1]
        assert not (right["wrong"] or right["undecoded"] or right["fault"])
        answer = site.press("roll-back", Accept="application/json")
        assert answer.status_code == 202
        state = find(events, lambda state: serves(state, 0))
        switches = state["switches"][-2:]
        assert [switch["to"] for switch in switches] == releases[::-1]


def test_by_itself(site: Site) -> None:
    """It cuts over unasked some seconds after it is told to; by hand ends that."""
    site.enter()
    with site.events() as events:
        next(events)
        bring_back(site, events)
        site.press("cut-over")
        state = find(events, lambda state: serves(state, 1))
        assert state["due"] is None
        assert site.press("automatic").status_code == 302
        find(events, lambda state: serves(state, 0))
        site.press("automatic")
        find(events, lambda state: state["due"] is None)


def test_worker_ends_with_a_demo_that_is_killed() -> None:
    """The servers do, too: tests of django_pg_hot_async.testing have shown it."""
    start = "web.Web({'DATABASE_PORT': '1'}, workers=1).__enter__()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{IMPORT}; {start}; print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        workers = descendants(process.pid)
        assert len(workers) == 1
        process.kill()
    assert not wait_for_end(workers)


def test_gauge() -> None:
    """Samples are rates; spans of trouble close to each other are one."""
    count = tally.Tally("test")
    one = gauge.Gauge(count)
    count.requests, count.rows = 3, 20
    count.latencies.extend([0.01, 0.03, 0.02])
    right, wrong, answered, failed, median, high = one.take()
    assert (
        right > 20 and answered > 3 and right / answered == pytest.approx(20 / 3, 0.1)
    )
    assert (wrong, failed, median, high) == (0, 0, 20.0, 30.0)
    assert one.take() == (0, 0, 0, 0, None, None)
    assert not one.faults
    for _ in range(2):
        count.rows += 1
        count.wrong += 1
        right, wrong, *_ = one.take()
        assert (right, wrong > 0) == (0, True)
    assert len(one.faults) == 1
    count.began -= 60
    count.undecoded += 1
    assert one.take()[3] > 0
    assert len(one.faults) == len(one.samples) - 3 == 2


def test_step_is_told_once_all_have_taken_it() -> None:
    heard: list[str] = []
    tell = stage.told_by_all(2, heard.append)
    for text in ("a", "b", "a"):
        tell(text)
    assert heard == ["a"]
    tell("b")
    assert heard == ["a", "b"]
