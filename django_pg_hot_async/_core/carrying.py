"""In autocommit: a confirmation that travels with the statement, in one message.

Each message up to its sync is one transaction there, and the one thing that no pooler
splits.
"""

from __future__ import annotations

import functools
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, generators, pq
from psycopg._preparing import Prepare
from psycopg._queries import PostgresClientQuery
from psycopg.adapt import Transformer
from psycopg.client_cursor import ClientCursorMixin

from . import catalog as _catalog
from . import dumping, evidence
from .asking import is_autocommit
from .connection import (
    ATTEMPTS,
    INTRANS,
    Execution,
)
from .deciding import decide
from .pipelining import (
    FATAL_ERROR,
    first_failed,
    in_pipeline,
    leave_pipeline,
    send_extended,
    sending,
)
from .psycopg_internals import drop_prepared_statements
from .runtime import runtime
from .statements import CALL, CARRIES, can_be_bare, first_word, is_several, memo_key

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from .snapshot import Snapshot


TUPLES_OK = pq.ExecStatus.TUPLES_OK

_MOVED = "22P02"
"""SQLSTATE of an assertion that does not hold."""


def how_to_carry(
    cursor: Any, pgq: Any, execution: Execution, binary: bool | None
) -> str | None:
    """Return how a confirmation travels: "simple", "pipeline", "assert"; or not."""
    is_own = is_autocommit(cursor._conn)
    if (
        is_own
        and not execution.has_sent
        and execution.state.alias.is_bare(memo_key(cursor, execution, pgq))
    ):
        return None
    is_client = isinstance(cursor, ClientCursorMixin)
    is_binary = cursor.format == pq.Format.BINARY if binary is None else binary
    is_simple = is_client or not (pgq.params or is_binary)
    query = pgq.query
    word = first_word(query)
    if not is_own:
        # Its transaction may end within the string, and then nothing would tell.
        is_open = cursor._pgconn.transaction_status == INTRANS
        several = is_open and is_simple and is_several(query, cursor._pgconn)
        return "simple" if several else None
    if word == CALL:
        # Nothing may be asserted before it: what a procedure takes tells the types.
        if not is_client and pgq.types:
            pgq.types = tuple(
                0 if oid >= _catalog.FIRST_NORMAL_OID else oid for oid in pgq.types
            )
        return "call"
    # A client-side cursor writes types by their names instead.
    if (
        execution.has_sent
        and not is_client
        and any(oid >= _catalog.FIRST_NORMAL_OID for oid in pgq.types or ())
    ):
        return "assert"
    if word in CARRIES:
        return "simple" if is_simple else "pipeline"
    several = is_simple and is_several(query, cursor._pgconn)
    return "simple" if several else None


