"""Loaders and dumpers that find out, for each connection, which ones are right.

They stand in the adapters that connections share, under OID 0 (psycopg builds
that loader, with the real OID and the connection, for each result column whose
OID nobody registered) and under the Python types that tracked types are made
of. What they return is the loader or dumper to use, psycopg's own, so a decided
one costs nothing a value.

Tried on psycopg 3.2.13 and 3.3.9, in C and in Python: libpq is idle at that
moment, for ordinary and server-side cursors, in and out of transactions.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg import pq
from psycopg.adapt import AdaptersMap, Dumper, PyFormat
from psycopg.types.composite import CompositeInfo

from . import _tracking
from ._catalog import FIRST_NORMAL_OID
from ._compat import (
    are_dumpers_resolved,
    drop_result,
    resolve_dumpers_by_oid,
    send_fields,
)
from ._guard import GuardedLoader
from ._link import Link, link_of
from ._registry import STAND_INS, StandIn
from ._trusted import NO_LOADERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import abc
    from psycopg.abc import AdaptContext, Buffer, DumperKey

    from ._compat import DumperFactory
    from ._registry import Registry
    from ._snapshot import Snapshot

INVALID_OID = 0
_ABORTED = pq.TransactionStatus.INERROR


def install(adapters: AdaptersMap) -> None:
    """Register the resolvers in *adapters*; for what they do not know, they use
    the loader and the dumpers that are registered there at present.

    A dumper that was registered over one of an earlier resolver stays: it came later.
    """
    registry = _tracking.current()
    before: Any = _installed_for(adapters)
    if before is registry:
        return
    for format in pq.Format:
        if not are_dumpers_resolved(adapters, format):
            resolve_dumpers_by_oid(
                adapters, format, functools.partial(_dumper_factory, format)
            )
    older = _senders(before) if before is not None else {}
    for python_type, formats in _senders(registry).items():
        auto = _dumper_in(adapters, python_type, PyFormat.AUTO)
        if python_type in older and not _is_resolver(auto):
            continue
        for format in formats:
            there = _dumper_in(adapters, python_type, PyFormat.from_pq(format))
            stands_for = PyFormat.from_pq(format)
            if format == formats[-1]:
                # "%s" takes what is registered last, and took what was.
                there, stands_for = there or auto, PyFormat.AUTO
            default = there.default if _is_resolver(there) else there
            resolver = _dumper_resolver(format, default, stands_for)
            adapters.register_dumper(python_type, resolver)
    # Last, and of these the one that tells `is_installed`: another thread may look.
    for format in (pq.Format.BINARY, pq.Format.TEXT):
        unknown: Any = adapters.get_loader(INVALID_OID, format)
        assert unknown is not None
        unknown = getattr(unknown, "unknown", unknown)
        loader = _loader_resolver(format, unknown, registry)
        adapters.register_loader(INVALID_OID, loader)


def _senders(registry: Registry) -> dict[type | str, tuple[pq.Format, ...]]:
    # A dict always: django.contrib.postgres may be installed later.
    return {dict: tuple(pq.Format), **registry.senders}


def _dumper_in(adapters: AdaptersMap, key: type | str, format: PyFormat) -> Any:
    """Return the dumper that *adapters* have for *key*; None where there is none."""
    if isinstance(key, str):
        # Of a class that may never be imported.
        return None
    try:
        return adapters.get_dumper(key, format)
    except psycopg.ProgrammingError:
        return None


def _is_resolver(dumper: Any) -> bool:
    return isinstance(dumper, type) and issubclass(dumper, DumperResolver)


def is_installed(adapters: AdaptersMap) -> bool:
    """Whether the resolvers for what is tracked now stand in *adapters*."""
    return _installed_for(adapters) is _tracking.current()


def _installed_for(adapters: AdaptersMap) -> object:
    return getattr(adapters.get_loader(INVALID_OID, pq.Format.TEXT), "registry", None)


@functools.lru_cache(maxsize=64)
def _loader_resolver(
    format: pq.Format, unknown: type[abc.Loader], registry: Registry
) -> Any:
    """Make what stands where psycopg looks for the loader of an OID it does not know.

    *unknown* is the loader for values of types that nobody tracks; for the dumpers of
    *registry* resolvers are registered along with this. A function: psycopg calls it
    for each such column of each result, and no class is as quick to call. One and the
    same for every connection: psycopg keeps whatever was ever registered as a loader
    (``AdaptersMap._optimised``, 3.2 and 3.3).
    """
    index = int(format)

    def resolve(oid: int, context: Any = None) -> abc.Loader:
        if oid < FIRST_NORMAL_OID:
            return unknown(oid, context)
        try:
            link: Link = context.connection._django_pg_hot_async
        except AttributeError:
            # No context, no connection, or one that is not ours to look after.
            return _loader(oid, format, unknown, context)
        if link.epoch == link.memory.epoch:
            decided = link.loaders[index].get(oid)
            if decided is not None:
                return decided(INVALID_OID, context)
            if oid in link.untracked and link.loaders is not NO_LOADERS:
                return unknown(oid, context)
        try:
            if oid < STAND_INS:
                oid = link.stand_in(oid, context) or oid
            # Else it is an element of an array, or an attribute, resolved before.
            return _loader(oid, format, unknown, context)
        except BaseException:
            # The result has come, and not all of its loaders: rows are not to be had.
            drop_result(context)
            raise

    names: Any = resolve
    names.format = format
    names.unknown = unknown
    names.registry = registry
    return resolve


def _loader(
    number: int,
    format: pq.Format,
    unknown: type[abc.Loader],
    context: AdaptContext | None,
) -> abc.Loader:
    """Return the loader for a stand-in; for an OID the one for unknown types."""
    stand_in = StandIn.by_number(number)
    if stand_in is None:
        return unknown(number, context)
    if stand_in.failure is not None:
        raise _failed(stand_in, context)
    # psycopg's C loaders keep an OID in 32 bits; none of them looks at it.
    loader = stand_in.loaders.get((number, format), unknown)(INVALID_OID, context)
    if context is not None and (
        (number == stand_in.oid and stand_in.tracked.has_shape)
        or ((link := link_of(context.connection)) is not None and link.is_own)
    ):
        return GuardedLoader(loader, number, stand_in, context)
    return loader


def _failed(stand_in: StandIn, context: AdaptContext | None) -> ImproperlyConfigured:
    link = link_of(context.connection) if context is not None else None
    error = ImproperlyConfigured(
        f"{'a connection' if link is None else link.memory.name}: the type"
        f" {stand_in.tracked} cannot be used; its register function raised"
        f" {stand_in.failure!r}"
    )
    error.__cause__ = stand_in.failure
    return error


class DumperResolver(Dumper):
    """Stands where psycopg looks for the dumper of a Python type."""

    default: type[abc.Dumper] | None = None
    """What stood there before: for values of no tracked type."""
    stands_for: PyFormat
    """Its own format; or `PyFormat.AUTO`, where it is what "%s" takes."""

    def __new__(  # type: ignore[misc]
        cls, key: type, context: AdaptContext | None = None
    ) -> abc.Dumper:
        link = link_of(context.connection) if context is not None else None
        if link is None or context is None:
            return cls.default_for(key)(key, context)
        return resolve_dumper(key, cls, context, link)

    @classmethod
    def default_for(cls, key: type) -> type[abc.Dumper]:
        """Return the dumper without us; psycopg's own error if there is none."""
        return cls.default or psycopg.adapters.get_dumper(key, cls.stands_for)

    def dump(self, obj: Any) -> Buffer | None:
        raise NotImplementedError("a resolver is never an instance")


