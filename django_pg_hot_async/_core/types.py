"""The types this process tracks, and how psycopg is to treat each.

psycopg's own register functions do the work, once for each type and shape, under
*surrogates*: integers above every OID. What a server calls hstore is then a matter
of mapping its OID to the surrogate, and nothing that holds a server's OID is ever
registered anywhere. It also keeps psycopg's caches small: they hold about 14 KB for
good for each OID ever registered (``functools.cache`` in psycopg.types, 3.2 and 3.3).
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap, Loader, PyFormat
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo
from psycopg.types.enum import EnumInfo
from psycopg.types.hstore import HstoreLoader, register_hstore
from psycopg.types.multirange import Multirange, MultirangeInfo
from psycopg.types.range import Range, RangeInfo

from .catalog import FIRST_NORMAL_OID, Question, TypeRow
from .psycopg_internals import dumped_types

logger = logging.getLogger("django_pg_hot_async")

SURROGATES = 1 << 32
"""The first surrogate; OIDs are unsigned 32-bit."""

_numbers = itertools.count(SURROGATES, 2)
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False)
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

    @property
    def builtin(self) -> TypeInfo | None:
        """psycopg's description of the type, where PostgreSQL has it built in.

        The OIDs of such a type are the same on every server.
        """
        if self.schema not in (None, "pg_catalog"):
            return None
        info = psycopg.adapters.types.get(self.name)
        return info if info is not None and info.oid < FIRST_NORMAL_OID else None

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


_MAKES_CLASSES = (CompositeInfo.__module__, EnumInfo.__module__)
_WITH_SHAPE = (EnumInfo, CompositeInfo, RangeInfo, MultirangeInfo)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a type is made of, in terms that no server decides.

    Types are named by the OID of a built-in one, by the surrogate of a tracked
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


class SurrogateType:
    """A tracked type in one shape, under numbers that stand for its OIDs."""

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
    def of(tracked: TrackedType, shape: Shape) -> SurrogateType:
        """Return the surrogate of *tracked* in *shape*, the same while it is in use."""
        key = (tracked, shape)
        with _lock:
            found = _by_shape.get(key)
            if found is None:
                found = _by_shape[key] = SurrogateType(tracked, shape)
                _by_number[found.oid] = _by_number[found.array_oid] = found
                found.register(AdaptersMap(psycopg.adapters))
            return found

    @staticmethod
    def by_number(number: int) -> SurrogateType | None:
        """Return what *number* stands for."""
        return _by_number.get(number)

    def with_label(self, label: str) -> SurrogateType:
        """Return the surrogate of the enum that has *label* as well.

        A value that has a label shows that the type has it: nobody has to be asked.
        """
        labels = (*self.shape.labels, label)
        return SurrogateType.of(self.tracked, Shape(labels=labels))


# Whatever may still ask for one has a snapshot that holds it.
_by_shape: weakref.WeakValueDictionary[tuple[TrackedType, Shape], SurrogateType] = (
    weakref.WeakValueDictionary()
)
_by_number: weakref.WeakValueDictionary[int, SurrogateType] = (
    weakref.WeakValueDictionary()
)


class Registration:
    """Surrogates registered with psycopg, later ones over earlier ones. Immutable."""

    def __init__(self, surrogates: tuple[SurrogateType, ...]) -> None:
        self._surrogates = surrogates
        self._before = AdaptersMap(psycopg.adapters)
        self.adapters = AdaptersMap(self._before)
        """Loaders and dumpers by surrogate; it is what register functions get as
        their connection, and stands for every one."""
        for surrogate in surrogates:
            surrogate.register(self.adapters)

    def registered(self, dumper: object, key: type, format: pq.Format) -> bool:
        """Whether it was a register function that brought *dumper*, for *key*."""
        try:
            return self._before.get_dumper(key, PyFormat.from_pq(format)) is not dumper
        except psycopg.ProgrammingError:
            return True

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(surrogates: tuple[SurrogateType, ...]) -> Registration:
        """Return the registration of *surrogates*; the last 64 are kept."""
        return Registration(surrogates)


_PLAIN = (
    *(int, str, type(None), bool, float, Decimal, bytes, UUID),
    *(date, datetime, time, timedelta),
)


class Registry:
    """The tracked types. Immutable, and one object for equal *types*."""

    def __init__(self, types: tuple[TrackedType, ...]) -> None:
        self.builtins = tuple(tracked for tracked in types if tracked.builtin)
        """Those that PostgreSQL has built in: registered with psycopg, once for all."""
        self.types = tuple(tracked for tracked in types if not tracked.builtin)
        self.question = Question(
            tuple(dict.fromkeys(tracked.name for tracked in self.types)),
            frozenset(kind for tracked in self.types for kind in tracked.kinds),
        )
        """What to ask a server."""
        self._by_name = {(tracked.schema, tracked.name): tracked for tracked in types}
        self.absent = tuple(
            SurrogateType.of(tracked, UNKNOWN_SHAPE) for tracked in self.types
        )
        """What is registered for types that a server lacks."""
        self.absent_of = {absent.tracked: absent for absent in self.absent}
        self.senders = self._find_senders()
        """The Python types whose dumpers are resolved, or their full names, and
        the formats they have dumpers for; the last is used for ``%s``."""
        self._sends: dict[type, bool] = {}
        self.plain = frozenset(kind for kind in _PLAIN if not self.sends(kind))
        """Python types of most parameters, whose dumpers are not resolved."""

    def match(self, row: TypeRow) -> TrackedType | None:
        """Return the tracked type that *row* is, one declared with its schema first."""
        for schema in (row.schema, None):
            tracked = self._by_name.get((schema, row.name))
            if tracked is not None and row.kind in tracked.kinds:
                return tracked
        return None

    def sends(self, python_type: type) -> bool:
        """Whether the dumper of *python_type* is resolved."""
        found = self._sends.get(python_type)
        if found is None:
            found = any(
                base in self.senders
                or f"{base.__module__}.{base.__qualname__}" in self.senders
                for base in python_type.__mro__
            )
            if len(self._sends) < 1024:
                self._sends[python_type] = found
        return found

    def senders_of(self, values: Iterable[Any], depth: int = 6) -> set[type]:
        """Return the Python types of *values*, and of elements, that are resolved."""
        found, others = set[type](), set[type]()
        for value in values:
            kind = type(value)
            if kind in found or kind in others:
                continue
            if self.sends(kind):
                found.add(kind)
            elif isinstance(value, (list, tuple)):
                if depth:
                    found |= self.senders_of(value, depth - 1)
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


def _register_array_only(info: TypeInfo, context: AdaptersMap) -> None:
    # A citext value loads as a string like any type psycopg does not know; OID 0
    # makes the elements of an array do the same. Django registers it that way.
    TypeInfo(info.name, 0, info.array_oid).register(context)


class _Utf8:
    """A transformer's loader of text, for SQL_ASCII: bytes, mostly UTF-8."""

    def get_loader(self, oid: int, format: pq.Format) -> _Utf8:
        return self

    def load(self, data: Any) -> str:
        return bytes(data).decode()


class _HstoreLoader(HstoreLoader):
    # psycopg's takes a regular expression for text to the bytes that it loads where the
    # client encoding is SQL_ASCII (3.3.9); in binary it takes them for UTF-8.
    def __init__(self, oid: int, context: Any = None) -> None:
        super().__init__(oid, context)
        connection = None if context is None else context.connection
        if connection is not None and connection.info.encoding == "ascii":
            self._tx: Any = _Utf8()


def _register_hstore(info: TypeInfo, context: AdaptersMap) -> None:
    register_hstore(info, context)
    context.register_loader(info.oid, _HstoreLoader)


HSTORE = TrackedType("hstore", "b", _register_hstore)
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
