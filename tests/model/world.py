"""Three servers whose databases hold the same shop under colliding OIDs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types import TypeInfo
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.hstore import register_hstore
from psycopg.types.range import RangeInfo, register_range

from django_pg_hot_async.testing import (
    PgBouncer,
    PostgreSQL,
    ServiceFile,
    scatter_oids,
)
from django_pg_hot_async.testing._statements import APPLICATION_NAME, parse
from tests.scenarios import READ

from .schema import (
    CREATE,
    DROP,
    FIND_POSTGIS,
    MAPPING,
    NEW_LABEL,
    POSTGIS,
    RIGHTS,
    SEATS,
    SHIFT,
    SHOP,
    TENANTS,
    Layout,
    Mood,
)

FIRST_OID = 3_000_000_000
"""Above 2**31, where an OID that is taken for signed is negative."""
SEAT = 2_000
"""OIDs between two seats: more than an extension takes."""


@dataclass(eq=False)
class Place:
    """A database on a server, and what it holds at present."""

    server: PostgreSQL
    dbname: str
    template: str
    layout: Layout
    is_dirty: bool = False
    has_geometry: bool = False

    def __deepcopy__(self, memo: object) -> Place:
        return self

    def __repr__(self) -> str:
        return f"{self.server.major}:{self.server.port}/{self.dbname}"


@dataclass
class Statements:
    """The statements that reach the servers, told by their logs."""

    servers: list[PostgreSQL]
    offsets: dict[int, int] = field(default_factory=dict)

    def new(self) -> list[str]:
        """Return those since the last call, of everybody but this package's helpers.

        A server writes the line before it executes the statement, so what has been
        answered has been logged.
        """
        found: list[str] = []
        for number, server in enumerate(self.servers):
            keeper: Any = server._keeper
            size = keeper.log_size()
            if size != (start := self.offsets.get(number, 0)):
                # A line that is being written is for the next call.
                log, _, _ = keeper.log(start).rpartition("\n")
                self.offsets[number] = start + len(log.encode()) + bool(log)
                found += parse(log)
        return found


def is_read(statement: str) -> bool:
    """Whether it is one that this package sends."""
    return READ in statement


class Door:
    """Where an alias leads: a service, or a pooler, that can be led elsewhere."""

    def __init__(self, name: str, service: ServiceFile, place: Place) -> None:
        self.name = name
        self.service = service
        self.place = place
        self.bouncer: PgBouncer | None = None

    def __repr__(self) -> str:
        return self.name

    @property
    def is_pooler(self) -> bool:
        return self.bouncer is not None

    def lead(self, place: Place) -> None:
        self.place = place
        if self.bouncer is None:
            self.service.point(self.name, place.server, place.dbname)
        else:
            self.bouncer.switch(place.server, place.dbname)

    def conninfo(self) -> str:
        if self.bouncer is None:
            return f"service={self.name}"
        return self.bouncer.conninfo()

    def database(self) -> dict[str, Any]:
        if self.bouncer is None:
            return self.service.database(self.name)
        return self.bouncer.database()


class World:
    """Servers that run for the session; what a search changes is put back."""

    def __init__(self, servers: list[PostgreSQL]) -> None:
        self.servers = servers
        self.statements = Statements(servers)
        self.places: list[Place] = []
        self._helpers: dict[tuple[int, str], psycopg.Connection[Any]] = {}
        self._truth: dict[tuple[str, bool, bool], list[tuple[Any, ...]]] = {}

    def prepare(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._prepare, range(len(self.servers))))
        for server in self.servers:
            # Not before: it is logged for sessions that begin now.
            server.execute("alter role postgres set log_statement = 'all'")
            for dbname, template in (("shop", "one"), ("tenant", "two")):
                server.create_database(dbname, template)
                place = Place(server, dbname, template, Layout(0, ()))
                self.look(place)
                self.places.append(place)
        self.servers[0].create_database("truth", "one")
        self.servers[0].execute(NEW_LABEL, dbname="truth")

    def _prepare(self, number: int) -> None:
        server = self.servers[number]
        server.execute(RIGHTS, dbname="template1")
        first = FIRST_OID + SEAT
        for template, seats in SEATS.items():
            server.create_database(template)
            for seat, name in enumerate(seats[number], start=1):
                create_at(server, template, name, first + seat * SEAT)
            if seats[number]:
                # Not where it is on the others.
                scatter_oids(server, template, 1 + 7 * number)
                server.execute(f"{SHIFT};{SHOP}", dbname=template)
            server.execute(TENANTS, dbname=template)
            first += 4 * SEAT
        if number == 0 and server.execute(FIND_POSTGIS) != [(0,)]:
            for template in ("one", "two"):
                server.execute(POSTGIS, dbname=template)
        # What is created later collides with nothing.
        scatter_oids(server, "postgres", 1 + number * 300_000)

    def execute(
        self, server: PostgreSQL, dbname: str, sql: str, params: Any = None
    ) -> list[tuple[Any, ...]]:
        """Execute as a helper: over a connection that is kept, and not counted."""
        helper = self._helpers.get((server.port, dbname))
        if helper is None:
            # For a transaction that nobody knows of, DDL would wait for good.
            options = "-c lock_timeout=30s"
            helper = psycopg.connect(
                server.conninfo(
                    dbname, application_name=APPLICATION_NAME, options=options
                ),
                autocommit=True,
                prepare_threshold=None,
            )
            self._helpers[server.port, dbname] = helper
        cursor = helper.execute(sql.encode(), params)
        return cursor.fetchall() if cursor.description else []

    def session(self, place: Place) -> psycopg.Connection[Any]:
        """Return a session of somebody else's at *place*, which is not counted."""
        return psycopg.connect(
            place.server.conninfo(place.dbname, application_name=APPLICATION_NAME),
            autocommit=True,
        )

    def close(self) -> None:
        for helper in self._helpers.values():
            helper.close()

    def look(self, place: Place) -> None:
        """Ask the server what the place holds."""
        rows = self.execute(
            place.server,
            place.dbname,
            "select typname::text, oid::int8, typarray::int8 from pg_type"
            " where typname in ('hstore', 'citext', 'mood', 'shift')"
            " and typnamespace = 'public'::regnamespace order by oid",
        )
        types = tuple((str(name), int(oid), int(array)) for name, oid, array in rows)
        labels = self.execute(
            place.server,
            place.dbname,
            "select enumlabel::text from pg_enum where enumtypid = to_regtype('mood')"
            " order by enumsortorder",
        )
        [[place.has_geometry]] = self.execute(
            place.server,
            place.dbname,
            "select to_regtype('geo.geometry') is not null",
        )
        place.layout = Layout(
            place.server.version, types, (), tuple(label for [label] in labels)
        )

    def reset(self) -> None:
        """Put every place back as it was in the beginning, its OIDs too."""
        for place in self.places:
            if place.is_dirty:
                self.rebuild(place, "one" if place.dbname == "shop" else "two")
                place.is_dirty = False

    def rebuild(self, place: Place, template: str) -> None:
        """Drop the database, which ends connections, and create it from another."""
        if helper := self._helpers.pop((place.server.port, place.dbname), None):
            helper.close()
        for sql in (
            f"drop database {place.dbname} with (force)",
            f"create database {place.dbname} template {template}",
        ):
            self.execute(place.server, "postgres", sql)
        place.template, place.is_dirty = template, True
        self.look(place)

    def recreate(self, place: Place, order: tuple[str, ...]) -> None:
        """Drop the types and create them again, under open connections."""
        statements = [DROP, *(CREATE[name] for name in order)]
        if len(order) == len(CREATE):
            statements.append(SHOP)
        self.execute(place.server, place.dbname, ";".join(statements))
        place.is_dirty = True
        self.look(place)

    def complete(self, place: Place) -> None:
        """Create the types that are missing, under open connections."""
        missing = [CREATE[name] for name in CREATE if name not in place.layout.oids]
        self.execute(place.server, place.dbname, ";".join([*missing, SHOP]))
        place.is_dirty = True
        self.look(place)

    def add_label(self, place: Place) -> None:
        """Add a label to the enum, under open connections."""
        self.execute(place.server, place.dbname, NEW_LABEL)
        place.is_dirty = True
        self.look(place)

    def terminate(self, place: Place) -> None:
        """End the connections to a place; each has ended when this returns."""
        self.execute(
            place.server,
            "postgres",
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = %s and application_name <> %s",
            [place.dbname, APPLICATION_NAME],
        )

    def at(self, port: str, dbname: str) -> Place:
        """Return the place that a connection shows to be at."""
        for place in self.places:
            if (str(place.server.port), place.dbname) == (port, dbname):
                return place
        raise LookupError(f"no place at {port}/{dbname}")

    def truth(
        self, sql: str, *, binary: bool = False, moods: bool = False
    ) -> list[tuple[Any, ...]]:
        """What psycopg alone returns, with OIDs that were read from that very server.

        Right decoding does not depend on the server, so one will do.
        """
        key = (sql, binary, moods)
        if key not in self._truth:
            server = self.servers[0]
            with psycopg.connect(server.conninfo("truth"), autocommit=True) as conn:
                register_alone(conn, moods)
                self._truth[key] = conn.execute(sql, binary=binary).fetchall()
        return self._truth[key]


