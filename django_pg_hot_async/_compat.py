"""Every private name of psycopg that this package touches, and why it has to.

`tests/test_compat.py` fails first when one of them changes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg._cursor_base import BaseCursor
from psycopg.adapt import PyFormat
from psycopg.types import TypesRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from psycopg import abc
    from psycopg.abc import PQGen
    from psycopg.adapt import AdaptersMap
    from psycopg.types import TypeInfo
    from psycopg.types.composite import CompositeInfo

    DumperFactory = Callable[[type, abc.AdaptContext | None], abc.Dumper]


class _Shared(dict):  # type: ignore[type-arg]
    """The content of a snapshot's types; a copy of it is a plain dict."""

    made_of: object = None


class _DumpersByOid(dict):  # type: ignore[type-arg]
    """Dumpers by OID, and for an OID that is not among them what *missing* makes."""

    def __init__(
        self, dumpers: dict[int, type[abc.Dumper]], missing: Callable[[int], object]
    ) -> None:
        super().__init__(dumpers)
        self._missing = missing

    def __missing__(self, oid: int) -> object:
        return self._missing(oid)

    def copy(self) -> _DumpersByOid:
        return _DumpersByOid(self, self._missing)


def resolve_dumpers_by_oid(
    adapters: AdaptersMap, format: pq.Format, missing: Callable[[int], DumperFactory]
) -> None:
    """Let *missing* answer where *adapters* have no dumper for an OID.

    psycopg has a loader for unknown OIDs to stand in for, but no such dumper. It is
    what ``Copy.set_types()`` and the arrays of a registered type look up.
    """
    # AdaptersMap._dumpers_by_oid, which get_dumper_by_oid() subscripts and copies
    # of the map share: psycopg 3.2.13 and 3.3.9.
    dumpers = adapters._dumpers_by_oid[format]
    adapters._dumpers_by_oid[format] = _DumpersByOid(dumpers, missing)


def are_dumpers_resolved(adapters: AdaptersMap, format: pq.Format) -> bool:
    """Whether `resolve_dumpers_by_oid` has been done to *adapters*."""
    return isinstance(adapters._dumpers_by_oid[format], _DumpersByOid)


def dumped_types(
    adapters: AdaptersMap, template: AdaptersMap
) -> dict[type | str, tuple[pq.Format, ...]]:
    """Return the Python types that *adapters* dump otherwise than *template*.

    With the formats they have dumpers for, the one that ``%s`` takes last. A type
    may be given by its full name.
    """
    # AdaptersMap._dumpers: psycopg 3.2.13 and 3.3.9.
    found: dict[type | str, tuple[pq.Format, ...]] = {}
    for key, auto in adapters._dumpers[PyFormat.AUTO].items():
        if template._dumpers[PyFormat.AUTO].get(key) is auto:
            continue
        formats = [
            format
            for format in pq.Format
            if key in adapters._dumpers[PyFormat.from_pq(format)]
        ]
        found[key] = tuple(sorted(formats, key=lambda format: format == auto.format))
    return found


def send_fields(dumper: abc.Dumper, info: CompositeInfo) -> None:
    """Have *dumper*, of a composite type, write the OIDs of *info*'s attributes.

    The binary format names the type of each attribute.
    """
    # _SequenceBinaryDumper.info of psycopg 3.3.9, TupleBinaryDumper._field_types of
    # 3.2.13.
    names: Any = dumper
    if hasattr(names, "_field_types"):
        names._field_types = tuple(info.field_types)
    elif hasattr(names, "info"):
        names.info = info


def drop_result(context: Any) -> None:
    """Take the result from *context*, where that is what makes its loaders.

    Nothing else in psycopg raises while they are made. A cursor would go on with the
    loaders of the result before; in C it would read past the end of them.
    """
    # Transformer.set_pgresult(): psycopg 3.2.13 and 3.3.9, in C and in Python.
    if hasattr(context, "set_pgresult"):
        context.set_pgresult(None)


_start_query = BaseCursor._start_query
_raise_for_result = BaseCursor._raise_for_result
_stream_send_gen = BaseCursor._stream_send_gen
_start_copy_gen = BaseCursor._start_copy_gen
_executemany_gen_pipeline = BaseCursor._executemany_gen_pipeline
_enter_pipeline = psycopg.Pipeline.__enter__
_aenter_pipeline = psycopg.AsyncPipeline.__aenter__