@functools.lru_cache(maxsize=256)
def _dumper_resolver(
    format: pq.Format, default: type[abc.Dumper] | None, stands_for: PyFormat
) -> type[DumperResolver]:
    """Make the resolver for parameters sent in *format*, the same each time."""
    names = {"format": format, "default": default, "stands_for": stands_for}
    return type(f"{format.name.title()}DumperResolver", (DumperResolver,), names)


def resolve_dumper(
    key: type, resolver: type[DumperResolver], context: AdaptContext, link: Link
) -> abc.Dumper:
    """Return a dumper that sends *key* with the OID the server at hand has.

    Where the server lacks the type, it is the one that there would be without us, or
    psycopg's own error if there is none (`psycopg.ProgrammingError`).
    """
    snapshot = link.sending(
        context, functools.partial(_is_known, key, resolver, context)
    )
    found = snapshot.find_dumper(key, PyFormat.from_pq(resolver.format))
    if found is None:
        return resolver.default_for(key)(key, context)
    if found.oid < STAND_INS:
        if not snapshot.registration.registered(found, key, resolver.format):
            # Django has one of its own for ranges.
            found = resolver.default or found
        if getattr(found, "upgrade", None) is Dumper.upgrade:
            return found(key, context)
        return _ByValue(found(key, context), key, context, link)
    if snapshot.has_failures:
        _check_failures(snapshot, found.oid, context)
    oid = snapshot.oids.get(found.oid)
    if oid is None:
        assert context.connection is not None
        if context.connection.info.transaction_status is _ABORTED:
            # Nothing can be read, and nothing is accepted: the server says why.
            return _with_oid(found(key, context), INVALID_OID, snapshot)
        link.misses(key)
        return resolver.default_for(key)(key, context)
    return _with_oid(found(key, context), oid, snapshot)


