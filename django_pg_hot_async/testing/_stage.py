"""Two servers that hold a Django project's schema, under other OIDs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.sql import emit_post_migrate_signal
from django.db import ProgrammingError, connections
from psycopg import errors, sql

from ._alias import borrowed
from ._binaries import MAJORS
from ._rehearsal import Rehearsal, template_of
from ._routes import ROUTES, create_role, elsewhere
from ._schema import load_schema
from ._server import PostgreSQL

logger = logging.getLogger("django_pg_hot_async")

Prepare = Callable[[PostgreSQL, str], Any]

GREEN_OIDS = 3_000_000_000
"""Where green's counter begins: above 2**31, and far from blue's."""

EXTENSIONS = """
    select extname, nspname
    from pg_extension join pg_namespace on pg_namespace.oid = extnamespace
    where extname <> 'plpgsql' order by pg_extension.oid desc
"""


class Stage:
    """A blue and a green server with the project's migrations applied to both.

        with Stage(15, 18) as stage, stage.rehearse() as rehearsal:
            ...  # on blue
            rehearsal.cutover()
            ...  # on green

    *blue* and *green* are releases of PostgreSQL, the newest two by default.
    *aliases* of DATABASES take part; one that mirrors another leads to the same
    database. *prepare(server, dbname)* is called with each database while it is
    empty: to create roles, or whatever else migrations expect.

    On green the extensions are created first, in the reverse order, and OIDs begin
    at 3,000,000,000: no type has the OID it has on blue. As a context manager it
    runs for the block.

    *blue_schema* and *green_schema* take the place of migrations: what your own server
    has, of each alias that is no mirror, in the order of *aliases*. Each is a
    connection string for libpq, or a file that ``pg_dump --schema-only`` wrote.
    """

    def __init__(
        self,
        blue: int = MAJORS[-2],
        green: int = MAJORS[-1],
        *,
        aliases: Iterable[str] = ("default",),
        prepare: Prepare | None = None,
        blue_schema: Iterable[str] = (),
        green_schema: Iterable[str] = (),
    ) -> None:
        self.blue = PostgreSQL(blue)
        self.green = PostgreSQL(green, next_oid=GREEN_OIDS)
        self.aliases = tuple(aliases)
        self._prepare = prepare
        self._schemas = (tuple(blue_schema), tuple(green_schema))
        self._stack = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.blue!r} {self.green!r}>"

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def rehearse(self, route: str = "service") -> Rehearsal:
        """Return a rehearsal on new databases, to be used in a ``with`` statement.

        *route* says how clients come to the other server. "service": new connections
        follow, those to the old server are cut, as in a fail-over. "pgbouncer":
        PgBouncer moves connections that stay open. One at a time.
        """
        if route not in ROUTES:
            raise ValueError(f"one of {', '.join(ROUTES)} expected, got {route!r}")
        dbnames = {alias: _database_of(alias) for alias in self.aliases}
        return Rehearsal(
            self.blue, self.green, dbnames, ROUTES[route](sorted({*dbnames.values()}))
        )

    def _start(self, stack: contextlib.ExitStack) -> None:
        if not apps.ready:
            django.setup()
        dbnames = list(dict.fromkeys(map(_database_of, self.aliases)))
        blue_schemas, green_schemas = (
            _by_database(dbnames, sources) for sources in self._schemas
        )
        for server in (self.blue, self.green):
            stack.enter_context(server)
            create_role(server)
        for dbname in dbnames:
            template = template_of(dbname)
            self._create(self.blue, template)
            if source := blue_schemas.get(dbname):
                _load(dbname, self.blue, template, source)
            else:
                _migrate(dbname, self.blue, template)
            self._create(self.green, template)
            if source := green_schemas.get(dbname):
                load_schema(self.green, template, source)
                continue
            wanted = self.blue.execute(EXTENSIONS, dbname=template)
            _create_extensions(self.green, template, wanted)
            try:
                _migrate(dbname, self.green, template)
            except ProgrammingError as error:
                duplicate = (errors.DuplicateObject, errors.DuplicateSchema)
                if not isinstance(error.__cause__, duplicate):
                    raise
                # CREATE EXTENSION without IF NOT EXISTS: then in their own order.
                logger.info("%s: extensions on green not made first: %s", dbname, error)
                self.green.drop_database(template)
                self._create(self.green, template)
                _migrate(dbname, self.green, template)

    def _create(self, server: PostgreSQL, dbname: str) -> None:
        server.create_database(dbname)
        if self._prepare:
            self._prepare(server, dbname)


def _database_of(alias: str) -> str:
    """Name the database, which is the alias that migrations are applied by."""
    settings = connections[alias].settings_dict
    if connections[alias].vendor != "postgresql":
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]['ENGINE'] is {settings['ENGINE']!r}; a rehearsal"
            " needs a backend for PostgreSQL"
        )
    return str(settings["TEST"]["MIRROR"] or alias)


def _by_database(dbnames: list[str], sources: tuple[str, ...]) -> dict[str, str]:
    if sources and len(sources) != len(dbnames):
        raise ImproperlyConfigured(
            f"one schema for each of {', '.join(map(repr, dbnames))} expected, in this"
            f" order; {len(sources)} given"
        )
    return dict(zip(dbnames, sources, strict=False))


def _migrate(alias: str, server: PostgreSQL, dbname: str) -> None:
    with _led(alias, server, dbname):
        call_command(
            "migrate",
            database=alias,
            interactive=False,
            run_syncdb=True,
            verbosity=0,
        )


def _load(alias: str, server: PostgreSQL, dbname: str, source: str) -> None:
    """Bring a schema, and the rows that Django makes after it has migrated."""
    load_schema(server, dbname, source)
    with _led(alias, server, dbname):
        emit_post_migrate_signal(verbosity=0, interactive=False, db=alias)


@contextlib.contextmanager
def _led(alias: str, server: PostgreSQL, dbname: str) -> Iterator[None]:
    """Lead *alias* to what will be a template."""
    place = server.database(dbname)
    del place["ENGINE"]
    with borrowed(alias, elsewhere(connections.settings[alias], **place)):
        yield
    # A template takes no connections; threads of the project's own may have some.
    server.terminate(dbname)


def _create_extensions(
    server: PostgreSQL, dbname: str, wanted: Iterable[tuple[Any, ...]]
) -> None:
    for name, schema in wanted:
        names = {"name": sql.Identifier(name), "schema": sql.Identifier(schema)}
        for text in (
            "create schema if not exists {schema}",
            "create extension if not exists {name} schema {schema} cascade",
        ):
            query = sql.SQL(text).format(**names).as_string(None)
            server.execute(query, dbname=dbname)
