"""How a value goes out: psycopg's dumpers, with the OIDs of the server at hand.

Resolvers stand under the Python types that tracked types are made of, in the adapters
that connections share. They answer with psycopg's own dumper, as it was registered
under a surrogate, and put in the OID that the execution's snapshot has. That is the
one way out: by Python type, by value as for ranges, by OID as for elements and
``Copy.set_types()``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq, waiting
from psycopg.adapt import AdaptersMap, Dumper, PyFormat
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo
from psycopg.types.enum import EnumInfo

from .catalog import FIRST_NORMAL_OID
from .connection import ATTRIBUTE, Execution, Unverified, state_of
from .loading import INVALID_OID, check_usable, loader_resolver
from .psycopg_internals import (
    are_dumpers_resolved,
    registry_in,
    resolve_dumpers_by_oid,
    send_fields,
)
from .runtime import nothing_known, runtime
from .types import SURROGATES, SurrogateType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import abc
    from psycopg.abc import AdaptContext, Buffer, DumperKey

    from .connection import ConnectionState
    from .psycopg_internals import DumperFactory
    from .snapshot import Snapshot
    from .types import Registry, TrackedType


_ABORTED = pq.TransactionStatus.INERROR


# Registering the resolvers


def install(adapters: AdaptersMap) -> None:
    """Register the resolvers in *adapters*; for what they do not know, they use
    the loader and the dumpers that are registered there at present.

    A dumper that was registered over one of an earlier resolver stays: it came later.
    """
    registry = runtime.registry
    before: Any = registry_in(adapters)
    if before is registry:
        return
    for format in pq.Format:
        if not are_dumpers_resolved(adapters, format):
            resolve_dumpers_by_oid(
                adapters, format, functools.partial(_dumper_factory, format)
            )
    known = {} if before is None else dict.fromkeys(before.builtins, True)
    for tracked in registry.builtins:
        info = tracked.builtin
        if info is not None and tracked not in known:
            tracked.register(info, adapters)
    for absent in registry.absent:
        # For whoever registers a loader of their own by the name of the type.
        if adapters.types.get(absent.tracked.name) is None:
            adapters.types.add(
                TypeInfo(absent.tracked.name, absent.oid, absent.array_oid)
            )
    older = _senders(before) if before is not None else {}
    for python_type, formats in _senders(registry).items():
        _install_dumpers(adapters, python_type, formats, is_newer=python_type in older)
    # Last, and of these the one that tells `is_installed`: another thread may look.
    for format in (pq.Format.BINARY, pq.Format.TEXT):
        unknown: Any = adapters.get_loader(INVALID_OID, format)
        if unknown is None:
            # A project's own adapters, which load what it says and nothing else.
            continue
        unknown = getattr(unknown, "unknown", unknown)
        loader = loader_resolver(format, unknown, registry)
        adapters.register_loader(INVALID_OID, loader)


def _install_dumpers(
    adapters: AdaptersMap,
    python_type: type | str,
    formats: tuple[pq.Format, ...],
    *,
    is_newer: bool = False,
) -> None:
    auto = _dumper_in(adapters, python_type, PyFormat.AUTO)
    if is_newer and not _is_resolver(auto):
        return
    for format in formats:
        there = _dumper_in(adapters, python_type, PyFormat.from_pq(format))
        stands_for = PyFormat.from_pq(format)
        if format == formats[-1]:
            # "%s" takes what is registered last, and took what was.
            there, stands_for = there or auto, PyFormat.AUTO
        default = there.default if _is_resolver(there) else there
        resolver = _dumper_resolver(format, default, stands_for)
        adapters.register_dumper(python_type, resolver)


def reclaim(adapters: AdaptersMap, python_type: type) -> None:
    """Put the resolver for *python_type* over a dumper that came after it."""
    if not _is_resolver(_dumper_in(adapters, python_type, PyFormat.AUTO)):
        formats = _senders(runtime.registry).get(python_type)
        if formats:
            _install_dumpers(adapters, python_type, formats)


def _senders(registry: Registry) -> dict[type | str, tuple[pq.Format, ...]]:
    # A dict always: hstore may come to be tracked later.
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
    return registry_in(adapters) is runtime.registry


# By Python type


class DumperResolver(Dumper):
    """Stands where psycopg looks for the dumper of a Python type."""

    default: type[abc.Dumper] | None = None
    """What stood there before: for values of no tracked type."""
    stands_for: PyFormat
    """Its own format; or `PyFormat.AUTO`, where it is what "%s" takes."""

    def __new__(  # type: ignore[misc]
        cls, key: type, context: AdaptContext | None = None
    ) -> abc.Dumper:
        state = state_of(context.connection) if context is not None else None
        if state is None or context is None or not runtime.registry.types:
            return cls.default_for(key)(key, context)
        return _resolve(key, cls, context, state)

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


def _resolve(
    key: type,
    resolver: type[DumperResolver],
    context: AdaptContext,
    state: ConnectionState,
) -> abc.Dumper:
    """Return a dumper that sends *key* with the OID the server at hand has.

    Where the server lacks the type, it is the one that there would be without us, or
    psycopg's own error if there is none (`psycopg.ProgrammingError`).
    """
    snapshot = _snapshot(context, state)
    format = PyFormat.from_pq(resolver.format)
    found = snapshot.find_dumper(key, format)
    if snapshot.has_failures:
        for failed in snapshot.failed_for(key, format):
            check_usable(failed, context)
    if found is None:
        return resolver.default_for(key)(key, context)
    if found.oid < SURROGATES:
        # By value: a Range, a Multirange, a tuple, or an Enum that nobody named.
        if not snapshot.registration.registered(found, key, resolver.format):
            # Django has one of its own for ranges.
            found = resolver.default or found
        if getattr(found, "upgrade", None) is Dumper.upgrade:
            return found(key, context)
        return _ByValue(found(key, context), key, context, state, snapshot)
    surrogate = SurrogateType.by_number(found.oid)
    if surrogate is None:
        return resolver.default_for(key)(key, context)
    check_usable(surrogate, context)
    oid = snapshot.oid_of(found.oid)
    if oid is None:
        assert context.connection is not None
        if context.connection.info.transaction_status is _ABORTED:
            # Nothing can be read, and nothing is accepted: the server says why.
            return _with_oid(
                found(key, context), INVALID_OID, snapshot, surrogate, context
            )
        _ask_again(key, context, state)
        return resolver.default_for(key)(key, context)
    if not oid and found.format is pq.Format.BINARY:
        # The server infers the type, and of what is in it too; binary would name that.
        text = snapshot.find_dumper(key, PyFormat.TEXT)
        found = text or found
    return _with_oid(found(key, context), oid, snapshot, surrogate, context)


def _ask_again(key: type, context: AdaptContext, state: ConnectionState) -> None:
    """Raise `Unverified` where a type that the server lacked is due to be asked for.

    It may have been created since. Where psycopg has a dumper of its own, asking now
    and then is enough; else the statement would fail anyway.
    """
    execution = _execution(context)
    if execution is not None and execution.is_adapting:
        is_due = state.misses(key) or not has_default(context.adapters, key)
        if is_due and execution.reads == state.reads:
            raise Unverified(is_missing=True)


class _ByValue(Dumper):
    """Asks psycopg's dumper which type a value is of, where the Python type leaves
    that open; gives the answer the OID that the server at hand has."""

    def __init__(
        self,
        dumper: abc.Dumper,
        key: type,
        context: AdaptContext,
        state: ConnectionState,
        snapshot: Snapshot,
    ) -> None:
        super().__init__(key, context)
        self.format = dumper.format
        self.oid = dumper.oid
        self._key = key
        self._context = context
        self._dumper = dumper
        self._state = state
        self._snapshot = snapshot

    def get_key(self, obj: Any, format: PyFormat) -> DumperKey:
        return self._dumper.get_key(obj, format)

    def upgrade(self, obj: Any, format: PyFormat) -> Dumper:
        dumper = self._dumper.upgrade(obj, format)
        if dumper.oid >= SURROGATES:
            oid = self._snapshot.oid_of(dumper.oid)
            if oid is None:
                _ask_again(self._key, self._context, self._state)
            # Where the server lacks the type, its own error says so.
            dumper.oid = oid or INVALID_OID
        elif not dumper.oid and self._snapshot.lacks_any_for(self._key):
            _ask_again(self._key, self._context, self._state)
        return dumper  # type: ignore[return-value]

    def dump(self, obj: Any) -> Buffer | None:
        return self._dumper.dump(obj)

    def quote(self, obj: Any) -> Buffer:
        return self._dumper.quote(obj)


def has_default(adapters: AdaptersMap, key: type) -> bool:
    """Whether there is a dumper for *key* where the server lacks its type."""
    resolver = _dumper_in(adapters, key, PyFormat.AUTO)
    try:
        return not _is_resolver(resolver) or bool(resolver.default_for(key))
    except psycopg.ProgrammingError:
        return False


def _execution(context: AdaptContext) -> Execution | None:
    return getattr(context.adapters, ATTRIBUTE, None)


def _snapshot(context: AdaptContext, state: ConnectionState) -> Snapshot:
    """Return what to send by; mark it as sent, and let psycopg look types up in it."""
    execution = _execution(context)
    if execution is None:
        snapshot = _snapshot_without_execution(context, state)
    elif execution.snapshot is not None:
        snapshot = execution.snapshot
        execution.has_sent = True
    elif execution.is_adapting:
        raise Unverified(is_missing=False)
    else:
        snapshot = state.presumed() or nothing_known()
    state.has_sent = True
    snapshot.share_types(context.adapters)
    return snapshot


def _snapshot_without_execution(
    context: AdaptContext, state: ConnectionState
) -> Snapshot:
    """Return what to write a literal by: ``mogrify()``, ``sql.Literal``.

    A synchronous connection that is idle is asked; an async one cannot be from here.
    """
    snapshot = state.snapshot or state.presumed()
    connection: Any = context.connection
    if snapshot is not None or not isinstance(connection, psycopg.Connection):
        return snapshot or nothing_known()
    status = connection.pgconn.transaction_status
    if status not in (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS):
        return nothing_known()
    if connection.pgconn.pipeline_status or not connection.lock.acquire(timeout=1.0):
        return nothing_known()
    try:
        return waiting.wait(state.verify(connection), connection.pgconn.socket)
    finally:
        connection.lock.release()


def _with_oid(
    dumper: abc.Dumper,
    oid: int,
    snapshot: Snapshot,
    surrogate: SurrogateType,
    context: AdaptContext,
) -> abc.Dumper:
    """Have *dumper* send *oid*, and with a composite type those of its attributes."""
    dumper.oid = oid
    if isinstance(surrogate.info, CompositeInfo):
        row = snapshot.row_of(oid) if oid else None
        if row is not None and dumper.format is pq.Format.BINARY:
            arguments = [attribute for _, attribute in row.attributes]
            send_fields(dumper, CompositeInfo(row.name, row.oid, row.array_oid,
                        field_names=tuple(n for n, _ in row.attributes),
                        field_types=tuple(arguments)))  # fmt: skip
    elif isinstance(surrogate.info, EnumInfo):
        encoding = context.connection.info.encoding if context.connection else "utf-8"
        if encoding not in ("utf-8", "ascii"):
            _transcode(dumper, encoding)
    return dumper


def _transcode(dumper: Any, encoding: str) -> None:
    """Have *dumper* write labels, which psycopg has in UTF-8, in *encoding*."""
    dump = dumper.dump

    def dump_label(value: Any) -> Buffer | None:
        data = dump(value)
        return None if data is None else bytes(data).decode().encode(encoding)

    dumper.dump = dump_label


# By OID


def _dumper_factory(format: pq.Format, oid: int) -> DumperFactory:
    """Return what makes the dumper for an OID that only a connection can explain."""
    return functools.partial(_resolve_by_oid, format, oid)


def _resolve_by_oid(
    format: pq.Format, oid: int, key: type, context: AdaptContext | None
) -> abc.Dumper:
    state = state_of(context.connection) if context is not None else None
    if state is not None and context is not None and oid >= FIRST_NORMAL_OID:
        snapshot = _snapshot(context, state)
        number = oid if oid >= SURROGATES else snapshot.numbers.get(oid, 0)
        if number:
            surrogate = SurrogateType.by_number(number)
            if oid >= SURROGATES:
                # An element of an array, whose OID the binary format carries.
                oid = snapshot.oid_of(number) or INVALID_OID
                if not oid or surrogate is None:
                    name = "" if surrogate is None else f" {surrogate.tracked}"
                    raise psycopg.ProgrammingError(
                        f"{state.alias.name}: cannot send the type{name}: the server"
                        " has none, or the search_path leads to none of several"
                    )
            if surrogate is not None:
                dumper = _dumper_of(surrogate, number, oid, format)(key, context)
                return _with_oid(dumper, oid, snapshot, surrogate, context)
    if oid >= SURROGATES:
        raise psycopg.ProgrammingError("cannot find a dumper for a type to send")
    # Raises psycopg's own error where it is of no tracked type.
    return psycopg.adapters.get_dumper_by_oid(oid, format)(key, context)


def _dumper_of(
    surrogate: SurrogateType, number: int, oid: int, format: pq.Format
) -> type[abc.Dumper]:
    """Return psycopg's dumper of a type, or of arrays of it, as *number* says."""
    try:
        return _registered(surrogate).get_dumper_by_oid(number, format)
    except psycopg.ProgrammingError:
        name = f"{surrogate.tracked}{'[]' if number == surrogate.array_oid else ''}"
        raise psycopg.ProgrammingError(
            f"cannot find a dumper for type {name} (oid {oid}) format {format.name}"
        ) from None


