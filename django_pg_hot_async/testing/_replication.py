"""Logical replication between two servers, in the one direction or the other."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import psycopg
from psycopg import sql

from ._process import poll
from ._server import PostgreSQL

# A user's sequences, quoted. Temporary ones are a session's own.
SEQUENCES = """
    select format('%I.%I', nspname, relname)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where relkind = 'S' and relpersistence <> 't'
    and nspname <> 'information_schema' and nspname !~ '^pg_'
    order by 1
"""
UNSYNCED = """
    select srrelid::regclass::text, srsubstate::text
    from pg_subscription_rel join pg_subscription on pg_subscription.oid = srsubid
    where subname = %s and srsubstate <> 'r' order by 1
"""
# Commits, and has it on disk: the WAL is sent from there.
MARK_WAL = """
    set synchronous_commit = on;
    select pg_logical_emit_message(true, 'django_pg_hot_async', '');
"""
LAG = """
    select pg_wal_lsn_diff(%s::pg_lsn, replay_lsn)::int8
    from pg_stat_replication where application_name = %s
"""


class Replication:
    """Logical replication of all tables of a database, from one server to another.

    The schema has to be there on both, and the target's tables empty. As a context
    manager it runs for the block. `source` and `target` change places with
    `reverse()`.

    Tables without a primary key take no updates meanwhile, as PostgreSQL documents.
    """

    def __init__(
        self,
        source: PostgreSQL,
        target: PostgreSQL,
        dbname: str,
        *,
        name: str = "django_pg_hot_async",
    ) -> None:
        if not re.fullmatch("[a-z0-9_]+", name):
            raise ValueError(
                f"a name for a replication slot, a-z, 0-9 and _, expected: {name!r}"
            )
        self.source = source
        self.target = target
        self.dbname = dbname
        self.name = name
        self._identifier = sql.Identifier(name)

    def __repr__(self) -> str:
        ends = f"{self.source!r} to {self.target!r}"
        return f"<{type(self).__name__} of {self.dbname!r} from {ends}>"

    def __enter__(self) -> Replication:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, *, copy_data: bool = True) -> None:
        """Create the publication and the subscription; return before the copy is done.

        Without *copy_data*, send only what is written from now on.
        """
        self._run(self.source, "create publication {} for all tables")
        try:
            self._run(
                self.target,
                "create subscription {} connection {} publication {}"
                " with (copy_data = {})",
                sql.Literal(self.source.conninfo(self.dbname)),
                self._identifier,
                sql.Literal(copy_data),
            )
        except BaseException:
            self._run(self.source, "drop publication {}")
            raise

    def wait(self, timeout: float = 30) -> None:
        """Wait until the target has all that was committed on the source before now.

        The initial copy included. Raise `TimeoutError` naming the tables not copied,
        or the bytes of WAL not replayed, after *timeout* seconds.
        """
        self.source.execute(MARK_WAL, dbname=self.dbname)
        [[lsn]] = self.source.execute("select pg_current_wal_lsn()::text")
        unsynced: list[tuple[Any, ...]] = []
        lag: list[tuple[Any, ...]] = []
        for _ in poll(timeout):
            unsynced = self.target.execute(UNSYNCED, [self.name], dbname=self.dbname)
            if not unsynced:
                lag = self.source.execute(LAG, [lsn, self.name])
                if lag and lag[0][0] is not None and lag[0][0] <= 0:
                    return
        if unsynced:
            tables = ", ".join(f"{table} (state {s!r})" for table, s in unsynced)
            problem = f"not copied: {tables}"
        elif lag:
            problem = f"{lag[0][0]} bytes behind {lsn}"
        else:
            problem = "the target is not connected to the source"
        errors = [line for line in self.target.log().splitlines() if "ERROR" in line]
        hint = f"; the target's log says: {errors[-1]}" if errors else ""
        raise TimeoutError(f"{self!r}, after {timeout} seconds: {problem}{hint}")

    def carry_sequences(self) -> None:
        """Set the target's sequences to where the source's are.

        Logical replication leaves them alone. Two statements a server, however many
        sequences. Raise `LookupError` when the target lacks one.
        """
        names = [name for [name] in self.source.execute(SEQUENCES, dbname=self.dbname)]
        there = {name for [name] in self.target.execute(SEQUENCES, dbname=self.dbname)}
        if missing := [name for name in names if name not in there]:
            raise LookupError(f"{self.target!r} has no sequence {', '.join(missing)}")
        if names:
            # The names come quoted.
            values = self.source.execute(
                " union all ".join(
                    f"select '{_text(name)}', last_value, is_called from {name}"
                    for name in names
                ),
                dbname=self.dbname,
            )
            self.target.execute(
                "select "
                + ", ".join(
                    f"setval('{_text(name)}', {value}, {called})"
                    for name, value, called in values
                ),
                dbname=self.dbname,
            )

    def reverse(self, timeout: float = 30) -> None:
        """Turn round: what is written to the target flows back to the source.

        Wait as `wait()` does, carry the sequences, then replicate the other way and
        exchange `source` and `target`. Nobody may write to either in the meantime:
        hold the clients, as `PgBouncer.paused()` does. Nothing is lost then, neither
        by the cutover nor by going back.
        """
        self.wait(timeout)
        self.carry_sequences()
        self.stop()
        self.source, self.target = self.target, self.source
        self.start(copy_data=False)

    def stop(self) -> None:
        """Drop the subscription and the publication, of a server that runs."""
        if self.target.running:
            self._drop_subscription()
        if self.source.running:
            if not self.target.running:
                self._drop_slot()
            self._run(self.source, "drop publication if exists {}")

    def _drop_subscription(self) -> None:
        if not self.source.running:
            # It would ask the source to drop the slot.
            with contextlib.suppress(psycopg.errors.UndefinedObject):
                self._run(self.target, "alter subscription {} disable")
                self._run(self.target, "alter subscription {} set (slot_name = none)")
        self._run(self.target, "drop subscription if exists {}")

    def _drop_slot(self) -> None:
        self.source.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where slot_name = %s",
            [self.name],
        )

    def _run(self, server: PostgreSQL, text: str, *parts: sql.Composable) -> None:
        query = sql.SQL(text).format(self._identifier, *parts)
        server.execute(query.as_string(None), dbname=self.dbname)


def _text(name: str) -> str:
    return name.replace("'", "''")
