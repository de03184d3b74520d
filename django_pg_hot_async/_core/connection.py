"""What one psycopg connection goes by, and how it is asked of its server.

Trust belongs to a transaction. Where the connection is known to lead straight to one
backend, or a project says so, it belongs to the connection, or to all of a server's.

The methods that ask are psycopg generators: they send, yield while they wait, and
leave the waiting to the connection's own ``wait()``, sync or async. Nothing here waits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from . import catalog as _catalog
from .catalog import FIRST_NORMAL_OID, Catalog
from .psycopg_internals import forget_prepared_statements
from .runtime import runtime
from .server import Server
from .snapshot import Snapshot
from .trust import Trust

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

    from .confirmation import Answer, Confirmation
    from .runtime import Alias
    from .types import TrackedType

logger = logging.getLogger("django_pg_hot_async")

ATTRIBUTE = "_django_pg_hot_async"
"""What a connection has its state under, and a cursor's adapters its execution."""

ATTEMPTS = 20
"""How often a server is read that another one answers for."""
MISSED_SECONDS = 1.0
"""How long a type to send that the server lacks is taken not to have been created."""

IDLE = pq.TransactionStatus.IDLE
INTRANS = pq.TransactionStatus.INTRANS
RAN_AGAIN = "; run the statement again"


_CHANGES_TYPES = tuple(
    b"%s %s" % (verb, what)
    for verb in (b"CREATE", b"DROP", b"ALTER")
    for what in (b"EXTENSION", b"TYPE", b"DOMAIN", b"SCHEMA")
)


class Unverified(BaseException):
    """A parameter needs an OID that is not known here; nothing has been sent yet.

    It never reaches a user: whoever adapts parameters catches it, and asks.
    """

    def __init__(self, *, is_missing: bool) -> None:
        self.is_missing = is_missing
        """Whether the server was asked, and had no such type then."""


class Execution:
    """One execution of a cursor, and what all of its results are decoded by."""

    # Not in __init__(), which runs for each statement.
    snapshot: Snapshot | None = None
    is_decided = False
    """Whether the snapshot is what the server of this very transaction has. Until
    then parameters may be adapted by what it is presumed to have."""
    is_adapting = False
    """Whether what is missing may be asked for: `Unverified` is caught."""
    has_sent = False
    """Whether a parameter was sent by what the snapshot says."""
    reads: int
    """How often the connection had read types when the execution began."""
    repeats = 0
    """How often it was sent again, by other names."""
    has_oids = False
    """Whether a result had an OID that initdb did not give."""
    has_unknown = False
    """Whether a loader was asked for an OID that the snapshot does not know."""
    is_simple = False
    """Whether that tells all there is to ask about a single result, as text: what to
    decode by was decided before, and no value has fields."""
    pending: Sequence[list[PGresult]] = ()
    """Results that have arrived, and whose types are still to be asked about."""

    def __init__(
        self,
        state: ConnectionState,
        query: object,
        params: object,
        snapshot: Snapshot | None,
    ) -> None:
        self.state = state
        self.query = query
        self.params = params
        self.reads = state.reads
        if snapshot is not None:
            self.snapshot = snapshot
            self.is_decided = True
            self.is_simple = not snapshot.has_composites


# Under these names, libraries keep the connection that they stand in front of:
# SQLAlchemy's pool (dj_db_conn_pool) and its asyncio adapter, the AWS wrapper, wrapt.
_WRAPPED_AS = (
    "driver_connection",
    "dbapi_connection",
    "target_connection",
    "_connection",
    "__wrapped__",
)


def unwrapped(connection: Any) -> Any:
    """Return psycopg's connection where *connection* is one, or stands in front of one.

    None where it does not.
    """
    for _ in range(5):
        if isinstance(connection, (psycopg.Connection, psycopg.AsyncConnection)):
            return connection
        for name in _WRAPPED_AS:
            inner = getattr(connection, name, None)
            if inner is not None and not isinstance(inner, (str, bytes)):
                connection = inner
                break
        else:
            return None
    return None


def state_of(connection: Any) -> ConnectionState | None:
    """Return the state of *connection*; None where it is not tracked."""
    state: ConnectionState | None = getattr(connection, ATTRIBUTE, None)
    return state


