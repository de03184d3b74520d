"""Sending the read of types over a connection at hand, and waiting for it."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg import pq, waiting

from ._catalog import Catalog, Confirmation, Question, read_types
from ._compat import is_held_here, is_in_use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

Connection: TypeAlias = "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]"

LOOP_SECONDS = 5.0
"""How long a read may hold an event loop, where nothing could await it."""

_READY = (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS)


def _is_ready(pgconn: PGconn) -> bool:
    return pgconn.transaction_status in _READY


def reading(
    connection: Connection,
    question: Question,
    confirmation: Confirmation | None = None,
) -> PQGen[Catalog | None]:
    """Ask the server *question*: a psycopg generator, for the connection's wait().

    Return None, with nothing sent, where libpq cannot run a query: rows are
    arriving (``stream()``, COPY), the transaction is aborted, the connection is
    closed, results of a pipeline are outstanding. The transaction status is left
    as it was. Raise the database's own error where the read fails.
    """
    pgconn = connection.pgconn
    if not (_is_ready(pgconn) and _has_no_result_to_come(pgconn)):
        return None
    encoding = connection.info.encoding
    return (yield from read_types(pgconn, question, encoding, confirmation))


def read(
    connection: Connection,
    question: Question,
    confirmation: Confirmation | None = None,
) -> Catalog | None:
    """Read as `reading` does now, in the middle of whatever is going on.

    Return None as well where the connection is at work in another thread for good.
    Raise on an `AsyncConnection` `psycopg.OperationalError` after 5 seconds, since
    it is the event loop that waits.
    """
    with _locked(connection) as is_ours:
        # Or wait() would say that the connection is closed.
        if not (is_ours and _is_ready(connection.pgconn)):
            return None
        generator = reading(connection, question, confirmation)
        if isinstance(connection, psycopg.Connection):
            # wait() takes care of Ctrl-C: it cancels the query on the server.
            return connection.wait(generator)
        return _wait_in_loop(connection.pgconn, generator)


async def aread(
    connection: psycopg.AsyncConnection[Any],
    question: Question,
    confirmation: Confirmation | None = None,
) -> Catalog | None:
    """Read as `reading` does, awaiting the answer: outside a pipeline.

    A cancellation cancels the query on the server before it is passed on.
    """
    if connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
        return None
    async with connection.lock:
        if not _is_ready(connection.pgconn):
            return None
        return await connection.wait(reading(connection, question, confirmation))


def _has_no_result_to_come(pgconn: PGconn) -> bool:
    """Whether nothing that was sent in a pipeline, if one is on, awaits its result.

    libpq tells by whether a pipeline can be left. It is entered again: the results may
    have come by a flush, and the transaction that they are of goes on. `executemany()`
    adapts its first parameters in a pipeline that is still empty (psycopg 3.2, 3.3).
    After an error the server answers nothing until the next sync.
    """
    if pgconn.pipeline_status != pq.PipelineStatus.ON:
        return pgconn.pipeline_status == pq.PipelineStatus.OFF
    try:
        pgconn.exit_pipeline_mode()
    except psycopg.OperationalError:
        return False
    pgconn.enter_pipeline_mode()
    return True


@contextmanager
def _locked(connection: Connection) -> Iterator[bool]:
    """Hold the connection's lock, unless the query does; yield whether to go on.

    Loaders and dumpers are mostly made inside execute(), which holds it; those of
    values in a binary record are made when the row is fetched, without. Psycopg lets
    threads share a connection, so another thread's query is waited for. That of an
    `AsyncConnection` is not held: what is done here is done before any other task
    goes on.
    """
    if isinstance(connection, psycopg.AsyncConnection) or is_held_here(connection):
        yield True
        return
    lock = connection.lock
    is_held = lock.acquire(blocking=False)
    while not is_held and is_in_use(connection):
        is_held = lock.acquire(timeout=MOMENT)
    # A stream() or COPY that is under way holds it for long, in this thread maybe.
    if not (is_held or lock.acquire(timeout=MOMENT)):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


MOMENT = 0.05
"""Seconds; a thread that has its answer has let go of the lock by then."""


def _wait_in_loop(pgconn: PGconn, generator: PQGen[Catalog | None]) -> Catalog | None:
    try:
        return waiting.wait(
            _limited(generator, LOOP_SECONDS), pgconn.socket, interval=0.1
        )
    except TimeoutError:
        # The answer may still come; nobody could tell it from the next one's.
        pgconn.finish()
        raise psycopg.OperationalError(
            f"the server did not answer a read of types in {LOOP_SECONDS:g} seconds;"
            " the connection is closed"
        ) from None


def _limited(generator: PQGen[Catalog | None], seconds: float) -> PQGen[Catalog | None]:
    """Pass *generator* on; raise TimeoutError where it is not done in *seconds*."""
    deadline = monotonic() + seconds
    try:
        wanted = next(generator)
        # Ready or not: at a timeout psycopg 3.2.1 to 3.2.10 in C say that it is.
        while monotonic() < deadline:
            wanted = generator.send((yield wanted))
        raise TimeoutError
    except StopIteration as end:
        catalog: Catalog | None = end.value
        return catalog
