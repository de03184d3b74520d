"""The types this process tracks, and how psycopg is to treat each.

psycopg's own register functions do the work, once for each type and shape, under
*stand-ins*: integers above every OID. What a server calls hstore is then a
matter of mapping its OID to the stand-in, and nothing that holds a real OID is
ever registered, on a connection or anywhere. It also keeps psycopg's caches
small: they hold about 14 KB for good for each OID ever registered
(``functools.cache`` in psycopg.types.hstore and .array, 3.2 and 3.3).
"""

from __future__ import annotations

import functools
import itertools
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap, Loader, PyFormat
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo
from psycopg.types.enum import EnumInfo
from psycopg.types.hstore import register_hstore
from psycopg.types.multirange import Multirange, MultirangeInfo
from psycopg.types.range import Range, RangeInfo

from ._catalog import FIRST_NORMAL_OID, Question, TypeRow
from ._compat import dumped_types

logger = logging.getLogger("django_pg_hot_async")

STAND_INS = 1 << 32
"""The first stand-in; OIDs are unsigned 32-bit."""

_numbers = itertools.count(STAND_INS, 2)


@dataclass(frozen=True, slots=True)
class TrackedType:
    """A type declared by name, and the psycopg function that registers it."""

    name: str
    """``pg_type.typname``."""
    kinds: str
    """The ``pg_type.typtype`` it may have: a table called hstore is no hstore."""
    register: Callable[[Any, AdaptersMap], object]
    schema: str | None = None
    """None where the type counts in whatever schema it is."""
    info_class: type[TypeInfo] = TypeInfo
    python_types: tuple[type, ...] = ()
    """Those whose dumpers look the type up, without *register* naming them."""

    @property
    def has_shape(self) -> bool:
        """Whether psycopg is told more than the OIDs, and it may change under them."""
        return issubclass(self.info_class, _WITH_SHAPE)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


