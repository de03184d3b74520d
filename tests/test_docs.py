"""docs/switches.md says what the tests run, cell by cell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from django_pg_hot_async.conf import Trust

from . import test_postgis, test_switches, test_switches_elsewhere

PAGE = (Path(__file__).parent.parent / "docs" / "switches.md").read_text()
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


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(\.\./([^)#]+)\)", PAGE):
        assert (Path(__file__).parent.parent / target).exists(), target
