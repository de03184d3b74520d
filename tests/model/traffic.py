"""What users do: they query, by every kind of cursor, in and out of transactions."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.scenarios import HAS_BINARY_HSTORE

from .clients import Client
from .comparison import INERROR, Comparison, cause
from .cursors import (
    AHEAD,
    ARRIVED,
    BINARY,
    COPIES,
    DJANGO_READS,
    DJANGO_SENDS,
    ELEMENTS,
    IN_PARTS,
    KEPT,
    ORM,
    PIPELINED,
    PROJECTS,
    READERS,
    READS,
    SENDERS,
    SENDS,
    VALUES,
    Literals,
    Select,
    column_lists,
    disown,
    freeze,
    hear,
    make_cursor,
    plain_query,
    read_by_cursor,
    send_by_cursor,
)
from .deployment import ERRORS, clients, counts
from .processes import fork, in_a_thread, in_the_child
from .promise import MOVED, Expected, Link, Promise, is_evidence

RAW = ("raw", "binary")
"""Ways to execute the very text of a query, besides those that are kept."""


class Traffic(Comparison):
    """Reads and writes; each is compared with what the promise says of it."""

    @rule(
        uses=st.lists(
            st.tuples(clients, st.sampled_from(DJANGO_READS + READS), column_lists),
            min_size=1,
            max_size=4,
        )
    )
    def read(self, uses: list[tuple[str, str, list[str]]]) -> None:
        for name, how, columns in uses:
            self._read(self.use(name), how, columns)

    def _read(
        self,
        client: Client,
        how: str,
        columns: list[str],
        do: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        place = self.place(client)
        if not place.layout.types:
            # What the server has costs nothing.
            self._plain(client)
            return
        if not self.has_rows(client) and how not in KEPT:
            how = "server"
        self.catch_up(client)
        how = self.able(client, how)
        if how == "stream":
            self.streamed.add(id(client.connection))
        select = self.select(client, how, columns)
        by_name = how in DJANGO_READS
        is_own, may_ask = self.is_own(client), self.may_ask(client)

        def expected(promise: Promise, link: Link) -> Expected:
            if not select.types and how not in (*AHEAD, *IN_PARTS):
                text = select.sql if how in (*KEPT, *RAW) else f"{how} {select.sql}"
                found = promise.plain(link, place, text, is_own=may_ask)
                found.most += by_name and is_own
                return found
            if how in COPIES:
                # It tells no OIDs; the types are told by their names.
                names = [name for name in select.types if name in promise.loaded]
                found = promise.parameters(link, place, names, by_name=True)
                held, now, known = link.held, place.layout, iter(found.right)
                assert held is not None
                # In binary, the elements of an array have OIDs.
                found.right = [
                    name not in promise.loaded
                    or (
                        next(known)
                        and (how == "copy" or held.oids[name] == now.oids[name])
                    )
                    for name in select.types
                ]
                found.most += self.copying(promise, link)
            else:
                found = promise.result(link, place, select.types)
            if how in AHEAD or how in IN_PARTS:
                found = promise.hold(link, place) + found
            if promise.is_by_transaction(link) and how in (*COPIES, "several"):
                # It is asserted along with the COPY, and a string of statements may
                # have a transaction of its own.
                found.most += 1
            return found

        if how in BINARY and not all(self.foresee(client, expected).right):
            # psycopg in C (3.2, 3.3) does not look at where a value ends that it
            # takes for a binary array: it may end the process.
            counts["not read in binary"] += 1
            self._read(client, BINARY[how], columns, do)
            return
        value, right = self.attempt(
            client,
            lambda: READERS.get(how, read_by_cursor)(client, how, select),
            expected,
            do=do,
        )
        self.let_go_of_the_server(client, how)
        counts["results"] += 1
        self.compare_row(value, select, right, binary=how in BINARY)

    def copying(self, promise: Promise, link: Link) -> int:
        """What it may cost that a COPY does not tell beforehand which types it needs.

        Which of several of one name it may be is asked then, and what is missing.
        """
        if self.has_moods:
            # One server alone has PostGIS.
            return MOVED + 1
        held = link.held
        assert held is not None
        return 0 if len(held.types) == len(promise.tracked) else MOVED

    def _plain(self, client: Client) -> None:
        place, may_ask = self.place(client), self.may_ask(client)

        def expected(promise: Promise, link: Link) -> Expected:
            return promise.plain(link, place, "plain", is_own=may_ask)

        self.attempt(client, lambda: plain_query(client), expected)

    def foresee(
        self, client: Client, use: Callable[[Promise, Link], Expected]
    ) -> Expected:
        """What *use* would lead to; nothing has come of it."""
        promise, link = copy.deepcopy((self.promise, self.link_of(client)))
        promise.begin(link, is_idle=self.is_idle(client))
        return use(promise, link)

    def able(self, client: Client, how: str) -> str:
        """Return *how* to query, or another way where *client* cannot do it so."""
        if how in (*DJANGO_READS, *DJANGO_SENDS) and how not in client.ways:
            return "cursor" if "cursor" in client.ways else "server"
        if how in IN_PARTS and client.door.is_pooler and not client.in_transaction:
            # Its connection may be another one by the next FETCH.
            return "server"
        if how in PIPELINED and id(client.connection) in self.streamed:
            # libpq's single-row mode outlives its query there (psycopg 3.2, 3.3).
            return "server" if how == "pipeline" else "insert"
        return how

    def has_rows(self, client: Client) -> bool:
        """Whether there is a table, and *client* sees what is in it."""
        return self.place(client).layout.is_whole and not self.is_stale(client)

    def catch_up(self, client: Client) -> None:
        if self.is_stale(client):
            client.do(lambda: hear(client))

    def select(self, client: Client, how: str, columns: list[str]) -> Select:
        """Make a query of *columns* that can be read by a cursor in this way."""
        layout = self.place(client).layout
        if not self.has_rows(client):
            return Literals(self.visible(client))
        self.touch(client)
        if how in ORM:
            columns = [c for c in columns if c in ("attrs", "tags", "parts")]
            return Select(columns or ["attrs"])
        if how in BINARY and not self.has_moods:
            columns = [c for c in columns if c not in ELEMENTS] or ["feels"]
        # While rows arrive nobody can ask about a label; a record asks in between.
        is_plain = how not in ("record", *AHEAD)
        return Select(
            columns,
            has_new_label=is_plain and "new" in layout.labels,
            loaded=self.promise.loaded,
        )

    def compare_row(
        self, rows: Any, select: Select, right: list[bool], *, binary: bool = False
    ) -> None:
        if rows is not None:
            truth = self.truth(select.sql, binary=binary)
            assert len(rows) == len(truth) == 1, rows
            self.compare(rows[0], truth[0], select.musts(right))
            counts["rows compared"] += 1

    def let_go_of_the_server(self, client: Client, how: str) -> None:
        """End what psycopg leaves begun with a pooler: after the last Sync of a
        pipeline it sends a Flush, for which PgBouncer 1.18 takes a server for good."""
        if how in PIPELINED and client.door.is_pooler:
            self._plain(client)

    @rule(name=clients, how=st.sampled_from(KEPT), columns=column_lists)
    def keep(self, name: str, how: str, columns: list[str]) -> None:
        """Open a cursor for a query that is run again later, over and over."""
        client = self.use(name)
        if self.has_rows(client):
            self._again(client, self._keep(client, how, columns))

    def _keep(self, client: Client, how: str, columns: list[str]) -> int:
        how = self.able(client, how)
        client.kept.append((how, self.make(client, how), Select(columns)))
        return len(client.kept) - 1

    @rule(which=st.integers(0, 5))
    def again(self, which: int) -> None:
        """Run a query again over the cursor that was kept for it."""
        kept = [
            (client, number)
            for client in self.clients.values()
            if client.is_open and self.has_rows(client)
            for number in range(len(client.kept))
        ]
        if kept:
            self._again(*kept[which % len(kept)])

    def _again(self, client: Client, which: int) -> None:
        _, cursor, select = client.kept[which]
        self.touch(client)
        place, may_ask = self.place(client), self.may_ask(client)

        def expected(promise: Promise, link: Link) -> Expected:
            if not select.types:
                return promise.plain(link, place, select.sql, is_own=may_ask)
            return promise.result(link, place, select.types)

        def work() -> Any:
            client.call(cursor.execute, select.sql)
            return client.call(cursor.fetchall)

        value, right = self.attempt(
            client,
            work,
            expected,
        )
        counts["results"] += 1
        self.compare_row(value, select, right)

    @rule(
        name=clients,
        kinds=st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3),
        how=st.sampled_from(KEPT),
    )
    def send_again(self, name: str, kinds: list[str], how: str) -> None:
        """Send values by the same query, over the same cursor as ever."""
        client = self.use(name)
        how = self.able(client, how)
        if how not in client.senders:
            client.senders[how] = self.make(client, how)
        for kind in kinds:
            self._send(client, how, kind, client.senders[how])

    @rule(
        uses=st.lists(
            st.tuples(
                clients,
                st.sampled_from(DJANGO_SENDS + SENDS),
                st.sampled_from(sorted(VALUES)),
            ),
            min_size=1,
            max_size=3,
        )
    )
    def send(self, uses: list[tuple[str, str, str]]) -> None:
        """Send values; the server says what arrived."""
        for name, how, kind in uses:
            self._send(self.use(name), how, kind)

    def _send(self, client: Client, how: str, kind: str, cursor: Any = None) -> None:
        place = self.place(client)
        if not self.has_moods or not self.has_rows(client):
            kind = kind.replace("mood", "hstore").replace("shift", "hstore")
        how = self.able(client, how)
        if not self.has_rows(client) and cursor is None:
            how = self.able(client, "cursor")
        if how in BINARY and not HAS_BINARY_HSTORE:
            how = BINARY[how]
        if how not in KEPT:
            self.touch(client)
        self.catch_up(client)
        sends, types = SENDERS.get(how, send_by_cursor), [kind]
        if how in ("orm", "insert", *COPIES):
            types = ["hstore", "hstore[]"]
        elif how in ("executemany", "both"):
            types = [kind] = ["hstore"]
        by_name = how == "client" or (how in DJANGO_SENDS and self.by_name)
        is_own = self.is_own(client)

        def expected(promise: Promise, link: Link) -> Expected:
            found = promise.parameters(
                link, place, types, by_name=by_name or how in COPIES
            )
            if how == "both":
                found += promise.result(link, place, ["hstore"])
            if promise.is_by_transaction(link) and is_own:
                # What is asked beforehand is asserted along with the statement; others
                # say what has arrived.
                found.most += 1 if how in KEPT or how == "both" else 4
            if how in (*COPIES, "executemany"):
                found.most += self.copying(promise, link)
            return found

        value, right = self.attempt(
            client, lambda: sends(client, how, kind, cursor), expected
        )
        self.let_go_of_the_server(client, how)
        counts["statements with parameters"] += 1
        if value is not None:
            self.compare(value, [ARRIVED[kind] for kind in types], right[: len(types)])

    @rule(name=clients, commit=st.booleans(), frozen=st.booleans())
    def transact(self, name: str, commit: bool, frozen: bool) -> None:
        """Begin a transaction, or end it; *frozen*: one that sees what was there."""
        client = self.use(name)
        if client.in_transaction:
            self.end(client, commit=commit)
        else:
            self.begin(client)
            if frozen:
                self._freeze(client)
        self.reads(0)

    def _freeze(self, client: Client) -> None:
        """The transaction that has begun sees no type that is created from now on."""
        client.do(lambda: freeze(client))
        self.reads(MOVED if self.threshold is not None else 0)
        client.is_light = True
        self.link_of(client).frozen = self.place(client).layout
        counts["transactions at REPEATABLE READ"] += 1

    @rule(name=clients, how=st.sampled_from(KEPT), columns=column_lists)
    def read_without_rights(self, name: str, how: str, columns: list[str]) -> None:
        """A role that may not look into pg_type: where it is read, that fails."""
        client = self.use(name)
        self.end(client)
        self.begin(client)
        client.do(lambda: disown(client))
        self.link_of(client).has_rights = False
        self._read(client, how, columns)
        self.end(client, commit=False)

    @rule(
        name=clients,
        sql=st.sampled_from(
            ["select 1 / 0", "select no_such", "select 1::no_such", "nonsense"]
        ),
        how=st.sampled_from(("cursor", "server", "client")),
        kind=st.sampled_from(sorted(VALUES)),
    )
    def fail(self, name: str, sql: str, how: str, kind: str) -> None:
        """Fail within a transaction, go on in it regardless, and roll back."""
        client = self.use(name)
        if not self.has_moods and kind in PROJECTS:
            kind = "hstore"
        if not client.in_transaction:
            self.begin(client)
        how = self.able(client, how)
        link = self.link_of(client)
        self.promise.begin(link, is_idle=self.is_idle(client))

        def run(statement: str, params: Any = None) -> None:
            cursor = make_cursor(client, how)
            client.call(cursor.execute, statement, params)

        try:
            client.do(lambda: run(sql))
        except ERRORS as error:
            found = cause(error)
            if is_evidence(found):
                link.slack = MOVED
        assert client.connection.pgconn.transaction_status == INERROR
        # Nothing can be read any more, and the server refuses whatever comes.
        for work in (
            functools.partial(run, "select 1"),
            functools.partial(run, "select %s", [VALUES[kind]]),
        ):
            try:
                client.do(work)
            except ERRORS as error:
                found = cause(error)
                aborted = isinstance(found, psycopg.errors.InFailedSqlTransaction)
                assert aborted or "cannot adapt" in str(error), error
            else:
                raise AssertionError("a query in an aborted transaction succeeded")
        self.reads(MOVED if self.threshold is not None else 0)
        self.end(client, commit=False)
        self.reads(0)

    @rule(name=clients, how=st.sampled_from(READS), columns=column_lists)
    def read_in_another_thread(self, name: str, how: str, columns: list[str]) -> None:
        """The connection is handed to another thread, and back."""
        client = self.use(name)
        if client.is_async:
            return
        # psycopg's own cursors: Django's wrapper keeps to its thread.
        self._read(client, how, columns, in_a_thread)

    @precondition(lambda self: self.left["fork"])
    @rule(number=st.sampled_from((0, 1)), columns=column_lists)
    def fork(self, number: int, columns: list[str]) -> None:
        """A child begins with what its parent knows, and opens its own connection."""
        client = self.cast.threads[number]
        layout = client.door.place.layout
        if not layout.is_whole:
            return
        self.left["fork"] -= 1
        select = Select(columns, has_new_label="new" in layout.labels)
        found = fork(lambda: in_the_child(client.wrapper.settings_dict, select.sql))
        promise = copy.deepcopy(self.promise)
        link = Link("default", tuple(found["identity"]))
        promise.begin(link, is_idle=True)
        if select.types:
            expected = promise.result(link, client.door.place, select.types)
        else:
            expected = promise.plain(link, client.door.place, select.sql, is_own=True)
        if found["error"]:
            assert not all(expected.right), found["error"]
        else:
            truth = json.loads(json.dumps(self.truth(select.sql)[0], default=repr))
            self.compare(found["row"], truth, select.musts(expected.right))
            counts["rows compared"] += 1
        self.reads(expected.most)
        counts["forks"] += 1
