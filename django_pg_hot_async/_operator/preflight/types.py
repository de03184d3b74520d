"""Comparing the tracked types of two sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .facts import Facts, Finding, Severity, TypeFacts, Wanted, listed, quoted
from .shapes import find_in_shapes

VERDICTS = (
    "absent",
    "only_green",
    "same_oid",
    "other_oid",
    "not_handled",
    "other_shape",
    "other_schema",
    "not_visible",
    "other_kind",
    "missing",
)
"""What is said of a pair, from fine to worst."""


@dataclass(frozen=True, slots=True)
class TypePair:
    """A tracked type as it is on either side; None where it is not."""

    wanted: Wanted
    blue: TypeFacts | None
    green: TypeFacts | None
    verdict: str
    """The worst that can be said: one of `VERDICTS`."""
    findings: tuple[Finding, ...] = ()

    @property
    def has_same_oids(self) -> bool:
        here, there = self.blue, self.green
        return (
            here is not None
            and there is not None
            and (here.oid, here.array_oid) == (there.oid, there.array_oid)
        )


def compare_types(
    blue: Facts, green: Facts, wanted: Iterable[Wanted], *, handled: bool
) -> list[TypePair]:
    """Pair each tracked type of *blue* with what stands for it on *green*.

    *handled* is whether this package looks after the alias of *blue*.
    """
    pairs = [pair for one in wanted for pair in _pairs(blue, green, one)]
    return pairs if handled else [_unhandled(pair, blue.alias) for pair in pairs]


def find_in_types(pairs: Iterable[TypePair]) -> Iterator[Finding]:
    """Tell what is found; what is found in many schemas is told once."""
    schemas: defaultdict[Finding, list[str]] = defaultdict(list)
    how_many: defaultdict[str, int] = defaultdict(int)
    for pair in pairs:
        how_many[str(pair.wanted)] += 1
        for finding in pair.findings:
            schemas[finding].append(pair.blue.schema if pair.blue else "")
    for finding, names in schemas.items():
        if how_many[finding.object] == 1:
            yield finding
        else:
            sentence = f"{finding.sentence} (of schema {listed(names)})"
            yield replace(finding, sentence=sentence)


def find_in_other_types(
    blue: Facts, green: Facts, wanted: Iterable[Wanted]
) -> Iterator[Finding]:
    """Compare the project's types that nobody tracks: SQL needs them all the same."""
    wanted = tuple(wanted)
    there = {(type.schema, type.name): type for type in green.types}
    for here in blue.types:
        # A multirange comes with its range, and what an extension has with that.
        if here.kind not in "ecdr" or here.extension:
            continue
        if any(one.matches(here) for one in wanted):
            continue
        other = there.get((here.schema, here.name))
        name = Wanted(str(here), None, here.kind)
        if other is None:
            elsewhere = [
                type
                for type in green.types
                if (type.name, type.kind) == (here.name, here.kind)
            ]
            if len(elsewhere) == 1 and elsewhere[0].visible == here.visible:
                yield _finding(
                    name,
                    "warning",
                    "other_schema",
                    f"is in schema {elsewhere[0].schema} on {green.alias}",
                    _move(elsewhere[0], here),
                )
            else:
                yield _finding(
                    name,
                    "break",
                    "missing",
                    f"is missing on {green.alias}",
                    creation_hint(None, green),
                )
        elif other.kind != here.kind:
            hint = f"Create it there as it is on {blue.alias}."
            yield _other_kind(name, here, other, green.alias, hint)
        else:
            yield from find_in_shapes(name, here, other, green.alias)


def creation_hint(extension: str | None, green: Facts) -> str:
    """Say how a type, or the *extension* it belongs to, comes to *green*."""
    if extension is None:
        return "Create it there."
    name = quoted(extension)
    extensions, available = green.of("extensions"), green.of("available")
    if extension in extensions:
        version = extensions[extension].version
        return (
            f"Extension {name} {version} is there, without it: ALTER EXTENSION"
            f" {name} UPDATE;"
        )
    if not available or extension in available:
        return f"CREATE EXTENSION {name};"
    return f"It is not available there: install its package, CREATE EXTENSION {name};"


