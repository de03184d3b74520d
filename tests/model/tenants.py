"""Tenants by schema, whose types have one name: the search_path says whose is meant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from psycopg.types.range import Range

from .clients import Client
from .cursors import KEPT, VALUES, make_cursor
from .deployment import ERRORS, clients, counts
from .operations import Operations
from .promise import MOVED
from .schema import Hue, Tone
from .traffic import Traffic

NOBODY = ""
"""Whose search_path leads to the types of no tenant, nor to those in public."""

IS_HUE = "select pg_typeof(v)::oid = to_regtype('hue')::oid from (select {} as v) as t"
IS_SPAN = IS_HUE.replace("hue", "span")
IS_TONE = "select pg_typeof(v)::oid = 'one.tone'::regtype from (select {} as v) as t"
IS_HSTORE = (
    "select pg_typeof(v)::oid = 'public.hstore'::regtype from (select {} as v) as t"
)


def execute(client: Client, how: str, query: Any, *params: Any) -> list[Any]:
    """Execute by a cursor of its own; return the rows, if there are any."""
    cursor = make_cursor(client, how)
    mark = "$1" if how == "raw" else "%s"
    text = query.format(*([mark] * len(params))) if isinstance(query, str) else query
    client.call(cursor.execute, text, list(params) or None)
    return client.call(cursor.fetchall) if cursor.description else []


class Tenants(Traffic, Operations):
    """A transaction for each of them, or one for both."""

    @precondition(lambda self: self.has_moods)
    @rule(
        name=clients,
        how=st.sampled_from(KEPT),
        steps=st.lists(
            st.tuples(
                st.sampled_from(("one", "two", NOBODY)),
                st.sampled_from(("path", "role")),
            ),
            min_size=1,
            max_size=4,
        ),
        stays=st.booleans(),
    )
    def serve_tenants(
        self, name: str, how: str, steps: list[tuple[str, str]], stays: bool
    ) -> None:
        """One transaction serves tenants whose types have one name, by turns.

        *stays*: a session's search_path is set before, where it is its own.
        """
        client = self.use(name)
        self.end(client)
        if not self.has_rows(client) or not self.is_sure(client):
            return
        how = self.able(client, how)
        link = self.link_of(client)
        limit = 4 * MOVED + link.slack
        if stays and not client.door.is_pooler:
            tenant = steps[0][0]
            path = f"{tenant}, public" if tenant else "public"
            self.right(
                client, lambda: execute(client, "server", f"set search_path = {path}")
            )
            self.right(client, functools.partial(serve, client, how, tenant, False))
            limit += 9
        self.begin(client, most=limit)
        for tenant, by in steps:
            self.right(client, functools.partial(lead, client, tenant, by))
            self.right(client, functools.partial(serve, client, how, tenant, True))
            # Where the path leads is asked for each statement that needs it.
            limit += 3
            counts["tenants served"] += 1
        self.end(client, commit=False)
        self.reads(limit)
        link.slack = MOVED

    def is_sure(self, client: Client) -> bool:
        """Whether all that *client* sends now has to be right."""
        link = self.link_of(client)
        self.promise.begin(link, is_idle=self.is_idle(client))
        if link.held is None:
            # What it is asked from here on is not told in detail.
            self._read(client, "server", ["attrs"])
        if self.promise.is_by_transaction(link):
            return True
        return link.held == self.promise.seen(self.place(client).layout)

    def right(self, client: Client, work: Callable[[], Any]) -> Any:
        """Do *work*, which must not fail."""
        try:
            return client.do(work)
        except ERRORS as error:
            raise AssertionError(f"{client}: {error!r}") from error


def lead(client: Client, tenant: str, by: str) -> None:
    """Lead the search_path of the transaction to the types of *tenant*."""
    if tenant == NOBODY:
        execute(client, "server", "set local role none")
        execute(client, "server", "set local search_path = pg_catalog")
    elif by == "path":
        execute(client, "server", "set local role none")
        execute(client, "server", f"set local search_path = {tenant}, public")
    else:
        execute(client, "server", 'set local search_path = "$user", public')
        execute(client, "server", f"set local role {tenant}")


def serve(client: Client, how: str, tenant: str, is_alone: bool) -> None:
    """Store and load a value of what is another type for each tenant.

    *is_alone*: nobody else sees what is stored.
    """
    tables = [f"{tenant}.paint"] if tenant else ["one.paint", "two.paint"]
    for table in tables:
        execute(client, how, f"insert into {table} values ({{}})", Hue.red)
        rows = execute(client, how, f"select hue from {table} limit 1")
        assert rows == [(Hue.red,)], f"wrong: {rows!r}"
        if not is_alone:
            execute(client, how, f"delete from {table}")
    checks: list[tuple[str, Any]] = [(IS_TONE, Tone.red), (IS_HSTORE, VALUES["hstore"])]
    if tenant:
        checks += [(IS_HUE, Hue.red), (IS_SPAN, Range(0.5, 1.5))]
    for query, value in checks:
        rows = execute(client, how, query, value)
        assert rows == [(True,)], f"wrong: {value!r} went as another type"
