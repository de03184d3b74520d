"""One rehearsal of a cutover, and of the way back."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connections
from django.db.transaction import TransactionManagementError

from django_pg_hot_async import conf
from django_pg_hot_async._core.trust import Trust

from ._alias import borrowed
from ._routes import elsewhere
from ._server import PostgreSQL
from ._transfer import transfer


class Route(Protocol):
    """How clients reach a server; see ``_routes``."""

    def open(
        self, blue: PostgreSQL, green: PostgreSQL
    ) -> contextlib.AbstractContextManager[None]: ...
    def place(self, dbname: str) -> dict[str, Any]: ...
    @property
    def moves_open_connections(self) -> bool: ...
    def held(
        self, source: PostgreSQL, target: PostgreSQL
    ) -> contextlib.AbstractContextManager[None]: ...


class Rehearsal:
    """The aliases lead to blue, until `cutover()`; they lead back after `rollback()`.

    Made by `Stage.rehearse()`. For the block of a ``with`` statement every thread of
    this process reaches the rehearsal's databases by those aliases, and processes
    that it starts do by the same settings. What is written has to be committed: call
    it neither in a transaction nor in a `TestCase`.
    """

    def __init__(
        self,
        blue: PostgreSQL,
        green: PostgreSQL,
        dbnames: Mapping[str, str],
        route: Route,
    ) -> None:
        self.blue = blue
        self.green = green
        self.server = blue
        self.before_switch: list[Callable[[], Any]] = []
        self._dbnames = dict(dbnames)
        self._route = route
        self._stack = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.where}>"

    @property
    def aliases(self) -> frozenset[str]:
        return frozenset(self._dbnames)

    @property
    def where(self) -> str:
        """Name the server that is reached: "blue (PostgreSQL 15)"."""
        name = "blue" if self.server is self.blue else "green"
        return f"{name} (PostgreSQL {self.server.major})"

    def __enter__(self) -> Rehearsal:
        self._refuse_transactions()
        with contextlib.ExitStack() as stack:
            for dbname in {*self._dbnames.values()}:
                for server in (self.blue, self.green):
                    server.create_database(dbname, template=template_of(dbname))
                    stack.callback(server.drop_database, dbname)
            stack.enter_context(self._route.open(self.blue, self.green))
            for alias, dbname in self._dbnames.items():
                place = self._route.place(dbname)
                settings = elsewhere(connections.settings[alias], **place)
                stack.enter_context(borrowed(alias, settings))
            self.server = self.blue
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def cutover(self, *, within_request: bool = False) -> None:
        """Bring the rows over to green, and every connection with them.

        The test goes on as in the next request: connections of this thread that
        outlived their CONN_MAX_AGE are closed. With *within_request* it goes on in
        the same.

        Raise `RuntimeError` on green, `TransactionManagementError` in a transaction,
        `LookupError` when green lacks a table, `TimeoutError` when PgBouncer cannot
        pause for a transaction in another thread. Clients stay on blue then.
        """
        __tracebackhide__ = True
        self._switch(self.green, within_request)

    def rollback(self, *, within_request: bool = False) -> None:
        """Bring the rows back to blue, and every connection; else as `cutover()`."""
        __tracebackhide__ = True
        self._switch(self.blue, within_request)

    async def acutover(self, *, within_request: bool = False) -> None:
        """Do what `cutover()` does, in the thread of the ORM's async methods."""
        await sync_to_async(self.cutover)(within_request=within_request)

    async def arollback(self, *, within_request: bool = False) -> None:
        """Do what `rollback()` does, in the thread of the ORM's async methods."""
        await sync_to_async(self.rollback)(within_request=within_request)

    def _switch(self, target: PostgreSQL, within_request: bool) -> None:
        __tracebackhide__ = True
        source = self.server
        if target is source:
            raise RuntimeError(f"{self!r} is there already")
        self._refuse_transactions()
        has_app = apps.is_installed("django_pg_hot_async")
        if self._route.moves_open_connections and has_app:
            for alias in self.aliases:
                _warn_of_trust(alias, within_request)
        for check in self.before_switch:
            check()
        with contextlib.nullcontext() if within_request else self._between_requests():
            with self._route.held(source, target):
                for dbname in {*self._dbnames.values()}:
                    # Whoever was let in a moment before clients were kept out.
                    cut = partial(source.terminate, dbname)
                    transfer(source, target, dbname, before_commit=cut)
            self.server = target

    def _refuse_transactions(self) -> None:
        for alias in self.aliases:
            if connections[alias].in_atomic_block:
                raise TransactionManagementError(
                    f"{alias!r} is in a transaction, as in a TestCase, or with"
                    " pytest-django's db; a rehearsal has databases of its own, and"
                    " what it brings over has to be committed (if other fixtures"
                    " need one, transactional_db will do)"
                )

    @contextlib.contextmanager
    def _between_requests(self) -> Iterator[None]:
        self._close_old_connections()
        yield
        self._close_old_connections()

    def _close_old_connections(self) -> None:
        for alias in self.aliases:
            connections[alias].close_if_unusable_or_obsolete()


def template_of(dbname: str) -> str:
    """Name the migrated database that each rehearsal's is a copy of."""
    return f"{dbname} template"


def _warn_of_trust(alias: str, within_request: bool) -> None:
    """Warn where no error here is no proof.

    A connection that is moved while open meets OIDs of green that it knows nothing
    of, which is noticed. Those of a server in production it may know as another's.
    """
    settings = connections[alias].settings_dict
    lives_on = settings["CONN_MAX_AGE"] != 0 or settings["OPTIONS"].get("pool")
    trust = conf.trust(alias)
    is_moved = within_request or lives_on
    if (
        is_moved
        and trust in (Trust.SERVER, Trust.CONNECTION)
        and not conf.is_off(alias)
    ):
        warnings.warn(
            f"{alias!r} has TRUST {trust.value!r}; to be sure of connections that a"
            " pooler moves while they are open it has to be 'auto' or 'transaction',"
            " whatever is seen here",
            stacklevel=4,
        )
