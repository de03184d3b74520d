"""Values that do not load as what the server last said of their type.

``ALTER TYPE`` keeps the OID. A label or an attribute that is news makes psycopg's
loader raise; that is evidence, so the server is asked once more, and the value
loaded once more, by what it says now. So it is with any value that does not parse
on a connection of the project's own, whose errors nobody else sees.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Loader
from psycopg.types.enum import EnumInfo

from ._link import link_of

if TYPE_CHECKING:
    from psycopg import abc
    from psycopg.abc import AdaptContext, Buffer

    from ._link import Link
    from ._registry import StandIn

INVALID_OID = 0


class BadValue(psycopg.DataError):
    """A value that the Python side cannot hold, whatever the server is asked."""


class _Context:
    """The adapters and the connection of an `AdaptContext`, and no more of it."""

    __slots__ = ("adapters", "connection")

    def __init__(self, context: AdaptContext) -> None:
        self.adapters = context.adapters
        self.connection = context.connection


class GuardedLoader(Loader):
    """Loads by psycopg's loader; where that raises, asks the server, and tries again.

    Each value costs one call more, and the first that does not fit a read.
    """

    def __init__(
        self, loader: abc.Loader, number: int, stand_in: StandIn, context: AdaptContext
    ) -> None:
        super().__init__(INVALID_OID, context)
        self.format = loader.format
        # Not the Transformer itself, which holds its loaders and the result at hand: in
        # a cycle they, and a connection, would stay until the garbage is collected.
        self._context = _Context(context)
        self._is_element = number == stand_in.oid
        self._adopt(loader, stand_in)

    def _adopt(self, loader: abc.Loader, stand_in: StandIn) -> None:
        self._load = loader.load
        self._stand_in = stand_in
        # By label, those that psycopg's loader does not find.
        self._members: dict[str, Any] = {}

    def load(self, data: Buffer) -> Any:
        try:
            return self._load(data)
        except BadValue:
            # Of an attribute or an element: the server was asked for it.
            raise
        except Exception as error:
            return self._load_anew(data, error)

    def _load_anew(self, data: Buffer, error: Exception) -> Any:
        tracked = self._stand_in.tracked
        link = link_of(self._context.connection)
        if link is None:
            raise error
        if self._is_element and isinstance(self._stand_in.info, EnumInfo):
            label = self._label(data)
            if label in self._stand_in.shape.labels:
                # The server has it, as it said; asking again would tell no more.
                return self._member(label, [self._stand_in], link, error)
        found = link.reread(self._context).shapes_of(tracked)
        if not self._is_element:
            raise error
        for stand_in in found:
            loader = stand_in.loaders.get((stand_in.oid, self.format))
            if stand_in is self._stand_in or loader is None or stand_in.failure:
                continue
            try:
                new = loader(INVALID_OID, self._context)
                value = new.load(data)
            except Exception as another:
                error = another
            else:
                self._adopt(new, stand_in)
                return value
        if isinstance(self._stand_in.info, EnumInfo):
            return self._member(self._label(data), found, link, error)
        raise error

    def _label(self, data: Buffer) -> str:
        encoding = self._context.connection.info.encoding  # type: ignore[union-attr]
        return bytes(data).decode(encoding, "replace")

    def _member(
        self, label: str, found: list[StandIn], link: Link, error: Exception
    ) -> Any:
        """Ask the Enum for a label that is no name of a member of it."""
        info: Any = self._stand_in.info
        with suppress(Exception):
            if label not in self._members:
                # Where Enum._missing_ is asked. psycopg looks for names only.
                self._members[label] = info.enum(label)
            return self._members[label]
        raise BadValue(
            f"bad member for enum {info.enum.__qualname__}: {label!r}; labels of the"
            f" type {self._stand_in.tracked} at {link.memory.name!r}: "
            f"{_listed(label for one in found for label in one.shape.labels)};"
            f" members of {info.enum.__qualname__}:"
            f" {_listed(member.name for member in info.enum)}"
        ) from error


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in dict.fromkeys(names)) or "none"
