"""Comparing the servers as such: versions, replication, extensions."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from .facts import ExtensionFacts, Facts, Finding, count, quoted
from .types import creation_hint


@dataclass(frozen=True, slots=True)
class ExtensionPair:
    """An extension as either side has it; None where it is not installed."""

    name: str
    blue: ExtensionFacts | None
    green: ExtensionFacts | None
    available: str | None
    """The version that could be created on the other side."""
    verdict: str
    """``same``, ``newer``, ``older``, ``missing`` or ``only_green``."""


def compare_extensions(blue: Facts, green: Facts) -> list[ExtensionPair]:
    """Pair the extensions installed on either side, by name."""
    return [
        ExtensionPair(
            name,
            here := blue.extensions.get(name),
            there := green.extensions.get(name),
            (green.available or {}).get(name),
            _verdict(here, there),
        )
        for name in sorted({*blue.extensions, *green.extensions})
    ]


def find_in_extensions(
    pairs: Iterable[ExtensionPair], green: Facts, told: Container[str | None]
) -> Iterator[Finding]:
    """Tell which are missing or older, but for those that were *told* already."""
    for pair in pairs:
        if pair.verdict == "missing" and pair.name not in told:
            yield Finding(
                "warning",
                "extension_missing",
                pair.name,
                f"extension {pair.name} is not installed on {green.alias}",
                creation_hint(pair.name, green),
            )
        elif pair.verdict == "older" and pair.blue and pair.green:
            yield Finding(
                "warning",
                "extension_older",
                pair.name,
                f"extension {pair.name} is {pair.green.version} on {green.alias},"
                f" older than {pair.blue.version}",
                f"ALTER EXTENSION {quoted(pair.name)} UPDATE; there, where"
                f" {pair.available or 'no version'} is available.",
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
    for subscription in green.subscriptions or ():
        name = subscription.name
        if not subscription.enabled:
            yield Finding(
                "warning",
                "subscription_off",
                name,
                f"subscription {name} of {side} is disabled",
                f"ALTER SUBSCRIPTION {quoted(name)} ENABLE; if data is to come by it.",
            )
        if tables := subscription.uncopied:
            yield Finding(
                "warning",
                "subscription_copying",
                name,
                f"subscription {name} of {side} has {count(tables, 'table')} not copied"
                " yet",
                "Wait until pg_subscription_rel.srsubstate is 'r' for all.",
            )


def _verdict(here: ExtensionFacts | None, there: ExtensionFacts | None) -> str:
    if there is None:
        return "missing"
    if here is None:
        return "only_green"
    if here.version == there.version:
        return "same"
    return "older" if _numbers(there.version) < _numbers(here.version) else "newer"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
