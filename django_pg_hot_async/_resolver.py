"""Loaders and dumpers that find out, for each connection, which ones are right.

They stand in the adapters that connections share, under OID 0 (psycopg builds
that loader, with the real OID and the connection, for each result column whose
OID nobody registered) and under the Python types that tracked types are made
of. `__new__` returns the loader or dumper to use, psycopg's own, so a decided
one costs nothing a value.

Tried on psycopg 3.2.13 and 3.3.9, in C and in Python: libpq is idle at that
moment, for ordinary and server-side cursors, in and out of transactions.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap, Dumper, Loader, PyFormat

from . import _tracking
from ._catalog import FIRST_NORMAL_OID
from ._compat import resolve_dumpers_by_oid
from ._link import Link, link_of
from ._registry import STAND_INS
from .conf import Trust

if TYPE_CHECKING:
    from psycopg import abc
    from psycopg.abc import AdaptContext, Buffer, DumperKey

    from ._compat import DumperFactory

INVALID_OID = 0


def install(adapters: AdaptersMap) -> None:
    """Register the resolvers in *adapters*; for what they do not know, they use
    the loader for unknown types that is registered there at present."""
    if is_installed(adapters):
        return
    for format in pq.Format:
        unknown = adapters.get_loader(INVALID_OID, format)
        assert unknown is not None
        adapters.register_loader(INVALID_OID, _loader_class(format, unknown))
        resolve_dumpers_by_oid(
            adapters, format, functools.partial(_dumper_factory, format)
        )
    # A dict always: django.contrib.postgres may be installed later. The last one is
    # used where the query does not ask for a format: binary, as with psycopg's
    # register_hstore().
    for python_type in {dict, *_tracking.current().python_types}:
        for dumper in (TextDumperResolver, BinaryDumperResolver):
            adapters.register_dumper(python_type, dumper)


def is_installed(adapters: AdaptersMap) -> bool:
    """Whether the resolvers stand in *adapters*."""
    loader: Any = adapters.get_loader(INVALID_OID, pq.Format.TEXT)
    return isinstance(loader, type) and issubclass(loader, LoaderResolver)


class LoaderResolver(Loader):
    """Stands where psycopg looks for the loader of an OID it does not know."""

    unknown: type[abc.Loader]
    """The loader for values of types that nobody tracks."""

    def __new__(  # type: ignore[misc]
        cls, oid: int, context: AdaptContext | None = None
    ) -> abc.Loader:
        if oid >= STAND_INS:
            # An element of an array: the array's OID was resolved already.
            return _loader(oid, cls, context)
        if oid < FIRST_NORMAL_OID or context is None:
            return cls.unknown(oid, context)
        link = link_of(context.connection)
        if link is None:
            return cls.unknown(oid, context)
        if link.memory.trust is Trust.RESULT:
            return _EachResult(oid, context, cls, link)
        decided = link.loader(oid, cls.format)
        if decided is not None:
            return decided(INVALID_OID, context)
        return _loader(link.stand_in(oid, context) or oid, cls, context)

    def load(self, data: Buffer) -> Any:
        raise NotImplementedError("a resolver is never an instance")


@functools.lru_cache(maxsize=16)
def _loader_class(format: pq.Format, unknown: type[abc.Loader]) -> type[LoaderResolver]:
    return type(
        f"{format.name.title()}LoaderResolver",
        (LoaderResolver,),
        {"format": format, "unknown": unknown},
    )


def _loader(
    oid: int, resolver: type[LoaderResolver], context: AdaptContext | None
) -> abc.Loader:
    """Return the loader for a stand-in; for an OID the one for unknown types."""
    if oid < STAND_INS:
        return resolver.unknown(oid, context)
    loader = _tracking.current().adapters.get_loader(oid, resolver.format)
    # psycopg's C loaders keep an OID in 32 bits; none of them looks at it.
    return (loader or resolver.unknown)(INVALID_OID, context)


class _EachResult(Loader):
    """Under "result" trust: looks again whenever the cursor has another result.

    A cursor that runs the same query again keeps its loaders by OID.
    """

    def __init__(
        self,
        oid: int,
        context: AdaptContext,
        resolver: type[LoaderResolver],
        link: Link,
    ) -> None:
        super().__init__(oid, context)
        self.format = resolver.format
        self.result: Any = None
        self._context = context
        self._resolver = resolver
        self._link = link
        self._resolve()

    def load(self, data: Buffer) -> Any:
        if getattr(self._context, "pgresult", None) is not self.result:
            self._resolve()
        return self._load(data)

    def _resolve(self) -> None:
        stand_in = self._link.stand_in(self.oid, self._context)
        self.result = getattr(self._context, "pgresult", None)
        if self.result is not None:
            self._link.mark_result(self)
        loader = _loader(stand_in or self.oid, self._resolver, self._context)
        self._load = loader.load


class DumperResolver(Dumper):
    """Stands where psycopg looks for the dumper of a Python type."""

    def __new__(  # type: ignore[misc]
        cls, key: type, context: AdaptContext | None = None
    ) -> abc.Dumper:
        link = link_of(context.connection) if context is not None else None
        if link is None or context is None:
            return _default_dumper(key, cls.format)(key, context)
        if link.memory.trust is Trust.RESULT:
            return _EachStatement(key, context, cls.format, link)
        return resolve_dumper(key, cls.format, context, link)

    def dump(self, obj: Any) -> Buffer | None:
        raise NotImplementedError("a resolver is never an instance")


class TextDumperResolver(DumperResolver):
    """For parameters sent as text."""

    format = pq.Format.TEXT


class BinaryDumperResolver(DumperResolver):
    """For parameters sent in binary."""

    format = pq.Format.BINARY


def resolve_dumper(
    key: type, format: pq.Format, context: AdaptContext, link: Link
) -> abc.Dumper:
    """Return a dumper that sends *key* with the OID the server at hand has.

    Where the server lacks the type, it is psycopg's own for *key*, or its own
    error if there is none (`psycopg.ProgrammingError`).
    """
    py_format = PyFormat.from_pq(format)
    try:
        found = _tracking.current().adapters.get_dumper(key, py_format)
    except psycopg.ProgrammingError:
        return _default_dumper(key, format)(key, context)
    if found.oid == INVALID_OID:
        return _ByValue(found(key, context), key, context, link)
    oid = link.oid(found.oid, context) if found.oid >= STAND_INS else None
    if oid is None:
        return _default_dumper(key, format)(key, context)
    dumper = found(key, context)
    dumper.oid = oid
    return dumper


class _ByValue(Dumper):
    """Asks psycopg's dumper which type a value is of, where the Python type leaves
    that open; gives the answer the OID that the server at hand has."""

    def __init__(
        self, dumper: abc.Dumper, key: type, context: AdaptContext, link: Link
    ) -> None:
        super().__init__(key, context)
        self.format = dumper.format
        self._context = context
        self._dumper = dumper
        self._link = link

    def get_key(self, obj: Any, format: PyFormat) -> DumperKey:
        return self._dumper.get_key(obj, format)

    def upgrade(self, obj: Any, format: PyFormat) -> Dumper:
        dumper = self._dumper.upgrade(obj, format)
        if dumper.oid >= STAND_INS:
            # Where the server lacks the type, its own error says so.
            dumper.oid = self._link.oid(dumper.oid, self._context) or INVALID_OID
        return dumper  # type: ignore[return-value]

    def dump(self, obj: Any) -> Buffer | None:
        raise NotImplementedError("it is the dumper from upgrade() that dumps")


def _dumper_factory(format: pq.Format, oid: int) -> DumperFactory:
    """Return what makes the dumper for an OID that only a connection can explain."""
    return functools.partial(_resolve_dumper_by_oid, format, oid)


def _resolve_dumper_by_oid(
    format: pq.Format, oid: int, key: type, context: AdaptContext | None
) -> abc.Dumper:
    link = link_of(context.connection) if context is not None else None
    stand_in = oid
    if link is not None and context is not None:
        if oid >= STAND_INS:
            # An element of an array, whose OID the binary format carries.
            oid = link.oid(stand_in, context) or INVALID_OID
        elif oid >= FIRST_NORMAL_OID:
            stand_in = link.stand_in(oid, context) or oid
    # Raises psycopg's own error where it is of no tracked type.
    adapters = _tracking.current().adapters
    dumper = adapters.get_dumper_by_oid(stand_in, format)(key, context)
    dumper.oid = oid
    return dumper


def _default_dumper(key: type, format: pq.Format) -> type[abc.Dumper]:
    # The binary resolver also stands for "%s", where psycopg would take whatever
    # was registered last.
    py_format = PyFormat.TEXT if format is pq.Format.TEXT else PyFormat.AUTO
    return psycopg.adapters.get_dumper(key, py_format)


class _EachStatement(Dumper):
    """Under "result" trust: looks again for each parameter.

    psycopg asks for the key of each, and makes a dumper for each new key.
    """

    def __init__(
        self, key: type, context: AdaptContext, format: pq.Format, link: Link
    ) -> None:
        super().__init__(key, context)
        self.format = format
        self._context = context
        self._link = link
        self._dumper: abc.Dumper | None = None

    def get_key(self, obj: Any, format: PyFormat) -> DumperKey:
        dumper = resolve_dumper(self.cls, self.format, self._context, self._link)
        if isinstance(dumper, _ByValue):
            dumper = dumper.upgrade(obj, format)
        self._dumper = dumper
        return (self.cls, type(dumper), dumper.oid)  # type: ignore[return-value]

    def upgrade(self, obj: Any, format: PyFormat) -> Dumper:
        return self._dumper  # type: ignore[return-value]

    def dump(self, obj: Any) -> Buffer | None:
        raise NotImplementedError("it is the dumper from upgrade() that dumps")
