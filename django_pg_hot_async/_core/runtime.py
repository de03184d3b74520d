"""What this process knows: the types it tracks, and by alias the servers it met.

One object holds all of it. Whatever a reader takes is one reference to an immutable
object; writers swap it whole, under a lock that is held for a few instructions and
never across a query.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from time import monotonic
from types import MappingProxyType
from typing import Any, TypeVar

from . import types as _types
from .catalog import Catalog
from .confirmation import Answer, Confirmation
from .server import Server
from .snapshot import Snapshot
from .trust import Trust
from .types import Registry, TrackedType

K = TypeVar("K")
V = TypeVar("V")

SERVERS_AN_ALIAS = 64
SERVERS_ALIKE = 4
"""How many servers that look the same to a connection are known at a time."""
BARE_STATEMENTS = 2048
"""How many statements are remembered to carry no tracked type."""
CHECK = "SELECT 1"
"""What Django, and psycopg_pool before 3.3, send to see whether a connection is alive:
it carries no type, and is no reason to ask."""
BARE_LENGTH = 8192
"""The longest statement that is remembered."""
QUIET_SECONDS = 10.0
"""How long after a server was last reached a way back to it is not told: connections
may reach one server and another by turns."""
UNSTEADY_SECONDS = 2.0
REASON_SECONDS = 1.0
"""How long an error that a confirmation has ruled out is not doubted again for."""


@dataclass(frozen=True, slots=True)
class Known:
    """The servers that look the same to a connection, as last read; newest first."""

    snapshots: tuple[Snapshot, ...]
    is_trusted: bool = True
    """Whether nothing has contradicted the newest answer since."""
    confirmations: dict[object, Confirmation] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """What asks whether one of them answers, by how it is asked."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest answer."""
        return self.snapshots[0]


@dataclass(frozen=True, slots=True)
class Change:
    """An alias reached another server, or other types, than it had led to.

    The servers differ where it is the server that is new: once on arrival, with
    nothing read from it yet, and once when its OIDs have been read and differ.
    """

    alias: str
    old_server: Server
    old: Snapshot | None
    new_server: Server
    new: Snapshot | None
    is_return: bool = False
    """Whether it is a way back, to a server reached before."""


