"""How a value comes in: psycopg's question for each OID it does not know, answered.

psycopg asks for the loader of OID 0 for each result column, element or field whose OID
nobody registered, with the OID and the cursor's transformer. The answer is psycopg's
own loader, so a decided one costs nothing a value. It comes from the snapshot of the
execution alone: nothing is asked of a server here, no lock is taken.
"""

from __future__ import annotations

import functools
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.adapt import Loader
from psycopg.types.composite import CompositeInfo
from psycopg.types.enum import EnumInfo

from .catalog import FIRST_NORMAL_OID
from .connection import ATTRIBUTE, Execution, state_of
from .types import SURROGATES, SurrogateType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import abc
    from psycopg.abc import AdaptContext, Buffer
    from psycopg.pq.abc import PGresult

    from .catalog import TypeRow
    from .snapshot import Snapshot
    from .types import Registry

INVALID_OID = 0
RECORD_OID, RECORD_ARRAY_OID = 2249, 2287
_RECORDS = frozenset((RECORD_OID, RECORD_ARRAY_OID))


class UnusableType(psycopg.InterfaceError):
    """The register function of a type raised, given the type as a server has it."""


class BadValue(psycopg.DataError):
    """A value that the Python side cannot hold, whatever the server is asked."""


def snapshot_of(context: AdaptContext | None) -> Snapshot | None:
    """Return what *context* decodes by: its execution's, else the connection's."""
    if context is None:
        return None
    execution: Execution | None = getattr(context.adapters, ATTRIBUTE, None)
    if execution is not None:
        return execution.snapshot
    state = state_of(context.connection)
    return None if state is None else state.snapshot or state.presumed()


@functools.lru_cache(maxsize=64)
def loader_resolver(
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

    def resolve(oid: int, context: Any = None) -> Any:
        if oid < FIRST_NORMAL_OID:
            return unknown(oid, context)
        if oid >= SURROGATES:
            # An element of an array, or an attribute, resolved before.
            return _loader(oid, format, unknown, context)
        snapshot = snapshot_of(context)
        if snapshot is None:
            return unknown(oid, context)
        number = snapshot.numbers.get(oid)
        execution = getattr(context.adapters, ATTRIBUTE, None)
        if execution is not None:
            execution.has_oids = True
            if number is None and not snapshot.knows(oid):
                execution.has_unknown = True
        if not number:
            return unknown(oid, context)
        # A project may have registered a loader of its own, by the type's name:
        # get_loader(), without the call.
        own = context.adapters._loaders[index].get(snapshot.names[oid])
        loader = own or snapshot.loaders[index].get(oid)
        if loader is not None:
            return loader(INVALID_OID, context)
        return _loader(number, format, unknown, context)

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
    """Return the loader for a surrogate."""
    surrogate = SurrogateType.by_number(number)
    if surrogate is None:
        return unknown(number, context)
    check_usable(surrogate, context)
    # psycopg's C loaders keep an OID in 32 bits; none of them looks at it.
    loader = surrogate.loaders.get((number, format), unknown)(INVALID_OID, context)
    if number == surrogate.oid and surrogate.tracked.has_shape and context is not None:
        return GuardedLoader(loader, surrogate, context)
    return loader


def check_usable(surrogate: SurrogateType, context: AdaptContext | None) -> None:
    """Raise where the type's register function did."""
    if surrogate.failure is None:
        return
    state = state_of(context.connection) if context is not None else None
    raise UnusableType(
        f"{'a connection' if state is None else state.alias.name}: the type"
        f" {surrogate.tracked} cannot be used; its register function raised"
        f" {surrogate.failure!r}"
    ) from surrogate.failure


class GuardedLoader(Loader):
    """Loads by psycopg's loader; where that raises, looks whether the shape is another.

    ``ALTER TYPE`` keeps the OID. A label that a value has is one that the type has.
    Of anything else the connection asks before it decodes again, and says so.
    """

    def __init__(
        self, loader: abc.Loader, surrogate: SurrogateType, context: AdaptContext
    ) -> None:
        super().__init__(INVALID_OID, context)
        self.format = loader.format
        # Not the Transformer itself, which holds its loaders and the result at hand: in
        # a cycle they, and a connection, would stay until the garbage is collected.
        self._context = _Context(context)
        self._load = loader.load
        self._surrogate = surrogate

    def load(self, data: Buffer) -> Any:
        try:
            return self._load(data)
        except (BadValue, UnusableType):
            raise
        except Exception as error:
            return self._load_otherwise(data, error)

    def _load_otherwise(self, data: Buffer, error: Exception) -> Any:
        state = state_of(self._context.connection)
        if state is None:
            raise error
        if isinstance(self._surrogate.info, EnumInfo):
            return self._load_label(data, state, error)
        state.distrust(read=True)
        if hasattr(error, "add_note"):
            error.add_note(
                f"django_pg_hot_async: the type {self._surrogate.tracked} may have been"
                f" altered; it is read again before {state.alias.name!r} decodes"
                " anything on this connection"
            )
        raise error

    def _load_label(self, data: Buffer, state: Any, error: Exception) -> Any:
        label = self._label(data)
        surrogate = self._surrogate
        if label not in surrogate.shape.labels:
            surrogate = surrogate.with_label(label)
            state.distrust(read=True)
        loader = surrogate.loaders.get((surrogate.oid, self.format))
        if loader is not None and surrogate.failure is None:
            with suppress(Exception):
                new = loader(INVALID_OID, self._context)
                # psycopg has the labels in UTF-8, whatever the client encoding.
                value = new.load(label.encode())
                if surrogate is not self._surrogate:
                    self._load, self._surrogate = new.load, surrogate
                return value
        info: Any = surrogate.info
        with suppress(Exception):
            # Where Enum._missing_ is asked. psycopg looks for names only.
            return info.enum(label)
        raise BadValue(
            f"bad member for enum {info.enum.__qualname__}: {label!r}; labels of the"
            f" type {surrogate.tracked} at {state.alias.name!r}:"
            f" {_listed(surrogate.shape.labels)};"
            f" members of {info.enum.__qualname__}:"
            f" {_listed(member.name for member in info.enum)}"
        ) from error

    def _label(self, data: Buffer) -> str:
        encoding = self._context.connection.info.encoding  # type: ignore[union-attr]
        if encoding == "ascii":
            # SQL_ASCII: bytes as the server stores them, mostly UTF-8.
            encoding = "utf-8"
        return bytes(data).decode(encoding, "replace")


class _Context:
    """The adapters and the connection of an `AdaptContext`, and no more of it."""

    __slots__ = ("adapters", "connection")

    def __init__(self, context: AdaptContext) -> None:
        self.adapters = context.adapters
        self.connection = context.connection


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in dict.fromkeys(names)) or "none"


