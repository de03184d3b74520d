"""Before a statement is sent: what its parameters are adapted by.

Where something has to be asked for that, it is awaited here, in the transaction that
the statement will be in.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import dumping
from .connection import (
    ATTRIBUTE,
    IDLE,
    INTRANS,
    ConnectionState,
    Execution,
)
from .pipelining import OFF, ON
from .psycopg_internals import registry_in
from .runtime import nothing_known, runtime
from .statements import CARRIES, first_word, memo_key, text_of
from .trust import Trust

if TYPE_CHECKING:
    from psycopg.abc import PQGen


def tracked_state(connection: Any) -> ConnectionState | None:
    """Return the state of *connection*; None where there is nothing to be right about:
    it is not tracked, or no type is."""
    return getattr(connection, ATTRIBUTE, None) if runtime.registry.types else None


def execution_of(cursor: Any) -> Execution | None:
    return getattr(cursor._adapters, ATTRIBUTE, None)


def begin_execution(
    cursor: Any, state: ConnectionState, query: object, params: object = None
) -> Execution:
    """Begin an execution of *cursor*."""
    adapters = cursor._adapters
    before: Execution | None = getattr(adapters, ATTRIBUTE, None)
    snapshot = state.begin(cursor._pgconn)
    execution = Execution(state, query, params, snapshot)
    state.is_unsynced = cursor._conn._pipeline is not None
    installed = registry_in(adapters)
    if installed is not runtime.registry and installed is not None:
        # A type was registered since the cursor was made.
        cursor._reset()
        dumping.install(adapters)
        cursor._last_query = None
    if before is None or before.snapshot is None or before.snapshot is not snapshot:
        # The transformer holds loaders and dumpers of another snapshot.
        cursor._last_query = None
    setattr(adapters, ATTRIBUTE, execution)
    return execution


def is_autocommit(connection: Any) -> bool:
    """Whether the statement to come is a transaction of its own."""
    return (
        connection.pgconn.transaction_status == IDLE
        and connection._autocommit
        and not connection._pipeline
    )


def prepare_to_send(cursor: Any, execution: Execution, params: Any) -> PQGen[None]:
    """Establish what *params*, with senders among them, are to be sent by.

    It is called before they are adapted.
    """
    connection, state = cursor._conn, execution.state
    snapshot = execution.snapshot
    if snapshot is None and is_autocommit(connection):
        # It is asserted in front of the statement, or it names types by their names.
        snapshot = state.presumed()
    if snapshot is None:
        # Which tells the search_path as well.
        yield from verify_now(cursor, execution)
        return
    wanted = dumping.ambiguous_senders(params, snapshot)
    if wanted and _can_ask(connection):
        yield from drained(connection)
        snapshot = yield from state.find_paths(connection, snapshot, wanted)
    if snapshot is not execution.snapshot:
        cursor._last_query = None
        execution.snapshot = snapshot


def verify_now(cursor: Any, execution: Execution) -> PQGen[None]:
    """Ask the server, in the transaction that the statement will be in."""
    connection = cursor._conn
    if _can_ask(connection):
        yield from connection._start_query()
        yield from drained(connection)
        if _can_ask(connection):
            # In autocommit behind a pooler, the statement may go elsewhere still.
            is_own = is_autocommit(connection)
            execution.snapshot = yield from execution.state.verify(connection)
            execution.is_decided = not (
                is_own and execution.state.level is Trust.TRANSACTION
            )
            return
    # An aborted transaction: nothing can be read, and nothing is accepted.
    execution.snapshot = execution.state.presumed() or nothing_known()


def _can_ask(connection: Any) -> bool:
    pgconn = connection.pgconn
    if pgconn.pipeline_status != OFF:
        return bool(pgconn.pipeline_status == ON)
    return pgconn.transaction_status in (IDLE, INTRANS)


def drained(connection: Any) -> PQGen[None]:
    """Have all results of a pipeline arrive, so that something can be asked in it."""
    pipeline = connection._pipeline
    if pipeline and (pipeline.command_queue or pipeline.result_queue):
        yield from pipeline._communicate_gen()
        yield from pipeline._fetch_gen(flush=True)


def verify_in_pipeline(cursor: Any, execution: Execution, query: Any) -> PQGen[None]:
    """Ask within a pipeline, before the first statement that may carry a type.

    What is not a query (SET TRANSACTION, say) must not have a query before it.
    """
    text = text_of(query, cursor)
    if first_word(text) in CARRIES and not execution.state.alias.is_bare(
        memo_key(cursor, execution, None)
    ):
        yield from verify_now(cursor, execution)


def verify_before_prepared(
    cursor: Any, execution: Execution, query: Any
) -> PQGen[None]:
    """Ask before a statement that may be prepared with types that are gone."""
    connection = cursor._conn
    if is_autocommit(connection) or execution.state.alias.is_bare(
        memo_key(cursor, execution, None)
    ):
        return
    if first_word(text_of(query, cursor)) in CARRIES:
        yield from verify_now(cursor, execution)


def find_paths(cursor: Any, execution: Execution, params: Any) -> PQGen[None]:
    snapshot = execution.snapshot
    if snapshot is not None and snapshot.ambiguous and params is not None:
        wanted = dumping.ambiguous_senders(params, snapshot)
        execution.snapshot = yield from execution.state.find_paths(
            cursor._conn, snapshot, wanted
        )


def senders_of_many(params_seq: Any) -> set[type] | None:
    """Return the resolved Python types among all parameters; None: unknown."""
    if not isinstance(params_seq, Sequence):
        return None
    rows = (
        row.values() if isinstance(row, Mapping) else row
        for row in params_seq
        if isinstance(row, (Mapping, Sequence))  # Else psycopg says what it wants.
    )
    return runtime.registry.senders_of(itertools.chain.from_iterable(rows))
