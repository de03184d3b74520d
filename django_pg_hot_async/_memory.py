"""What this process remembers of servers, by alias, and whether to trust it.

Everything a reader takes is one reference to an immutable object; writers swap
it whole, under a lock that is held for a few instructions and never across a
query. It is bounded: 64 servers an alias.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from time import monotonic
from types import MappingProxyType
from typing import TypeVar

from . import conf
from ._server import Server
from ._snapshot import Snapshot
from .conf import Trust

K = TypeVar("K")
V = TypeVar("V")

SERVERS_AN_ALIAS = 64
ANSWERS_A_SERVER = 8
UNTRACKED_OIDS = 1024
QUIET_SECONDS = 10.0
"""How long after a server was last reached a way back to it is no news: connections
may reach one server and another by turns."""

# A signal handler that calls forget() may find it held by the thread it interrupts.
_lock = threading.RLock()


def _renew_lock() -> None:
    """Give a forked child a lock that no thread of its parent can hold."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True, slots=True)
class Known:
    """What was read from one server."""

    snapshot: Snapshot
    """The newest answer."""
    answers: tuple[Snapshot, ...]
    """The different answers, newest last: several servers may share an address."""
    untracked: frozenset[int]
    """OIDs that were asked about and are of no tracked type."""
    is_trusted: bool = True
    """Whether nothing has contradicted the newest answer since."""


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

    __slots__ = (
        "_last_read",
        "_latest",
        "_seen",
        "changes",
        "current",
        "differences",
        "epoch",
        "fallbacks",
        "name",
        "reads",
        "reads_in_loop",
        "seconds_in_loop",
        "servers",
        "since",
        "trust",
    )

    def __init__(self, name: str, trust: Trust) -> None:
        self.name = name
        self.trust = trust
        self.epoch = 0
        """Trust given before this number was reached is withdrawn."""
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
        self.fallbacks = 0
        """How often OIDs were used that could not be verified."""
        self.reads_in_loop = 0
        self.seconds_in_loop = 0.0
        """How often, and how long, a read held an event loop."""
        # By name of the database: an alias that leads to many (tenants, test
        # databases) has not moved to another server each time one is opened.
        self._latest: Mapping[str, Server] = MappingProxyType({})
        # When each server was last reached from another, in seconds.
        self._seen: Mapping[Server, float] = MappingProxyType({})
        self._last_read: Mapping[str, tuple[Server, Snapshot]] = MappingProxyType({})

    def recall(self, server: Server) -> Known | None:
        """Return what was last read from a server that looks like *server*.

        None where that was never, or is not to be trusted any more.
        """
        known = self.servers.get(server)
        return known if known is not None and known.is_trusted else None

    def arrive(self, server: Server) -> Change | None:
        """Note that a new connection reached *server*; return what is new in that."""
        if self.current == server:
            return None
        now = monotonic()
        with _lock:
            old = self._latest.get(server.dbname)
            self.current = server
            self.since = datetime.now(timezone.utc)
            self._latest = _with(self._latest, server.dbname, server)
            reached = self._seen.get(server)
            self._seen = _with(self._seen, server, now)
            if old is not None and reached is None:
                self.changes += 1
        if old is None or (reached is not None and now - reached < QUIET_SECONDS):
            return None
        known = self.servers.get(old)
        before = None if known is None else known.snapshot
        return Change(self.name, old, before, server, None, reached is not None)

    def learn(
        self,
        server: Server,
        snapshot: Snapshot,
        *,
        epoch: int,
        moved: bool,
        is_old: bool = False,
    ) -> tuple[int, Change | None]:
        """Remember what *server* answered; return the epoch to trust it in.

        *epoch* is the one in which the question was asked; *moved* says that the
        connection had had another answer before. That, or an answer nobody had
        from this server before, withdraws trust from all connections that were
        verified earlier (they read once more before they next decode). *is_old*: it
        may be older than what is known, which stays so then.
        """
        with _lock:
            self.reads += 1
            known = self.servers.get(server)
            is_other = known is not None and known.snapshot != snapshot
            if is_old and is_other and self.recall(server) is not None:
                return epoch, None
            if known is not None and known.snapshot == snapshot and not moved:
                if not known.is_trusted and epoch == self.epoch:
                    self._remember(server, replace(known, is_trusted=True))
                return epoch, None
            new = known is not None and snapshot not in known.answers
            if moved or new:
                self.differences += 1
                self.epoch += 1
                if epoch == self.epoch - 1:
                    epoch = self.epoch
            answers = () if known is None else known.answers
            self._remember(
                server,
                Known(
                    snapshot,
                    (
                        *(answer for answer in answers if answer != snapshot),
                        snapshot,
                    )[-ANSWERS_A_SERVER:],
                    frozenset(),
                    # Not what was asked for before trust was withdrawn.
                    epoch == self.epoch,
                ),
            )
            last = self._last_read.get(server.dbname)
            self._last_read = _with(self._last_read, server.dbname, (server, snapshot))
            if known is None:
                if last is None or last[1] == snapshot:
                    return epoch, None
                return epoch, Change(self.name, *last, server, snapshot)
            if not new:
                return epoch, None
            self.changes += 1
            self.since = datetime.now(timezone.utc)
        return epoch, Change(self.name, server, known.snapshot, server, snapshot)

    def learn_untracked(
        self, server: Server, snapshot: Snapshot, oids: Iterable[int]
    ) -> None:
        """Remember that *oids* are of no tracked type where *snapshot* is so."""
        with _lock:
            known = self.recall(server)
            if known is not None and known.snapshot == snapshot:
                self._remember(
                    server,
                    replace(known, untracked=bounded_oids(known.untracked, oids)),
                )

    def count_hold(self, seconds: float) -> None:
        """Count a read that nothing could await, and that an event loop waited for."""
        with _lock:
            self.reads_in_loop += 1
            self.seconds_in_loop += seconds

    def count_fallback(self) -> None:
        """Count a use of OIDs that could not be verified."""
        with _lock:
            self.fallbacks += 1

    def withdraw(self) -> None:
        """Trust nothing that was read so far: every connection reads once more.

        The answers are kept, to tell by them whether the next one is news.
        """
        with _lock:
            self.epoch += 1
            self.servers = MappingProxyType(
                {
                    server: replace(known, untracked=frozenset(), is_trusted=False)
                    for server, known in self.servers.items()
                }
            )

    def _remember(self, server: Server, known: Known) -> None:
        self.servers = _with(self.servers, server, known)


def bounded_oids(known: frozenset[int], oids: Iterable[int]) -> frozenset[int]:
    """Add *oids*; past 1,024 in all, start again with these alone."""
    new = frozenset(oids)
    return new if len(known) + len(new) > UNTRACKED_OIDS else known | new


def _with(old: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    """Return *old* with *key* as its newest entry, without the oldest past 64."""
    new = {k: v for k, v in old.items() if k != key}
    if len(new) >= SERVERS_AN_ALIAS:
        del new[next(iter(new))]
    new[key] = value
    return MappingProxyType(new)


_aliases: Mapping[str, Alias] = MappingProxyType({})


def alias(name: str) -> Alias:
    """Return the memory of the alias called *name*, made at first use."""
    global _aliases
    try:
        return _aliases[name]
    except KeyError:
        trust = conf.trust(name)
        with _lock:
            if name not in _aliases:
                _aliases = MappingProxyType({**_aliases, name: Alias(name, trust)})
            return _aliases[name]


def aliases() -> Mapping[str, Alias]:
    """Return every alias that something is remembered of."""
    return _aliases


def withdraw_all() -> None:
    """Trust nothing that was read so far, of any alias."""
    for one in _aliases.values():
        one.withdraw()