# What results hold


def oids_in(results: Iterable[PGresult]) -> set[int]:
    """Return the OIDs that *results* hold and initdb did not give: columns, and fields
    of records in the binary format."""
    found: set[int] = set()
    for result in results:
        find_oid = result.ftype
        for column in range(result.nfields):
            oid = find_oid(column)
            if oid >= FIRST_NORMAL_OID:
                found.add(oid)
            elif oid in _RECORDS and result.fformat(column) == 1:
                for row in range(result.ntuples):
                    value = result.get_value(row, column)
                    if value is not None:
                        _find_fields(bytes(value), oid, found)
    return found


def _find_fields(data: bytes, oid: int, found: set[int]) -> None:
    """Add the OIDs of fields of the record, or array of records, *data*."""
    with suppress(struct.error):
        if oid == RECORD_ARRAY_OID:
            dimensions, _, element = struct.unpack_from("!iII", data)
            position = 12 + 8 * dimensions
            while position < len(data):
                (length,) = struct.unpack_from("!i", data, position)
                position += 4
                if length > 0:
                    _find_fields(data[position : position + length], element, found)
                    position += length
            return
        (count,) = struct.unpack_from("!i", data)
        position = 4
        for _ in range(count):
            field, length = struct.unpack_from("!Ii", data, position)
            position += 8
            if field >= FIRST_NORMAL_OID:
                found.add(field)
            elif field in (RECORD_OID, RECORD_ARRAY_OID) and length > 0:
                _find_fields(data[position : position + length], field, found)
            position += max(length, 0)


def is_reshaped(results: Iterable[PGresult], snapshot: Snapshot) -> bool:
    """Whether a composite value has not as many fields as its type had when read."""
    if not snapshot.has_composites:
        return False
    for result in results:
        for column in range(result.nfields):
            row = snapshot.row_of(result.ftype(column))
            if row is None or row.kind != "c" or row.oid != result.ftype(column):
                continue
            surrogate = snapshot.rows.get(row)
            if surrogate is None or not isinstance(surrogate.info, CompositeInfo):
                continue
            for line in range(result.ntuples):
                value = result.get_value(line, column)
                if value is not None:
                    if not _fits(bytes(value), result.fformat(column), row):
                        return True
                    break
    return False


def _fits(value: bytes, format: int, row: TypeRow) -> bool:
    """Whether the composite *value* has the fields that *row* says."""
    if format == 1:
        (count,) = struct.unpack_from("!i", value)
        fields, position = [], 4
        for _ in range(count):
            field, length = struct.unpack_from("!Ii", value, position)
            fields.append(field)
            position += 8 + max(length, 0)
        return fields == [oid for _, oid in row.attributes]
    return _count_fields(value) == len(row.attributes)


def _count_fields(value: bytes) -> int:
    if value == b"()":
        # No attribute, or one that is null.
        return -1
    count, is_quoted = 1, False
    for byte in value[1:-1]:
        if byte == 34:
            is_quoted = not is_quoted
        elif byte == 44 and not is_quoted:
            count += 1
    return count
