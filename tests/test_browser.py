"""The demo's page in a real browser: ``uvx nox -s browser``.

Debian's Chromium, driven by Playwright; axe-core comes from npm. With SCREENSHOTS set
to a directory, the pictures of the README are made there.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from .demo import Demo, descendants, running, wait_for_end

# nox -s tests goes without; nox -s browser brings it.
pytest.importorskip("playwright")

from playwright.sync_api import (
    Browser,
    Locator,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)

AXE = "axe-core@4.14.1"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    # None of these is about the page: no word to hosts that are not this one.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
OLD, NEW = "PostgreSQL 15", "PostgreSQL 18"
SLOW = 60_000
"""Milliseconds that a busy machine may take for a step."""
SMALLEST_TEXT = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let smallest = Infinity;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    smallest = Math.min(smallest, parseFloat(getComputedStyle(element).fontSize));
  }
  return smallest;
}"""
DESKTOP, PHONE = (1280, 900), (390, 844)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

pytestmark = pytest.mark.slow
expect.set_options(timeout=SLOW)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # As root, which containers like to be, Chromium has no sandbox.
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def demo(browser: Browser) -> Iterator[Demo]:
    """One demo for all; a page is told of its end, and it leaves nothing behind."""
    with running("--manual", "--rate=30") as demo:
        yield demo
        page = browser.new_page()
        page.goto(demo.url)
        expect(page.locator("#right .worker")).to_have_count(2)
        processes = descendants(demo.process.pid)
        assert demo.end() == 0, demo.output
        expect(page.get_by_role("status")).to_contain_text("has ended")
        page.close()
        assert not wait_for_end(processes, 0)
    assert "requests a second" in demo.output


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a page of a demo, in a browser that has not seen it before."""
    contexts = []

    def open_page(demo: Demo, wait: bool = True, **options: Any) -> Page:
        viewport = ViewportSize(width=DESKTOP[0], height=DESKTOP[1])
        context = browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(SLOW)
        contexts.append(context)
        page = context.new_page()
        page.goto(demo.url)
        if wait:
            expect(page.locator("#right .worker")).to_have_count(2)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(demo: Demo, open_page: Open) -> Page:
    """The page, with the old server in charge and the left fleet without the app."""
    page = open_page(demo)
    bring(page, OLD)
    if "on" in page.locator("#app small").inner_text():
        page.click("#app")
        expect(page.locator("#app small")).to_have_text("left fleet: off")
    return page


def bring(page: Page, server: str) -> None:
    """Have *server* serve both fleets, by the button if need be."""
    expect(page.locator("#app")).to_have_attribute("aria-disabled", "false")
    button = {OLD: "#roll-back", NEW: "#cut-over"}[server]
    if page.locator(button).get_attribute("aria-disabled") == "false":
        page.click(button)
    expect(card(page, server).locator(".role")).to_have_text("serves both fleets")
    expect(page.locator("#app")).to_have_attribute("aria-disabled", "false")


def card(page: Page, server: str) -> Locator:
    return page.locator(".server", has_text=server)


def release(page: Page, server: str) -> str:
    return str(card(page, server).locator(".release").inner_text())


def number(page: Page, side: str, name: str) -> int:
    text = page.locator(f"#{side} [data-is={name}]").inner_text()
    return int(text.replace(",", ""))


def texts(page: Page, side: str, name: str) -> list[str]:
    return list(page.locator(f"#{side} .worker [data-is={name}]").all_inner_texts())


def expect_more(page: Page, side: str, name: str, than: int) -> None:
    """Wait until a figure has grown."""
    page.wait_for_function(
        "([side, name, than]) => Number(document.querySelector("
        "`#${side} [data-is=${name}]`).textContent.replaceAll(',', '')) > than",
        arg=[side, name, than],
    )


def resize(page: Page, size: tuple[int, int]) -> None:
    """Give the page another size, and the time to put its charts right."""
    page.set_viewport_size(ViewportSize(width=size[0], height=size[1]))
    clock = page.locator("[data-is=to]")
    for _ in range(2):
        expect(clock).not_to_have_text(clock.inner_text())


def save(page: Page, name: str) -> None:
    """Keep a picture, down to the end of the fleets, where the README's are made."""
    if directory := os.environ.get("SCREENSHOTS"):
        end = "() => document.querySelector('.fleets').getBoundingClientRect().bottom"
        height = page.evaluate(f"({end})() + scrollY + 20")
        width = page.viewport_size["width"] if page.viewport_size else 0
        page.screenshot(
            path=Path(directory) / f"{name}.png",
            full_page=True,
            clip={"x": 0, "y": 0, "width": width, "height": height},
        )


