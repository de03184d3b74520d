"""How a statement is executed on a tracked connection.

psycopg's generators run as they are; what is added is: a confirmation that travels
with a statement in autocommit, an answer that is waited for before parameters are
adapted, and the decision, once results have arrived, what they are decoded by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import generators, pq, sql
from psycopg._connection_base import BaseConnection
from psycopg._cursor_base import BaseCursor
from psycopg._pipeline_base import BasePipeline
from psycopg._server_cursor_base import ServerCursorMixin

from . import dumping, evidence, loading
from .asking import (
    begin_execution,
    execution_of,
    find_paths,
    is_autocommit,
    prepare_to_send,
    tracked_state,
    verify_before_prepared,
    verify_in_pipeline,
    verify_now,
)
from .carrying import carry, how_to_carry
from .connection import (
    ATTRIBUTE,
    IDLE,
    Execution,
    Unverified,
)
from .deciding import are_known, explain, settle
from .patches import Patch
from .pipelining import OFF
from .psycopg_internals import has_prepared_statements
from .runtime import runtime
from .streams import (
    executemany_gen,
    start_copy_gen,
    stream_fetchone_gen,
    stream_send_gen,
)

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult


def execute_gen(original: Any) -> Any:
    """Wrap ``BaseCursor._execute_gen()``."""

    def execute(
        self: Any,
        query: Any,
        params: Any = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> PQGen[None]:
        # `tracked_state`, without the call.
        registry = runtime.registry
        state = getattr(self._conn, ATTRIBUTE, None) if registry.types else None
        if state is None or self._closed:
            yield from original(self, query, params, prepare=prepare, binary=binary)
            return
        execution = begin_execution(self, state, query, params)
        snapshot = execution.snapshot
        if snapshot is None or snapshot.ambiguous:
            if params is not None and dumping.senders_in(params):
                yield from prepare_to_send(self, execution, params)
            elif snapshot is None and self._conn._pipeline:
                yield from verify_in_pipeline(self, execution, query)
            elif snapshot is None and has_prepared_statements(self._conn):
                yield from verify_before_prepared(self, execution, query)
        execution.is_adapting = True
        try:
            yield from original(self, query, params, prepare=prepare, binary=binary)
        except Unverified as unverified:
            # A parameter that could not be told apart: ask, and adapt them anew.
            if unverified.is_missing:
                state.distrust(read=True)
            execution.is_adapting = False
            self._last_query = None
            yield from verify_now(self, execution)
            yield from original(self, query, params, prepare=prepare, binary=binary)
        except psycopg.Error as error:
            if error.sqlstate:
                # What a PREPARE is refused with passes by no other way.
                evidence.notice(self._conn, error)
            raise
        if execution.pending and not self._conn._pipeline:
            yield from settle(self, execution)

    return execute


def maybe_prepare_gen(original: Any) -> Any:
    """Wrap ``BaseCursor._maybe_prepare_gen()``: what sends, and takes the results."""

    def maybe_prepare(
        self: Any,
        pgq: Any,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> PQGen[None]:
        # Not a generator itself, which would cost each statement one more.
        execution = getattr(self._adapters, ATTRIBUTE, None)
        if execution is not None:
            execution.is_adapting = False
            if not (execution.is_decided or self._conn._pipeline):
                how = how_to_carry(self, pgq, execution, binary)
                if how is not None:
                    return carry(self, pgq, execution, prepare, binary, how)
        sent: PQGen[None] = original(self, pgq, prepare=prepare, binary=binary)
        return sent

    return maybe_prepare


def set_results(original: Any) -> Any:
    """Wrap ``BaseCursor._set_results()``: what gives results to a cursor."""

    def take(self: Any, results: list[PGresult]) -> None:
        execution = getattr(self._adapters, ATTRIBUTE, None)
        if execution is None:
            original(self, results)
            return
        for result in results:
            if result.status == COMMAND_OK and (tag := result.command_status):
                execution.state.note_command(tag)
        if execution.is_simple and len(results) == 1 and not results[0].fformat(0):
            # Whoever makes its loaders notes what there is in it.
            original(self, results)
            if execution.has_unknown:
                _put_off(self, execution, results)
            elif execution.has_oids:
                execution.snapshot.share_types(self._adapters)
            return
        oids = loading.oids_in(results)
        if oids:
            execution.has_oids = True
            if execution.pending or not are_known(execution, oids, results):
                _put_off(self, execution, results)
                return
            if execution.snapshot is not None:
                execution.snapshot.share_types(self._adapters)
        elif execution.pending:
            execution.pending = (*execution.pending, results)
            return
        original(self, results)

    return take


def _put_off(cursor: Any, execution: Execution, results: list[PGresult]) -> None:
    """Have it asked what *results* hold, before anything is fetched of them."""
    execution.pending = (*execution.pending, results)
    if cursor._conn._pipeline:
        execution.state.waiting.append(cursor)


def raise_for_result(original: Any) -> Any:
    """Wrap ``BaseCursor._raise_for_result()``: what a server refused."""

    def refused(self: Any, result: Any) -> Any:
        try:
            return original(self, result)
        except psycopg.Error as error:
            evidence.notice(self._conn, error)
            raise

    return refused


def declare_gen(original: Any) -> Any:
    """Wrap ``ServerCursorMixin._declare_gen()``."""

    def declare(
        self: Any, query: Any, params: Any = None, binary: bool | None = None
    ) -> PQGen[None]:
        state = tracked_state(self._conn)
        if state is None or self._closed:
            yield from original(self, query, params, binary)
            return
        execution = begin_execution(self, state, query, params)
        snapshot = execution.snapshot
        if snapshot is None and (
            is_autocommit(self._conn)  # WITH HOLD: what it is of cannot be asked later.
            or dumping.senders_in(params)
        ):
            yield from verify_now(self, execution)
            # In a pool of sessions, which alone has such cursors, it is the same.
            execution.is_decided = True
            snapshot = execution.snapshot
        if snapshot is not None and snapshot.ambiguous:
            yield from find_paths(self, execution, params)
        yield from original(self, query, params, binary)

    return declare


def describe_gen(original: Any) -> Any:
    """Wrap ``ServerCursorMixin._describe_gen()``: ask before loaders are made."""

    def describe(self: Any) -> PQGen[None]:
        execution = execution_of(self)
        if execution is None:
            yield from original(self)
            return
        self._pgconn.send_describe_portal(self._name.encode(self._encoding))
        results = yield from generators.execute(self._pgconn)
        self._check_results(results)
        oids = loading.oids_in(results)
        if oids and not are_known(execution, oids, results):
            yield from explain(self, execution, results)
        self._results = results
        self._select_current_result(0, format=self._format)
        self._described = True

    return describe


def fetch_gen(original: Any) -> Any:
    """Wrap ``ServerCursorMixin._fetch_gen()``: each FETCH is of what was declared."""

    def fetch(self: Any, num: int | None) -> PQGen[Any]:
        state = tracked_state(self._conn)
        if state is None or self._closed:
            return (yield from original(self, num))
        execution = execution_of(self)
        if execution is None:
            # Somebody else declared it.
            execution = begin_execution(self, state, None)
        if not self._described:
            yield from self._start_query()
            yield from self._describe_gen()
        query = sql.SQL("FETCH FORWARD {} FROM {}").format(
            sql.SQL("ALL") if num is None else sql.Literal(num),
            sql.Identifier(self._name),
        )
        result = yield from self._conn._exec_command(query, result_format=self._format)
        declared = self._results[0] if self._results else result
        if _columns(result) != _columns(declared):
            raise state.refuse(f"the cursor {self._name!r} is another one now")
        oids = loading.oids_in([result])
        if oids and not are_known(execution, oids, [result]):
            yield from explain(self, execution, [result])
        self.pgresult = result
        self._tx.set_pgresult(result, format=self._format)
        return self._tx.load_rows(0, result.ntuples, self._make_row)

    return fetch


def _columns(result: PGresult) -> list[tuple[bytes | None, int]]:
    return [
        (result.fname(column), result.ftype(column)) for column in range(result.nfields)
    ]


def exec_command(original: Any) -> Any:
    """Wrap ``BaseConnection._exec_command()``: what psycopg itself sends.

    A BEGIN shows that the transaction before has ended.
    """

    def command(self: Any, *args: Any, **kwargs: Any) -> PQGen[PGresult | None]:
        state = tracked_state(self)
        if state is not None and self.pgconn.transaction_status == IDLE:
            state.begin(self.pgconn)
        if state is not None and self._pipeline:
            state.is_unsynced = True
        result: PGresult | None = yield from original(self, *args, **kwargs)
        if state is not None and result is not None and result.command_status:
            state.note_command(result.command_status)
        return result

    return command


def enqueue_sync(original: Any) -> Any:
    """Wrap ``BasePipeline._enqueue_sync()``: a transaction ends there."""

    def enqueue(self: Any) -> None:
        original(self)
        state = tracked_state(self._conn)
        if state is not None:
            state.end()

    return enqueue


def pipeline_fetch_gen(original: Any) -> Any:
    """Wrap ``BasePipeline._fetch_gen()``: ask about results once all have arrived."""

    def fetch(self: Any, *, flush: bool) -> PQGen[None]:
        state = tracked_state(self._conn)
        try:
            yield from original(self, flush=flush)
        except psycopg.Error as error:
            if state is not None and error.sqlstate:
                evidence.notice(self._conn, error)
            raise
        if state is None or not state.waiting or self.result_queue:
            return
        cursors, state.waiting = state.waiting, []
        pgconn = self.pgconn
        is_over = state.is_between(pgconn)
        for cursor in cursors:
            execution = execution_of(cursor)
            if execution is not None:
                yield from settle(cursor, execution)
        if is_over and pgconn.pipeline_status != OFF:
            # Else what was asked would be the beginning of the next transaction.
            pgconn.pipeline_sync()
            yield from generators.send(pgconn)
            yield from generators.fetch_many(pgconn)

    return fetch


COMMAND_OK = pq.ExecStatus.COMMAND_OK
_SELF = ("self",)

PATCHES = (
    Patch(BaseCursor, "_execute_gen", execute_gen, ("self", "query", "params")),
    Patch(BaseCursor, "_maybe_prepare_gen", maybe_prepare_gen, ("self", "pgq")),
    Patch(BaseCursor, "_set_results", set_results, ("self", "results")),
    Patch(BaseCursor, "_raise_for_result", raise_for_result, ("self", "result")),
    Patch(
        BaseCursor,
        "_executemany_gen_pipeline",
        executemany_gen,
        ("self", "query", "params_seq", "returning"),
    ),
    Patch(BaseCursor, "_stream_send_gen", stream_send_gen, ("self", "query", "params")),
    Patch(BaseCursor, "_stream_fetchone_gen", stream_fetchone_gen, ("self", "first")),
    Patch(
        BaseCursor, "_start_copy_gen", start_copy_gen, ("self", "statement", "params")
    ),
    Patch(ServerCursorMixin, "_declare_gen", declare_gen, ("self", "query", "params")),
    Patch(ServerCursorMixin, "_describe_gen", describe_gen, _SELF),
    Patch(ServerCursorMixin, "_fetch_gen", fetch_gen, ("self", "num")),
    Patch(BaseConnection, "_exec_command", exec_command, ("self", "command")),
    Patch(BasePipeline, "_enqueue_sync", enqueue_sync, _SELF),
    Patch(BasePipeline, "_fetch_gen", pipeline_fetch_gen, ("self", "flush")),
)
"""What is replaced in psycopg. Tried on 3.2.10, 3.2.13 and 3.3.9."""
