"""What each level of trust promises: the model that the app is compared with.

A *layout* is what a server holds. Where trust belongs to a transaction, every row and
every value that is sent has to be right, whatever happened before. Where it belongs to
a connection, or to all connections that look the same, a value may be sent by what
the server held when it was last asked; then it is refused once, and right from then on.
What the promise costs is decided here as well: the most statements of the app's own
that a use may take. Where nothing is new, that is none, or one that travels along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import psycopg

from .schema import Layout
from .world import Place

LEVELS = ("auto", "connection", "transaction", "server")
STRAIGHT = ("connection", "server")
"""The levels that promise nothing behind a pooler."""
TRACKED = ("hstore", "citext")
SERIALIZATION_FAILURE = "40001"
INSUFFICIENT_PRIVILEGE = "42501"
TEXT = "citext"
"""The tracked type whose values load as text, as those of no tracked type do."""
QUIET_SECONDS = 2.0
"""Longer than the second for which an error, or a type that is missing, is believed."""
MOVED = 3
"""The most statements for a server that is not the one expected: an assertion that
fails, a confirmation that does not hold, a read."""

Identity = tuple[int, str, str, str]
"""What a connection shows of its server: version, address, port, database."""


@dataclass
class Known:
    """What a server that looks so was last found to hold."""

    place: Place
    layout: Layout
    is_trusted: bool = True


@dataclass
class Alias:
    stamp: int = 0
    known: dict[Identity, Known] = field(default_factory=dict)
    settled: set[Identity] = field(default_factory=set)
    """Those that have been read since anything happened to their types."""
    bare: set[str] = field(default_factory=set)
    """Statements that are known to carry no such type."""
    reasons: dict[object, float] = field(default_factory=dict)
    """When each error was last seen."""


@dataclass
class Link:
    """A connection, and the layout that it may go by."""

    alias: str
    identity: Identity
    held: Layout | None = None
    stamp: int = -1
    last: Known | None = None
    """What it was last told."""
    met: set[int] = field(default_factory=set)
    """OIDs that it has asked about."""
    missed: dict[str, float] = field(default_factory=dict)
    """When a value of a type that the server lacked was last sent."""
    sent: set[str] = field(default_factory=set)
    """Types of which it has sent a value."""
    has_answered: bool = False
    is_doubted: bool = False
    """Whether an error has shown that what it was last told may be wrong."""
    in_transaction: bool = False
    is_provisional: bool = False
    """Whether it was read in a transaction, which may have been rolled back since."""
    is_mixed: bool = False
    """Whether it has met types that were made anew: which is sent has to be asked."""
    slack: int = 0
    """What the next use may cost more: it cannot be told whether it asks."""
    next_slack: int = 0
    """And the one after that."""
    frozen: Layout | None = None
    """What was there when the transaction began, where that is what it sees."""
    is_refused: bool = False
    """Whether the transaction has met what is newer: what it knows is not told."""
    has_rights: bool = True
    """Whether its role may look into pg_type."""


@dataclass
class Expected:
    """What may come of a use: the most statements, and whether each value is right.

    Where it is not, the promise does not cover it: anything may come.
    """

    most: int = 0
    right: list[bool] = field(default_factory=list)
    missing: bool = False
    """The server lacks the type of a parameter."""
    refusals: frozenset[str] = frozenset()
    """SQLSTATEs of reads that may fail, and the use with them."""

    def __add__(self, other: Expected) -> Expected:
        return Expected(
            self.most + other.most,
            self.right + other.right,
            self.missing or other.missing,
            self.refusals | other.refusals,
        )


class Promise:
    """The promise at a level of trust, for all aliases and connections."""

    def __init__(self, level: str, *, pooler: bool) -> None:
        self.level = level
        self.pooler = pooler
        self.tracked: tuple[str, ...] = TRACKED
        self.aliases: dict[str, Alias] = {}

    def alias(self, name: str) -> Alias:
        return self.aliases.setdefault(name, Alias())

    def seen(self, layout: Layout) -> Layout:
        """The part of *layout* that a read tells of."""
        types = tuple(row for row in layout.types if row[0] in self.tracked)
        labels = layout.labels if "mood" in self.tracked else ()
        return Layout(layout.version, types, self.tracked, labels)

    def loads(self, layout: Layout, oid: int) -> str:
        """What a value of *oid* becomes, to one who goes by *layout*; "" is text."""
        name = self.seen(layout).names.get(oid, TEXT)
        return "" if name == TEXT else name

    @property
    def loaded(self) -> set[str]:
        """The types whose values become something else than text."""
        names = {name for row in self.tracked for name in (row, f"{row}[]")}
        return names - {TEXT}

    def is_by_transaction(self, link: Link) -> bool:
        """Whether a transaction is what trust belongs to."""
        if self.level == "auto":
            return self.pooler or not link.has_answered
        return self.level == "transaction"

    # What ends trust

    def register(self, *names: str) -> None:
        """Other types are tracked from now on."""
        self.tracked = (*self.tracked, *names)
        for alias in self.aliases:
            self.withdraw(alias)

    def withdraw(self, name: str) -> None:
        """`forget()`, or a change: every connection asks once more."""
        alias = self.alias(name)
        alias.stamp += 1
        alias.bare.clear()
        for known in alias.known.values():
            known.is_trusted = False

    def doubt(self, link: Link, reason: object) -> None:
        """An error was seen that a wrong OID may explain: this connection asks."""
        alias, now = self.alias(link.alias), monotonic()
        before = alias.reasons.get(reason)
        alias.reasons[reason] = now
        if before is None or now - before > QUIET_SECONDS:
            link.held, link.is_doubted = None, True

    def begin(self, link: Link, *, is_idle: bool) -> None:
        """A statement is about to be sent; *is_idle*: no transaction is under way."""
        if link.stamp != self.alias(link.alias).stamp:
            link.held = None
        if is_idle and (link.is_provisional or self.is_by_transaction(link)):
            link.held, link.is_provisional = None, False

    # What establishes it

    def hold(self, link: Link, place: Place, *, anew: bool = False) -> Expected:
        """Have the connection go by something: the server is asked where it must be."""
        if link.held is not None and not anew:
            return Expected()
        anew = anew or link.is_doubted
        alias = self.alias(link.alias)
        known = alias.known.get(link.identity)
        if self.level == "server" and not anew and known and known.is_trusted:
            self._trust(link, known)
            # Somebody has read it since something happened, or nobody has.
            return Expected(0 if link.identity in alias.settled else MOVED)
        layout = link.frozen.without_dropped(place.layout) if link.frozen else None
        now = Known(place, self.seen(layout or place.layout))
        is_asked = known and known.is_trusted and known.place is place and not anew
        if known and is_asked and known.layout.types:
            # A confirmation does not tell what was created since.
            now = known if known.layout.is_part_of(now.layout) else now
        is_new = known != now or not known.is_trusted or link.last != now
        refusals: set[str] = set()
        if not link.has_rights and (is_new or anew):
            refusals.add(INSUFFICIENT_PRIVILEGE)
        is_other = known is not None and known.layout != now.layout
        if (
            known is not None
            and is_other
            and not (self.pooler or link.frozen)
            and known.layout.tracked == now.layout.tracked
        ):
            self.withdraw(link.alias)
            for one in alias.known.values():
                one.is_trusted = one is not known
        if not link.frozen:
            alias.known[link.identity] = now
        self._trust(link, now)
        is_new = is_new or anew or link.frozen is not None
        link.is_provisional = is_new and link.in_transaction
        return Expected(MOVED if is_new else 1, refusals=frozenset(refusals))

    def _trust(self, link: Link, known: Known) -> None:
        if link.last != known:
            link.met = set()
        link.held, link.last = known.layout, known
        link.stamp = self.alias(link.alias).stamp
        link.has_answered, link.is_mixed, link.is_doubted = True, False, False

    # What is expected of a use

    def plain(self, link: Link, place: Place, text: str, *, is_own: bool) -> Expected:
        """A statement that has no such type in it; *is_own*: it may be asked with it.

        What is not known to be one has a confirmation with it, the first time.
        """
        self.begin(link, is_idle=is_own)
        alias = self.alias(link.alias)
        if link.held is not None or not is_own or text in alias.bare:
            return Expected()
        expected = self.hold(link, place)
        if expected.most:
            alias.bare.add(text)
        return expected

    def result(self, link: Link, place: Place, types: Sequence[str]) -> Expected:
        """Rows of columns of *types* arrive."""
        if not types:
            return Expected()
        now = place.layout
        oids = {now.oids[name] for name in types}
        expected = self.hold(link, place)
        held = link.held
        assert held is not None
        right = [
            self.loads(held, now.oids[name]) in ("", self.loads(now, now.oids[name]))
            for name in types
        ]
        if "mood" in self.tracked and held.labels != now.labels:
            # A label that is none says that the enum is another one now.
            link.next_slack = MOVED
        if unknown := oids - held.names.keys() - link.met:
            expected += self._meet(link, now, unknown, types)
        expected.right += right
        return expected

    def _meet(
        self, link: Link, now: Layout, unknown: Collection[int], types: Iterable[str]
    ) -> Expected:
        """OIDs turn up that nobody has told the connection of."""
        refusals = set()
        if link.frozen is not None and {*unknown} - {*link.frozen.oids.values()}:
            refusals.add(SERIALIZATION_FAILURE)
        if not link.has_rights:
            refusals.add(INSUFFICIENT_PRIVILEGE)
        link.is_provisional = link.is_provisional or link.in_transaction
        if not refusals:
            link.met |= {*unknown}
        names = {name.removesuffix("[]") for name in types} & {*self.tracked}
        rows = tuple(row for row in now.types if row[0] in names)
        held = link.held
        assert held is not None
        if rows and not refusals:
            others = tuple(row for row in held.types if row[0] not in names)
            link.is_mixed = link.is_mixed or len(others) < len(held.types)
            link.held = Layout(held.version, (*others, *rows), held.tracked, now.labels)
        return Expected(MOVED, refusals=frozenset(refusals))

    def parameters(
        self, link: Link, place: Place, types: Sequence[str], *, by_name: bool
    ) -> Expected:
        """Values of *types* are sent; *by_name* with client-side binding."""
        now = place.layout
        expected = self.hold(link, place)
        for name in types:
            held = link.held
            assert held is not None
            is_missing = name not in now.oids
            right = not is_missing
            word = name.removesuffix("[]")
            if name not in held.oids:
                # What is missing is asked for, at most once a second where it goes
                # as text in the meantime.
                since = monotonic() - link.missed.get(word, -QUIET_SECONDS)
                right = right and (word == "hstore" or since > QUIET_SECONDS)
                if right or not self.is_by_transaction(link):
                    expected += self.hold(link, place, anew=True)
                else:
                    expected.most += MOVED
                link.missed[word] = monotonic()
                right = right and link.frozen is None
            elif not by_name:
                right = held.oids[name] == now.oids.get(name)
            if link.is_mixed or word == "shift":
                # By its value it may be a range that several schemas have.
                expected.most += 1
            if word not in link.sent:
                # What others were told of the server may not have had it.
                expected.most += MOVED
                link.sent.add(word)
            expected += Expected(0, [right], is_missing)
        return expected


# Those of I2; what a parameter meets that is sent as a type it is not.
REFUSALS = {"42704", "42804", "0A000", "42883", "22P03"}


def is_evidence(error: psycopg.Error) -> bool:
    """Whether an error may come of a wrong OID."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    if error.sqlstate == "XX000":
        return "cache lookup failed for type" in str(error)
    return error.sqlstate in REFUSALS