def linger(page: Page) -> None:
    """Let there be something to see in a picture."""
    if "SCREENSHOTS" in os.environ:
        page.wait_for_timeout(10_000)


def test_page_loads_without_complaint(demo: Demo, browser: Browser) -> None:
    """Nothing in the console, nothing missing, nothing from another host."""
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    answers: dict[str, Any] = {}
    page.on("response", lambda answer: answers.update({answer.url: answer}))
    page.goto(demo.url)
    expect(page.locator("#left .worker")).to_have_count(2)
    expect_more(page, "left", "rows", 100)
    assert not complaints
    assert len(answers) > 6
    for url, answer in answers.items():
        assert urlsplit(url).netloc == urlsplit(demo.url).netloc
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    # The policy is in force: what it forbids does not run.
    page.evaluate(
        "() => document.body.append(Object.assign(document.createElement('img'),"
        " {src: 'http://127.0.0.1:1/x.png'}))"
    )
    page.wait_for_timeout(200)
    assert any("Content Security Policy" in text for text in complaints)
    page.close()


def test_cut_over_and_roll_back(page: Page) -> None:
    """On the right every worker is on the new server, and nothing is ever wrong."""
    old, new = release(page, OLD), release(page, NEW)
    pids = texts(page, "right", "pid") + texts(page, "left", "pid")
    wrong = number(page, "left", "wrong")
    expect_more(page, "right", "rows", number(page, "right", "rows") + 100)
    for side in ("left", "right"):
        assert texts(page, side, "release") == [old, old]
    linger(page)
    save(page, "before")

    page.click("#cut-over")
    expect(card(page, NEW).locator(".role")).to_have_text("serves both fleets")
    expect(page.locator("#right .worker .release")).to_have_text([new, new])
    expect(page.locator("#left")).to_have_class(re.compile("going-wrong"))
    expect_more(page, "left", "wrong", wrong + 100)
    rows = number(page, "right", "rows")
    expect_more(page, "right", "rows", rows + 200)
    assert number(page, "right", "wrong") == number(page, "right", "undecoded") == 0
    expect(page.locator("#right [data-is=verdict]")).to_have_text("every row right")
    expect(page.locator("#right [data-is=fault]")).to_have_text("None so far.")
    expect(page.locator("#left [data-is=fault]")).to_contain_text("must be")
    # What the workers go by: the new server's OIDs, and the old one's.
    oids = card(page, NEW).locator("dd").all_inner_texts()
    expect(page.locator("#right .worker dd")).to_have_text(
        [re.compile(f"^{oid}.*✓$") for oid in oids] * 2
    )
    expect(page.locator("#left .worker.stale")).to_have_count(2)
    stale = page.locator("#left .worker dd.stale").all_inner_texts()
    assert all(re.fullmatch(r"\d+ ✕ is \d+", text) for text in stale) and stale
    linger(page)
    save(page, "during")

    page.click("#roll-back")
    expect(page.locator("#right .worker .release")).to_have_text([old, old])
    expect(page.locator("#left .worker.stale")).to_have_count(0)
    linger(page)
    save(page, "after")
    assert number(page, "right", "wrong") == 0
    # Nobody was restarted for it.
    assert texts(page, "right", "pid") + texts(page, "left", "pid") == pids
    last, first = (page.locator("tbody tr").nth(place) for place in (0, 1))
    expect(last).to_contain_text(f"{new} → {old}")
    expect(first).to_contain_text(f"{old} → {new}")
    expect(first.locator("td").last).to_have_text("0")
    expect(first.locator("td.bad")).to_have_count(1)


def test_app_on(page: Page) -> None:
    """With the app on the left, too, the next switch does no harm there either."""
    right, left = texts(page, "right", "pid"), texts(page, "left", "pid")
    page.click("#app")
    expect(page.locator("#left [data-is=title]")).to_have_text("With the app")
    expect(page.locator("#app small")).to_have_text("left fleet: on")
    pids = page.locator("#left .worker [data-is=pid]")
    expect(pids).to_have_count(2)
    for place, pid in enumerate(left):
        expect(pids.nth(place)).not_to_have_text(pid)
    wrong = number(page, "left", "wrong"), number(page, "left", "undecoded")
    bring(page, NEW)
    new = release(page, NEW)
    expect(page.locator("#left .worker .release")).to_have_text([new, new])
    expect_more(page, "left", "rows", number(page, "left", "rows") + 200)
    assert wrong == (number(page, "left", "wrong"), number(page, "left", "undecoded"))
    assert texts(page, "right", "pid") == right