class ConnectionState:
    """What a connection was told by its server, and whether that counts now.

    It is used by whoever uses the connection, one thread or task at a time.
    """

    __slots__ = (
        "_asked",
        "_generation",
        "_has_changed_types",
        "_is_doubted",
        "_is_provisional",
        "_missed",
        "_must_read",
        "_search_path",
        "_snapshot",
        "alias",
        "has_sent",
        "is_straight",
        "is_unsynced",
        "last",
        "notes_checkouts",
        "reads",
        "server",
        "waiting",
    )

    def __init__(self, alias: Alias, server: Server) -> None:
        self.alias = alias
        self.server = server
        """What the connection showed of its server when it was opened."""
        self.is_straight: bool | None = None
        """Whether the backend that answers is the one libpq was told of; None before
        the first answer."""
        self.notes_checkouts = False
        self.is_unsynced = False
        """Whether a pipeline has got commands since its last sync."""
        self.last: Snapshot | None = None
        """The last that the connection was verified with, trusted or not."""
        self._snapshot: Snapshot | None = None
        self._generation = -1
        # The generation of what was last asked.
        self._asked = -1
        self._must_read = False
        # What it was last told is not even to be presumed.
        self._is_doubted = False
        # Read in a transaction that may be rolled back, and the types with it.
        self._is_provisional = False
        # The transaction has made or dropped types. Nobody else sees that yet.
        self._has_changed_types = False
        self.reads = 0
        self.has_sent = False
        """Whether an OID was sent since the server was last asked."""
        self.waiting: list[Any] = []
        """Cursors that have results in a pipeline which are still to be asked about."""
        # Python types that were sent without an OID: when the server had none, in
        # seconds.
        self._missed: Mapping[type, float] = MappingProxyType({})
        # As the connection reported it when it was last asked.
        self._search_path: bytes | None = None

    # Trust

    @property
    def level(self) -> Trust:
        """The level that holds now: SERVER, CONNECTION or TRANSACTION."""
        trust = self.alias.trust
        if trust is Trust.AUTO:
            return Trust.CONNECTION if self.is_straight else Trust.TRANSACTION
        return trust

    @property
    def snapshot(self) -> Snapshot | None:
        """What is trusted now; None where the server has to be asked."""
        if self._generation == self.alias.generation:
            return self._snapshot
        return None

    def begin(self, pgconn: PGconn) -> Snapshot | None:
        """Begin an execution; return what is trusted in it, None where nothing is.

        An idle connection shows that the transaction before has ended.
        """
        alias = self.alias
        if self._snapshot is not None or self._is_provisional:
            if (
                self._is_provisional
                or alias.trust is Trust.TRANSACTION
                or (alias.trust is Trust.AUTO and not self.is_straight)
            ) and self.is_between(pgconn):
                self._is_provisional = False
                self._snapshot = None
                if self._has_changed_types:
                    # What others know is from before the transaction.
                    self._has_changed_types = False
                    self._must_read = True
            snapshot = self._snapshot
            if self._generation == alias.generation and snapshot is not None:
                if snapshot.registry is runtime.registry:
                    return snapshot
                self._snapshot = None
        if alias.trust is not Trust.SERVER:
            return None
        if not (self._must_read or self._is_doubted):
            known = alias.recall(self.server)
            if known is not None:
                self._asked = alias.generation
                self._trust(known.snapshot)
                # That of the connection which read it may have been another.
                self._search_path = None
                return known.snapshot
        return None

    def is_between(self, pgconn: PGconn) -> bool:
        """Whether no transaction is open, not even an implicit one of a pipeline.

        Until a sync libpq reports the status from before what a pipeline has sent.
        """
        return pgconn.transaction_status == IDLE and not (
            self.is_unsynced and pgconn.pipeline_status != pq.PipelineStatus.OFF
        )

    def end(self) -> None:
        """End the trust of a transaction: a sync ends it where nothing else does."""
        self.is_unsynced = False
        if self.level is Trust.TRANSACTION:
            self._snapshot = None

    def presumed(self) -> Snapshot | None:
        """Return what the server most likely has: what the last answer said."""
        if self._must_read or self._is_doubted:
            return None
        last = self.last
        if last is not None and last.registry is runtime.registry:
            return last
        known = self.alias.recall(self.server)
        return None if known is None else known.snapshot

    def distrust(self, *, read: bool = False) -> None:
        """Ask again before anything is decoded or sent; *read*: a confirmation of
        what is known would not tell."""
        self._snapshot = None
        self._must_read = self._must_read or read

    def doubt(self, reason: object) -> bool:
        """Have an error looked into that a stale OID would explain.

        The server is asked by this connection alone. Return whether it will be: not
        where nothing was sent since it was asked, or it was just asked for *reason*.
        """
        self._missed = MappingProxyType({})
        if not self.alias.may_doubt(reason):
            return False
        # A confirmation would not tell of a type that was made since.
        self.distrust(read=True)
        self._is_doubted = True
        return True

    def misses(self, key: type) -> bool:
        """Note that the server has no type for *key*; return whether to ask again.

        It may have been created since, and nothing would show it.
        """
        now = monotonic()
        # The clock may begin with the machine: 0 is not long ago then.
        before = self._missed.get(key)
        is_due = before is None or now - before > MISSED_SECONDS
        if is_due:
            self._missed = MappingProxyType({**self._missed, key: now})
        return is_due

    def note_command(self, tag: bytes) -> None:
        """Ask again after a command that may have made or dropped a tracked type."""
        if tag.startswith(_CHANGES_TYPES):
            self.distrust(read=True)
            self.forget_missed()
            self._is_provisional = self._has_changed_types = True
        elif self._is_provisional and tag == b"ROLLBACK":
            # Perhaps to a savepoint, and the type is gone.
            self.distrust(read=self._has_changed_types)

    def forget_missed(self) -> None:
        """Have the next value of a type that the server lacked ask for it at once."""
        if self._missed:
            self._missed = MappingProxyType({})

    def _trust(self, snapshot: Snapshot) -> None:
        self._generation = self._asked
        self._snapshot = self.last = snapshot
        self.has_sent = self._is_doubted = False

    # Asking

    def note_backend(self, pid: int, pgconn: PGconn) -> None:
        """Learn whether the connection leads straight to the backend that answered.

        Behind PgBouncer, libpq was told of a made-up one. A TCP proxy passes it on.
        """
        if self.is_straight is None or self.is_straight:
            self.is_straight = pid == pgconn.backend_pid

    def confirmation(self, pgconn: PGconn) -> Confirmation | None:
        """Return what has the server confirm what is known of it, if anything is."""
        self._asked = self.alias.generation
        if self._must_read:
            return None
        is_ascii = pgconn.parameter_status(b"client_encoding") in (b"UTF8", None)
        style = pgconn.parameter_status(b"DateStyle")
        return self.alias.confirmation(
            self.server,
            is_ascii=is_ascii,
            is_iso=style is not None and style.startswith(b"ISO"),
            wants_pid=self.is_straight is None,
        )

    def verify(self, connection: Any) -> PQGen[Snapshot]:
        """Ask the server what it has: one round trip where it is what was known.

        libpq must be idle, in a transaction or out of one, or in a pipeline with no
        result to come. Raise the database's own error, and `psycopg.OperationalError`
        where one server after the other answers.
        """
        pgconn, encoding = connection.pgconn, connection.info.encoding
        answer: Answer | None = None
        confirmation = self.confirmation(pgconn)
        if confirmation is not None:
            result = yield from _catalog.ask(pgconn, confirmation.statement, encoding)
            answer = confirmation.read(result)
            snapshot = self.explain(answer, pgconn)
            if snapshot is not None:
                yield from self.adopt(snapshot, connection)
                return snapshot
        return (yield from self.read(connection, answer=answer))

    def explain(self, answer: Answer, pgconn: PGconn) -> Snapshot | None:
        """Return the snapshot that *answer* confirms; None where a read is due."""
        if answer.pid is not None:
            self.note_backend(answer.pid, pgconn)
        snapshot = answer.snapshot
        if snapshot is not None and snapshot.registry is runtime.registry:
            self.alias.promote(self.server, snapshot)
            return snapshot
        return None

    def read(
        self,
        connection: Any,
        start: int | None = None,
        *,
        answer: Answer | None = None,
    ) -> PQGen[Snapshot]:
        """Read the types, from the server whose postmaster started at *start*.

        None is any; *answer* is one that nothing which was known explained. In
        autocommit behind a pooler each message may reach another server: then it is
        read again, unless another connection has read the one that gave the answer.
        """
        if answer is not None:
            start = answer.start
        pgconn, encoding = connection.pgconn, connection.info.encoding
        question = runtime.registry.question
        if not question:
            snapshot = Snapshot(Catalog(0), runtime.registry)
            self._asked = self.alias.generation
            self._trust(snapshot)
            return snapshot
        for _ in range(ATTEMPTS):
            self._asked = self.alias.generation
            statement = _catalog.read_by_name(question)
            result = yield from _catalog.ask(pgconn, statement, encoding)
            catalog = _catalog.parse(result)
            snapshot = yield from self.learn(catalog, connection)
            if start is None or catalog.start == start:
                return snapshot
            found = None if answer is None else self.alias.find(self.server, answer)
            if found is not None:
                yield from self.adopt(found, connection)
                return found
        raise self.refuse("one server after the other answers")

    def learn(self, catalog: Catalog, connection: Any) -> PQGen[Snapshot]:
        """Take *catalog* as what the server says."""
        self.note_backend(catalog.pid, connection.pgconn)
        snapshot = Snapshot(catalog, runtime.registry)
        is_open = connection.pgconn.transaction_status != IDLE
        is_private = is_open and self._has_changed_types
        if not (is_private or (is_open and catalog.is_old)):
            change = self.alias.learn(self.server, snapshot, self._asked)
            if self.alias.recall(self.server) is not None:
                # Else trust was withdrawn while it was being read.
                self._asked = self.alias.generation
            if change is not None:
                runtime.announce(change, True)
        self._must_read = False
        self.reads += 1
        yield from self.adopt(snapshot, connection, is_private=is_private)
        if is_open:
            self._is_provisional = True
        logger.debug(
            "%s: read the types of %s",
            self.alias.name,
            self.server,
            extra={"alias": self.alias.name},
        )
        return snapshot

    def adopt(
        self, snapshot: Snapshot, connection: Any, *, is_private: bool = False
    ) -> PQGen[None]:
        """Trust *snapshot* from now on, for as long as the level says.

        *is_private*: it has types that no other connection sees yet.
        """
        before = self.last
        self._trust(snapshot)
        if snapshot.ambiguous:
            status = connection.pgconn.parameter_status
            self._search_path = status(b"search_path") if snapshot.knows_paths else None
        if not is_private:
            change = self.alias.meet(self.server, snapshot)
            if change is not None:
                runtime.announce(change, True)
        if (
            before is not None
            and before is not snapshot
            and before.is_changed(snapshot)
            and connection.pgconn.pipeline_status == pq.PipelineStatus.OFF
        ):
            yield from forget_prepared_statements(connection)

    def describe(
        self, connection: Any, snapshot: Snapshot, oids: Iterable[int]
    ) -> PQGen[Snapshot]:
        """Ask what *oids* are, which *snapshot* does not know, of its server.

        Return the snapshot that knows. Raise `psycopg.OperationalError` where the
        server has no such type, so the value came from elsewhere, and
        `SerializationFailure` where the transaction cannot see the type.
        """
        wanted = {oid for oid in oids if not snapshot.knows(oid)}
        pgconn, encoding = connection.pgconn, connection.info.encoding
        question = runtime.registry.question
        original = snapshot
        asked: set[int] = set()
        for _ in range(ATTEMPTS):
            wanted -= asked
            if not wanted:
                break
            statement = _catalog.read_by_oid(question, wanted)
            result = yield from _catalog.ask(pgconn, statement, encoding)
            catalog = _catalog.parse(result)
            self.note_backend(catalog.pid, pgconn)
            if catalog.start != snapshot.catalog.start != 0:
                if (
                    self.level is Trust.TRANSACTION
                    and not self.is_straight
                    and pgconn.transaction_status == IDLE
                ):
                    # Another server than the one that sent it: ask once more.
                    continue
                # What was trusted is stale: all is resolved anew.
                snapshot = original = yield from self.read(connection)
                wanted = {oid for oid in oids if not snapshot.knows(oid)}
                asked = set()
                continue
            if gone := wanted - catalog.asked.keys():
                raise self.refuse(
                    f"a value is of a type with the OID {min(gone)}, and"
                    f" {self.server}, which was asked, has no such type"
                )
            self._check_seen(catalog, wanted)
            if snapshot.is_contradicted(catalog):
                snapshot = original = yield from self.read(connection)
                wanted = {oid for oid in oids if not snapshot.knows(oid)}
                asked = set()
                continue
            asked |= wanted
            snapshot = snapshot.extended(catalog, wanted)
            # What a composite type, or a range, is made of.
            wanted = {
                oid
                for row in catalog.types
                for oid in (*(o for _, o in row.attributes), row.subtype, row.range_oid)
                if oid >= FIRST_NORMAL_OID and not snapshot.knows(oid)
            }
        else:
            raise self.refuse("one server after the other answers")
        if snapshot is not original and not self._has_changed_types:
            self.alias.extend(self.server, snapshot)
        if self._snapshot is original or self.last is original:
            if self._snapshot is original:
                self._snapshot = snapshot
            self.last = snapshot
            if pgconn.transaction_status != IDLE and snapshot is not original:
                self._is_provisional = True
        return snapshot

    def _check_seen(self, catalog: Catalog, oids: set[int]) -> None:
        """Raise where a tracked type is newer than what the transaction can see."""
        if not catalog.is_old:
            return
        seen = {oid for row in catalog.types for oid in (row.oid, row.array_oid)}
        names = runtime.registry.question.names
        for oid in sorted(oids - seen):
            _, called = _catalog.parse_name(catalog.asked[oid])
            if called in names:
                raise psycopg.errors.SerializationFailure(
                    f"the type {called} was created after the snapshot of this"
                    " transaction, and cannot be read in it; run the transaction again"
                )

    def find_paths(
        self, connection: Any, snapshot: Snapshot, types: Iterable[TrackedType]
    ) -> PQGen[Snapshot]:
        """Ask where the search_path leads for *types*: one round trip.

        Return *snapshot* under that path.
        """
        wanted = [tracked for tracked in types if tracked in snapshot.ambiguous]
        if not wanted or self._has_search_path(connection.pgconn, snapshot):
            return snapshot
        pgconn, encoding = connection.pgconn, connection.info.encoding
        statement = _catalog.find_paths([tracked.name for tracked in wanted])
        result = yield from _catalog.ask(pgconn, statement, encoding)
        found = [int(result.get_value(0, n) or 0) for n in range(result.nfields)]
        if unknown := [oid for oid in found if oid and not snapshot.knows(oid)]:
            snapshot = yield from self.describe(connection, snapshot, unknown)
        others = {
            row.oid
            for row, surrogate in snapshot.rows.items()
            if surrogate.tracked in wanted
        }
        visible = (snapshot.catalog.visible - others) | {oid for oid in found if oid}
        return snapshot.seen_from(visible)

    def _has_search_path(self, pgconn: PGconn, snapshot: Snapshot) -> bool:
        """Whether the path is known to be what it was when the server was asked.

        Only PostgreSQL 18 and on report it, and a pooler may report another's. SET
        ROLE makes "$user" another with no word of it.
        """
        if self.level is Trust.TRANSACTION or snapshot is not self._snapshot:
            return False
        reported = pgconn.parameter_status(b"search_path")
        if reported is None or b"$user" in reported:
            return False
        return reported == self._search_path

    def refuse(self, why: str) -> psycopg.OperationalError:
        """Count and log a result that nothing explains; return the error to raise."""
        self.alias.count_unexplained()
        self.distrust(read=True)
        logger.warning(
            "%s: refused: %s", self.alias.name, why, extra={"alias": self.alias.name}
        )
        return psycopg.OperationalError(f"{self.alias.name}: {why}{RAN_AGAIN}")


def attach(connection: Any, alias: str) -> ConnectionState:
    """Track *connection* from now on; nothing is sent, nothing awaited.

    Raise `psycopg.OperationalError` where the connection is lost.
    """
    server, memory = Server.of(connection.pgconn), runtime.alias(alias)
    if memory.current == server:
        # One object, which is soon compared with itself.
        server = memory.current
    state = ConnectionState(memory, server)
    setattr(connection, ATTRIBUTE, state)
    with runtime.lock:
        runtime.connections.add(connection)
    return state
