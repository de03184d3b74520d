"""Faults to plant, one at a time: each breaks one thing that the promise stands on.

A search that does not find every one of them proves nothing. Each is the fault of one
kind that was met outside of the search, and is called so; those kinds that it cannot
meet are told with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from psycopg.adapt import Transformer

from django_pg_hot_async._core import (
    asking,
    carrying,
    catalog,
    confirmation,
    cursors,
    deciding,
    dumping,
    evidence,
    loading,
    runtime,
)
from django_pg_hot_async._core.catalog import FIRST_NORMAL_OID, TypeRow
from django_pg_hot_async._core.connection import ConnectionState, state_of
from django_pg_hot_async._core.runtime import Alias
from django_pg_hot_async._core.snapshot import Snapshot
from django_pg_hot_async._core.statements import CARRIES
from django_pg_hot_async._core.types import Registration, Registry

from .promise import LEVELS

Patch = Callable[[Any, str, Any], None]
Plant = Callable[[Patch], None]
Steps = Generator[Any, Any, Any]

EITHER = (False, True)
POOLER = (True,)
STRAIGHT = (False,)
REGISTERED = (True,)


@dataclass(frozen=True)
class Fault:
    """How to plant a fault, and where it can show."""

    plant: Plant
    kind: str
    levels: tuple[str, ...]
    poolers: tuple[bool, ...]
    """Whether a pooler leads to the servers."""
    starts: tuple[bool, ...]
    """Whether the project's own types are registered from the start."""
    rules: tuple[str, ...]
    """Those of the machine that it has to do with: the others take their time."""
    is_quick: bool
    """Whether it is found in seconds, and so looked for on each push."""


FAULTS: dict[str, Fault] = {}
BACKEND_FAULTS: dict[str, Fault] = {}
"""Those that show with django-async-backend only."""

OUT_OF_REACH = {
    "control": "is right; a label that is added is met too seldom to be planted",
    "builtin_type": "is registered with psycopg for the whole process, for good",
    "encoding": "is of the client encoding; here everybody speaks UTF-8",
    "global_registration": "is what a check says, before anything is done",
    "log_lines": "is what a log line looks like",
    "many_shapes": "takes hundreds of schemas, and memory to measure",
    "many_tenants": "takes hundreds of schemas, and time to measure",
    "pool_unknown_object": "is an argument that is no connection",
    "postgis_fake_connection": "is an object of a test suite that is no connection",
    "postgis_recreated": "is in PostGIS's own cache, which no client can clear",
    "private_name_missing": "is another psycopg than the one at hand",
    "proxied_connection": "takes other packages' proxies of a connection",
    "receiver_order": "is an order of receivers, of which a process has one",
    "signal_without_value": "is a signal that somebody else sends",
    "type_by_name": "is a loader that a receiver registers, once for a process",
    "prepared_refused": "is met too seldom: a plan must be gone when it is used",
    "wrapped_by_others": "takes other packages' wrappers of what is patched",
}
"""The kinds of fault that the search does not meet, and why."""


def fault(
    kind: str,
    rules: str,
    *levels: str,
    poolers: tuple[bool, ...] = EITHER,
    starts: tuple[bool, ...] = EITHER,
    is_quick: bool = False,
    faults: dict[str, Fault] = FAULTS,
) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        name = plant.__name__
        faults[name] = Fault(
            plant, kind, levels or LEVELS, poolers, starts, (*rules.split(),), is_quick
        )
        return plant

    return add


# In autocommit, behind a pooler


@fault(
    "autocommit_pooler",
    "move_between_messages",
    "auto",
    "transaction",
    poolers=POOLER,
    is_quick=True,
)
def a_confirmation_is_a_message_of_its_own(patch: Patch) -> None:
    """It is asked first, then the statement is sent: the first edition."""

    def ask_first(
        cursor: Any, pgq: Any, execution: Any, prepare: Any, binary: Any, how: str
    ) -> Steps:
        execution.snapshot = yield from execution.state.verify(cursor._conn)
        execution.is_decided = True
        cursor._tx = Transformer(cursor)
        pgq = cursor._convert_query(execution.query, execution.params)
        yield from cursor._maybe_prepare_gen(pgq, prepare=prepare, binary=binary)

    patch(cursors, "carry", ask_first)