def carry(
    cursor: Any,
    pgq: Any,
    execution: Execution,
    prepare: bool | None,
    binary: bool | None,
    how: str,
) -> PQGen[None]:
    """Send *pgq* with a confirmation in one message, and take the results."""
    state, connection, pgconn = execution.state, cursor._conn, cursor._pgconn
    prep, name = cursor._get_prepared(pgq, prepare)
    if how == "simple" and prep is not Prepare.NO:
        how = "pipeline"
    confirmation = state.confirmation(pgconn)
    question = (
        confirmation.statement
        if confirmation is not None
        else _catalog.read_by_name(runtime.registry.question)
    )
    cursor._query = pgq
    answer: PGresult | None = None
    fmt = cursor.format if binary is None else pq.Format(int(bool(binary)))
    send = functools.partial(send_extended, cursor, pgq, fmt, prep, name)
    if how == "simple":
        # Last: the server tells where in the text an error is.
        pgconn.send_query(pgq.query + b"\n;" + question)
        results = yield from generators.execute(pgconn)
        if results[-1].status != TUPLES_OK:
            results = results[-1:]
        elif len(results) > 1:
            answer = results.pop()
    elif how == "assert":
        results, prep = yield from _assert(cursor, pgq, execution, fmt, prep, name)
    elif how == "call":
        *others, last = yield from in_pipeline(pgconn, send, sending(pgconn, question))
        results = first_failed(others)
        if results[0].status != FATAL_ERROR:
            answer = _catalog.checked(last[-1], cursor._encoding)
    else:
        first, *others = yield from in_pipeline(pgconn, sending(pgconn, question), send)
        answer = _catalog.checked(first[-1], cursor._encoding)
        results = first_failed(others)
    is_refused = results[-1].status == FATAL_ERROR
    if is_refused and prep is not Prepare.NO and _is_plan_gone(cursor, results[-1]):
        # It was prepared with a type that was made anew, and nothing was executed.
        drop_prepared_statements(connection)
        yield from carry(cursor, pgq, execution, False, binary, how)
        return
    if (
        execution.has_sent
        and is_refused
        and (yield from _is_named_otherwise(cursor, execution, results[-1]))
    ):
        # Nothing was executed. By the names of the server that answers now:
        cursor._tx = Transformer(cursor)
        pgq = cursor._convert_query(execution.query, execution.params)
        yield from carry(cursor, pgq, execution, prepare, binary, how)
        return
    key = connection._prepared.maybe_add_to_cache(pgq, prep, name)
    if key is not None:
        connection._prepared.validate(key, prep, name, results)
    cursor._check_results(results)
    snapshot = execution.snapshot
    if answer is not None:
        if confirmation is None:
            catalog = _catalog.parse(answer)
            snapshot = yield from state.learn(catalog, connection)
        else:
            said = confirmation.read(answer)
            found = state.explain(said, pgconn)
            if found is None:
                found = yield from state.read(connection, answer=said)
            else:
                yield from state.adopt(found, connection)
            snapshot = found
    decide(cursor, execution, snapshot)
    cursor._set_results(results)
    if not execution.has_oids and can_be_bare(pgq.query):
        state.alias.mark_bare(memo_key(cursor, execution, pgq))


def _is_plan_gone(cursor: Any, result: PGresult) -> bool:
    error = errors.error_from_result(result, encoding=cursor._encoding)
    return isinstance(error, errors.FeatureNotSupported)


def _is_named_otherwise(
    cursor: Any, execution: Execution, result: PGresult
) -> PQGen[bool]:
    """Whether the server has other names for types that were written by theirs."""
    error = errors.error_from_result(result, encoding=cursor._encoding)
    if (
        not isinstance(cursor, ClientCursorMixin)
        or not evidence.is_evidence(error)
        or execution.repeats >= ATTEMPTS
    ):
        return False
    before = execution.snapshot
    found = yield from execution.state.verify(cursor._conn)
    execution.snapshot, execution.is_decided = found, False
    execution.repeats += 1
    names = {(row.schema, row.name) for row in found.sent.values()}
    return before is None or names != {
        (row.schema, row.name) for row in before.sent.values()
    }


def _assert(
    cursor: Any,
    pgq: Any,
    execution: Execution,
    fmt: pq.Format,
    prep: Prepare,
    name: bytes,
) -> PQGen[tuple[list[PGresult], Prepare]]:
    """Execute *pgq* only where the server has the OIDs that it is sent with.

    Where it has not, the server is asked, in a pipeline that no pooler can split, and
    the statement is sent with what it answers, unprepared. Return what it was, too.
    """
    snapshot, state, pgconn = execution.snapshot, execution.state, cursor._pgconn
    assert snapshot is not None
    if state.alias.is_unsteady():
        results = yield from _ask_and_send(cursor, pgq, execution, fmt)
        return results, Prepare.NO
    paths = {
        tracked.name: row.oid if (row := snapshot.sent.get(tracked)) else 0
        for tracked in snapshot.ambiguous
    }
    front = _catalog.assert_served_by(
        snapshot.catalog, paths, wants_database=snapshot.needs_database
    )
    send = functools.partial(send_extended, cursor, pgq, fmt, prep, name)
    answer, *others = yield from in_pipeline(pgconn, sending(pgconn, front), send)
    if answer[-1].status == TUPLES_OK:
        state.note_backend(int(answer[-1].get_value(0, 1) or 0), pgconn)
        yield from state.adopt(snapshot, cursor._conn)
        return first_failed(others), prep
    error = errors.error_from_result(answer[-1], encoding=cursor._encoding)
    if error.sqlstate != _MOVED:
        raise error
    state.alias.note_move()
    results = yield from _ask_and_send(cursor, pgq, execution, fmt)
    return results, Prepare.NO