def _check_failures(snapshot: Snapshot, number: int, context: AdaptContext) -> None:
    """Raise what there is to say where the type that *number* is of failed here."""
    stand_in = StandIn.by_number(number)
    for one in snapshot.shapes_of(stand_in.tracked) if stand_in is not None else ():
        if one.failure is not None:
            raise _failed(one, context)


def _is_known(
    key: type,
    resolver: type[DumperResolver],
    context: AdaptContext,
    link: Link,
    snapshot: Snapshot,
) -> bool:
    """Whether *snapshot* tells what to send *key* with, or nothing would."""
    found = snapshot.find_dumper(key, PyFormat.from_pq(resolver.format))
    if found is None or found.oid < STAND_INS:
        return True
    if found.oid in snapshot.ambiguous:
        assert context.connection is not None
        return link.has_search_path(context.connection.pgconn)
    if found.oid in snapshot.oids:
        return True
    # It may have been created since. Where psycopg has a dumper of its own for it,
    # once is enough to ask; else the statement would fail anyway.
    if link.misses(key):
        return False
    try:
        resolver.default_for(key)
    except psycopg.ProgrammingError:
        return False
    return True


def are_known(
    keys: Iterable[type], context: AdaptContext, link: Link, snapshot: Snapshot
) -> bool:
    """Whether *snapshot* tells what to send each of *keys* with, or nothing would."""
    resolvers = (
        (key, _dumper_in(context.adapters, key, PyFormat.AUTO)) for key in keys
    )
    return all(
        _is_known(key, resolver, context, link, snapshot)
        for key, resolver in resolvers
        if _is_resolver(resolver)
    )


def _with_oid(dumper: abc.Dumper, oid: int, snapshot: Snapshot) -> abc.Dumper:
    """Have *dumper* send *oid*, and with a composite type those of its attributes."""
    dumper.oid = oid
    info = snapshot.types.get(oid) if oid else None
    if isinstance(info, CompositeInfo):
        send_fields(dumper, info)
    return dumper


class _ByValue(Dumper):
    """Asks psycopg's dumper which type a value is of, where the Python type leaves
    that open; gives the answer the OID that the server at hand has."""

    def __init__(
        self, dumper: abc.Dumper, key: type, context: AdaptContext, link: Link
    ) -> None:
        super().__init__(key, context)
        self.format = dumper.format
        self.oid = dumper.oid
        self._context = context
        self._dumper = dumper
        self._link = link

    def get_key(self, obj: Any, format: PyFormat) -> DumperKey:
        return self._dumper.get_key(obj, format)

    def upgrade(self, obj: Any, format: PyFormat) -> Dumper:
        # Ranges look for their type in what is known of the server.
        snapshot = self._link.sending(self._context, _is_enough)
        dumper = self._dumper.upgrade(obj, format)
        if dumper.oid >= STAND_INS:
            # Where the server lacks the type, its own error says so.
            dumper.oid = snapshot.oids.get(dumper.oid, INVALID_OID)
        return dumper  # type: ignore[return-value]

    def dump(self, obj: Any) -> Buffer | None:
        return self._dumper.dump(obj)

    def quote(self, obj: Any) -> Buffer:
        return self._dumper.quote(obj)


def _is_enough(link: Link, snapshot: Snapshot) -> bool:
    return True


def _dumper_factory(format: pq.Format, oid: int) -> DumperFactory:
    """Return what makes the dumper for an OID that only a connection can explain."""
    return functools.partial(_resolve_dumper_by_oid, format, oid)


def _resolve_dumper_by_oid(
    format: pq.Format, oid: int, key: type, context: AdaptContext | None
) -> abc.Dumper:
    link = link_of(context.connection) if context is not None else None
    adapters = psycopg.adapters
    if link is not None and context is not None and oid >= FIRST_NORMAL_OID:
        number = oid if oid >= STAND_INS else link.stand_in(oid, context)
        snapshot = link.sending(context, _is_enough)
        if number:
            if oid >= STAND_INS:
                # An element of an array, whose OID the binary format carries.
                oid = snapshot.oids.get(number, INVALID_OID)
            adapters = snapshot.registration.adapters
            dumper = adapters.get_dumper_by_oid(number, format)(key, context)
            return _with_oid(dumper, oid, snapshot)
    # Raises psycopg's own error where it is of no tracked type.
    return adapters.get_dumper_by_oid(oid, format)(key, context)