@functools.lru_cache(maxsize=256)
def _registered(surrogate: SurrogateType) -> AdaptersMap:
    """Return adapters that *surrogate* is registered in, and no other type."""
    adapters = AdaptersMap(psycopg.adapters)
    surrogate.register(adapters)
    return adapters


# Before a statement


def ambiguous_senders(params: object, snapshot: Snapshot) -> set[TrackedType]:
    """Return the tracked types among *params* that the search_path decides about."""
    if not snapshot.ambiguous:
        return set()
    found: set[TrackedType] = set()
    for kind in senders_in(params):
        dumper = snapshot.find_dumper(kind, PyFormat.TEXT)
        surrogate = SurrogateType.by_number(dumper.oid) if dumper is not None else None
        if surrogate is not None:
            found.add(surrogate.tracked)
            found.update(_inner(surrogate, snapshot))
        else:
            # By value: it may be any of those that are made of it.
            found.update(
                tracked
                for tracked in snapshot.registry.types
                if any(issubclass(kind, one) for one in tracked.python_types)
            )
    return {tracked for tracked in found if tracked in snapshot.ambiguous}


def _inner(surrogate: SurrogateType, snapshot: Snapshot) -> Iterable[TrackedType]:
    """Yield the tracked types that a composite type is made of."""
    for _, number in surrogate.shape.attributes:
        inner = SurrogateType.by_number(number)
        if inner is not None:
            yield inner.tracked
            yield from _inner(inner, snapshot)


_ROWS = (tuple, list)


def senders_in(params: Any) -> set[type]:
    """Return the Python types among *params* whose dumpers are resolved."""
    registry = runtime.registry
    if type(params) in _ROWS and registry.plain.issuperset(map(type, params)):
        return set()
    if isinstance(params, dict):
        values: Any = params.values()
    elif isinstance(params, (list, tuple)):
        values = params
    else:
        return set()
    return registry.senders_of(values)