class Alias:
    """What is remembered of one alias. Its methods are safe in any thread."""

    def __init__(self, runtime: Runtime, name: str, trust: Trust) -> None:
        self._runtime = runtime
        self.name = name
        self.trust = trust
        self.generation = 0
        """Trust given in an earlier generation is withdrawn."""
        self.servers: Mapping[Server, Known] = MappingProxyType({})
        self.current: Server | None = None
        """The server that the newest connection reached."""
        self.since: datetime | None = None
        """When `current` was first reached, or its OIDs last changed."""
        self.reads = 0
        self.changes = 0
        """How often a server, or OIDs, were reached that were not reached before."""
        self.differences = 0
        """Reads that found other OIDs than were known: without them, values would
        have been decoded, or sent, wrongly."""
        self.unexplained = 0
        """Results that no server asked could explain: refused."""
        self._moves: tuple[float, ...] = ()
        self._bare: dict[Any, None] = {}
        self._reasons: Mapping[object, float] = MappingProxyType({})
        # By name of the database: an alias that leads to many (tenants, test
        # databases) has not moved to another server each time one is opened.
        self._latest: Mapping[str, tuple[Server, Snapshot | None]] = MappingProxyType(
            {}
        )
        # What was last read, likewise.
        self._read: Mapping[str, tuple[Server, Snapshot]] = MappingProxyType({})
        # When each server was last reached from another, in seconds.
        self._seen: Mapping[Server, float] = MappingProxyType({})
        self._met: Mapping[object, float] = MappingProxyType({})

    # Statements

    def is_bare(self, query: str | bytes | None) -> bool:
        """Whether *query* is known to carry no tracked type."""
        return query in self._bare or query == CHECK

    def mark_bare(self, query: str | bytes | None) -> None:
        """Remember that a result of *query* had no OID but built-in ones."""
        if query is None or len(query) > BARE_LENGTH:
            return
        bare = self._bare
        bare[query] = None
        if len(bare) > BARE_STATEMENTS:
            bare.pop(next(iter(bare), None), None)

    def unmark_bare(self, query: str | bytes | None) -> None:
        """Forget that *query* carries no tracked type: it did."""
        self._bare.pop(query, None)

    # Servers

    def recall(self, server: Server) -> Known | None:
        """Return what was last read from a server that looks like *server*.

        None where that was never, or is not to be trusted any more.
        """
        known = self.servers.get(server)
        if known is None or not known.is_trusted:
            return None
        if known.snapshot.registry is not self._runtime.registry:
            return None
        return known

    def find(self, server: Server, answer: Answer) -> Snapshot | None:
        """Return what was read from the server that gave *answer*; None: nothing was.

        By when it started: its types are those of the moment it was read.
        """
        known = self.recall(server)
        others = {one.catalog.reading for one in answer.others}
        for snapshot in () if known is None else known.snapshots:
            is_here = answer.database in (None, snapshot.catalog.database)
            is_told = answer.database is not None or not snapshot.needs_database
            is_same = snapshot.catalog.start == answer.start and is_here and is_told
            if is_same and snapshot.catalog.reading not in others:
                return snapshot
        return None

    def confirmation(
        self, server: Server, *, is_ascii: bool, is_iso: bool, wants_pid: bool
    ) -> Confirmation | None:
        """Return what has *server* confirm what is known; None where nothing is."""
        known = self.recall(server)
        if known is None:
            return None
        how = (is_ascii, is_iso, wants_pid)
        found = known.confirmations.get(how)
        if found is None:
            found = known.confirmations[how] = Confirmation(
                known.snapshots, is_ascii=is_ascii, is_iso=is_iso, wants_pid=wants_pid
            )
        return found

    def arrive(self, server: Server) -> Change | None:
        """Note that a new connection reached *server*; return what is new in that."""
        if self.current == server:
            return None
        now = monotonic()
        with self._runtime.lock:
            old, before = self._latest.get(server.dbname, (None, None))
            self.current = server
            self.since = datetime.now(timezone.utc)
            known = self.servers.get(server)
            # A connection that a pooler moved has met it already, under the version
            # that the connection was told of when it was made.
            is_met = (
                old is not None
                and before is not None
                and replace(old, version=before.version) == server
            )
            snapshot = None if known is None else known.snapshot
            if is_met and snapshot is None:
                snapshot = before
            self._latest = _with(self._latest, server.dbname, (server, snapshot))
            reached = self._seen.get(server)
            self._seen = _with(self._seen, server, now)
            if old is not None and reached is None and not is_met:
                self.changes += 1
        if (
            old is None
            or is_met
            or (reached is not None and now - reached < QUIET_SECONDS)
        ):
            return None
        return Change(self.name, old, before, server, None, reached is not None)

    def learn(
        self, server: Server, snapshot: Snapshot, asked: int | None = None
    ) -> Change | None:
        """Remember that *server* answered with *snapshot*; return what is new in it.

        *asked* is the generation in which it was asked; None is the present one. An
        answer that no server there has given before withdraws the trust of all
        connections at "connection" and "server", which ask when they next need it.
        """
        with self._runtime.lock:
            self.reads += 1
            known = self.servers.get(server)
            before = () if known is None else known.snapshots
            is_new = bool(before) and not any(
                one.is_same_place(snapshot) and not one.is_changed(snapshot)
                for one in before
            )
            if is_new:
                self.differences += 1
                self.generation += 1
                if asked == self.generation - 1:
                    asked = None
            # On the server itself, types that were made anew replace what they were.
            others = tuple(one for one in before if not one.is_same_place(snapshot))
            snapshots = (snapshot, *others)[:SERVERS_ALIKE]
            # Not what was asked for before trust was withdrawn.
            self._remember(server, Known(snapshots, asked in (None, self.generation)))
        return self.meet(server, snapshot)

    def extend(self, server: Server, snapshot: Snapshot) -> None:
        """Remember what *snapshot* knows of its server besides what was known."""
        with self._runtime.lock:
            self.reads += 1
            known = self.servers.get(server)
            if known is not None:
                snapshots = tuple(
                    one.joined(snapshot) if one.is_same_place(snapshot) else one
                    for one in known.snapshots
                )
                if snapshots != known.snapshots:
                    self._remember(server, replace(known, snapshots=snapshots))

    def meet(self, server: Server, snapshot: Snapshot) -> Change | None:
        """Note that *snapshot* answers for the alias; return what is new in that."""
        old, before = self._latest.get(server.dbname, (None, None))
        is_same = before is snapshot or (before is not None and before.is_of(snapshot))
        if is_same and (old is server or old == server):
            return None
        now = monotonic()
        identity = (server, snapshot.version, snapshot.catalog.start)
        with self._runtime.lock:
            old, before = self._latest.get(server.dbname, (None, None))
            self._latest = _with(self._latest, server.dbname, (server, snapshot))
            last = self._read.get(server.dbname)
            self._read = _with(self._read, server.dbname, (server, snapshot))
            if before is None or old is None:
                self._met = _with(self._met, identity, now)
                if last is None or not last[1].is_changed(snapshot):
                    return None
                # What is new in that was told on arrival, but for the types.
                return Change(self.name, *last, server, snapshot)
            is_other = before.version != snapshot.version or before.is_changed(snapshot)
            if not is_other:
                self._met = _with(self._met, identity, now)
                return None
            left = (old, before.version, before.catalog.start)
            reached = None
            if left != identity:
                reached = self._met.get(identity)
            self._met = _with(_with(self._met, left, now), identity, now)
            if reached is None:
                self.changes += 1
            self.since = datetime.now(timezone.utc)
        if reached is not None and now - reached < QUIET_SECONDS:
            return None
        return Change(self.name, old, before, server, snapshot, reached is not None)

    def promote(self, server: Server, snapshot: Snapshot) -> None:
        """Ask for the server of *snapshot* first from now on."""
        known = self.servers.get(server)
        if known is None or len(known.snapshots) == 1:
            return
        if known.snapshot.is_same_place(snapshot):
            return
        with self._runtime.lock:
            known = self.servers.get(server)
            if known is not None:
                first = [one for one in known.snapshots if one.is_same_place(snapshot)]
                rest = [one for one in known.snapshots if one not in first]
                self._remember(server, replace(known, snapshots=(*first, *rest)))

    def note_move(self) -> None:
        """Note that a statement reached another server than the one expected."""
        self._moves = (*self._moves[-1:], monotonic())

    def is_unsteady(self) -> bool:
        """Whether connections have just been moved twice: expect nothing then."""
        moves = self._moves
        return len(moves) == 2 and monotonic() - moves[0] < UNSTEADY_SECONDS

    # Doubt

    def may_doubt(self, reason: object) -> bool:
        """Whether *reason* has not just been looked into; it is from now on."""
        now = monotonic()
        before = self._reasons.get(reason)
        if before is not None and now - before < REASON_SECONDS:
            return False
        with self._runtime.lock:
            self._reasons = _with(self._reasons, reason, now)
        return True

    def count_unexplained(self) -> None:
        """Count a result that was refused."""
        with self._runtime.lock:
            self.unexplained += 1

    def withdraw(self) -> None:
        """Trust nothing that was read so far: every connection reads once more.

        The answers are kept, to tell by them whether the next one is news.
        """
        with self._runtime.lock:
            self.generation += 1
            self._bare = {}
            self.servers = MappingProxyType(
                {
                    server: replace(known, is_trusted=False)
                    for server, known in self.servers.items()
                }
            )

    def _remember(self, server: Server, known: Known) -> None:
        self.servers = _with(self.servers, server, known)


