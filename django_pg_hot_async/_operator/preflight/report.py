"""Would a cutover from one alias's server to another's break something?

`compare` finds what follows from the facts of either side and from the settings.
It sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django_pg_hot_async import conf
from django_pg_hot_async._core.runtime import runtime

from .columns import (
    ColumnPair,
    Untracked,
    compare_columns,
    find_in_columns,
    find_in_untracked,
    find_untracked,
)
from .facts import Facts, Finding, PreflightError, Wanted, count
from .servers import (
    ExtensionPair,
    compare_extensions,
    find_in_extensions,
    find_in_servers,
)
from .settings import find_in_settings
from .types import TypePair, compare_types, find_in_types

SEVERITIES = ("break", "warning", "note")


@dataclass(frozen=True, slots=True)
class Report:
    """Both sides, and what is found."""

    blue: Facts
    green: Facts
    relation: str
    """``twin``: copies of one cluster; ``stranger``; ``unknown``: nobody tells."""
    types: tuple[TypePair, ...]
    extensions: tuple[ExtensionPair, ...]
    columns: tuple[ColumnPair, ...]
    untracked: tuple[Untracked, ...]
    findings: tuple[Finding, ...]
    """The worst first."""

    def of(self, severity: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def is_ready(self) -> bool:
        return not self.of("break")

    @property
    def verdict(self) -> str:
        """All of it in one line."""
        if breaks := self.of("break"):
            more = f" (and {len(breaks) - 1} more)" if len(breaks) > 1 else ""
            return f"Would break: {breaks[0].sentence}{more}"
        on_both = [pair for pair in self.types if pair.blue and pair.green]
        moved = [pair for pair in on_both if not pair.has_same_oids]
        says = count(len(on_both), "tracked type") if on_both else "no tracked types"
        if moved:
            says += f", {len(moved)} with other OIDs, which is handled"
        elif on_both:
            says += ", with the same OIDs"
        if warnings := self.of("warning"):
            says += f"; {count(len(warnings), 'warning')}"
        return f"Ready: {says}"


def wanted_types() -> tuple[Wanted, ...]:
    """Return the types that this process tracks."""
    types = runtime.registry.types
    # One that is declared with its schema comes first there.
    apart = {(one.name, one.schema) for one in types if one.schema is not None}
    return tuple(
        Wanted(
            one.name,
            one.schema,
            one.kinds,
            frozenset()
            if one.schema
            else frozenset(schema for name, schema in apart if name == one.name),
        )
        for one in types
    )


def compare(
    blue: Facts,
    green: Facts,
    wanted: Sequence[Wanted],
    tables: Mapping[str, frozenset[str]],
    settings: Mapping[str, Any],
) -> Report:
    """Find what a cutover from *blue* to *green* would do.

    *tables* are those of the project's models with their columns, *settings* those
    of the alias of *blue* in DATABASES. Raise `PreflightError` where the two are one
    database.
    """
    relation = blue.relation_to(green)
    if blue.identity == green.identity and relation != "stranger":
        raise PreflightError(
            f"{blue.alias!r} and {green.alias!r} lead to one and the same database,"
            f" by {blue.address} and {green.address}: see to HOST, PORT and NAME, or"
            " the service, of the one that should lead to the new server"
        )
    types = compare_types(blue, green, wanted, handled=not conf.is_off(blue.alias))
    extensions = compare_extensions(blue, green)
    columns = compare_columns(blue, green, tables)
    untracked = find_untracked(wanted, blue, green)
    missing = {pair.blue.extension for pair in types if pair.blue and not pair.green}
    findings = [
        *find_in_types(types),
        *find_in_columns(columns, blue, green),
        *find_in_extensions(extensions, green, missing),
        *find_in_servers(blue, green),
        *find_in_settings(settings, blue, green),
        *find_in_untracked(untracked),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(
        blue=blue,
        green=green,
        relation=relation,
        types=tuple(types),
        extensions=tuple(extensions),
        columns=tuple(columns),
        untracked=tuple(untracked),
        findings=tuple(findings),
    )