def register_alone(conn: psycopg.Connection[Any], moods: bool) -> None:
    """Register as Django does, for this connection; and the enum, if asked to."""
    hstore, citext = TypeInfo.fetch(conn, "hstore"), TypeInfo.fetch(conn, "citext")
    assert hstore is not None and citext is not None
    register_hstore(hstore, conn)
    TypeInfo(citext.name, 0, citext.array_oid).register(conn)
    if moods:
        mood = EnumInfo.fetch(conn, "mood")
        assert mood is not None
        register_enum(mood, conn, Mood, mapping=MAPPING)
        shift = RangeInfo.fetch(conn, "shift")
        assert shift is not None
        register_range(shift, conn)


def create_at(server: PostgreSQL, dbname: str, name: str, oid: int) -> None:
    """Create what brings the type *name* at such a moment that it gets *oid*."""
    [word, _, _] = name.partition("[")

    def create() -> int:
        server.execute(CREATE[word], dbname=dbname)
        [[found]] = server.execute(
            "select %s::regtype::oid::int8", [name], dbname=dbname
        )
        return int(found)

    before = scatter_oids(server, dbname, 1)
    distance = create() - before
    kind = "type" if word == "mood" else "extension"
    server.execute(f"drop {kind} {word}", dbname=dbname)
    now = scatter_oids(server, dbname, 1)
    scatter_oids(server, dbname, oid - distance - now)
    assert create() == oid


@contextmanager
def build(majors: tuple[int, int, int]) -> Iterator[World]:
    """Start the servers and fill them: about five seconds."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                PostgreSQL(major, next_oid=FIRST_OID, config={"autovacuum": "off"})
            )
            for major in majors
        ]
        world = World(servers)
        world.prepare()
        try:
            yield world
        finally:
            world.close()
