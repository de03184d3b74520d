"""What each database holds: its types, their seats, and how a read would tell them."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from tests.scenarios import CITEXT, HSTORE, MOOD, TABLE

SHIFT = "create type shift as range (subtype = time)"
SHOP = f"""
{TABLE};
alter table product add column opens shift; update product set opens = '[08:00,09:00)'
"""
CREATE = {"hstore": HSTORE, "citext": CITEXT, "mood": MOOD, "shift": SHIFT}
DROP = """
drop table if exists product; drop extension if exists hstore cascade;
drop extension if exists citext cascade; drop type if exists mood cascade;
drop type if exists shift cascade
"""
# By template: which type has the seat, on each server; the same seat is something
# else on the others. In the order in which they are created.
SEATS: dict[str, list[list[str]]] = {
    "one": [
        ["hstore", "citext", "mood"],
        ["citext[]", "mood", "hstore"],
        ["mood", "hstore[]", "citext[]"],
    ],
    "two": [
        ["citext[]", "mood", "hstore"],
        ["mood", "hstore", "citext[]"],
        ["hstore", "citext[]", "mood"],
    ],
    "three": [
        ["mood[]", "hstore[]", "citext[]"],
        ["hstore[]", "citext", "mood[]"],
        ["citext[]", "mood", "hstore[]"],
    ],
    "bare": [[], [], []],
}
TEMPLATES = tuple(SEATS)
SOME = (("citext",), ("mood", "hstore"))
"""Not all, and so no table."""
ORDERS = (
    ("hstore", "citext", "mood", "shift"),
    ("shift", "citext", "mood", "hstore"),
    ("mood", "shift", "hstore", "citext"),
    *SOME,
    (),
)


STRANGER = "stranger"
"""A role that may look into tables, but not into pg_type."""
RIGHTS = f"""
create role {STRANGER}; create role one; create role two;
revoke select on pg_catalog.pg_type from public;
grant select on pg_catalog.pg_type to one, two;
alter default privileges grant select on tables to public
"""
TENANTS = "".join(
    f"create schema {tenant}; grant usage on schema {tenant} to public;"
    f"create type {tenant}.hue as enum ('red', 'blue');"
    f"create type {tenant}.tone as enum ('red', 'blue');"
    f"create type {tenant}.span as range (subtype = float8);"
    f"create type {tenant}.spin as range (subtype = float8);"
    f"create table {tenant}.paint (hue {tenant}.hue);"
    f"grant all on {tenant}.paint to public;"
    for tenant in ("one", "two")
)
"""Two schemas with types of one name, and in each a table of its own."""
SHADOW = """
create temporary table hstore (a int); create type pg_temp.mood as enum ('x');
create type pg_temp.shift as range (subtype = int4);
create type pg_temp.hue as enum ('x')
"""
"""Types of a session's own, which are called as tracked ones are."""
POSTGIS = "create schema geo; create extension postgis schema geo"
FIND_POSTGIS = "select count(*) from pg_available_extensions where name = 'postgis'"
NEW_LABEL = "alter type mood add value if not exists 'new'"


class Mood(enum.Enum):
    """What a project would register for the enum; a server may have fewer labels."""

    SAD = 1
    OK = 2
    NEW = 3


class Hue(enum.Enum):
    """What a project registers for an enum that each tenant has."""

    red = "red"
    blue = "blue"


class Tone(enum.Enum):
    """What a project registers for an enum that it declares with its schema."""

    red = "red"
    blue = "blue"


MAPPING = {Mood.SAD: "sad", Mood.OK: "ok", Mood.NEW: "new"}


@dataclass(frozen=True)
class Layout:
    """The types of a database, as a server would tell."""

    version: int
    types: tuple[tuple[str, int, int], ...]
    """Name, OID, and OID of the array."""
    tracked: tuple[str, ...] = ()
    """The names that were asked for; none, where it is all there is."""
    labels: tuple[str, ...] = ()
    """Those of the enum."""

    def __deepcopy__(self, memo: object) -> Layout:
        return self

    @functools.cached_property
    def oids(self) -> Mapping[str, int]:
        """OID by name, ``hstore`` and ``hstore[]``."""
        oids = {}
        for name, oid, array in self.types:
            oids[name], oids[f"{name}[]"] = oid, array
        return MappingProxyType(oids)

    @property
    def is_whole(self) -> bool:
        """Whether it has all types, and so the table."""
        return len(self.types) == len(CREATE)

    def is_part_of(self, other: Layout) -> bool:
        """Whether *other* has all that this one has."""
        is_same = (self.version, self.tracked) == (other.version, other.tracked)
        return is_same and {*self.types} <= {*other.types}

    def without_dropped(self, now: Layout) -> Layout:
        """Leave out what is not there *now*."""
        types = tuple(row for row in self.types if row in now.types)
        labels = self.labels if any(name == "mood" for name, _, _ in types) else ()
        return replace(self, types=types, labels=labels)

    @functools.cached_property
    def names(self) -> Mapping[int, str]:
        return MappingProxyType({oid: name for name, oid in self.oids.items()})
