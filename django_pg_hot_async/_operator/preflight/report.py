"""Would a cutover from one alias's server to another's break something?

`compare` finds what follows from the facts of either side and from the settings.
It sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django_pg_hot_async import conf
from django_pg_hot_async._core.runtime import runtime

from .catalog import QUERIES
from .code import find_in_code
from .columns import Untracked, find_in_models, find_in_untracked, find_untracked
from .django_tables import find_in_django
from .environment import find_in_environment
from .facts import Facts, Finding, PreflightError, Wanted, count, listed
from .keys import find_in_keys
from .relations import find_in_relations
from .replication import find_in_replication
from .rights import find_in_rights
from .rows import RowFacts, find_in_rows
from .sequences import find_in_sequences
from .servers import (
    ExtensionPair,
    compare_extensions,
    find_in_extensions,
    find_in_servers,
)
from .settings import find_in_settings
from .statistics import find_in_statistics
from .types import TypePair, compare_types, find_in_other_types, find_in_types

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
    untracked: tuple[Untracked, ...]
    findings: tuple[Finding, ...]
    """The worst first."""
    large: int
    """How many tables were too large for their rows to be read."""
    at_cutover: bool

    def of(self, severity: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def is_ready(self) -> bool:
        return not self.of("break")

    @property
    def compared(self) -> dict[str, int]:
        """How many objects of blue of each kind were looked at on both sides."""
        kinds = "relations columns constraints indexes sequences routines triggers"
        return {
            kind: len(self.blue.of(kind))
            for kind in kinds.split()
            if self.blue.has(kind) and self.green.has(kind)
        }

    @property
    def not_read(self) -> tuple[str, ...]:
        """What could not be read on one side or both, in words."""
        refused = {**self.blue.refused, **self.green.refused}
        return tuple(QUERIES[k].what if k in QUERIES else k for k in refused)

    @property
    def verdict(self) -> str:
        """All of it in one line, which claims no more than was looked at."""
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
        compared = self.compared
        tables = compared.get("relations", 0)
        says += f"; {count(tables, 'table or view', 'tables and views')}"
        says += f", {count(compared.get('sequences', 0), 'sequence')}"
        says += f" and {count(compared.get('routines', 0), 'routine')} compared"
        if self.large:
            says += f"; rows of {count(self.large, 'large table')} not compared"
        if self.not_read:
            says += f"; not read: {listed(self.not_read)}"
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
    rows: RowFacts,
    wanted: Sequence[Wanted],
    tables: Mapping[str, frozenset[str]],
    settings: Mapping[str, Any],
    *,
    at_cutover: bool = False,
) -> Report:
    """Find what a cutover from *blue* to *green* would do.

    *tables* are those of the project's models with their columns, *settings* those
    of the alias of *blue* in DATABASES. *at_cutover* is whether nothing writes any
    more: what is normal days before is a break then.
    """
    types = compare_types(blue, green, wanted, handled=not conf.is_off(blue.alias))
    extensions = compare_extensions(blue, green)
    untracked = find_untracked(wanted, tables, blue, green)
    missing = {pair.blue.extension for pair in types if pair.blue and not pair.green}
    findings = [
        *find_in_types(types),
        *find_in_other_types(blue, green, wanted),
        *find_in_models(blue, green, tables),
        *find_in_relations(
            blue, green, _tracked_oids(wanted, blue), _tracked_oids(wanted, green)
        ),
        *find_in_sequences(blue, green, rows, at_cutover=at_cutover),
        *find_in_keys(blue, green),
        *find_in_replication(blue, green, at_cutover=at_cutover),
        *find_in_rows(rows, blue, green, at_cutover=at_cutover),
        *find_in_rights(blue, green),
        *find_in_django(*rows.django, blue, green),
        *find_in_environment(blue, green),
        *find_in_code(blue, green),
        *find_in_statistics(blue, green),
        *find_in_extensions(extensions, blue, green, missing),
        *find_in_servers(blue, green),
        *find_in_settings(settings, blue, green),
        *find_in_untracked(untracked),
        *_find_not_read(blue, green),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(
        blue=blue,
        green=green,
        relation=blue.relation_to(green),
        types=tuple(types),
        extensions=tuple(extensions),
        untracked=tuple(untracked),
        findings=tuple(findings),
        large=rows.large,
        at_cutover=at_cutover,
    )


def require_two(blue: Facts, green: Facts) -> None:
    """Raise `PreflightError` where *blue* and *green* are one database."""
    if blue.identity == green.identity and blue.relation_to(green) != "stranger":
        raise PreflightError(
            f"{blue.alias!r} and {green.alias!r} lead to one and the same database,"
            f" by {blue.address} and {green.address}: see to HOST, PORT and NAME, or"
            " the service, of the one that should lead to the new server"
        )


def _tracked_oids(wanted: Sequence[Wanted], facts: Facts) -> frozenset[int]:
    types = [t for t in facts.types if any(one.matches(t) for one in wanted)]
    return frozenset(oid for t in types for oid in (t.oid, t.array_oid))


def _find_not_read(blue: Facts, green: Facts) -> Iterator[Finding]:
    for facts in (blue, green):
        for kind, why in facts.refused.items():
            what = QUERIES[kind].what if kind in QUERIES else kind
            yield Finding(
                "warning",
                "not_read",
                what,
                f"{what} of {facts.alias} could not be read, and not compared: {why}",
            )
