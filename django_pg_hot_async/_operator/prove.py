"""``pg_hot_prove``: that nothing was lost in a cutover, and nothing went astray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from time import monotonic, sleep
from typing import Any

from django_pg_hot_async._core.server import show_version

from .access import CannotTell, identity, opened, refuse_same
from .output import count
from .sequences import SequenceFacts, find, read_sequences
from .sessions import read_sessions
from .sums import Sum, Table, as_data, from_data, read_sums, read_tables

FORMAT = 1
"""Of the file; keys may be added under it, none is taken away."""
EVERY = 1.0
"""Seconds between two looks, with ``--wait``."""

_SERVER = """\
SELECT current_setting('server_version_num')::int4, current_database()::text,
       oid::int8, pg_current_wal_lsn()::text,
       pg_current_snapshot()::text
FROM pg_database WHERE datname = current_database()"""
_SUBSCRIPTIONS = """\
SELECT subname::text, subslotname::text FROM pg_subscription
WHERE subenabled AND subdbid =
      (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1"""
_SLOTS = """\
SELECT slot_name::text, confirmed_flush_lsn::text,
       coalesce(confirmed_flush_lsn >= %s::pg_lsn, false)
FROM pg_replication_slots WHERE slot_name = ANY (%s)"""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that has to hold."""

    name: str
    holds: bool
    sentence: str


def mark(blue: str, green: str, *, full: bool) -> dict[str, Any]:
    """Return what *blue* holds now, for `check` to go by: nobody may write meanwhile.

    One transaction. Raise `CannotTell` where one of the two cannot be asked.
    """
    with opened(green) as cursor:
        there = identity(cursor)
    with opened(blue) as cursor:
        refuse_same(identity(cursor), there)
        server = _server(cursor)
        tables = read_tables(cursor, full=full)
        sums = read_sums(cursor, tables)
        sequences = read_sequences(cursor)
    return {
        "format": FORMAT,
        "marked": _now(),
        "full": full,
        "server": server,
        "tables": [as_data(table) for table in tables],
        "sums": {name: asdict(one) for name, one in sums.items()},
        "sequences": [asdict(one) for one in sequences],
        "reached": None,
        "agreed": None,
    }


def check(
    blue: str,
    green: str,
    marked: dict[str, Any],
    *,
    before_move: bool = False,
    wait: float = 0,
) -> list[Condition]:
    """Tell what holds of what `mark` returned, and note in *marked* what held once.

    That green has all of blue's rows can be seen until the application writes there:
    what was seen then counts later on. With *before_move*, clients may be on blue.
    Look again for *wait* seconds while replication is behind.
    """
    deadline = monotonic() + wait
    while True:
        conditions = _look(blue, green, marked, before_move)
        behind = [one for one in conditions if not one.holds]
        if not behind or monotonic() >= deadline:
            return conditions
        sleep(EVERY)


def _look(
    blue: str, green: str, marked: dict[str, Any], before_move: bool
) -> list[Condition]:
    tables = [from_data(table) for table in marked["tables"]]
    before = {name: Sum(**one) for name, one in marked["sums"].items()}
    with opened(green) as cursor:
        there = identity(cursor)
        cursor.execute(_SUBSCRIPTIONS)
        slots = [slot for _, slot in cursor.fetchall()]
    with opened(blue) as cursor:
        refuse_same(identity(cursor), there)
        now = _server(cursor)
        for key in ("version", "database", "oid"):
            if now[key] != marked["server"][key]:
                raise CannotTell(
                    f"{blue!r} is not what was marked: {key} is {now[key]}, and was"
                    f" {marked['server'][key]}"
                )
        cursor.execute(_SLOTS, [marked["server"]["lsn"], slots])
        reached = cursor.fetchall()
        cursor.execute(_SUBSCRIPTIONS)
        way_back = [name for name, _ in cursor.fetchall()]
        blue_sums = read_sums(cursor, tables)
    # After the slots: what they have confirmed is to be seen.
    with opened(green) as cursor:
        there_now = {str(one) for one in read_tables(cursor, full=True)}
        green_sums = read_sums(cursor, [one for one in tables if str(one) in there_now])
        sequences = read_sequences(cursor)
    return [
        _once(marked, "reached", _reached(marked, slots, reached)),
        _once(marked, "agreed", _agree(tables, before, green_sums)),
        _still(marked, now, tables, before, blue_sums, green_sums, way_back),
        _ahead(marked, sequences),
        *([] if before_move else [_nobody(blue)]),
    ]


def _once(marked: dict[str, Any], key: str, found: Condition) -> Condition:
    """Note that a condition holds, or go by the note where it does not any more."""
    if found.holds:
        marked[key] = marked[key] or _now()
    elif marked[key]:
        return Condition(found.name, True, f"so it was at {marked[key]}")
    return found


def _reached(
    marked: dict[str, Any], slots: list[str], found: list[tuple[str, str, bool]]
) -> Condition:
    name, lsn = "green has reached the mark", marked["server"]["lsn"]
    if not slots:
        return Condition(name, False, "no subscription of green's is enabled")
    if len(found) < len(slots):
        return Condition(name, False, f"blue has no slot {', '.join(sorted(slots))}")
    said = ", ".join(f"{slot} has confirmed {where}" for slot, where, _ in found)
    return Condition(name, all(is_it for *_, is_it in found), f"{said}, mark {lsn}")


def _agree(
    tables: list[Table], before: Mapping[str, Sum], after: Mapping[str, Sum]
) -> Condition:
    unread = [str(table) for table in tables if not table.is_readable]
    differ = list(_differences(before, after))
    what = _what(tables, before)
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        differ.append(f"{unread[0]}{more} cannot be read by this role")
    return Condition("rows agree", not differ, _listed(differ) or what)


def _still(
    marked: dict[str, Any],
    now: dict[str, Any],
    tables: list[Table],
    before: Mapping[str, Sum],
    blue: Mapping[str, Sum],
    green: Mapping[str, Sum],
    way_back: list[str],
) -> Condition:
    if way_back:
        differ = list(_differences(green, blue))
        said = f"{', '.join(way_back)} brings green's rows back; blue has those alone"
        return Condition("blue stands still", not differ, _listed(differ) or said)
    if now["snapshot"] == marked["server"]["snapshot"]:
        said = "no transaction has written on its server since the mark"
        return Condition("blue stands still", True, said)
    differ = list(_differences(before, blue))
    return Condition(
        "blue stands still", not differ, _listed(differ) or _what(tables, before)
    )


def _ahead(marked: dict[str, Any], there: list[SequenceFacts]) -> Condition:
    behind = []
    for data in marked["sequences"]:
        owner, position = (data[k] and tuple(data[k]) for k in ("owner", "position"))
        wanted = SequenceFacts(**{**data, "owner": owner, "position": position})
        one = find(wanted, there)
        if one is None:
            behind.append(f"{wanted} is missing")
        elif one.position is None or one.is_further(wanted.position, one.position):
            where = one.position and one.position[0]
            behind.append(f"{wanted} is at {where}, blue was at {wanted.position}")
    said = count(len(marked["sequences"]), "sequence")
    return Condition("sequences are ahead", not behind, _listed(behind) or said)


def _nobody(blue: str) -> Condition:
    own = [one for one in read_sessions(blue).found if one.is_own]
    said = [
        f"{one.application_name or 'a client'} at {one.address or 'a socket'},"
        f" {one.state} since {one.since}"
        for one in own
    ]
    name = "nobody is left on blue"
    return Condition(name, not own, _listed(said) or "of the application's role")


def _differences(before: Mapping[str, Sum], after: Mapping[str, Sum]) -> Iterator[str]:
    for name, one in before.items():
        other = after.get(name)
        if other is None:
            yield f"{name} is not there, or cannot be read"
        elif one.rows != other.rows:
            rows = count(abs(other.rows - one.rows), "row")
            yield f"{name} has {rows} {'more' if other.rows > one.rows else 'less'}"
        elif one != other:
            yield f"{name} has other values"


def _what(tables: list[Table], sums: Mapping[str, Sum]) -> str:
    """Say what was looked at, and no more."""
    rows = sum(one.rows for one in sums.values())
    said = f"{count(len(sums), 'table')}, {count(rows, 'row')}"
    part = sum(bool(table.by) for table in tables)
    left = [str(table) for table in tables if str(table) not in sums]
    if part:
        said += f"; of {count(part, 'large table')} the last rows alone: --full"
    if left:
        said += f"; not looked at: {_listed(left)}"
    return said


def _listed(problems: list[str], most: int = 3) -> str:
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


def _server(cursor: Any) -> dict[str, Any]:
    cursor.execute(_SERVER)
    version, database, oid, lsn, snapshot = cursor.fetchone()
    return {
        "version": version,
        "release": show_version(version),
        "database": database,
        "oid": oid,
        "lsn": lsn,
        "snapshot": snapshot,
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def lines(
    blue: str, green: str, marked: dict[str, Any], conditions: list[Condition]
) -> Iterator[str]:
    """Write the proof for people, a page at most."""
    server = marked["server"]
    yield f"{blue} -> {green}"
    yield (
        f"marked {marked['marked']}: PostgreSQL {server['release']},"
        f" {server['database']} at {server['lsn']},"
        f" {count(len(marked['sums']), 'table')},"
        f" {count(len(marked['sequences']), 'sequence')}"
    )
    yield ""
    for one in conditions:
        yield f"{'holds' if one.holds else 'FAILS'}  {one.name}: {one.sentence}"


def verdict(conditions: list[Condition], *, before_move: bool) -> str:
    """Write the last line."""
    failed = [one.name for one in conditions if not one.holds]
    if failed:
        return f"not proved: {', '.join(failed)}" + " does not hold"
    more = ", as far as it can be before the move" if before_move else ""
    return f"proved{more}"