def follow_cursors(
    begin: Callable[[Any], bool],
    refused: Callable[[Any, psycopg.Error], None],
    ahead: Callable[[Any], PQGen[None]],
    ahead_of_many: Callable[[Any, Any, bool], PQGen[None]],
    *,
    each: bool,
    adapt: Callable[[Any], bool] | None = None,
) -> None:
    """Call *begin* when a cursor begins to execute, *refused* when a server refuses.

    *begin* gets the connection, and tells whether loaders and dumpers must not be
    kept from the execution before: psycopg does so where a cursor gets the same
    query object again, and then asks nobody. Unless *each* execution matters, it is
    called for those only. *refused* gets the connection and the error that is
    about to be raised. *ahead* makes a generator that is run, for a cursor or a
    connection, before rows arrive one by one or a pipeline begins: ``stream()``,
    COPY, ``pipeline()``; *ahead_of_many* does for the cursor, the parameters and
    ``returning`` of an ``executemany()``. *adapt*, if given, is called before each
    execution with the cursor, and tells whether it changed its adapters.
    """

    # BaseCursor._start_query(), which each way of executing goes through;
    # ._last_query, without which it makes a new Transformer; ._raise_for_result(),
    # and ._conn: psycopg 3.2.13 and 3.3.9. A plain function, since it costs less
    # than a generator around a generator.
    def start_query(self: Any, query: Any = None) -> Any:
        if (each or self._last_query is query) and begin(self._conn):
            self._last_query = None
        return _start_query(self, query)

    def adapt_and_start(self: Any, query: Any = None) -> Any:
        assert adapt is not None
        # As _start_query() does. psycopg 3.3 has loaders made anew for a result that
        # is still at hand when a loader is registered; that may take a read.
        self._reset()
        if adapt(self):
            self._last_query = None
        return start_query(self, query)

    def raise_for_result(self: Any, result: Any) -> Any:
        try:
            _raise_for_result(self, result)
        except psycopg.Error as error:
            refused(self._conn, error)
            raise

    # ._stream_send_gen(), ._start_copy_gen(), ._executemany_gen_pipeline(): psycopg
    # 3.2.13 and 3.3.9.
    def start_ahead(cursor: Any) -> PQGen[None]:
        if not (cursor.closed or cursor._conn._pipeline):
            # In the transaction that psycopg begins for it, if it does.
            yield from cursor._conn._start_query()
            yield from ahead(cursor)

    def stream_send(self: Any, *args: Any, **kwargs: Any) -> Any:
        yield from start_ahead(self)
        yield from _stream_send_gen(self, *args, **kwargs)

    def start_copy(self: Any, *args: Any, **kwargs: Any) -> Any:
        yield from start_ahead(self)
        yield from _start_copy_gen(self, *args, **kwargs)

    def executemany(self: Any, query: Any, params_seq: Any, returning: bool) -> Any:
        if not self.closed:
            yield from self._conn._start_query()
            yield from ahead_of_many(self, params_seq, returning)
        yield from _executemany_gen_pipeline(self, query, params_seq, returning)

    # A wait() of its own: one that is cancelled, or gets Ctrl-C, runs its generator to
    # the end, and a pipeline that is entered in it would be left by nobody.
    def enter_pipeline(self: Any) -> Any:
        if _is_of_ones_own(self):
            with self._conn.lock:
                self._conn.wait(ahead(self._conn))
        return _enter_pipeline(self)

    async def aenter_pipeline(self: Any) -> Any:
        if _is_of_ones_own(self):
            async with self._conn.lock:
                await self._conn.wait(ahead(self._conn))
        return await _aenter_pipeline(self)

    cursors: Any = BaseCursor
    cursors._start_query = start_query if adapt is None else adapt_and_start
    cursors._raise_for_result = raise_for_result
    cursors._stream_send_gen = stream_send
    cursors._start_copy_gen = start_copy
    cursors._executemany_gen_pipeline = executemany
    pipelines: Any = psycopg.Pipeline
    pipelines.__enter__ = enter_pipeline
    async_pipelines: Any = psycopg.AsyncPipeline
    async_pipelines.__aenter__ = aenter_pipeline