def _with(old: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    """Return *old* with *key* as its newest entry, without the oldest past 64."""
    new = {k: v for k, v in old.items() if k != key}
    if len(new) >= SERVERS_AN_ALIAS:
        del new[next(iter(new))]
    new[key] = value
    return MappingProxyType(new)


class Runtime:
    """The state of this process."""

    def __init__(self) -> None:
        # A signal handler that calls forget() may find it held by the thread it
        # interrupts.
        self.lock = threading.RLock()
        self.aliases: Mapping[str, Alias] = MappingProxyType({})
        self.trust_of: Callable[[str], Trust] = lambda alias: Trust.AUTO
        """The settings' answer; whoever knows them puts it here."""
        self.announce: Callable[[Change, bool], None] = lambda change, in_query: None
        """Called with what changed, and whether a query is under way."""
        self._groups: Mapping[str, tuple[TrackedType, ...]] = MappingProxyType({})
        self.registry = Registry.of(())
        """The types that are tracked now."""
        self.connections: weakref.WeakSet[Any] = weakref.WeakSet()
        """Tracked psycopg connections that are open, or were."""

    def alias(self, name: str) -> Alias:
        """Return the memory of the alias called *name*, made at first use."""
        try:
            return self.aliases[name]
        except KeyError:
            trust = self.trust_of(name)
            with self.lock:
                if name not in self.aliases:
                    self.aliases = MappingProxyType(
                        {**self.aliases, name: Alias(self, name, trust)}
                    )
                return self.aliases[name]

    def withdraw_all(self) -> None:
        """Trust nothing that was read so far, of any alias."""
        for one in self.aliases.values():
            one.withdraw()

    def group(self, name: str) -> tuple[TrackedType, ...]:
        """Return the types that are tracked under the group *name*."""
        return self._groups.get(name, ())

    def track(self, name: str, types: Iterable[TrackedType]) -> None:
        """Track *types* as the group *name*, and no others in it.

        Later groups go before earlier ones where they name the same type.
        """
        with self.lock:
            groups = {**self._groups, name: tuple(types)}
            order = sorted(groups, key=_GROUPS.index)
            self._groups = MappingProxyType({one: groups[one] for one in order})
            by_name = {
                (tracked.schema, tracked.name): tracked
                for group in self._groups.values()
                for tracked in group
            }
            self.registry = Registry.of(tuple(by_name.values()))

    def open_connections(self) -> list[Any]:
        """Return the tracked connections that are open."""
        with self.lock:
            found = list(self.connections)
        return [one for one in found if not one.closed]


_GROUPS = ("contrib.postgres", "backend", "declared")

runtime = Runtime()


def _renew_locks() -> None:
    """Give a forked child locks that no thread of its parent can hold."""
    runtime.lock = threading.RLock()
    _types._renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def nothing_known() -> Snapshot:
    """Return a snapshot of a server that nothing was read from."""
    return Snapshot(Catalog(0), runtime.registry)
