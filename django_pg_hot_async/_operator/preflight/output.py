"""Writing the report of `pg_hot_preflight`: for people, and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from typing import Any

from .facts import Facts, TypeFacts
from .report import Report
from .servers import ExtensionPair
from .types import VERDICTS

FORMAT = 1
"""Of the JSON; keys may be added under it, none is taken away."""
PAIRS_A_TYPE = 5
FINDINGS_A_CODE = 10
"""Beyond which only their number is told."""

Style = Callable[[str], str]

_WORDS = {
    "absent": "on neither",
    "only_green": "new",
    "same_oid": "same OID",
    "other_oid": "other OID, handled",
    "not_handled": "OTHER OID, NOT HANDLED",
    "other_shape": "OTHER SHAPE",
    "other_schema": "OTHER SCHEMA",
    "not_visible": "NOT VISIBLE",
    "other_kind": "OTHER KIND",
    "missing": "MISSING",
}
_EXTENSION_WORDS = {
    "same": "same",
    "newer": "newer",
    "older": "OLDER",
    "missing": "MISSING",
    "only_green": "new",
}
_RELATIONS = {
    "twin": "twins: one cluster, or copies of it (same system identifier)",
    "stranger": "strangers: clusters made apart (other system identifiers)",
    "unknown": "unknown: the system identifier cannot be read on both",
}
_TITLES = {"break": "BREAKS", "warning": "WARNING", "note": "note"}


def as_text(report: Report, styles: dict[str, Style] | None = None) -> str:
    """Write *report* for a reader; *styles* colour lines by severity, and "ready"."""
    return "\n".join(_lines(report, styles or {})) + "\n"


def _lines(report: Report, styles: dict[str, Style]) -> Iterator[str]:
    blue, green = report.blue, report.green
    yield from _table(
        [
            ["BLUE", blue.alias, str(blue.server), blue.part],
            ["GREEN", green.alias, str(green.server), green.part],
        ]
    )
    yield _RELATIONS[report.relation]
    yield ""
    yield "Tracked types"
    yield from _table(_type_rows(report) or [["none"]], "  ")
    yield ""
    yield "Extensions"
    yield from _table(
        [_extension_row(p) for p in report.extensions] or [["none"]], "  "
    )
    if report.findings:
        yield ""
    shown: Counter[tuple[str, str]] = Counter()
    all_of_them = Counter((one.severity, one.code) for one in report.findings)
    for finding in report.findings:
        kind = (finding.severity, finding.code)
        style = styles.get(finding.severity, str)
        title = f"{_TITLES[finding.severity]:<8}{finding.code}: "
        shown[kind] += 1
        if shown[kind] <= FINDINGS_A_CODE:
            yield style(f"{title}{_in_a_line(finding.sentence)}")
            if finding.hint:
                yield f"        {_in_a_line(finding.hint)}"
        elif shown[kind] == all_of_them[kind]:
            more = shown[kind] - FINDINGS_A_CODE
            yield style(f"{title}and {more} more, all of which --json has")
    yield ""
    style = styles.get("ready" if report.is_ready else "break", str)
    yield style(report.verdict)


def _in_a_line(text: str, most: int = 600) -> str:
    """Write *text* in one line; the whole of a long definition is for --json."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]} ..."


def _type_rows(report: Report) -> list[list[str]]:
    rows = []
    for wanted, group in groupby(report.types, lambda pair: pair.wanted):
        pairs = sorted(group, key=lambda pair: -VERDICTS.index(pair.verdict))
        rows += [
            [
                str(wanted),
                _place(pair.blue),
                "->",
                _place(pair.green),
                _WORDS[pair.verdict],
            ]
            for pair in pairs[:PAIRS_A_TYPE]
        ]
        if (more := len(pairs) - PAIRS_A_TYPE) > 0:
            rows.append([str(wanted), f"and {more} more in other schemas"])
    return rows


def _place(type: TypeFacts | None) -> str:
    return f"{type.schema} {type.oid}" if type else "-"


def _extension_row(pair: ExtensionPair) -> list[str]:
    word = _EXTENSION_WORDS[pair.verdict]
    if pair.verdict == "missing" and pair.available:
        word += f", {pair.available} is available"
    return [
        pair.name,
        pair.blue.version if pair.blue else "-",
        "->",
        pair.green.version if pair.green else "-",
        word,
    ]


def _table(rows: Sequence[Sequence[str]], indent: str = "") -> Iterator[str]:
    count = max(len(row) for row in rows)
    # A row that is shorter is a remark: its last cell may be as long as it likes.
    full = [row for row in rows if len(row) == count]
    widths = [max(len(row[i]) for row in full) for i in range(count)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield (indent + "  ".join(cells)).rstrip()


def as_data(report: Report) -> dict[str, Any]:
    """Return *report* as JSON has it."""
    return {
        "format": FORMAT,
        "ready": report.is_ready,
        "verdict": report.verdict,
        "relation": report.relation,
        "at_cutover": report.at_cutover,
        "compared": report.compared,
        "not_read": list(report.not_read),
        "blue": _side(report.blue),
        "green": _side(report.green),
        "types": [
            {
                "name": pair.wanted.name,
                "schema": pair.wanted.schema,
                "verdict": pair.verdict,
                "blue": _type(pair.blue),
                "green": _type(pair.green),
            }
            for pair in report.types
        ],
        "extensions": [
            {
                "name": pair.name,
                "verdict": pair.verdict,
                "blue": _extension(pair.blue),
                "green": _extension(pair.green),
                "available_on_green": pair.available,
            }
            for pair in report.extensions
        ],
        "untracked": [
            {
                **_named(one.type),
                "columns": list(one.columns),
                "in_array": one.in_array,
                "on": list(one.sides),
                "suggestion": one.suggestion,
            }
            for one in report.untracked
        ],
        "findings": [asdict(finding) for finding in report.findings],
    }


def _side(facts: Facts) -> dict[str, Any]:
    return {
        "alias": facts.alias,
        "version": facts.version,
        "version_number": facts.server.version,
        "host": facts.server.host,
        "port": facts.server.port,
        "dbname": facts.server.dbname,
        # A string: it is too large for the numbers of many a reader of JSON.
        "system_identifier": facts.system_identifier,
        "is_standby": facts.in_recovery,
        "is_pooled": facts.pooled,
        "role": facts.role,
        "search_path": list(facts.search_path),
        "publications": _list(facts.publications),
        "subscriptions": _list(facts.subscriptions, partial(_subscription, facts)),
    }


def _extension(row: Any | None) -> dict[str, Any] | None:
    return {"version": row.version, "schema": row.schema} if row else None


def _subscription(facts: Facts, row: Any) -> dict[str, Any]:
    states = facts.of("subscribed").values()
    return {
        "name": row.name,
        "enabled": row.enabled,
        "publications": list(row.publications),
        "uncopied": sum(
            one.subscription == row.name and one.state != "r" for one in states
        ),
    }


def _list(values: Iterable[Any] | None, made: Callable[[Any], Any] = str) -> Any:
    return None if values is None else [made(value) for value in values]


def _type(type: TypeFacts | None) -> dict[str, Any] | None:
    if type is None:
        return None
    return {
        **_named(type),
        "oid": type.oid,
        "array_oid": type.array_oid,
        "is_visible": type.visible,
        "shape": list(type.shape),
    }


def _named(type: TypeFacts) -> dict[str, Any]:
    return {
        "name": type.name,
        "schema": type.schema,
        "kind": type.word,
        "extension": type.extension,
    }
