"""Messages that go out together, with one sync: libpq's pipeline, for a moment."""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, generators, pq
from psycopg._preparing import Prepare
from psycopg.client_cursor import ClientCursorMixin

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult


OFF = pq.PipelineStatus.OFF

ON = pq.PipelineStatus.ON

SYNC = pq.ExecStatus.PIPELINE_SYNC

FATAL_ERROR = pq.ExecStatus.FATAL_ERROR


def in_pipeline(pgconn: Any, *sends: Any) -> PQGen[list[list[PGresult]]]:
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
        leave_pipeline(pgconn)


def leave_pipeline(pgconn: Any) -> None:
    if pgconn.status == pq.ConnStatus.OK:
        # Where results are outstanding, the connection is of no use to anybody.
        with suppress(psycopg.OperationalError):
            pgconn.exit_pipeline_mode()


def sending(pgconn: Any, statement: bytes) -> Any:
    return functools.partial(pgconn.send_query_params, statement, None)


def send_extended(
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


def first_failed(found: list[list[PGresult]]) -> list[PGresult]:
    """Return the results of the statement, or of what failed before it."""
    for results in found:
        if results[0].status == FATAL_ERROR:
            return results
    return found[-1]
