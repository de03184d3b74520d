"""The project's tables, and types of their columns that nobody tracks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from django.apps import apps
from django.apps.registry import Apps

from .facts import Facts, Finding, TypeFacts, Wanted, count, listed


@dataclass(frozen=True, slots=True)
class Untracked:
    """A type that columns of the project's tables are of, and nobody tracks."""

    type: TypeFacts
    columns: tuple[str, ...]
    """``table.column``."""
    in_array: bool
    """Whether one of them is an array of it."""
    sides: tuple[str, ...]
    """The aliases that have it in such a column."""

    @property
    def suggestion(self) -> str | None:
        """The call of `register_type` to write, where one helps."""
        type = self.type
        name = f'"{type.sql}"' if '"' not in type.sql else repr(type.sql)
        if type.kind == "e":
            return f"register_type({name}, EnumInfo, register_enum, enum={self._class})"
        if type.kind == "c":
            return f"register_type({name}, CompositeInfo, register_composite)"
        if type.kind == "r":
            return f"register_type({name}, RangeInfo, register_range)"
        if type.kind == "m":
            return f"register_type({name}, MultirangeInfo, register_multirange)"
        if type.extension == "hstore":
            return f"register_type({name}, register=register_hstore)"
        return f"register_type({name})" if self.in_array else None

    @property
    def _class(self) -> str:
        words = re.findall(r"[^\W_]+", self.type.name)
        name = "".join(word[0].upper() + word[1:] for word in words)
        return name if name.isidentifier() else "..."


def model_tables(apps: Apps = apps) -> Mapping[str, frozenset[str]]:
    """Return the tables of installed models, and the columns that fields have."""
    columns: dict[str, frozenset[str]] = {}
    for model in apps.get_models(include_auto_created=True):
        meta = model._meta
        if not meta.proxy:
            known = columns.get(meta.db_table, frozenset())
            fields = {field.column for field in meta.local_concrete_fields}
            columns[meta.db_table] = known.union(name for name in fields if name)
    return columns


def find_in_models(
    blue: Facts, green: Facts, tables: Iterable[str]
) -> Iterator[Finding]:
    """Tell which tables of models a name alone does not find on green."""
    here, there = blue.find_tables(tables), green.find_tables(tables)
    if tables and not here:
        yield Finding(
            "break",
            "no_tables",
            blue.alias,
            f"{blue.alias} has none of the {count(len(tuple(tables)), 'table')} of the"
            " models: there was next to nothing to compare",
            f"See to NAME, and to the search_path, of {blue.alias}.",
        )
    off = [
        name
        for name, row in here.items()
        if name not in there and row.name in green.of("relations")
    ]
    if off:
        yield Finding(
            "break",
            "table_not_visible",
            listed(off),
            f"{count(len(off), 'table')} of models off the search_path of"
            f" {green.alias}: {listed(off)}",
            f"The search_path leads to {green.path} there, to {blue.path} on"
            f" {blue.alias}.",
        )


def find_untracked(
    wanted: Iterable[Wanted], tables: Iterable[str], *sides: Facts
) -> list[Untracked]:
    """Find what columns are of that this package does not look after.

    The facts are those of the first of the *sides* that has the type so used.
    """
    wanted, tables = tuple(wanted), tuple(tables)
    found: dict[tuple[str, str], Untracked] = {}
    for facts in sides:
        for type, column, in_array in _uses(facts, tables):
            if any(one.matches(type) for one in wanted):
                continue
            key = (type.schema, type.name)
            seen = found.get(key) or Untracked(type, (), False, ())
            found[key] = Untracked(
                seen.type,
                tuple(dict.fromkeys((*seen.columns, column))),
                seen.in_array or in_array,
                tuple(dict.fromkeys((*seen.sides, facts.alias))),
            )
    return [found[key] for key in sorted(found)]


def find_in_untracked(untracked: Iterable[Untracked]) -> Iterator[Finding]:
    for one in untracked:
        kind = f"{one.type.word}, of {one.type.extension}"
        says = (
            f"{one.type} ({kind if one.type.extension else one.type.word}) is not"
            f" tracked; columns of it: {listed(one.columns)}"
        )
        if one.type.kind == "d" and not one.in_array:
            says += f"; loads as what it is made of, {one.type.shape[0]}"
            hint = ""
        else:
            says += "; loads as a string" + (", arrays too" if one.in_array else "")
            hint = (
                f"If it should not, or the project registers it: {one.suggestion}"
                if one.suggestion
                else "If the project registers it itself: register_type() instead."
            )
        yield Finding("note", "untracked", str(one.type), says, hint)


def _uses(facts: Facts, tables: Iterable[str]) -> Iterator[tuple[TypeFacts, str, bool]]:
    """Yield the types that columns are of: of a domain, what it is made of as well."""
    by_oid = {type.oid: type for type in facts.types}
    by_array_oid = {type.array_oid: type for type in facts.types if type.array_oid}
    names = {row.name: name for name, row in facts.find_tables(tables).items()}
    for column in facts.of("columns").values():
        if column.table not in names:
            continue
        says = f"{names[column.table]}.{column.plain}"
        oid = column.oid
        while oid in by_oid and by_oid[oid].kind == "d":
            # The server sends a value of a domain as one of what it is made of.
            yield by_oid[oid], says, False
            oid = by_oid[oid].base_oid
        if oid in by_array_oid:
            yield by_array_oid[oid], says, True
        elif oid in by_oid:
            yield by_oid[oid], says, False
