"""What each level of trust promises: the model that the app is compared with.

A *layout* is what a server holds. A connection is allowed to go by one layout as
long as its trust in it lasts; what it may not do is decode a value, or send one, by
another. Whether the app reads too often is decided here as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import psycopg

from .world import Layout

LEVELS = ("server", "connection", "checkout", "result")
TRACKED = ("hstore", "citext")
NOTHING = Layout(0, ())
SERIALIZATION_FAILURE = "40001"
INSUFFICIENT_PRIVILEGE = "42501"
TEXT = "citext"
"""The tracked type whose values load as text, as those of no tracked type do."""

Identity = tuple[int, str, str, str]
"""What a connection shows of its server: version, address, port, database."""


@dataclass
class Known:
    """What was read from a server, by its identity."""

    layout: Layout
    answers: list[Layout]
    untracked: set[int]
    is_trusted: bool = True


@dataclass
class Alias:
    epoch: int = 0
    known: dict[Identity, Known] = field(default_factory=dict)

    def recall(self, identity: Identity) -> Known | None:
        known = self.known.get(identity)
        return known if known is not None and known.is_trusted else None


@dataclass
class Link:
    """A connection, and the layout that it may go by."""

    alias: str
    identity: Identity
    layout: Layout | None = None
    previous: Layout | None = None
    epoch: int = -1
    untracked: set[int] = field(default_factory=set)
    has_sent: bool = False
    is_read: bool = False
    """Whether the last answer was a read; what is confirmed may be less."""
    is_confirmed: bool = False
    """Whether it was asked for no more than what was known."""
    is_ahead: bool = False
    """Whether it was read for the very result that comes next."""
    warned: bool = False
    """Whether it went by what could not be verified, and said so."""
    frozen: Layout | None = None
    """What was there when the transaction began, where that is what it sees."""
    has_rights: bool = True
    """Whether its role may look into pg_type."""


@dataclass
class Expected:
    """What may come of a use: how many reads, and whether each value is right.

    Where it is not, the promise does not cover it: anything may come.
    """

    reads: int
    right: list[bool]
    missing: bool = False
    """The server lacks the type of a parameter."""
    refused: str = ""
    """The SQLSTATE of the read that fails, and the use with it."""

    def __add__(self, other: Expected) -> Expected:
        return Expected(
            self.reads + other.reads,
            self.right + other.right,
            self.missing or other.missing,
            self.refused or other.refused,
        )


NONE = Expected(0, [])


class Refused(Exception):
    """A read fails: *statements* were sent, and the last of them is the one."""

    def __init__(self, statements: int, sqlstate: str) -> None:
        self.statements = statements
        self.sqlstate = sqlstate


class Promise:
    """The promise at a level of trust, for all aliases and connections."""

    def __init__(self, level: str) -> None:
        self.level = level
        self.tracked: tuple[str, ...] = TRACKED
        self.aliases: dict[str, Alias] = {}

    def alias(self, name: str) -> Alias:
        return self.aliases.setdefault(name, Alias())

    def seen(self, layout: Layout) -> Layout:
        """The part of *layout* that a read tells of."""
        types = tuple(row for row in layout.types if row[0] in self.tracked)
        labels = layout.labels if "mood" in self.tracked else ()
        return Layout(layout.version, types, self.tracked, labels)

    def known(self, layout: Layout) -> dict[int, str]:
        """The tracked types of *layout*, and their arrays, by OID."""
        return dict(self.seen(layout).names)

    def loads(self, layout: Layout, oid: int) -> str:
        """What a value of *oid* becomes, to one who goes by *layout*; "" is text."""
        name = self.known(layout).get(oid, TEXT)
        return "" if name == TEXT else name

    @property
    def loaded(self) -> set[str]:
        """The types whose values become something else than text."""
        names = {name for row in self.tracked for name in (row, f"{row}[]")}
        return names - {TEXT}

    # What ends trust

    def register(self, name: str) -> None:
        """Another type is tracked from now on."""
        self.tracked = (*self.tracked, name)
        for alias in self.aliases:
            self.withdraw(alias)

    def renew(self, link: Link) -> None:
        """A checkout or a work unit begins."""
        if self.level in ("checkout", "result"):
            link.layout = None

    def withdraw(self, name: str) -> None:
        """`forget()`, or evidence: every connection reads once more."""
        alias = self.alias(name)
        alias.epoch += 1
        for known in alias.known.values():
            known.is_trusted, known.untracked = False, set()

    def doubt(self, link: Link, *, refused: bool) -> None:
        """An error was seen that a wrong OID may explain."""
        if self.trusted(link) is not None and (link.has_sent or not refused):
            link.has_sent = False
            self.withdraw(link.alias)

    def begin(self, link: Link) -> None:
        """A statement is about to be sent."""
        link.is_ahead = False
        if self.level == "result":
            link.layout = None

    # What establishes it

    def trusted(self, link: Link) -> Layout | None:
        """The layout that a connection may go by without a read."""
        return link.layout if link.epoch == self.alias(link.alias).epoch else None

    def verify(
        self,
        link: Link,
        now: Layout,
        *,
        anew: bool = False,
        oids: Collection[int] = (),
    ) -> int:
        """The server, which holds *now*, is asked over the connection.

        Return how many statements that takes: it is asked to confirm what is known
        of it, unless *anew* or where one of *oids* is none of that, and read where
        it does not. Raise `Refused` where it must not be read, or where the transaction
        is older than one of *oids*.
        """
        now, before = self.seen(now), link.previous
        alias = self.alias(link.alias)
        was_confirmed = link.is_confirmed
        statements, link.is_read, link.is_confirmed = 1, True, False
        known = alias.recall(link.identity)
        if known is not None and not anew and self.can_be_confirmed(known.layout, oids):
            if known.layout.is_part_of(now):
                now, link.is_read, link.untracked = known.layout, False, set()
                link.is_confirmed = True
            else:
                statements += 1
        if link.is_read and not link.has_rights:
            link.is_confirmed = was_confirmed
            raise Refused(statements, INSUFFICIENT_PRIVILEGE)
        if link.is_read and link.frozen is not None:
            # What it sees is as old as it is, but for what is confirmed, or dropped.
            current, now = now, self.seen(link.frozen).without_dropped(now)
            if missing := {*oids} - self.known(now).keys():
                statements += 1
                if missing & self.known(current).keys():
                    link.is_confirmed = was_confirmed
                    raise Refused(statements, SERIALIZATION_FAILURE)
            if known is not None and known.layout != now:
                # There may be newer ones by now: what is known stays so.
                self._trust(link, now)
                return statements
        # With another question, another answer says nothing.
        moved = before is not None and before != now and before.tracked == now.tracked
        known = alias.known.get(link.identity)
        if known is None or known.layout != now or moved:
            answers = [] if known is None else known.answers
            if moved or (known is not None and now not in answers):
                alias.epoch += 1
            alias.known[link.identity] = Known(
                now, [*[a for a in answers if a != now][-7:], now], set()
            )
        else:
            known.is_trusted = True
        self._trust(link, now)
        return statements

    def can_be_confirmed(self, layout: Layout, oids: Collection[int]) -> bool:
        """Whether the names of its OIDs say all that counts; not so of labels."""
        is_current = layout.tracked == self.tracked
        is_all = is_current and {*oids} <= self.known(layout).keys()
        return is_all and bool(layout.types) and "mood" not in self.tracked

    def _trust(self, link: Link, layout: Layout) -> None:
        if layout != link.previous:
            link.untracked = set()
        link.layout = link.previous = layout
        link.epoch = self.alias(link.alias).epoch
        link.has_sent = link.warned = False

    def _establish(
        self,
        link: Link,
        now: Layout,
        *,
        readable: bool,
        anew: bool = False,
        oids: Collection[int] = (),
    ) -> tuple[Layout, int]:
        """Return the layout to go by, and the number of statements that it takes."""
        link.is_read = False
        known = self.alias(link.alias).recall(link.identity)
        if self.level == "server" and known is not None and not anew:
            self._trust(link, known.layout)
            link.untracked, link.is_confirmed = set(known.untracked), False
            return known.layout, 0
        if readable:
            reads = self.verify(link, now, anew=anew, oids=oids)
            assert link.layout is not None
            return link.layout, reads
        # I4: what "server" would trust.
        held = self.trusted(link)
        if anew and held is not None:
            return held, 0
        if held is None or self.level == "result":
            link.warned = True
        if held is None and link.previous is not None:
            before = link.previous
            found = self.known(known.layout).keys() if known else set()
            if known is None or (
                not found & {*oids} and self.known(before).keys() & {*oids}
            ):
                return before, 0
        return held or (known.layout if known else NOTHING), 0

    def cursor(self, link: Link, now: Layout) -> Expected:
        """A cursor is made where reading can be awaited: before the query, then."""
        if self.level == "result" or self.trusted(link) is not None:
            return NONE
        is_known = self.alias(link.alias).recall(link.identity) is not None
        if self.level == "server" and is_known:
            return NONE
        try:
            return Expected(self.verify(link, now), [])
        except Refused as error:
            return Expected(error.statements, [False], refused=error.sqlstate)

    def ahead(
        self, link: Link, now: Layout, *, at_once: bool, sends: Sequence[str] = ()
    ) -> Expected:
        """Rows are about to arrive one by one, or in a pipeline: it is read before.

        So it is where the type of what a batch *sends* was not there.
        """
        known = self.alias(link.alias).recall(link.identity)
        held = self.trusted(link)
        if held is None and self.level == "server" and known is not None:
            held = known.layout
            self._trust(link, held)
            link.untracked, link.is_confirmed = set(known.untracked), False
        if (
            self.level != "result"
            and held is not None
            and not link.is_confirmed
            and held.oids.keys() >= {*sends}
        ):
            return NONE
        reads = self.verify(link, now, anew=True)
        link.is_ahead = at_once and self.level == "result"
        return Expected(reads, [])

    # What is expected of a use

    def result(
        self,
        link: Link,
        now: Layout,
        types: Sequence[str],
        *,
        readable: bool = True,
        apart: bool = False,
    ) -> Expected:
        """Rows of columns of *types* arrive: the result of one statement.

        *apart*: none is seen before the one before it was loaded.
        """
        oids = [now.oids[name] for name in types]
        reads, right = 0, []
        for number, oid in enumerate(oids):
            held = self.trusted(link)
            first = number == 0 and self.level == "result" and not link.is_ahead
            if held is None or first or not self.loads(held, oid):
                together = [oid] if apart else oids
                try:
                    held, read = self._news(link, now, oid, together, readable, first)
                except Refused as error:
                    statements, wrong = reads + error.statements, [False] * len(oids)
                    return Expected(statements, wrong, refused=error.sqlstate)
                reads += read
            right.append(self.loads(held, oid) == self.loads(now, oid))
        return Expected(reads, right)

    def _news(
        self,
        link: Link,
        now: Layout,
        oid: int,
        together: list[int],
        readable: bool,
        first: bool,
    ) -> tuple[Layout, int]:
        held, reads = self.trusted(link), 0
        link.is_read = False
        if held is None or first:
            held, reads = self._establish(link, now, readable=readable, oids=together)
        is_news = oid not in self.known(held) and oid not in link.untracked
        if is_news and not link.is_read:
            try:
                held, more = self._establish(
                    link, now, readable=readable, anew=True, oids=together
                )
            except Refused as error:
                raise Refused(reads + error.statements, error.sqlstate) from None
            reads += more
        if link.is_read:
            untracked = {other for other in together if other not in self.known(held)}
            link.untracked |= untracked
            known = self.alias(link.alias).recall(link.identity)
            if self.level == "server" and known is not None and known.layout == held:
                known.untracked |= untracked
        return held, reads

    def copied(
        self, link: Link, now: Layout, types: Sequence[str], *, binary: bool
    ) -> Expected:
        """COPY: values of *types*, told by name; what nobody tracks is not told.

        Nothing can be asked in it. It tells no OIDs, but for arrays in the *binary*
        format, whose elements have them.
        """
        held = self.trusted(link)
        assert held is not None

        def is_right(name: str) -> bool:
            if name not in self.loaded:
                return True
            element, is_array, _ = name.partition("[]")
            if not (binary and is_array):
                return name in held.oids
            oid = now.oids[element]
            return name in held.oids and self.loads(held, oid) == self.loads(now, oid)

        return Expected(0, [is_right(name) for name in types])

    def copied_in(self, link: Link, types: Sequence[str]) -> Expected:
        """COPY to the server: what it needs to know of *types* are the names."""
        held = self.trusted(link)
        assert held is not None
        link.has_sent = True
        right = [name in held.oids for name in types]
        return Expected(0, right, not all(right))

    def parameters(
        self,
        link: Link,
        now: Layout,
        types: Sequence[str],
        *,
        by_name: bool,
        readable: bool = True,
    ) -> Expected:
        """Values of *types* are sent; *by_name* with client-side binding."""
        expected = NONE
        for name in types:
            held, reads = self.trusted(link), 0
            link.is_read = False
            if held is None:
                held, reads = self._establish(link, now, readable=readable)
            if name not in held.oids and not link.is_read:
                held, more = self._establish(link, now, readable=readable, anew=True)
                reads += more
            link.has_sent = True
            if by_name:
                right = name in held.oids and name in now.oids
            else:
                right = name in held.oids and held.oids[name] == now.oids.get(name)
            expected += Expected(reads, [right], name not in held.oids)
        return expected


# Those of I2; what a parameter meets that is sent as a type it is not.
REFUSALS = {"42704", "42804", "0A000", "42883", "22P03"}


def is_evidence(error: psycopg.Error) -> bool | None:
    """Whether an error may come of a wrong OID: True if the server refused one,
    False if a value did not parse, None if it does not."""
    if error.sqlstate is None:
        return False if isinstance(error, psycopg.DataError) else None
    if error.sqlstate == "XX000":
        return True if "cache lookup failed for type" in str(error) else None
    return True if error.sqlstate in REFUSALS else None
