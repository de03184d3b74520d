"""Where rows, or parameters, go by one by one: executemany(), stream() and COPY.

Nothing can be asked in their middle, so it is asked before, in their transaction.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psycopg import generators, pq
from psycopg._preparing import Prepare
from psycopg.client_cursor import ClientCursorMixin

from . import dumping, loading
from .asking import (
    begin_execution,
    drained,
    execution_of,
    find_paths,
    is_autocommit,
    senders_of_many,
    tracked_state,
    verify_now,
)
from .carrying import copy_there
from .connection import (
    ATTEMPTS,
    Execution,
)
from .pipelining import (
    FATAL_ERROR,
    OFF,
    SYNC,
    in_pipeline,
    leave_pipeline,
    send_extended,
)
from .trust import Trust

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult


def executemany_gen(original: Any) -> Any:
    """Wrap ``BaseCursor._executemany_gen_pipeline()``.

    Once rows are on their way nothing can be asked, and the parameters of all are
    needed before. A one-shot iterator cannot be inspected, so ask first.
    """

    def executemany(
        self: Any, query: Any, params_seq: Any, returning: bool
    ) -> PQGen[None]:
        state = tracked_state(self._conn)
        if state is None or self._closed:
            yield from original(self, query, params_seq, returning)
            return
        execution = begin_execution(self, state, query)
        snapshot = execution.snapshot
        if snapshot is None or snapshot.ambiguous or not snapshot.is_complete():
            senders = senders_of_many(params_seq)
            if senders or returning or senders is None:
                if snapshot is not None and snapshot.lacks(senders or ()):
                    missed = [
                        state.misses(one)
                        or not dumping.has_default(self._adapters, one)
                        for one in senders or ()
                    ]
                    if any(missed):
                        state.distrust(read=True)
                        snapshot = None
                if snapshot is None:
                    yield from verify_now(self, execution)
                elif snapshot.ambiguous:
                    wanted = set(snapshot.ambiguous)
                    yield from drained(self._conn)
                    execution.snapshot = yield from state.find_paths(
                        self._conn, snapshot, wanted
                    )
                execution.is_decided = execution.snapshot is not None
        yield from original(self, query, params_seq, returning)

    return executemany


def stream_send_gen(original: Any) -> Any:
    """Wrap ``BaseCursor._stream_send_gen()``.

    Nothing can be asked while rows arrive one by one. So the statement is described
    first, its types are asked about, and then it is executed: in one transaction.
    """

    def stream_send(
        self: Any,
        query: Any,
        params: Any = None,
        *,
        binary: bool | None = None,
        size: int,
    ) -> PQGen[None]:
        state = tracked_state(self._conn)
        if state is None or self._closed:
            yield from original(self, query, params, binary=binary, size=size)
            return
        execution = begin_execution(self, state, query)
        # As psycopg's own, but in a pipeline, which `_stream_fetchone_gen` ends: no
        # pooler splits it. Outside of one, libpq would go on giving single rows to the
        # next pipeline (17 and 18).
        yield from self._conn._start_query()
        self._pgconn.enter_pipeline_mode()
        try:
            if execution.snapshot is None:
                execution.snapshot = yield from state.verify(self._conn)
            yield from find_paths(self, execution, params)
            yield from _describe_ahead(self, execution, query, params)
            fmt = self.format if binary is None else pq.Format(int(bool(binary)))
            self._last_query = None
            yield from self._start_query(query)
            pgq = self._convert_query(query, params)
            self._query = pgq
            send_extended(self, pgq, fmt, Prepare.NO, b"")
            self._pgconn.pipeline_sync()
            if size < 1:
                raise ValueError("size must be >= 1")
            if size == 1:
                self._pgconn.set_single_row_mode()
            else:
                self._pgconn.set_chunked_rows_mode(size)
            yield from generators.send(self._pgconn)
        except BaseException:
            with suppress(Exception):
                yield from in_pipeline(self._pgconn)
            leave_pipeline(self._pgconn)
            raise

    return stream_send


def _describe_ahead(
    cursor: Any, execution: Execution, query: Any, params: Any
) -> PQGen[None]:
    """Learn which types the rows of *query* will have, and ask about unknown ones."""
    snapshot, pgconn = execution.snapshot, cursor._pgconn
    assert snapshot is not None
    execution.is_decided = True
    yield from cursor._start_query(query)
    pgq = cursor._convert_query(query, params)
    types = None if isinstance(cursor, ClientCursorMixin) else pgq.types
    found: list[PGresult] = []
    for send in (
        functools.partial(pgconn.send_prepare, b"", pgq.query, param_types=types),
        functools.partial(pgconn.send_describe_prepared, b""),
    ):
        send()
        if pgconn.pipeline_status == OFF:
            found = yield from generators.execute(pgconn)
        else:
            pgconn.send_flush_request()
            yield from generators.send(pgconn)
            found = yield from generators.fetch_many(pgconn)
        if found[-1].status == FATAL_ERROR:
            cursor._raise_for_result(found[-1])
    oids = loading.oids_in(found)
    if not all(map(snapshot.knows, oids)):
        snapshot = yield from execution.state.describe(cursor._conn, snapshot, oids)
        execution.snapshot = snapshot
    cursor._last_query = None
    snapshot.share_types(cursor._adapters)


def stream_fetchone_gen(original: Any) -> Any:
    """Wrap ``BaseCursor._stream_fetchone_gen()``: end the pipeline with the stream."""

    def fetchone(self: Any, first: bool) -> PQGen[PGresult | None]:
        pgconn, result = self._pgconn, None
        if pgconn.pipeline_status == OFF or execution_of(self) is None:
            result = yield from original(self, first)
            return result  # type: ignore[no-any-return]
        try:
            result = yield from original(self, first)
        except BaseException:
            with suppress(Exception):
                yield from in_pipeline(pgconn)
            leave_pipeline(pgconn)
            raise
        if result is None:
            while pgconn.pipeline_status != OFF:
                results = yield from generators.fetch_many(pgconn)
                if results and results[0].status == SYNC:
                    leave_pipeline(pgconn)
                    break
        return result  # type: ignore[no-any-return]

    return fetchone


def start_copy_gen(original: Any) -> Any:
    """Wrap ``BaseCursor._start_copy_gen()``: ask before, or assert with, the COPY."""

    def start_copy(self: Any, statement: Any, params: Any = None) -> PQGen[None]:
        state = tracked_state(self._conn)
        if state is None or self._closed or self._conn._pipeline:
            yield from original(self, statement, params)
            return
        execution = begin_execution(self, state, statement)
        is_own = is_autocommit(self._conn) and state.level is Trust.TRANSACTION
        for _ in range(ATTEMPTS):
            snapshot = execution.snapshot
            known = snapshot or state.presumed()
            if known is not None and not known.is_complete():
                # Nobody knows yet which types it is about. One may be new.
                state.distrust(read=True)
                snapshot = None
            if snapshot is None:
                yield from verify_now(self, execution)
                snapshot = execution.snapshot
            elif snapshot.ambiguous:
                snapshot = yield from state.find_paths(
                    self._conn, snapshot, set(snapshot.ambiguous)
                )
                execution.snapshot = snapshot
            assert snapshot is not None
            snapshot.share_types(self._adapters)
            # That may have shown that the connection leads straight to a server.
            if not (is_own and state.level is Trust.TRANSACTION):
                yield from original(self, statement, params)
                return
            if (yield from copy_there(self, execution, statement, params)):
                return
            execution.snapshot = None
        raise state.refuse("one server after the other answers")

    return start_copy