@fault(
    "autocommit_pooler",
    "move_between_messages read",
    "auto",
    "transaction",
    poolers=POOLER,
)
def types_are_asked_about_when_rows_have_come(patch: Patch) -> None:
    """As if a statement were known to have none, and whoever answers next had sent
    what turned up all the same."""

    def explain(cursor: Any, execution: Any, results: Any) -> Steps:
        found = yield from execution.state.verify(cursor._conn)
        oids = loading.oids_in(results)
        if not all(map(found.knows, oids)):
            found = yield from execution.state.describe(cursor._conn, found, oids)
        deciding.decide(cursor, execution, found)
        found.share_types(cursor._adapters)

    patch(Alias, "is_bare", lambda self, query: True)
    patch(cursors, "explain", explain)
    patch(deciding, "explain", explain)


@fault(
    "autocommit_pooler", "move_between_messages", "auto", "transaction", poolers=POOLER
)
def parameters_are_sent_by_what_is_presumed(patch: Patch) -> None:
    """Their OIDs are not asserted in front of the statement."""
    how_to_carry = carrying.how_to_carry

    def without(*args: Any) -> str | None:
        how = how_to_carry(*args)
        return "pipeline" if how == "assert" else how

    patch(cursors, "how_to_carry", without)


@fault(
    "read_before_begin",
    "set_transaction_first read_without_rights move read",
    "transaction",
    "auto",
    poolers=POOLER,
)
def a_begin_does_not_end_trust(patch: Patch) -> None:
    """What was asked before a BEGIN is trusted in the transaction."""
    patch(cursors, "IDLE", None)


@fault(
    "read_before_begin",
    "transact move read send",
    "transaction",
    "auto",
    poolers=POOLER,
    is_quick=True,
)
def trust_does_not_end_with_a_transaction(patch: Patch) -> None:
    patch(ConnectionState, "is_between", lambda self, pgconn: False)


# An execution owns what it goes by


@fault("later_result", "", "connection", "server", "transaction")
def rows_are_loaded_by_what_the_connection_goes_by_now(patch: Patch) -> None:
    """The second of several results, and the fields of a binary record."""
    snapshot_of = loading.snapshot_of

    def now(context: Any) -> Any:
        state = state_of(context.connection) if context is not None else None
        found = state and (state.snapshot or state.presumed())
        return found or snapshot_of(context)

    patch(loading, "snapshot_of", now)


@fault("later_result", "fetch_later read")
def fields_of_a_record_are_not_looked_at(patch: Patch) -> None:
    patch(loading, "_find_fields", lambda *args: None)


# What is sent


@fault("stale_registry", "move recreate send_again send", starts=REGISTERED)
def a_range_goes_as_what_it_was_at_first(patch: Patch) -> None:
    """By value, with the OID of whichever server had it first."""
    upgrade, first = dumping._ByValue.upgrade, dict[Any, int]()

    def remembering(self: Any, obj: Any, format: Any) -> Any:
        dumper = upgrade(self, obj, format)
        if dumper.oid >= FIRST_NORMAL_OID:
            dumper.oid = first.setdefault((type(dumper), type(obj)), dumper.oid)
        return dumper

    patch(dumping._ByValue, "upgrade", remembering)


@fault("range_order", "serve_tenants", starts=REGISTERED)
def the_type_that_was_created_last_is_sent(patch: Patch) -> None:
    """Not the one that was declared last."""

    def by_oid(self: Snapshot) -> Registration:
        sent = sorted(self.sent.values(), key=lambda row: row.oid)
        there = [self.rows[row] for row in sent]
        absent = [one for one in self.registry.absent if one.tracked not in self.sent]
        return Registration.of((*absent, *there))

    patch(Snapshot, "registration", property(by_oid))


@fault("range_tenants", "serve_tenants", starts=REGISTERED)
def no_path_is_asked_for_by_value(patch: Patch) -> None:
    """Which range a value is of depends on the search_path as well."""
    ambiguous_senders = dumping.ambiguous_senders

    def by_python_type(params: Any, known: Any) -> Any:
        found = ambiguous_senders(params, known)
        return {tracked for tracked in found if not tracked.python_types}

    patch(dumping, "ambiguous_senders", by_python_type)


@fault("declared_schema", "serve_tenants", starts=REGISTERED)
def a_schema_that_was_declared_does_not_count(patch: Patch) -> None:
    def match(self: Registry, row: TypeRow) -> Any:
        for tracked in self.types:
            if tracked.name == row.name and row.kind in tracked.kinds:
                return tracked
        return None

    patch(Registry, "match", match)


@fault("none_visible", "serve_tenants", starts=REGISTERED)
def one_of_several_is_sent_where_none_is_visible(patch: Patch) -> None:
    send = Snapshot._send

    def guessing(self: Snapshot) -> None:
        send(self)
        for row, surrogate in self.rows.items():
            self.sent.setdefault(surrogate.tracked, row)

    patch(Snapshot, "_send", guessing)