def test_keyboard(page: Page) -> None:
    """Everything is within reach of the Tab key, in order, and the focus is seen."""
    # A click may have put the focus somewhere.
    page.reload()
    expect(page.locator("#automatic small")).to_have_text("off")
    expect(card(page, OLD).locator(".role")).to_have_text("serves both fleets")
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        reached.append(focused.get_attribute("id") or focused.inner_text())
        style = "element => getComputedStyle(element).outlineStyle"
        assert focused.evaluate(style) == "solid"
    assert reached == ["To the fleets", "cut-over", "roll-back", "app", "automatic"]

    page.keyboard.press("Space")
    expect(page.locator("#automatic")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Space")
    expect(page.locator("#automatic")).to_have_attribute("aria-pressed", "false")
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(card(page, NEW).locator(".role")).to_have_text("serves both fleets")
    expect(page.get_by_role("status")).to_contain_text("serves both fleets")
    # It cannot be pressed now, but whoever is there is not thrown out.
    cut_over = page.locator("#cut-over")
    expect(cut_over).to_have_attribute("aria-disabled", "true")
    expect(cut_over).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(card(page, OLD).locator(".role")).to_have_text("serves both fleets")


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's source, from npm."""
    directory = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", "--silent", AXE], cwd=directory, check=True)
    [archive] = directory.glob("*.tgz")
    with tarfile.open(archive) as files:
        source = files.extractfile("package/axe.min.js")
        assert source
        return source.read().decode()


def test_nothing_stands_in_the_way(page: Page, axe: str) -> None:
    """axe finds no violation, contrast included, while all is well and while not."""
    page.evaluate(f"{axe}; 0")
    # A colour on its way to another is neither.
    page.emulate_media(reduced_motion="reduce")
    for server in (OLD, NEW):
        bring(page, server)
        if server == NEW:
            expect(page.locator("#left")).to_have_class(re.compile("going-wrong"))
        for size, scheme in product((DESKTOP, PHONE), SCHEMES):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            resize(page, size)
            save(page, f"{size[0]}-{scheme}-{server[-2:]}")
            found = page.evaluate("() => axe.run()")
            assert len(found["passes"]) > 20
            assert not list(find_problems(found)), (size, scheme, server)


def find_problems(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what axe objects to, and contrast that it could not tell."""
    for rule in found["violations"]:
        for node in rule["nodes"]:
            yield rule["id"], node["html"]
    for rule in found["incomplete"]:
        for node in rule["nodes"] if rule["id"] == "color-contrast" else ():
            reasons = {check["data"]["messageKey"] for check in node["any"]}
            # A single character could be a picture, for all it knows: "0" or "✓".
            if not reasons <= {"shortTextContent", "nonBmp"}:
                yield f"{rule['id']}, {reasons}", node["html"]


def test_fits(demo: Demo, open_page: Open) -> None:
    """No page is wider than its window, and both fleets stand side by side."""
    page = open_page(demo)
    for width in (320, 390, 768, 1280):
        resize(page, (width, 800))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        left, right = (
            page.locator(f"#{side}").bounding_box() for side in ("left", "right")
        )
        assert left and right
        assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
        for button in page.locator("button").all():
            box = button.bounding_box()
            assert box and box["height"] >= 44
        assert page.evaluate(SMALLEST_TEXT) >= 12, width


def test_reduced_motion(demo: Demo, open_page: Open) -> None:
    page = open_page(demo, reduced_motion="reduce")
    durations = page.evaluate(
        "() => [...document.querySelectorAll('*')].map("
        "element => getComputedStyle(element).transitionDuration)"
    )
    assert set(durations) == {"0s"}


def test_without_javascript(demo: Demo, open_page: Open) -> None:
    """The buttons work; the figures do not move, and the page says so."""
    page = open_page(demo, wait=False, java_script_enabled=False)
    expect(page.locator(".noscript")).to_be_visible()
    with page.expect_response(re.compile("/press/automatic/")) as pressed:
        page.click("#automatic")
    assert pressed.value.status == 302
    page.click("#automatic")
    expect(page).to_have_url(demo.url)