def _pairs(blue: Facts, green: Facts, wanted: Wanted) -> Iterator[TypePair]:
    left = [type for type in blue.types if wanted.matches(type)]
    right = {type.schema: type for type in green.types if wanted.matches(type)}
    if not left:
        for type in right.values():
            yield TypePair(wanted, None, type, "only_green")
        if not right:
            yield TypePair(wanted, None, None, "absent")
    for here in left:
        there = right.get(here.schema)
        if there is None and len(left) == 1 and right:
            # The one that SQL means by the name alone, if any is.
            there = max(right.values(), key=lambda type: type.visible)
        if there is None:
            yield _without_twin(here, wanted, green)
        else:
            is_visible = any(type.visible for type in right.values())
            yield _with_twin(here, there, wanted, blue, green, is_visible)


def _without_twin(here: TypeFacts, wanted: Wanted, green: Facts) -> TypePair:
    for other in green.types:
        if wanted.is_called(other) and other.schema == here.schema:
            hint = f"Rename what is called {other.sql}, and create the type."
            finding = _other_kind(wanted, here, other, green.alias, hint)
            return TypePair(wanted, here, other, "other_kind", (finding,))
    for other in green.types:
        if (other.name, other.kind) == (here.name, here.kind) and wanted.schema:
            finding = _finding(
                wanted,
                "break",
                "other_schema",
                f"is tracked in its schema alone, but in {other.schema} on"
                f" {green.alias}",
                f"{_move(other, here)} or register_type() it by its name alone.",
            )
            return TypePair(wanted, here, other, "other_schema", (finding,))
    says = f"is missing on {green.alias}"
    hint = creation_hint(here.extension, green)
    finding = _finding(wanted, "break", "missing", says, hint)
    return TypePair(wanted, here, None, "missing", (finding,))


def _with_twin(
    here: TypeFacts,
    there: TypeFacts,
    wanted: Wanted,
    blue: Facts,
    green: Facts,
    is_visible: bool,
) -> TypePair:
    pair = TypePair(wanted, here, there, "same_oid")
    verdict = "same_oid" if pair.has_same_oids else "other_oid"
    findings: list[Finding] = []
    if here.kind != there.kind:
        hint = f"Create it there as it is on {blue.alias}."
        findings.append(_other_kind(wanted, here, there, green.alias, hint))
    else:
        findings += find_in_shapes(wanted, here, there, green.alias)
    if here.visible and not is_visible:
        findings.append(
            _finding(
                wanted,
                "break",
                "not_visible",
                f"is in schema {there.schema} on {green.alias}, off the search_path",
                f"The search_path leads to {green.path} there, to {blue.path} on"
                f" {blue.alias}. See what ALTER DATABASE and ALTER ROLE ... SET"
                " search_path set, and that the role has USAGE on schema"
                f" {quoted(there.schema)}.",
            )
        )
    elif here.schema != there.schema:
        findings.append(
            _finding(
                wanted,
                "warning",
                "other_schema",
                f"is in schema {here.schema}, but in {there.schema} on {green.alias}",
                f"SQL that names the schema fails there. {_move(there, here)}",
            )
        )
    verdicts = [verdict, *(finding.code for finding in findings)]
    worst = max(verdicts, key=VERDICTS.index)
    return replace(pair, verdict=worst, findings=tuple(findings))


def _unhandled(pair: TypePair, alias: str) -> TypePair:
    if pair.blue is None or pair.green is None or pair.has_same_oids:
        return pair
    finding = _finding(
        pair.wanted,
        "break",
        "not_handled",
        f"has another OID there, and {alias} is left to Django",
        f"Take {alias!r} out of PG_HOT_ASYNC['ALIASES'], where it is None; or restart"
        " every process at the cutover.",
    )
    worst = max(pair.verdict, "not_handled", key=VERDICTS.index)
    return replace(pair, verdict=worst, findings=(*pair.findings, finding))


def _finding(
    wanted: Wanted, severity: Severity, code: str, says: str, hint: str
) -> Finding:
    return Finding(severity, code, str(wanted), f"{wanted} {says}", hint)


def _other_kind(
    wanted: Wanted, here: TypeFacts, there: TypeFacts, side: str, hint: str
) -> Finding:
    says = f"is of kind {here.word}, but of kind {there.word} on {side}"
    return _finding(wanted, "break", "other_kind", says, hint)


def _move(type: TypeFacts, to: TypeFacts) -> str:
    what = f"TYPE {type.sql}"
    if type.extension:
        what = f"EXTENSION {quoted(type.extension)}"
    elif type.kind == "d":
        what = f"DOMAIN {type.sql}"
    return f"ALTER {what} SET SCHEMA {quoted(to.schema)};"
