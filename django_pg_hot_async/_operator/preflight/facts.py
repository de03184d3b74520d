"""What `pg_hot_preflight` knows of one side, and what it has to say of both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django_pg_hot_async._core.server import Server, show_version

Severity = Literal["break", "warning", "note"]

KINDS = {
    "b": "base",
    "c": "composite",
    "d": "domain",
    "e": "enum",
    "m": "multirange",
    "p": "pseudo",
    "r": "range",
}
"""``pg_type.typtype``, in words."""


class PreflightError(Exception):
    """The two cannot be compared; the text says why, and the way out."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tracked type, as far as comparing goes."""

    name: str
    schema: str | None
    """The only schema it is looked for in; None for any."""
    kinds: str
    """The ``pg_type.typtype`` it may have."""
    except_in: frozenset[str] = frozenset()
    """Schemas in which one of the name is tracked apart."""

    def is_called(self, type: TypeFacts) -> bool:
        """Whether *type* has the name, be it of a kind that fits or not."""
        if type.name != self.name or type.schema in self.except_in:
            return False
        return self.schema in (None, type.schema)

    def matches(self, type: TypeFacts) -> bool:
        return type.kind in self.kinds and self.is_called(type)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """A type that a server has."""

    name: str
    schema: str
    sql: str
    """How to write it in SQL, qualified where the search_path needs it."""
    oid: int
    array_oid: int
    kind: str
    """``pg_type.typtype``."""
    visible: bool
    """Whether the search_path leads to it by its name alone."""
    extension: str | None
    """The extension it belongs to."""
    base_oid: int
    """What a domain is made of; 0 for the others."""
    shape: tuple[str, ...]
    """Labels of an enum, attributes of a composite, what a range or domain is of."""

    @property
    def word(self) -> str:
        return KINDS.get(self.kind, self.kind)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Facts:
    """One side, as one transaction read it."""

    alias: str
    server: Server
    """As the connection shows it, with the version that the server itself named."""
    identity: tuple[str, ...]
    """When the server started and the database's OID: equal only for one database."""
    in_recovery: bool
    pooled: bool
    """Whether a pooler answers: the backend is not the one the connection was told."""
    search_path: tuple[str, ...]
    role: str
    """The role that connected."""
    types: tuple[TypeFacts, ...]
    catalog: Mapping[str, Mapping[str, Any]]
    """By kind (see `catalog.QUERIES`), then by name: a row, its columns attributes."""
    refused: Mapping[str, str]
    """What could not be read, by kind, and why."""

    def of(self, kind: str) -> Mapping[str, Any]:
        """Return the objects of *kind*; none where they could not be read."""
        return self.catalog.get(kind, {})

    def has(self, kind: str) -> bool:
        return kind in self.catalog

    @property
    def database(self) -> Any:
        return self.catalog["database"]["database"]

    @property
    def system_identifier(self) -> str | None:
        """Made by initdb, and the same for every physical copy."""
        system = self.of("system").get("system")
        return system.identifier if system else None

    @property
    def publications(self) -> tuple[str, ...] | None:
        return (
            tuple(sorted(self.of("publications"))) if self.has("publications") else None
        )

    @property
    def subscriptions(self) -> tuple[Any, ...] | None:
        if not self.has("subscriptions"):
            return None
        return tuple(row for _, row in sorted(self.of("subscriptions").items()))

    def find_tables(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the relations that models mean by *names*, their ``db_table``."""
        places = {
            (row.schema, row.relation): row for row in self.of("relations").values()
        }
        found = {}
        for name in names:
            # A schema in db_table is written as 'schema"."table', see Django's #6148.
            schema, _, relation = name.strip('"').rpartition('"."')
            path = (schema,) if schema else self.search_path
            rows = (places.get((place, relation)) for place in path)
            if row := next(filter(None, rows), None):
                found[name] = row
        return found

    @property
    def version(self) -> str:
        return show_version(self.server.version)

    @property
    def major(self) -> int:
        return self.server.version // 10000

    @property
    def address(self) -> str:
        return f"{self.server.host}:{self.server.port}/{self.server.dbname}"

    @property
    def path(self) -> str:
        """Where the search_path leads."""
        return ", ".join(self.search_path) or "no schema"

    @property
    def part(self) -> str:
        """Its part in replication, in words."""
        parts = ["standby" if self.in_recovery else "primary"]
        if self.publications:
            parts.append("publishes " + listed(self.publications))
        if self.subscriptions:
            names = [subscription.name for subscription in self.subscriptions]
            parts.append("subscribes by " + listed(names))
        if self.pooled:
            parts.append("behind a pooler")
        return ", ".join(parts)

    def relation_to(self, other: Facts) -> str:
        """``twin``, a copy of the same cluster, ``stranger`` or ``unknown``."""
        if self.system_identifier is None or other.system_identifier is None:
            return "unknown"
        is_twin = self.system_identifier == other.system_identifier
        return "twin" if is_twin else "stranger"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know before the cutover."""

    severity: Severity
    code: str
    """Its name in the documentation."""
    object: str
    """The type, extension, column, setting or server it is about."""
    sentence: str
    hint: str = ""
    """What to do, where something can be done."""


def quoted(name: str) -> str:
    """Write *name* as SQL wants it: in quotes, where it needs them."""
    if re.fullmatch("[a-z_][a-z0-9_]*", name):
        return name
    return '"' + name.replace('"', '""') + '"'


def count(number: int, noun: str, plural: str = "") -> str:
    """Write how many there are of something whose plural ends in s, or is *plural*."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Write *names* with commas, and beyond *most* only how many more there are."""
    shown = ", ".join(names[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown
