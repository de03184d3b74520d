"""What comes is compared with what the promise says, and so is what it has cost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from hypothesis import note
from psycopg import pq

from django_pg_hot_async._core.connection import RAN_AGAIN

from .clients import Client
from .cursors import make_cursor
from .deployment import ERRORS, Deployment, counts
from .promise import (
    INSUFFICIENT_PRIVILEGE,
    MOVED,
    Alias,
    Expected,
    Link,
    Promise,
    is_evidence,
)
from .schema import Layout
from .world import Place, is_read

IDLE = pq.TransactionStatus.IDLE
INERROR = pq.TransactionStatus.INERROR


def cause(error: BaseException) -> psycopg.Error:
    """psycopg's own of an error that Django wraps."""
    found = error if isinstance(error, psycopg.Error) else error.__cause__
    assert isinstance(found, psycopg.Error), repr(error)
    return found


class Comparison(Deployment):
    """A use of a connection: what is expected of it, and what it has come to."""

    def reads(self, most: int) -> None:
        """No more than *most* statements were the app's since the last look."""
        statements = self.world.statements.new()
        reads = sum(map(is_read, statements))
        assert reads <= most, f"{reads} reads, not {most} at most: {statements}"
        counts["reads"] += reads

    def attempt(
        self,
        client: Client,
        work: Callable[[], Any],
        use: Callable[[Promise, Link], Expected],
        *,
        do: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> Any:
        """Do *work*; return what it returns, and which of its values have to be right.

        *use* tells what is expected of it.
        """
        link = self.link_of(client)
        self.promise.begin(link, is_idle=self.is_idle(client))
        before = copy.deepcopy((self.promise.alias(client.alias), link))
        expected = self.expect(client, use)
        status = client.connection.pgconn.transaction_status
        error: BaseException | None = None
        value: Any = None
        try:
            value = (do or client.do)(work)
        except ERRORS as caught:
            error = caught
        found = sum(map(is_read, statements := self.world.statements.new()))
        counts["reads"] += found
        if any("json_build_object" in statement for statement in statements):
            # What it has found may be news to others, which ask once more then.
            self.unsettle(client.alias, besides=link)
        if any("count(*) OVER" in statement for statement in statements):
            self.note_read(link)
        if not found and expected.most:
            self.learn_nothing(link, *before)
        assert found <= expected.most, (
            f"{client}: {found} reads, {error!r}, where {expected.most} were expected"
            f" at most: {statements}"
        )
        if error is None:
            after = client.connection.pgconn.transaction_status
            if client.in_transaction:
                # Django begins one with its first statement.
                status = pq.TransactionStatus.INTRANS
            assert after == status, f"{client}: left {after!r}, found {status!r}"
            return value, expected.right
        note(f"{client}: {error!r}")
        self.excuse(client, expected, error, before)
        return None, []

    def note_read(self, link: Link) -> None:
        """All types were read; what others are is not known by that."""
        if link.frozen is None:
            self.promise.alias(link.alias).settled.add(link.identity)
        for _, other in self.links.values():
            if other.alias == link.alias:
                other.met.clear()

    def learn_nothing(self, link: Link, alias: Alias, before: Link) -> None:
        """Nothing was asked: what is known is what was known *before*."""
        known = self.promise.alias(link.alias)
        known.known, known.stamp, known.bare = alias.known, alias.stamp, alias.bare
        for name in ("stamp", "held", "last", "met", "is_mixed", "is_provisional"):
            setattr(link, name, getattr(before, name))

    def excuse(
        self,
        client: Client,
        expected: Expected,
        error: BaseException,
        before: tuple[Alias, Link],
    ) -> None:
        """Fail for an *error* that the promise does not cover.

        *before*: what was known of the alias and of the connection.
        """
        link = self.link_of(client)
        found = cause(error)
        assert RAN_AGAIN not in str(found), f"{client}: {error!r}"
        if found.sqlstate in expected.refusals:
            # The error is the database's own, or in its words; nothing was learnt.
            counts[f"reads that failed with {found.sqlstate}"] += 1
            self.learn_nothing(link, *before)
            link.is_refused = link.frozen is not None
        elif all(expected.right) and not expected.missing:
            raise AssertionError(f"{client}: {error!r}") from error
        counts["excused errors"] += 1
        if client.connection.pgconn.transaction_status == INERROR:
            self.end(client, commit=False)
        link.slack = MOVED
        if is_evidence(found):
            self.promise.doubt(link, (found.sqlstate, str(found)))

    def expect(
        self, client: Client, use: Callable[[Promise, Link], Expected]
    ) -> Expected:
        """What *use* may lead to."""
        link = self.link_of(client)
        self.promise.begin(link, is_idle=self.is_idle(client))
        link.in_transaction = client.in_transaction
        expected = use(self.promise, link)
        expected.most += link.slack
        if link.frozen is not None:
            # What others find meanwhile does not count for it.
            expected.most += MOVED
        if link.slack and not link.has_rights:
            expected.refusals |= {INSUFFICIENT_PRIVILEGE}
        link.slack, link.next_slack = link.next_slack, 0
        if link.is_refused:
            expected.right = [False] * len(expected.right)
        return expected

    def make(self, client: Client, how: str) -> Any:
        """Make a cursor that is kept."""
        cursor = client.do(lambda: make_cursor(client, how))
        self.reads(0)
        return cursor

    def unsettle(
        self, alias: str | None = None, *, besides: Link | None = None
    ) -> None:
        """Something has happened: each connection may ask once more."""
        for _, link in self.links.values():
            if alias in (None, link.alias) and link is not besides:
                link.slack = MOVED
        if besides is None:
            for one in self.promise.aliases.values():
                one.settled.clear()

    def is_idle(self, client: Client) -> bool:
        """Whether the next statement begins a transaction, or is one."""
        return bool(client.connection.pgconn.transaction_status == IDLE)

    def is_own(self, client: Client) -> bool:
        """Whether the next statement is a transaction of its own."""
        return not client.in_transaction

    def may_ask(self, client: Client) -> bool:
        """Whether something may be asked with, or before, a statement without types.

        What is prepared, or may be, has a type in it perhaps.
        """
        return self.is_own(client) or self.threshold is not None

    def compare(
        self, values: Sequence[Any], truth: Sequence[Any], right: Sequence[bool]
    ) -> None:
        assert len(values) == len(truth), f"{values!r} is not {truth!r}"
        for value, true, must in zip(values, truth, right, strict=True):
            if must:
                assert value == true, f"wrong: {value!r} is not {true!r}"
                counts["values compared"] += 1
            elif value != true:
                counts["excused values"] += 1

    def use(self, name: str) -> Client:
        """The client called *name*, with an open connection."""
        client = self.clients[name]
        if not client.is_open:
            self.open(client)
        return client

    def open(self, client: Client) -> None:
        known = set(self.links)
        client.do(client.open)
        client.settle()
        self.link_of(client)
        # Nothing is sent, neither at connect nor at checkout.
        self.reads(0)
        counts["connections"] += len(self.links) - len(known)
        counts["checkouts"] += 1

    def is_stale(self, client: Client) -> bool:
        """Whether *client* sees types as they were, and of new tables no row."""
        frozen = self.link_of(client).frozen
        return frozen is not None and frozen != self.place(client).layout

    def visible(self, client: Client) -> Layout:
        """What *client* sees of the types there are; all, where it sees none."""
        layout = self.place(client).layout
        frozen = self.link_of(client).frozen or layout
        seen = frozen.without_dropped(layout)
        return seen if seen.types else layout

    def touch(self, client: Client) -> None:
        """*client* is about to use the table: whoever changes that would wait."""
        client.is_light = False

    def end_locks(self, place: Place) -> None:
        """End the transactions at *place* that a change of types would wait for."""
        for client in self.here(place):
            if not client.is_light:
                self.end(client)

    def begin(self, client: Client, *, most: int = 0) -> None:
        """Begin a transaction: where trust belongs to one, it ends.

        *most*: what may have been asked since the last look.
        """
        client.do(client.begin)
        self.reads(most)
        self.promise.begin(self.link_of(client), is_idle=True)

    def end(self, client: Client, *, commit: bool = True) -> None:
        """End the transaction of *client*, if there is one."""
        if client.in_transaction:
            client.is_light = False
            link = self.link_of(client)
            if link.frozen is not None:
                # What it saw may not be what there is.
                link.slack = MOVED
            link.frozen, link.has_rights, link.is_refused = None, True, False
            error = None if commit else RuntimeError("roll back")
            with suppress(RuntimeError):
                client.do(lambda: client.end(error))
