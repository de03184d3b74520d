"""docs/switches.md and docs/guarantees.md say what the tests run."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_pg_hot_async.conf import Trust

from . import (
    test_faults,
    test_hostile,
    test_postgis,
    test_switches,
    test_switches_elsewhere,
)

TESTS = Path(__file__).parent
ROOT = TESTS.parent
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "switches.md").read_text()
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
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


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("code", test_switches.SWITCHES)
def test_cell(code, kind):
    row = table()[ROWS.get(code, f"**{code}**")]
    cell = re.sub(r" *\(\d\)$", "", row[int(kind[1]) - 1])
    if (code, kind) in NO_SUCH_CELL:
        assert cell == ""
    elif (code, kind) not in SAME_CODE:
        _, levels = SOURCES[kind].SWITCHES[code]
        assert cell == min(levels, key=lambda level: Trust[level.upper()])


def test_no_row_is_missing():
    rows = {ROWS.get(code, f"**{code}**") for code in test_switches.SWITCHES}
    assert table().keys() == rows


@pytest.mark.parametrize("page", ["switches.md", "guarantees.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / "docs" / page).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / "docs" / target).exists(), target


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
    assert len(named) > 50
    files = {file for file, _ in named}
    known = {name for file in files for name in names(file)}
    assert {f"{file}::{name}" for file, name in named} - known == set()


def test_every_line_names_a_test():
    for line in GUARANTEES.partition("## Figures")[0].splitlines():
        is_head = "tested by |" in line or line.startswith("|---")
        assert is_head or not line.startswith("| ") or ".py::" in line, line


def test_levels_are_those_of_the_readme_and_of_the_code():
    there = rows(README, "## How long OIDs are trusted\n")
    here = rows(GUARANTEES, "## What is promised")
    assert [row[:3] for row in here] == [row[:3] for row in there]
    levels = [f'`"{level.name.lower()}"`' for level in Trust]
    assert [row[0].lstrip("| ") for row in here] == levels


def test_limits_are_those_of_the_readme():
    limits = README.partition("## Limits")[2].partition("\n## ")[0]
    there = [" ".join(one.split()) for one in re.findall(r"- \*\*(.+?)\*\*", limits)]
    here = rows(GUARANTEES, "## What is not")
    assert [row[0].lstrip("| ") for row in here] == there


def test_numbers_of_tests():
    switches = (test_switches, test_switches_elsewhere, test_postgis)
    numbers = [
        sum(cases(module.test_switch_is_survived) for module in switches),
        cases(test_faults),
        cases(test_hostile),
    ]
    assert [int(row[1]) for row in rows(GUARANTEES, "185,600 requests")] == numbers


def test_the_readme_leads_here():
    assert "(docs/guarantees.md)" in README