_EXECUTEMANY = (
    psycopg.Cursor.executemany.__code__,
    psycopg.AsyncCursor.executemany.__code__,
)


def _is_of_ones_own(pipeline: Any) -> bool:
    """Whether *pipeline* begins as it is entered, and is not that of `executemany()`.

    Which has a lock of its own for it, the connection's being held; before psycopg
    3.2.10 the one tells itself from the other by its caller only.
    """
    # Pipeline.level and ._lock: psycopg 3.2.13 and 3.3.9; the frames of pipeline() and
    # of its context manager, which the caller is beyond: 3.2.0 to 3.2.9.
    if pipeline.level:
        return False
    if hasattr(pipeline, "_lock"):
        return bool(pipeline._lock is pipeline._conn.lock)
    frame: FrameType | None = sys._getframe(1)
    for _ in range(4):
        frame = frame and frame.f_back
        if frame is not None and frame.f_code in _EXECUTEMANY:
            return False
    return True


def leave_cursors() -> None:
    """Undo `follow_cursors`."""
    cursors: Any = BaseCursor
    cursors._start_query = _start_query
    cursors._raise_for_result = _raise_for_result
    cursors._stream_send_gen = _stream_send_gen
    cursors._start_copy_gen = _start_copy_gen
    cursors._executemany_gen_pipeline = _executemany_gen_pipeline
    pipelines: Any = psycopg.Pipeline
    pipelines.__enter__ = _enter_pipeline
    async_pipelines: Any = psycopg.AsyncPipeline
    async_pipelines.__aenter__ = _aenter_pipeline


def drop_prepared_statements(connection: Any) -> None:
    """Have psycopg prepare anew what it prepared on *connection*.

    Nothing is sent: on another server the statements do not exist, on the same one
    they go with the connection. Names are not used twice.
    """
    # BaseConnection._prepared, PrepareManager._counts and ._names: psycopg 3.2.13
    # and 3.3.9. Its clear() would have the next statement deallocated after use.
    connection._prepared._counts.clear()
    connection._prepared._names.clear()


def mark_shared(types: TypesRegistry, base: TypesRegistry) -> None:
    """Make the content of *types* known as a snapshot's own, made of *base*."""
    # TypesRegistry._registry, which add() replaces where a copy shares it: psycopg
    # 3.2.13 and 3.3.9.
    content = _Shared(types._registry)
    content.made_of = base._registry
    types._registry = content


def is_made_of(types: TypesRegistry, base: TypesRegistry) -> bool:
    """Whether *base* is as it was when `mark_shared` was given it."""
    return getattr(types._registry, "made_of", None) is base._registry


def share_types(
    adapters: AdaptersMap, types: TypesRegistry, infos: Iterable[TypeInfo]
) -> None:
    """Let *adapters* know *types*, a snapshot's own, and none of another server.

    A registry that somebody has added to gets *infos* added; any other is replaced
    by one that shares the content of *types*: no copy, 9 KB less a connection.
    """
    content = adapters.types._registry
    if content is types._registry:
        return
    if type(content) is _Shared or content is psycopg.adapters.types._registry:
        adapters.types = TypesRegistry(types)
    else:
        for info in infos:
            adapters.types.add(info)


# Who holds Connection.lock where loaders and dumpers are made, by the code that runs,
# and its variable "self": psycopg 3.2.13 and 3.3.9.
_WAIT = psycopg.Connection.wait.__code__
_HOLDERS = frozenset(
    [
        _WAIT,
        psycopg.Cursor.stream.__code__,
        psycopg.Copy.set_types.__code__,
        psycopg.Copy.read_row.__code__,
        psycopg.Copy.write_row.__code__,
    ]
)


def is_held_here(connection: psycopg.Connection[Any]) -> bool:
    """Whether it is this thread that holds the lock; it does not say who does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _HOLDERS:
            holder = frame.f_locals["self"]
            if connection in (holder, getattr(holder, "connection", None)):
                return True
        frame = frame.f_back
    return False


def is_in_use(connection: psycopg.Connection[Any]) -> bool:
    """Whether some thread waits for an answer on it."""
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code is _WAIT and frame.f_locals.get("self") is connection:
                return True
            frame = frame.f_back
    return False