_MAKES_CLASSES = (CompositeInfo.__module__, EnumInfo.__module__)
_WITH_SHAPE = (EnumInfo, CompositeInfo, RangeInfo, MultirangeInfo)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a type is made of, in terms that no server decides.

    Types are named by the OID of a built-in one, by the stand-in of a tracked
    one, and by 0 where it is neither: psycopg then loads text.
    """

    delimiter: str = ","
    labels: tuple[str, ...] = ()
    attributes: tuple[tuple[str, int], ...] = ()
    range: int = 0
    subtype: int = 0


UNKNOWN_SHAPE = Shape()
"""What a type is registered with that a server lacks."""


def make_info(tracked: TrackedType, oid: int, array_oid: int, shape: Shape) -> TypeInfo:
    """Describe a type to psycopg the way its own ``fetch()`` would."""
    info_class: Any = tracked.info_class
    arguments: dict[str, Any] = {"delimiter": shape.delimiter}
    if issubclass(info_class, EnumInfo):
        arguments = {"labels": list(shape.labels)}
    elif issubclass(info_class, CompositeInfo):
        arguments = {
            "field_names": tuple(name for name, _ in shape.attributes),
            "field_types": tuple(oid for _, oid in shape.attributes),
        }
    elif issubclass(info_class, RangeInfo):
        arguments = {"subtype_oid": shape.subtype}
    elif issubclass(info_class, MultirangeInfo):
        arguments = {"range_oid": shape.range, "subtype_oid": shape.subtype}
    info: TypeInfo = info_class(tracked.name, oid, array_oid, **arguments)
    return info


class StandIn:
    """A tracked type in one shape, under numbers that stand in for its OIDs."""

    def __init__(self, tracked: TrackedType, shape: Shape) -> None:
        self.tracked = tracked
        self.shape = shape
        self.oid = next(_numbers)
        self.array_oid = self.oid + 1
        self.info = make_info(tracked, self.oid, self.array_oid, shape)
        self.failure: Exception | None = None
        """What the register function raised."""
        self.loaders: dict[tuple[int, pq.Format], type[Loader]] = {}
        """By number and format; a number without one loads as unknown types do."""

    def register(self, adapters: AdaptersMap) -> None:
        """Have the register function of the type register it in *adapters*."""
        try:
            self.tracked.register(self.info, adapters)
        except Exception as error:
            self.failure = error
        for number in (self.oid, self.array_oid):
            for format in pq.Format:
                if loader := adapters.get_loader(number, format):
                    self.loaders[number, format] = loader  # type: ignore[assignment]

    @staticmethod
    @functools.lru_cache(maxsize=1024)
    def of(tracked: TrackedType, shape: Shape) -> StandIn:
        """Return the stand-in of *tracked* in *shape*, the same each time."""
        stand_in = StandIn(tracked, shape)
        _by_number[stand_in.oid] = _by_number[stand_in.array_oid] = stand_in
        return stand_in

    @staticmethod
    def by_number(number: int) -> StandIn | None:
        """Return what *number* stands for."""
        return _by_number.get(number)


# Whatever may still ask for one has a snapshot that holds it.
_by_number: weakref.WeakValueDictionary[int, StandIn] = weakref.WeakValueDictionary()


class Registration:
    """Stand-ins registered with psycopg, later ones over earlier ones. Immutable."""

    def __init__(self, stand_ins: tuple[StandIn, ...]) -> None:
        self.stand_ins = stand_ins
        self._before = AdaptersMap(psycopg.adapters)
        self.adapters = AdaptersMap(self._before)
        """Loaders and dumpers by stand-in; it is what register functions get as
        their connection, and stands for every one."""
        for stand_in in stand_ins:
            stand_in.register(self.adapters)

    def registered(self, dumper: object, key: type, format: pq.Format) -> bool:
        """Whether it was a register function that brought *dumper*, for *key*."""
        try:
            return self._before.get_dumper(key, PyFormat.from_pq(format)) is not dumper
        except psycopg.ProgrammingError:
            return True

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(stand_ins: tuple[StandIn, ...]) -> Registration:
        """Return the registration of *stand_ins*; the last 64 are kept."""
        return Registration(stand_ins)


class Registry:
    """The tracked types. Immutable, and one object for equal *types*."""

    def __init__(self, types: tuple[TrackedType, ...]) -> None:
        self.types = types
        self.question = Question(
            tuple(dict.fromkeys(tracked.name for tracked in types)),
            frozenset(
                k for tracked in types if tracked.has_shape for k in tracked.kinds
            ),
        )
        """What to ask a server."""
        self._by_name = {(tracked.schema, tracked.name): tracked for tracked in types}
        self.absent = tuple(StandIn.of(tracked, UNKNOWN_SHAPE) for tracked in types)
        """What is registered for types that a server lacks."""
        self.senders = self._find_senders()
        """The Python types whose dumpers are resolved, or their full names, and
        the formats they have dumpers for; the last is used for ``%s``."""

    def match(self, row: TypeRow) -> TrackedType | None:
        """Return the tracked type that *row* is, one declared with its schema first."""
        for schema in (row.schema, None):
            tracked = self._by_name.get((schema, row.name))
            if tracked is not None and row.kind in tracked.kinds:
                return tracked
        return None

    def senders_of(self, values: Iterable[Any]) -> set[type]:
        """Return the Python types of *values*, and of elements, that are resolved."""
        senders, found, others = self.senders, set[type](), {type(None)}
        for value in values:
            kind = type(value)
            if kind in found or kind in others:
                continue
            if any(
                base in senders or f"{base.__module__}.{base.__qualname__}" in senders
                for base in kind.__mro__
            ):
                found.add(kind)
            elif isinstance(value, (list, tuple)):
                found |= self.senders_of(value)
            else:
                others.add(kind)
        return found

    def _find_senders(self) -> Mapping[type | str, tuple[pq.Format, ...]]:
        # Registered with nothing in them, types tell their Python types.
        adapters = Registration.of(self.absent).adapters
        for absent in self.absent:
            if absent.failure is not None:
                logger.warning(
                    "the register function of the type %s raised %r, given no labels"
                    " or attributes; values of its Python types are sent as psycopg"
                    " sends them without it",
                    absent.tracked,
                    absent.failure,
                )
        senders = dumped_types(adapters, psycopg.adapters)
        for key in list(senders):
            # psycopg makes one for each shape where the project names none: what they
            # have in common is what it is derived from.
            if isinstance(key, type) and key.__module__ in _MAKES_CLASSES:
                del senders[key]
                base = tuple if issubclass(key, tuple) else Enum
                senders.setdefault(base, (pq.Format.BINARY, pq.Format.TEXT))
        for tracked in self.types:
            for python_type in tracked.python_types:
                senders.setdefault(python_type, (pq.Format.BINARY, pq.Format.TEXT))
        return senders

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(types: tuple[TrackedType, ...]) -> Registry:
        """Return the registry of *types*."""
        return Registry(types)


class Shapes:
    """Finds the stand-ins of what one server answered."""

    def __init__(self, registry: Registry, rows: Iterable[TypeRow]) -> None:
        self._registry = registry
        self._rows = {oid: row for row in rows for oid in (row.oid, row.array_oid)}
        self._found: dict[int, StandIn | None] = {0: None}

    def stand_in(self, row: TypeRow) -> StandIn | None:
        """Return the stand-in of *row*; None where it is of no tracked type."""
        if row.oid not in self._found:
            self._found[row.oid] = None  # A row type may hold an array of itself.
            tracked = self._registry.match(row)
            if tracked is not None:
                shape = self._shape(row) if tracked.has_shape else Shape(row.delimiter)
                self._found[row.oid] = StandIn.of(tracked, shape)
        return self._found[row.oid]

    def _shape(self, row: TypeRow) -> Shape:
        return Shape(
            labels=row.labels,
            attributes=tuple((name, self._type(oid)) for name, oid in row.attributes),
            # A range's own OID says nothing, and would differ from server to server.
            range=self._type(row.range_oid) if row.range_oid != row.oid else 0,
            subtype=self._type(row.subtype),
        )

    def _type(self, oid: int) -> int:
        if oid < FIRST_NORMAL_OID:
            return oid
        row = self._rows.get(oid)
        stand_in = self.stand_in(row) if row is not None else None
        if stand_in is None or row is None:
            return 0
        return stand_in.oid if oid == row.oid else stand_in.array_oid


def _register_array_only(info: TypeInfo, context: AdaptersMap) -> None:
    # A citext value loads as a string like any type psycopg does not know; OID 0
    # makes the elements of an array do the same. Django registers it that way.
    TypeInfo(info.name, 0, info.array_oid).register(context)


HSTORE = TrackedType("hstore", "b", register_hstore)
CITEXT = TrackedType("citext", "b", _register_array_only)

KINDS: dict[type[TypeInfo], tuple[str, tuple[type, ...]]] = {
    EnumInfo: ("e", ()),
    CompositeInfo: ("c", ()),
    RangeInfo: ("r", (Range,)),
    MultirangeInfo: ("m", (Multirange,)),
    # Not "c": each table has a type of its name.
    TypeInfo: ("bderm", ()),
}
"""By psycopg's class: the ``pg_type.typtype`` it describes, and the Python types
whose dumpers look for such types by their elements' type."""
