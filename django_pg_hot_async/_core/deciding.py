"""Once results have arrived: what all of them are decoded by.

It is decided before a loader is made, so nothing is asked when rows are fetched.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from psycopg.adapt import Transformer

from . import loading
from .connection import (
    Execution,
)
from .statements import memo_key
from .trust import Trust

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from .snapshot import Snapshot


def are_known(execution: Execution, oids: set[int], results: list[PGresult]) -> bool:
    """Whether what *results* hold can be decoded by what is known."""
    snapshot = execution.snapshot
    if snapshot is None or not execution.is_decided:
        return False
    if not (oids <= snapshot.numbers.keys() or all(map(snapshot.knows, oids))):
        return False
    return not (snapshot.has_composites and loading.is_reshaped(results, snapshot))


def decide(cursor: Any, execution: Execution, snapshot: Snapshot | None) -> None:
    """Decide what all results of *execution* are decoded by."""
    if snapshot is not execution.snapshot:
        execution.snapshot = snapshot
        # Its loaders may be those of another snapshot.
        cursor._tx = Transformer(cursor)
    execution.is_decided = True


def settle(cursor: Any, execution: Execution) -> PQGen[None]:
    """Ask about what is pending, then give the results to the cursor."""
    pending, execution.pending = execution.pending, ()
    execution.has_unknown = False
    if pending:
        yield from explain(cursor, execution, list(itertools.chain(*pending)))
        for results in pending:
            cursor._set_results(results)


def explain(cursor: Any, execution: Execution, results: list[PGresult]) -> PQGen[None]:
    """Decide what *results* are decoded by, asking the server that sent them."""
    state, connection = execution.state, cursor._conn
    oids = loading.oids_in(results)
    state.alias.unmark_bare(memo_key(cursor, execution, cursor._query))
    snapshot = execution.snapshot if execution.is_decided else None
    if snapshot is None:
        is_over = state.is_between(connection.pgconn)
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
    decide(cursor, execution, snapshot)
    snapshot.share_types(cursor._adapters)