@fault("search_path_name", "serve_tenants", starts=REGISTERED)
def names_are_written_without_their_schema(patch: Patch) -> None:
    patch(TypeRow, "regtype", property(lambda self: catalog.quote_name(self.name)))


@fault("stale_search_path", "serve_tenants", is_quick=True, starts=REGISTERED)
def a_search_path_is_remembered(patch: Patch) -> None:
    patch(
        ConnectionState,
        "_has_search_path",
        lambda self, pgconn, known: known is self._snapshot,
    )


# Transactions


@fault("rollback", "make_anew_in_transaction", starts=REGISTERED)
def commands_are_not_noted(patch: Patch) -> None:
    """A type that a transaction makes anew, or takes back, is sent as it was."""
    patch(ConnectionState, "note_command", lambda self, tag: None)


@fault(
    "rollback",
    "make_anew_in_transaction read",
    "server",
    "connection",
    starts=REGISTERED,
)
def what_is_not_committed_is_told_to_all(patch: Patch) -> None:
    never = property(lambda self: False, lambda self, value: None)
    patch(ConnectionState, "_has_changed_types", never)


@fault("set_transaction", "set_transaction_first")
def something_is_asked_before_set_transaction(patch: Patch) -> None:
    patch(asking, "CARRIES", CARRIES | {b"SET"})


@fault(
    "prepared_leak",
    "recreate make_anew_in_transaction keep again send_again count_prepared",
)
def what_was_prepared_is_not_deallocated(patch: Patch) -> None:
    def forget(connection: Any) -> None:
        connection._prepared._names.clear()
        connection._prepared._counts.clear()

    for module in (carrying, evidence):
        patch(module, "drop_prepared_statements", forget)


# What it costs


@fault("bad_statement_cost", "mistake read send", "connection", "server")
def an_error_costs_every_connection_a_read(patch: Patch) -> None:
    def doubt(self: ConnectionState, reason: object) -> bool:
        self.alias.withdraw()
        return True

    patch(ConnectionState, "doubt", doubt)


@fault(
    "confirmed",
    "serve_tenants read",
    "transaction",
    poolers=STRAIGHT,
    starts=REGISTERED,
)
def a_confirmation_holds_under_one_search_path(patch: Patch) -> None:
    find_visible = confirmation._find_visible

    def word_for_word(known: Snapshot, text: str) -> Any:
        return find_visible(known, text) if text == known.catalog.names else None

    patch(confirmation, "_find_visible", word_for_word)


@fault("loop_reads", "serve_tenants", starts=REGISTERED)
def a_search_path_costs_a_read_of_all_types(patch: Patch) -> None:
    find_paths = ConnectionState.find_paths

    def reading(self: Any, connection: Any, known: Any, types: Any) -> Steps:
        types = [*types]
        if any(tracked in known.ambiguous for tracked in types):
            known = yield from self.read(connection)
        return (yield from find_paths(self, connection, known, types))

    patch(ConnectionState, "find_paths", reading)


@fault(
    "name_taken", "shadow send send_again", "connection", "server", starts=REGISTERED
)
def temporary_types_of_others_are_read(patch: Patch) -> None:
    line = b" AND NOT pg_catalog.pg_is_other_temp_schema(x.typnamespace)\n"
    assert line in catalog._BY_NAME
    patch(catalog, "_BY_NAME", catalog._BY_NAME.replace(line, b""))


@fault("untracked", "read", is_quick=True)
def what_nobody_tracks_is_asked_about_again(patch: Patch) -> None:
    extended = Snapshot.extended

    def forgetting(self: Snapshot, *args: Any) -> Snapshot:
        found = extended(self, *args)
        found.untracked.clear()
        return found

    patch(Snapshot, "extended", forgetting)


# What the levels trust


@fault("trust", "move toggle read send", "server")
def servers_of_an_alias_are_taken_for_one(patch: Patch) -> None:
    def recall(self: Alias, server: Any) -> Any:
        for known in self.servers.values():
            if known.snapshot.registry is runtime.runtime.registry:
                return known
        return None

    patch(Alias, "recall", recall)


@fault("trust", "forget recreate read send", "server", "connection", poolers=STRAIGHT)
def nothing_withdraws_trust(patch: Patch) -> None:
    patch(Alias, "withdraw", lambda self: None)


@fault("trust", "read send", faults=BACKEND_FAULTS)
def connections_of_the_backend_are_not_tracked(patch: Patch) -> None:
    from django_pg_hot_async._django import async_backend

    nobody = SimpleNamespace(is_ours=lambda *args: False)
    patch(async_backend, "connections", nobody)