def _ask_and_send(
    cursor: Any, pgq: Any, execution: Execution, fmt: pq.Format
) -> PQGen[list[PGresult]]:
    """Ask the server, then send *pgq* with what it has: one transaction, one sync.

    A pooler does not let go of a pipeline that is not synced.
    """
    presumed, state, pgconn = execution.snapshot, execution.state, cursor._pgconn
    assert presumed is not None
    pgconn.enter_pipeline_mode()
    try:
        found = yield from state.verify(cursor._conn)
        if found.ambiguous and execution.params is not None:
            wanted = dumping.ambiguous_senders(execution.params, found)
            found = yield from state.find_paths(cursor._conn, found, wanted)
        execution.snapshot = found
        # Else the dumpers that it keeps would go on sending the OIDs of before.
        cursor._tx = Transformer(cursor)
        if not _translate(pgq, presumed, found):
            pgq = cursor._convert_query(execution.query, execution.params)
            cursor._query = pgq
    except BaseException:
        with suppress(Exception):
            yield from in_pipeline(pgconn)
        leave_pipeline(pgconn)
        raise
    send = functools.partial(send_extended, cursor, pgq, fmt, Prepare.NO, b"")
    return first_failed((yield from in_pipeline(pgconn, send)))


def _translate(pgq: Any, presumed: Snapshot, found: Snapshot) -> bool:
    """Put the OIDs of *found* in the place of those of *presumed*.

    False where the server lacks a type, or OIDs are deep in a value.
    """
    types, params = [], []
    for oid, format, value in zip(
        pgq.types or (), pgq.formats or (), pgq.params or (), strict=True
    ):
        new: int | None = oid
        if oid >= _catalog.FIRST_NORMAL_OID:
            new = presumed.translate(oid, found)
        if new is None:
            return False
        if new != oid and format == pq.Format.BINARY and value is not None:
            row = presumed.row_of(oid)
            assert row is not None
            if row.kind == "c" or row.subtype >= _catalog.FIRST_NORMAL_OID:
                return False
            if oid == row.array_oid:
                # Dimensions, flags, and the OID of the elements.
                element = presumed.translate(row.oid, found)
                value = bytes(value)
                value = value[:8] + struct.pack("!I", element) + value[12:]
        types.append(new)
        params.append(value)
    pgq.types, pgq.params = tuple(types), params
    return True


def copy_there(
    cursor: Any, execution: Execution, statement: Any, params: Any
) -> PQGen[bool]:
    """Begin a COPY where the server is the one expected; return whether it is."""
    snapshot, pgconn = execution.snapshot, cursor._pgconn
    assert snapshot is not None
    yield from cursor._start_query()
    if params or not isinstance(statement, (str, bytes)):
        merged = PostgresClientQuery(cursor._tx)
        merged.convert(statement, params)
        statement = merged.query
    query = cursor._convert_query(statement)
    cursor._query = query
    pgconn.send_query(
        _catalog.assert_served_by(
            snapshot.catalog, {}, wants_database=snapshot.needs_database
        )
        + b";\n"
        + query.query
    )
    results = yield from generators.execute(pgconn)
    if results[0].status == FATAL_ERROR:
        error = errors.error_from_result(results[0], encoding=cursor._encoding)
        if error.sqlstate == _MOVED:
            return False
        raise error
    if len(results) != 2:
        raise psycopg.ProgrammingError("COPY cannot be mixed with other operations")
    cursor._check_copy_result(results[1])
    cursor._set_results(results[1:])
    return True
