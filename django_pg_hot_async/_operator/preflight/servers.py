"""Comparing the servers as such: versions, replication, extensions."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .facts import Facts, Finding, quoted
from .types import creation_hint

UNUSED = {
    *("adminpack", "amcheck", "auto_explain", "hypopg", "old_snapshot", "pageinspect"),
    *("pg_buffercache", "pg_freespacemap", "pg_prewarm", "pg_repack"),
    *("pg_stat_statements", "pg_visibility", "pg_walinspect", "pgrowlocks"),
    *("pgstattuple",),
}
"""Extensions that operators use, and no application."""


@dataclass(frozen=True, slots=True)
class ExtensionPair:
    """An extension as either side has it; None where it is not installed."""

    name: str
    blue: Any | None
    green: Any | None
    available: str | None
    """The version that could be created on the other side."""
    verdict: str
    """``same``, ``newer``, ``older``, ``missing`` or ``only_green``."""


def compare_extensions(blue: Facts, green: Facts) -> list[ExtensionPair]:
    """Pair the extensions installed on either side, by name."""
    left, right = blue.of("extensions"), green.of("extensions")
    available = green.of("available")
    return [
        ExtensionPair(
            name,
            here := left.get(name),
            there := right.get(name),
            available[name].version if name in available else None,
            _verdict(here, there),
        )
        for name in sorted({*left, *right})
    ]


def find_in_extensions(
    pairs: Iterable[ExtensionPair],
    blue: Facts,
    green: Facts,
    told: Container[str | None],
) -> Iterator[Finding]:
    """Tell which are missing, old or elsewhere, but for those *told* already."""
    side = green.alias
    for pair in pairs:
        name, here, there = quoted(pair.name), pair.blue, pair.green
        if here is None:
            continue
        if there is None:
            if pair.name not in told:
                yield Finding(
                    "warning" if pair.name in UNUSED else "break",
                    "extension_missing",
                    pair.name,
                    f"extension {pair.name} is not installed on {side}",
                    creation_hint(pair.name, green),
                )
            continue
        if pair.verdict == "older":
            yield Finding(
                "warning",
                "extension_older",
                pair.name,
                f"extension {pair.name} is {there.version} on {side},"
                f" older than {here.version}",
                f"ALTER EXTENSION {name} UPDATE; there, where"
                f" {pair.available or 'no version'} is available.",
            )
        elif pair.available not in (None, there.version):
            yield Finding(
                "note",
                "extension_update",
                pair.name,
                f"extension {pair.name} is {there.version} on {side}, whose library is"
                f" of {pair.available}",
                f"ALTER EXTENSION {name} UPDATE;",
            )
        if here.schema != there.schema:
            is_lost = here.schema in blue.search_path
            is_lost = is_lost and there.schema not in green.search_path
            yield Finding(
                "break" if is_lost else "warning",
                "extension_schema",
                pair.name,
                f"extension {pair.name} is in schema {there.schema} on {side}, but in"
                f" {here.schema} on {blue.alias}"
                + (": nothing of it is found by its name" if is_lost else ""),
                f"ALTER EXTENSION {name} SET SCHEMA {quoted(here.schema)};",
            )


def find_in_servers(blue: Facts, green: Facts) -> Iterator[Finding]:
    """Tell what is remarkable about *green* beside *blue*."""
    side = green.alias
    if green.server.version // 10000 < blue.server.version // 10000:
        yield Finding(
            "warning",
            "version_older",
            side,
            f"{side} is PostgreSQL {green.version}, older than {blue.version}",
            f"Are {blue.alias} and {side} in the right order?",
        )
    if green.in_recovery and not blue.in_recovery:
        yield Finding(
            "warning",
            "standby",
            side,
            f"{side} is a standby and takes no writes",
            "Promote it as part of the cutover: SELECT pg_promote();",
        )


def _verdict(here: Any | None, there: Any | None) -> str:
    if there is None:
        return "missing"
    if here is None:
        return "only_green"
    if here.version == there.version:
        return "same"
    return "older" if _numbers(there.version) < _numbers(here.version) else "newer"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
