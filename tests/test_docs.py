"""docs/ is true: its tables say what the code is and what the tests run."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import django_pg_hot_async
from django_pg_hot_async._core.trust import Trust

from . import (
    test_faults,
    test_hostile,
    test_postgis,
    test_switches,
    test_switches_elsewhere,
)

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DOCS = ROOT / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md"))
README = (ROOT / "README.md").read_text()
PAGE = (DOCS / "switches.md").read_text()
GUARANTEES = (DOCS / "guarantees.md").read_text()
HOW = (DOCS / "how-it-works.md").read_text()
ROWS = {
    "S2": "**S2**, between requests",
    "S2mid": "**S2**, within a request",
}
SOURCES = {
    **dict.fromkeys(("C1", "C2", "C3", "C4"), test_switches),
    **dict.fromkeys(("C5", "C6", "C7"), test_switches_elsewhere),
    "C8": test_postgis,
}
NO_SUCH_CELL = {("S2", "C1"), ("S2", "C5")}
SAME_CODE = {("S8", "C8")}


def table():
    lines = [line for line in PAGE.splitlines() if line.startswith("| **S")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def promised(code: str, kind: str) -> list[Trust]:
    """Return the levels that are tested to survive a switch, the weakest first."""
    _, levels = SOURCES[kind].SWITCHES[code]
    return [level for level in Trust if level.value in levels]


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("code", test_switches.SWITCHES)
def test_cell(code, kind):
    row = table()[ROWS.get(code, f"**{code}**")]
    cell = re.sub(r" *\(\d\)$", "", row[int(kind[1]) - 1])
    if (code, kind) in NO_SUCH_CELL:
        assert cell == ""
    elif (code, kind) not in SAME_CODE:
        default, weakest, *_ = promised(code, kind)
        assert default is Trust.AUTO
        assert cell == weakest.value


def test_the_order_of_levels_is_told():
    order = [f'`"{level.value}"`' for level in Trust if level is not Trust.AUTO]
    assert f"({' < '.join(order)})" in PAGE


def test_no_row_is_missing():
    rows = {ROWS.get(code, f"**{code}**") for code in test_switches.SWITCHES}
    assert table().keys() == rows


# Every page


def anchors(text: str) -> set[str]:
    """Return what can be linked to in a page, as GitHub calls it."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    }


def resolve(page: Path, target: str) -> Path:
    path = (page.parent / target).resolve() if target else page
    package = ROOT / "django_pg_hot_async"
    if path.is_relative_to(package):
        # The package may be installed instead of lying here.
        installed = Path(django_pg_hot_async.__file__).parent
        path = installed / path.relative_to(package)
    return path


@pytest.mark.parametrize("name", ["../README.md", *PAGES])
def test_links_lead_somewhere(name):
    page = (DOCS / name).resolve()
    text = page.read_text()
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
        path = resolve(page, target)
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("name", PAGES)
def test_the_readme_leads_to_every_page(name):
    assert f"(docs/{name})" in README


@pytest.mark.parametrize("name", PAGES)
def test_what_is_gone_is_not_told_of(name):
    text = (DOCS / name).read_text()
    for gone in ("work_unit", "pool.check", "fallbacks", "reads_in_loop"):
        assert gone not in text


# How it works


def test_modules_that_are_named_are_told_by_their_names():
    for label, target in re.findall(r"\[`(\w+\.py)`\]\(([^)]+)\)", HOW):
        assert Path(target).name == label


def test_the_mark_is_told():
    from django_pg_hot_async._core.catalog import MARK

    assert f"`{MARK.decode().strip()}`" in HOW


def test_numbers_that_are_told():
    from django_pg_hot_async._core.runtime import BARE_STATEMENTS, QUIET_SECONDS

    assert f"{BARE_STATEMENTS:,} texts" in HOW
    assert QUIET_SECONDS == 10
    assert "more than ten seconds ago" in (DOCS / "reference.md").read_text()


# Guarantees


def rows(text: str, start: str) -> list[list[str]]:
    """Return the rows, without the head, of the first table after *start*."""
    table = text[text.index(start) :].partition("\n| ")[2].partition("\n\n")[0]
    lines = ("| " + table).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def names(file: str) -> Iterator[str]:
    """Yield the tests of a file, as pytest calls them."""
    for node in ast.parse((TESTS / file).read_text()).body:
        functions = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for function in functions:
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{file}::{prefix}{function.name}"


def cases(test: Any) -> int:
    """How many a test function is, or all those of a class or module."""
    if isinstance(test, (type, type(pytest))):
        return sum(
            cases(value)
            for name, value in vars(test).items()
            if name.startswith("test_") or (name[:4] == "Test" and type(value) is type)
        )
    marks = getattr(test, "pytestmark", [])
    return math.prod(len(mark.args[1]) for mark in marks if mark.name == "parametrize")


def test_every_test_that_is_named_exists():
    named = re.findall(r"`(test_\w+\.py)::([\w:]+)`", GUARANTEES)
    assert len(named) > 100
    files = {file for file, _ in named}
    known = {name for file in files for name in names(file)}
    assert {f"{file}::{name}" for file, name in named} - known == set()


def test_every_line_names_a_test():
    for line in GUARANTEES.partition("## How many tests")[0].splitlines():
        is_head = "tested by |" in line or line.startswith("|---")
        assert is_head or not line.startswith("| ") or ".py::" in line, line


def test_levels_are_those_of_the_readme_and_of_the_code():
    there = rows(README, "## Trust\n")
    here = rows(GUARANTEES, "## What is promised")
    assert [row[:3] for row in here] == [row[:3] for row in there]
    levels = [f'`"{level.value}"`' for level in Trust]
    assert [row[0].lstrip("| ") for row in here] == levels


def test_every_test_of_a_limit_is_one_that_is_told():
    """tests/test_limits.py shows that what is not promised is so."""
    limits = GUARANTEES.partition("## What is not promised")[2].partition("\n## ")[0]
    for name in names("test_limits.py"):
        if "::test_" in name:
            assert f"`{name}`" in limits


def test_numbers_of_tests():
    switches = (test_switches, test_switches_elsewhere, test_postgis)
    numbers = [
        sum(cases(module.test_switch_is_survived) for module in switches),
        cases(test_faults),
        cases(test_hostile),
    ]
    assert [int(row[1]) for row in rows(GUARANTEES, "## How many tests")] == numbers
