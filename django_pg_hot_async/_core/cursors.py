"""How a statement is executed on a tracked connection.

psycopg's generators run as they are; what is added is: a confirmation that travels
with a statement in autocommit, an answer that is waited for before parameters are
adapted, and the decision, once results have arrived, what they are decoded by.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, generators, pq, sql
from psycopg._connection_base import BaseConnection
from psycopg._cursor_base import BaseCursor
from psycopg._pipeline_base import BasePipeline
from psycopg._preparing import Prepare
from psycopg._queries import PostgresClientQuery
from psycopg._server_cursor_base import ServerCursorMixin
from psycopg.adapt import Transformer
from psycopg.client_cursor import ClientCursorMixin

from . import catalog as _catalog
from . import dumping, evidence, loading
from .connection import (
    ATTEMPTS,
    ATTRIBUTE,
    IDLE,
    INTRANS,
    ConnectionState,
    Execution,
    Unverified,
)
from .patches import Patch
from .psycopg_internals import has_prepared_statements
from .runtime import nothing_known, runtime
from .trust import Trust

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from .snapshot import Snapshot

OFF = pq.PipelineStatus.OFF
ON = pq.PipelineStatus.ON
SYNC = pq.ExecStatus.PIPELINE_SYNC
TUPLES_OK = pq.ExecStatus.TUPLES_OK
COMMAND_OK = pq.ExecStatus.COMMAND_OK
FATAL_ERROR = pq.ExecStatus.FATAL_ERROR

# What may precede a statement's first word besides comments: space, parentheses, and
# the ends of empty statements.
_BLANK = re.compile(rb"[\s(;]*")
_WORD = re.compile(rb"[a-zA-Z]*")
_COMMENT = re.compile(rb"/\*|\*/")
# What may stand in a transaction block and controls none. The others, as VACUUM, CREATE
# DATABASE, SET or BEGIN, are sent as they are.
_CARRIES = frozenset(
    b"SELECT WITH VALUES TABLE INSERT UPDATE DELETE MERGE FETCH EXECUTE".split()
)
_CALL = b"CALL"
"""A procedure may end the transaction. Not in a string of statements, and in a pipeline
only where it comes first (PostgreSQL 18)."""
_WRITES = re.compile(rb"\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_RETURNS = re.compile(rb"\bRETURNING\b", re.IGNORECASE)
# Where something begins in which a semicolon ends nothing.
_OPENING = re.compile(rb"([eE]?'|\"|\$\w*\$|--|/\*|;)")
_STRING = re.compile(rb"(?:[^']|'')*'")
_ESCAPE_STRING = re.compile(rb"(?:[^'\\]|\\.|'')*'", re.DOTALL)


def _first_word(query: bytes) -> bytes:
    """Return the first word of *query* in upper case; b"" where there is none."""
    position = 0
    while True:
        position = _end(_BLANK, query, position)
        if query.startswith(b"--", position):
            position = query.find(b"\n", position)
            if position < 0:
                return b""
        elif query.startswith(b"/*", position):
            position = _skip_comment(query, position)
        else:
            return query[position : _end(_WORD, query, position)].upper()


def _end(pattern: re.Pattern[bytes], query: bytes, position: int) -> int:
    match = pattern.match(query, position)
    return position if match is None else match.end()


def _skip_comment(query: bytes, position: int) -> int:
    """Return where the comment at *position* ends. PostgreSQL nests them."""
    depth = 0
    for match in _COMMENT.finditer(query, position):
        depth += 1 if match[0] == b"/*" else -1
        if not depth:
            return match.end()
    return len(query)


def _is_several(query: bytes, pgconn: Any) -> bool:
    """Whether *query* is a string of several statements."""
    if b";" not in query:
        return False
    has_escapes = pgconn.parameter_status(b"standard_conforming_strings") == b"off"
    position = 0
    while match := _OPENING.search(query, position):
        opening, position = match[1], match.end()
        if opening == b";":
            if _first_word(query[position:]):
                return True
        elif opening == b"--":
            position = query.find(b"\n", position) + 1 or len(query)
        elif opening == b"/*":
            position = _skip_comment(query, match.start())
        elif opening == b"'" and not has_escapes:
            position = _end(_STRING, query, position)
        elif opening.endswith(b"'"):
            position = _end(_ESCAPE_STRING, query, position)
        else:
            position = query.find(opening, position) + len(opening)
            if position < len(opening):
                return False
    return False


def _can_be_bare(query: bytes) -> bool:
    """Whether *query* may go without a confirmation, once nothing was found in it.

    What writes and returns cannot be refused afterwards: it has been committed.
    """
    return not (_RETURNS.search(query) and _WRITES.search(query))


def _state(connection: Any) -> ConnectionState | None:
    """Return the state of *connection*; None where there is nothing to be right about:
    it is not tracked, or no type is."""
    return getattr(connection, ATTRIBUTE, None) if runtime.registry.types else None


def _execution(cursor: Any) -> Execution | None:
    return getattr(cursor._adapters, ATTRIBUTE, None)


def _begin(
    cursor: Any, state: ConnectionState, query: object, params: object = None
) -> Execution:
    """Begin an execution of *cursor*."""
    adapters = cursor._adapters
    before: Execution | None = adapters.__dict__.get(ATTRIBUTE)
    execution = Execution(state, query, params)
    execution.snapshot = state.begin(cursor._pgconn)
    execution.is_decided = execution.snapshot is not None
    execution.reads = state.reads
    if not dumping.is_installed(adapters):
        # A type was registered since the cursor was made.
        cursor._reset()
        dumping.install(adapters)
        cursor._last_query = None
    if (
        before is None
        or before.snapshot is None
        or before.snapshot is not execution.snapshot
    ):
        # The transformer holds loaders and dumpers of another snapshot.
        cursor._last_query = None
    setattr(adapters, ATTRIBUTE, execution)
    return execution


def _is_autocommit(connection: Any) -> bool:
    """Whether the statement to come is a transaction of its own."""
    return (
        connection.pgconn.transaction_status == IDLE
        and connection._autocommit
        and not connection._pipeline
    )


# execute()


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
        state = _state(self._conn)
        if state is None or self._closed:
            yield from original(self, query, params, prepare=prepare, binary=binary)
            return
        execution = _begin(self, state, query, params)
        snapshot = execution.snapshot
        if params is not None and (snapshot is None or snapshot.ambiguous):
            yield from _prepare_to_send(self, execution, params)
        elif snapshot is None and self._conn._pipeline:
            yield from _verify_in_pipeline(self, execution, query)
        elif snapshot is None and has_prepared_statements(self._conn):
            yield from _verify_before_prepared(self, execution, query)
        execution.is_adapting = True
        try:
            yield from original(self, query, params, prepare=prepare, binary=binary)
        except Unverified as unverified:
            # A parameter that could not be told apart: ask, and adapt them anew.
            if unverified.is_missing:
                state.distrust(read=True)
            execution.is_adapting = False
            self._last_query = None
            yield from _verify_now(self, execution)
            yield from original(self, query, params, prepare=prepare, binary=binary)
        if execution.pending and not self._conn._pipeline:
            yield from _settle(self, execution)

    return execute


def _prepare_to_send(cursor: Any, execution: Execution, params: Any) -> PQGen[None]:
    """Establish what *params* are to be sent by, before they are adapted."""
    connection, state = cursor._conn, execution.state
    if _is_call(execution.query) and execution.snapshot is None:
        # Nothing may come before it in its pipeline.
        yield from _verify_now(cursor, execution)
        return
    if not dumping.senders_in(params):
        if execution.snapshot is None and connection._pipeline:
            yield from _verify_in_pipeline(cursor, execution, execution.query)
        elif execution.snapshot is None and has_prepared_statements(connection):
            yield from _verify_before_prepared(cursor, execution, execution.query)
        return
    snapshot = execution.snapshot
    if snapshot is None and _is_autocommit(connection):
        # It is asserted in front of the statement, or it names types by their names.
        snapshot = state.presumed()
    if snapshot is None:
        # Which tells the search_path as well.
        yield from _verify_now(cursor, execution)
        return
    wanted = dumping.ambiguous_senders(params, snapshot)
    if wanted:
        yield from _drained(connection)
        snapshot = yield from state.find_paths(connection, snapshot, wanted)
    if snapshot is not execution.snapshot:
        cursor._last_query = None
        execution.snapshot = snapshot


def _is_call(query: Any) -> bool:
    return isinstance(query, str) and query[:64].lstrip().upper().startswith("CALL")


def _verify_now(cursor: Any, execution: Execution) -> PQGen[None]:
    """Ask the server, in the transaction that the statement will be in."""
    connection = cursor._conn
    if _can_ask(connection):
        yield from connection._start_query()
        yield from _drained(connection)
        if _can_ask(connection):
            # In autocommit behind a pooler, the statement may go elsewhere still.
            is_own = _is_autocommit(connection)
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


def _drained(connection: Any) -> PQGen[None]:
    """Have all results of a pipeline arrive, so that something can be asked in it."""
    pipeline = connection._pipeline
    if pipeline and (pipeline.command_queue or pipeline.result_queue):
        yield from pipeline._communicate_gen()
        yield from pipeline._fetch_gen(flush=True)


def _verify_in_pipeline(cursor: Any, execution: Execution, query: Any) -> PQGen[None]:
    """Ask within a pipeline, before the first statement that may carry a type.

    What is not a query (SET TRANSACTION, say) must not have a query before it.
    """
    text = _text_of(query, cursor)
    if _first_word(text) in _CARRIES and not execution.state.alias.is_bare(
        _key(cursor, execution, None)
    ):
        yield from _verify_now(cursor, execution)


def _verify_before_prepared(
    cursor: Any, execution: Execution, query: Any
) -> PQGen[None]:
    """Ask before a statement that may be prepared with types that are gone."""
    connection = cursor._conn
    if _is_autocommit(connection) or execution.state.alias.is_bare(
        _key(cursor, execution, None)
    ):
        return
    if _first_word(_text_of(query, cursor)) in _CARRIES:
        yield from _verify_now(cursor, execution)


def _text_of(query: Any, cursor: Any) -> bytes:
    if isinstance(query, str):
        return query.encode(errors="replace")
    if isinstance(query, bytes):
        return query
    with suppress(Exception):
        return bytes(query.as_bytes(cursor))
    # A template, or a literal of a type that only the server's answer can write.
    return b"SELECT"


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
        execution = _execution(self)
        if execution is not None:
            execution.is_adapting = False
            if not (execution.is_decided or self._conn._pipeline):
                how = _how_to_carry(self, pgq, execution, binary)
                if how is not None:
                    return _carry(self, pgq, execution, prepare, binary, how)
        sent: PQGen[None] = original(self, pgq, prepare=prepare, binary=binary)
        return sent

    return maybe_prepare


# A confirmation that travels with a statement


def _how_to_carry(
    cursor: Any, pgq: Any, execution: Execution, binary: bool | None
) -> str | None:
    """Return how a confirmation travels: "simple", "pipeline", "assert"; or not."""
    connection = cursor._conn
    is_client = isinstance(cursor, ClientCursorMixin)
    is_binary = cursor.format == pq.Format.BINARY if binary is None else binary
    is_simple = is_client or not (pgq.params or is_binary)
    query = pgq.query
    if not _is_autocommit(connection):
        # Its transaction may end within the string, and then nothing would tell.
        is_open = cursor._pgconn.transaction_status == INTRANS
        is_several = is_open and is_simple and _is_several(query, cursor._pgconn)
        return "simple" if is_several else None
    if execution.has_sent:
        if not is_client and any(
            oid >= _catalog.FIRST_NORMAL_OID for oid in pgq.types or ()
        ):
            return "assert"
        # Else types are written by their names, and these may be others elsewhere.
    elif execution.state.alias.is_bare(_key(cursor, execution, pgq)):
        return None
    word = _first_word(query)
    if word in _CARRIES:
        return "simple" if is_simple and not _is_prepared(cursor, pgq) else "pipeline"
    if is_simple and _is_several(query, cursor._pgconn):
        return "simple"
    return "call" if word == _CALL else None


def _is_prepared(cursor: Any, pgq: Any) -> bool:
    prepared = cursor._conn._prepared
    threshold = prepared.prepare_threshold
    if threshold is None or isinstance(cursor, ClientCursorMixin):
        return False
    key = prepared.key(pgq)
    return key in prepared._names or prepared._counts.get(key, 0) >= threshold


def _key(cursor: Any, execution: Execution, pgq: Any) -> str | bytes | None:
    """Return what a statement is remembered by: its text before values are put in."""
    query = execution.query
    if isinstance(query, (str, bytes)):
        return query
    if isinstance(cursor, ClientCursorMixin) or pgq is None:
        return None
    text: bytes = pgq.query
    return text


def _carry(
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
    send = functools.partial(_send_extended, cursor, pgq, fmt, prep, name)
    if how == "simple":
        # Last: the server tells where in the text an error is.
        pgconn.send_query(pgq.query + b"\n;" + question)
        results = yield from generators.execute(pgconn)
        if results[-1].status != TUPLES_OK:
            results = results[-1:]
        elif len(results) > 1:
            answer = results.pop()
    elif how == "assert":
        results = yield from _assert(cursor, pgq, execution, fmt, prep, name)
    elif how == "call":
        *others, last = yield from _in_pipeline(
            pgconn, send, _sending(pgconn, question)
        )
        results = _first_failed(others)
        if results[0].status != FATAL_ERROR:
            answer = _catalog.checked(last[-1], cursor._encoding)
    else:
        first, *others = yield from _in_pipeline(
            pgconn, _sending(pgconn, question), send
        )
        answer = _catalog.checked(first[-1], cursor._encoding)
        results = _first_failed(others)
    if (
        execution.has_sent
        and results[-1].status == FATAL_ERROR
        and (yield from _is_named_otherwise(cursor, execution, results[-1]))
    ):
        # Nothing was executed. By the names of the server that answers now:
        cursor._tx = Transformer(cursor)
        pgq = cursor._convert_query(execution.query, execution.params)
        yield from _carry(cursor, pgq, execution, prepare, binary, how)
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
                found = yield from state.read(connection, said.start)
            else:
                yield from state.adopt(found, connection)
            snapshot = found
    _decide(cursor, execution, snapshot)
    if not loading.oids_in(results) and _can_be_bare(pgq.query):
        state.alias.mark_bare(_key(cursor, execution, pgq))
    cursor._set_results(results)


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


def _sending(pgconn: Any, statement: bytes) -> Any:
    return functools.partial(pgconn.send_query_params, statement, None)


def _send_extended(
    cursor: Any, pgq: Any, fmt: pq.Format, prep: Prepare, name: bytes
) -> None:
    """Send *pgq* in the extended protocol."""
    pgconn = cursor._pgconn
    params = None if isinstance(cursor, ClientCursorMixin) else pgq.params
    if prep is Prepare.NO:
        if params is None:
            pgconn.send_query_params(pgq.query, None, result_format=fmt)
        else:
            pgconn.send_query_params(
                pgq.query,
                params,
                param_formats=pgq.formats,
                param_types=pgq.types,
                result_format=fmt,
            )
        return
    if prep is Prepare.SHOULD:
        pgconn.send_prepare(name, pgq.query, param_types=pgq.types)
    pgconn.send_query_prepared(
        name, params, param_formats=pgq.formats, result_format=fmt
    )


def _in_pipeline(pgconn: Any, *sends: Any) -> PQGen[list[list[PGresult]]]:
    """Send what *sends* send with one sync; return the results of each."""
    if pgconn.pipeline_status == OFF:
        pgconn.enter_pipeline_mode()
    try:
        for send in sends:
            send()
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        found: list[list[PGresult]] = []
        while True:
            results = yield from generators.fetch_many(pgconn)
            if results and results[0].status == SYNC:
                return found
            if not results:
                raise errors.InternalError("got no result from a pipeline")
            found.append(results)
    finally:
        _leave_pipeline(pgconn)


def _leave_pipeline(pgconn: Any) -> None:
    if pgconn.status == pq.ConnStatus.OK:
        # Where results are outstanding, the connection is of no use to anybody.
        with suppress(psycopg.OperationalError):
            pgconn.exit_pipeline_mode()


_MOVED = "22P02"
"""SQLSTATE of an assertion that does not hold."""


def _assert(
    cursor: Any,
    pgq: Any,
    execution: Execution,
    fmt: pq.Format,
    prep: Prepare,
    name: bytes,
) -> PQGen[list[PGresult]]:
    """Execute *pgq* only where the server has the OIDs that it is sent with.

    Where it has not, the server is asked, in a pipeline that no pooler can split, and
    the statement is sent with what it answers.
    """
    snapshot, state, pgconn = execution.snapshot, execution.state, cursor._pgconn
    assert snapshot is not None
    if state.alias.is_unsteady():
        return (yield from _ask_and_send(cursor, pgq, execution, fmt))
    paths = {
        tracked.name: row.oid if (row := snapshot.sent.get(tracked)) else 0
        for tracked in snapshot.ambiguous
    }
    front = _catalog.assert_served_by(
        snapshot.catalog, paths, wants_database=snapshot.needs_database
    )
    send = functools.partial(_send_extended, cursor, pgq, fmt, prep, name)
    answer, *others = yield from _in_pipeline(pgconn, _sending(pgconn, front), send)
    if answer[-1].status == TUPLES_OK:
        state.note_backend(int(answer[-1].get_value(0, 1) or 0), pgconn)
        yield from state.adopt(snapshot, cursor._conn)
        return _first_failed(others)
    error = errors.error_from_result(answer[-1], encoding=cursor._encoding)
    if error.sqlstate != _MOVED:
        raise error
    state.alias.note_move()
    return (yield from _ask_and_send(cursor, pgq, execution, fmt))


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
        if not _translate(pgq, presumed, found):
            cursor._tx = Transformer(cursor)
            pgq = cursor._convert_query(execution.query, execution.params)
            cursor._query = pgq
    except BaseException:
        with suppress(Exception):
            yield from _in_pipeline(pgconn)
        _leave_pipeline(pgconn)
        raise
    send = functools.partial(_send_extended, cursor, pgq, fmt, Prepare.NO, b"")
    return _first_failed((yield from _in_pipeline(pgconn, send)))


def _first_failed(found: list[list[PGresult]]) -> list[PGresult]:
    """Return the results of the statement, or of what failed before it."""
    for results in found:
        if results[0].status == FATAL_ERROR:
            return results
    return found[-1]


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


# Results


def set_results(original: Any) -> Any:
    """Wrap ``BaseCursor._set_results()``: what gives results to a cursor."""

    def take(self: Any, results: list[PGresult]) -> None:
        execution = _execution(self)
        if execution is None:
            original(self, results)
            return
        _note_commands(execution.state, results)
        oids = loading.oids_in(results)
        if oids:
            if execution.pending or not _are_known(execution, oids, results):
                execution.pending = (*execution.pending, results)
                if self._conn._pipeline:
                    execution.state.waiting.append(self)
                return
            if execution.snapshot is not None:
                execution.snapshot.share_types(self._adapters)
        elif execution.pending:
            execution.pending = (*execution.pending, results)
            return
        original(self, results)

    return take


def _are_known(execution: Execution, oids: set[int], results: list[PGresult]) -> bool:
    """Whether what *results* hold can be decoded by what is known."""
    snapshot = execution.snapshot if execution.is_decided else None
    return (
        snapshot is not None
        and all(map(snapshot.knows, oids))
        and not loading.is_reshaped(results, snapshot)
    )


def _decide(cursor: Any, execution: Execution, snapshot: Snapshot | None) -> None:
    """Decide what all results of *execution* are decoded by."""
    if snapshot is not execution.snapshot:
        execution.snapshot = snapshot
        # Its loaders may be those of another snapshot.
        cursor._tx = Transformer(cursor)
    execution.is_decided = True


def _note_commands(state: ConnectionState, results: list[PGresult]) -> None:
    for result in results:
        if result.status == COMMAND_OK and (tag := result.command_status):
            state.note_command(tag)


def _settle(cursor: Any, execution: Execution) -> PQGen[None]:
    """Ask about what is pending, then give the results to the cursor."""
    pending, execution.pending = execution.pending, ()
    if pending:
        yield from _explain(cursor, execution, list(itertools.chain(*pending)))
        for results in pending:
            cursor._set_results(results)


def _explain(cursor: Any, execution: Execution, results: list[PGresult]) -> PQGen[None]:
    """Decide what *results* are decoded by, asking the server that sent them."""
    state, connection = execution.state, cursor._conn
    oids = loading.oids_in(results)
    state.alias.unmark_bare(_key(cursor, execution, cursor._query))
    snapshot = execution.snapshot if execution.is_decided else None
    if snapshot is None:
        is_over = connection.pgconn.transaction_status == IDLE
        snapshot = yield from state.verify(connection)
        if is_over and state.level is Trust.TRANSACTION and not state.is_straight:
            raise state.refuse(
                "nothing tells which server sent a result that has values of a type"
                f" with the OID {min(oids)}"
            )
    if not all(map(snapshot.knows, oids)):
        snapshot = yield from state.describe(connection, snapshot, oids)
    if loading.is_reshaped(results, snapshot):
        snapshot = yield from state.read(connection, snapshot.catalog.start or None)
        snapshot = yield from state.describe(connection, snapshot, oids)
    _decide(cursor, execution, snapshot)
    snapshot.share_types(cursor._adapters)


def raise_for_result(original: Any) -> Any:
    """Wrap ``BaseCursor._raise_for_result()``: what a server refused."""

    def refused(self: Any, result: Any) -> Any:
        try:
            return original(self, result)
        except psycopg.Error as error:
            evidence.notice(self._conn, error)
            raise

    return refused


# executemany(), stream(), COPY


def executemany_gen(original: Any) -> Any:
    """Wrap ``BaseCursor._executemany_gen_pipeline()``.

    Once rows are on their way nothing can be asked, and the parameters of all are
    needed before. A one-shot iterator cannot be inspected, so ask first.
    """

    def executemany(
        self: Any, query: Any, params_seq: Any, returning: bool
    ) -> PQGen[None]:
        state = _state(self._conn)
        if state is None or self._closed:
            yield from original(self, query, params_seq, returning)
            return
        execution = _begin(self, state, query)
        snapshot = execution.snapshot
        if snapshot is None or snapshot.ambiguous or not snapshot.is_complete():
            senders = _senders_of_many(params_seq)
            if senders or returning or senders is None:
                if snapshot is not None and snapshot.lacks(senders or ()):
                    missed = [state.misses(one) for one in senders or ()]
                    if any(missed):
                        state.distrust(read=True)
                        snapshot = None
                if snapshot is None:
                    yield from _verify_now(self, execution)
                elif snapshot.ambiguous:
                    wanted = set(snapshot.ambiguous)
                    yield from _drained(self._conn)
                    execution.snapshot = yield from state.find_paths(
                        self._conn, snapshot, wanted
                    )
                execution.is_decided = execution.snapshot is not None
        yield from original(self, query, params_seq, returning)

    return executemany


def _senders_of_many(params_seq: Any) -> set[type] | None:
    """Return the resolved Python types among all parameters; None: unknown."""
    if not isinstance(params_seq, Sequence):
        return None
    rows = (
        row.values() if isinstance(row, Mapping) else row
        for row in params_seq
        if isinstance(row, (Mapping, Sequence))  # Else psycopg says what it wants.
    )
    return runtime.registry.senders_of(itertools.chain.from_iterable(rows))


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
        state = _state(self._conn)
        if state is None or self._closed:
            yield from original(self, query, params, binary=binary, size=size)
            return
        execution = _begin(self, state, query)
        is_own = _is_autocommit(self._conn) and state.level is Trust.TRANSACTION
        if not is_own:
            if execution.snapshot is None:
                yield from _verify_now(self, execution)
            yield from _find_paths(self, execution, params)
            yield from _describe_ahead(self, execution, query, params)
            yield from original(self, query, params, binary=binary, size=size)
            return
        # As psycopg's own, in a pipeline that `_stream_fetchone_gen` ends.
        self._pgconn.enter_pipeline_mode()
        try:
            execution.snapshot = yield from state.verify(self._conn)
            yield from _find_paths(self, execution, params)
            yield from _describe_ahead(self, execution, query, params)
            fmt = self.format if binary is None else pq.Format(int(bool(binary)))
            self._last_query = None
            yield from self._start_query(query)
            pgq = self._convert_query(query, params)
            self._query = pgq
            _send_extended(self, pgq, fmt, Prepare.NO, b"")
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
                yield from _in_pipeline(self._pgconn)
            _leave_pipeline(self._pgconn)
            raise

    return stream_send


def _find_paths(cursor: Any, execution: Execution, params: Any) -> PQGen[None]:
    snapshot = execution.snapshot
    if snapshot is not None and snapshot.ambiguous and params is not None:
        wanted = dumping.ambiguous_senders(params, snapshot)
        execution.snapshot = yield from execution.state.find_paths(
            cursor._conn, snapshot, wanted
        )


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
        if pgconn.pipeline_status == OFF or _execution(self) is None:
            result = yield from original(self, first)
            return result  # type: ignore[no-any-return]
        try:
            result = yield from original(self, first)
        except BaseException:
            with suppress(Exception):
                yield from _in_pipeline(pgconn)
            _leave_pipeline(pgconn)
            raise
        if result is None:
            while pgconn.pipeline_status != OFF:
                results = yield from generators.fetch_many(pgconn)
                if results and results[0].status == SYNC:
                    _leave_pipeline(pgconn)
                    break
        return result  # type: ignore[no-any-return]

    return fetchone


def start_copy_gen(original: Any) -> Any:
    """Wrap ``BaseCursor._start_copy_gen()``: ask before, or assert with, the COPY."""

    def start_copy(self: Any, statement: Any, params: Any = None) -> PQGen[None]:
        state = _state(self._conn)
        if state is None or self._closed or self._conn._pipeline:
            yield from original(self, statement, params)
            return
        execution = _begin(self, state, statement)
        is_own = _is_autocommit(self._conn) and state.level is Trust.TRANSACTION
        for _ in range(ATTEMPTS):
            snapshot = execution.snapshot
            if snapshot is None:
                yield from _verify_now(self, execution)
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
            if (yield from _copy_there(self, execution, statement, params)):
                return
            execution.snapshot = None
        raise state.refuse("one server after the other answers")

    return start_copy


def _copy_there(
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


# Server-side cursors


def declare_gen(original: Any) -> Any:
    """Wrap ``ServerCursorMixin._declare_gen()``."""

    def declare(
        self: Any, query: Any, params: Any = None, binary: bool | None = None
    ) -> PQGen[None]:
        state = _state(self._conn)
        if state is None or self._closed:
            yield from original(self, query, params, binary)
            return
        execution = _begin(self, state, query, params)
        snapshot = execution.snapshot
        if snapshot is None and (
            _is_autocommit(
                self._conn
            )  # WITH HOLD: what it is of cannot be asked later.
            or dumping.senders_in(params)
        ):
            yield from _verify_now(self, execution)
            # In a pool of sessions, which alone has such cursors, it is the same.
            execution.is_decided = True
            snapshot = execution.snapshot
        if snapshot is not None and snapshot.ambiguous:
            yield from _find_paths(self, execution, params)
        yield from original(self, query, params, binary)

    return declare


def describe_gen(original: Any) -> Any:
    """Wrap ``ServerCursorMixin._describe_gen()``: ask before loaders are made."""

    def describe(self: Any) -> PQGen[None]:
        execution = _execution(self)
        if execution is None:
            yield from original(self)
            return
        self._pgconn.send_describe_portal(self._name.encode(self._encoding))
        results = yield from generators.execute(self._pgconn)
        self._check_results(results)
        oids = loading.oids_in(results)
        if oids and not _are_known(execution, oids, results):
            yield from _explain(self, execution, results)
        self._results = results
        self._select_current_result(0, format=self._format)
        self._described = True

    return describe


def fetch_gen(original: Any) -> Any:
    """Wrap ``ServerCursorMixin._fetch_gen()``: each FETCH is of what was declared."""

    def fetch(self: Any, num: int | None) -> PQGen[Any]:
        state = _state(self._conn)
        if state is None or self._closed:
            return (yield from original(self, num))
        execution = _execution(self)
        if execution is None:
            # Somebody else declared it.
            execution = _begin(self, state, None)
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
        if oids and not _are_known(execution, oids, [result]):
            yield from _explain(self, execution, [result])
        self.pgresult = result
        self._tx.set_pgresult(result, format=self._format)
        return self._tx.load_rows(0, result.ntuples, self._make_row)

    return fetch


def _columns(result: PGresult) -> list[tuple[bytes | None, int]]:
    return [
        (result.fname(column), result.ftype(column)) for column in range(result.nfields)
    ]


# Transactions


def exec_command(original: Any) -> Any:
    """Wrap ``BaseConnection._exec_command()``: what psycopg itself sends.

    A BEGIN shows that the transaction before has ended.
    """

    def command(self: Any, *args: Any, **kwargs: Any) -> PQGen[PGresult | None]:
        state = _state(self)
        if state is not None and self.pgconn.transaction_status == IDLE:
            state.begin(self.pgconn)
        result: PGresult | None = yield from original(self, *args, **kwargs)
        return result

    return command


def enqueue_sync(original: Any) -> Any:
    """Wrap ``BasePipeline._enqueue_sync()``: a transaction ends there."""

    def enqueue(self: Any) -> None:
        original(self)
        state = _state(self._conn)
        if state is not None:
            state.end()

    return enqueue


def pipeline_fetch_gen(original: Any) -> Any:
    """Wrap ``BasePipeline._fetch_gen()``: ask about results once all have arrived."""

    def fetch(self: Any, *, flush: bool) -> PQGen[None]:
        yield from original(self, flush=flush)
        state = _state(self._conn)
        if state is None or not state.waiting or self.result_queue:
            return
        cursors, state.waiting = state.waiting, []
        pgconn = self.pgconn
        is_over = pgconn.transaction_status == IDLE
        for cursor in cursors:
            execution = _execution(cursor)
            if execution is not None:
                yield from _settle(cursor, execution)
        if is_over and pgconn.pipeline_status != OFF:
            # Else what was asked would be the beginning of the next transaction.
            pgconn.pipeline_sync()
            yield from generators.send(pgconn)
            yield from generators.fetch_many(pgconn)

    return fetch


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
