"""Looking at replication: whether all that is written on blue comes to green."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .facts import Facts, Finding, Severity, count, listed, quoted
from .relations import shared_tables

MUCH = 64 * 1024
"""Bytes of WAL that green may be behind before it is worth a line."""


def find_in_replication(
    blue: Facts, green: Facts, *, at_cutover: bool
) -> Iterator[Finding]:
    yield from _find_on_blue(blue, at_cutover=at_cutover)
    if green.in_recovery or blue.relation_to(green) == "twin":
        return
    if green.subscriptions is None or blue.publications is None:
        return
    feeds = _feeds(blue, green)
    if not feeds:
        yield Finding(
            "warning",
            "no_subscription",
            green.alias,
            f"{green.alias} subscribes to no publication of {blue.alias}: what is"
            f" written on {blue.alias} does not come",
            "CREATE SUBSCRIPTION ... CONNECTION '...' PUBLICATION ...; on"
            f" {green.alias}, unless its rows come in another way.",
        )
        return
    for feed in feeds:
        yield from _find_in_feed(feed, blue, green, at_cutover)
    yield from _find_in_tables(feeds, blue, green)
    if at_cutover:
        severity: Severity = "break"
    else:
        severity = "warning"
    yield from _find_left_behind(blue, green, severity)


def _feeds(blue: Facts, green: Facts) -> list[Any]:
    """Return the subscriptions of green to what blue publishes."""
    return [
        one
        for one in green.subscriptions or ()
        if set(one.publications) & set(blue.publications or ())
        or one.slot in blue.of("slots")
    ]


def is_behind(blue: Facts, green: Facts) -> bool:
    """Whether green has yet to apply much of what blue has written."""
    slots = blue.of("slots")
    feeds = [slots.get(one.slot) for one in _feeds(blue, green)]
    return any(slot is not None and (slot.behind or 0) > MUCH for slot in feeds)


def copying(green: Facts) -> set[str]:
    """Return the tables whose first copy is not finished."""
    return {r.table for r in green.of("subscribed").values() if r.state not in "rs"}


def _find_in_feed(
    feed: Any, blue: Facts, green: Facts, at_cutover: bool
) -> Iterator[Finding]:
    name, side = feed.name, green.alias
    says = f"subscription {name} of {side}"
    for publication in feed.publications:
        if publication not in (blue.publications or ()):
            yield Finding(
                "break",
                "publication_missing",
                publication,
                f"{says} is to publication {publication}, which {blue.alias} lacks:"
                " nothing comes",
                f"CREATE PUBLICATION {quoted(publication)} FOR ALL TABLES; on"
                f" {blue.alias}.",
            )
    slot = blue.of("slots").get(feed.slot)
    if blue.has("slots") and slot is None:
        yield Finding(
            "break",
            "slot_missing",
            name,
            f"{says} reads the replication slot {feed.slot}, which {blue.alias} lacks:"
            " nothing comes, and what was written since is lost",
            "Make the subscription anew, with a copy of all rows: DROP SUBSCRIPTION"
            f" {quoted(name)}; CREATE SUBSCRIPTION ...",
        )
        return
    if slot is not None and slot.status == "lost":
        yield Finding(
            "break",
            "slot_missing",
            name,
            f"the replication slot {feed.slot} of {blue.alias} is lost: it fell too far"
            " behind, and nothing comes any more",
            f"Make the subscription anew, with a copy of all rows: {name}.",
        )
        return
    behind = slot.behind if slot is not None else None
    if not feed.enabled:
        waiting = f", and {show_bytes(behind)} are waiting" if behind else ""
        yield Finding(
            "break",
            "subscription_off",
            name,
            f"{says} is disabled{waiting}: what is written on {blue.alias} does not"
            " come",
            f"ALTER SUBSCRIPTION {quoted(name)} ENABLE;",
        )
    else:
        yield from _find_in_worker(feed, slot, green, at_cutover)
    states = [
        row
        for row in green.of("subscribed").values()
        if row.subscription == name and row.state not in "rs"
    ]
    if states:
        yield Finding(
            "break" if at_cutover else "warning",
            "subscription_copying",
            name,
            f"{says} has {count(len(states), 'table')} not copied yet:"
            f" {listed([row.table for row in states])}",
            "Wait until pg_subscription_rel.srsubstate is 'r' for all.",
        )


def _find_in_worker(
    feed: Any, slot: Any, green: Facts, at_cutover: bool
) -> Iterator[Finding]:
    """Tell whether what a subscription that is enabled brings is applied."""
    name, side = feed.name, green.alias
    says = f"subscription {name} of {side}"
    behind = slot.behind if slot is not None else None
    errors = green.of("subscription_errors").get(name)
    failed = errors.errors if errors else 0
    if feed.pid is None or (failed and slot is not None and not slot.active):
        often = f", after {count(failed, 'error')}" if failed else ""
        yield Finding(
            "break",
            "subscription_fails",
            name,
            f"the apply worker of {says} is not running{often}: nothing comes",
            f"The log of {side} says why. Where a row is in the way, remove it; or"
            f" ALTER SUBSCRIPTION {quoted(name)} SKIP (lsn = '...');",
        )
    elif failed and behind:
        yield Finding(
            "break",
            "subscription_fails",
            name,
            f"{says} has failed {count(failed, 'time')} and is {show_bytes(behind)}"
            " behind",
            f"The log of {side} says why. If it was mended: SELECT"
            " pg_stat_reset_subscription_stats(NULL);",
        )
    elif failed:
        yield Finding(
            "note",
            "subscription_failed",
            name,
            f"{says} has failed {count(failed, 'time')}, and goes on now",
            "SELECT pg_stat_reset_subscription_stats(NULL);",
        )
    if errors and errors.conflicts:
        yield Finding(
            "warning",
            "conflicts",
            name,
            f"{says} met {count(errors.conflicts, 'conflict')}: rows on {side} were"
            " missing, or written by someone else",
            "SELECT * FROM pg_stat_subscription_stats;",
        )
    if behind and (at_cutover or behind > MUCH):
        yield Finding(
            "break" if at_cutover else "note",
            "subscription_behind",
            name,
            f"{says} is {show_bytes(behind)} behind",
            "Let nothing write any more, and wait. If it does not move, see what it"
            f" waits for in pg_stat_activity of {side}.",
        )


def _find_in_tables(feeds: list[Any], blue: Facts, green: Facts) -> Iterator[Finding]:
    """Tell which tables of blue do not come, or not all of them."""
    if not blue.has("published"):
        return
    names = {name for feed in feeds for name in feed.publications}
    published: dict[str, list[Any]] = {}
    for row in blue.of("published").values():
        if row.publication in names:
            published.setdefault(row.table, []).append(row)
    subscribed = {row.table for row in green.of("subscribed").values()}
    relations, there = blue.of("relations"), shared_tables(blue, green)
    publications = blue.of("publications")
    # A change that no publication passes on.
    left_out = (
        set.intersection(
            *(set(publications[n].left_out) for n in names if n in publications)
        )
        if names & publications.keys()
        else set()
    )
    columns: dict[str, set[str]] = {}
    for column in blue.of("columns").values():
        if not column.generated:
            columns.setdefault(column.table, set()).add(column.plain)
    any_name = quoted(next(iter(sorted(names)), ""))
    refresh = " ".join(
        f"ALTER SUBSCRIPTION {quoted(feed.name)} REFRESH PUBLICATION;" for feed in feeds
    )
    for name, table in relations.items():
        if table.kind != "r" or table.unlogged:
            continue
        line = _line(name, relations)
        rows = [row for one in line for row in published.get(one, ())]
        if not rows:
            yield Finding(
                "break",
                "not_published",
                name,
                f"{name} is in no publication that {green.alias} subscribes to: its"
                " rows do not come",
                f"ALTER PUBLICATION {any_name} ADD TABLE {name}; on {blue.alias}, then"
                f" on {green.alias}: {refresh}",
            )
            continue
        if name not in there:
            continue
        if green.has("subscribed") and not subscribed & set(line):
            yield Finding(
                "break",
                "not_subscribed",
                name,
                f"{name} is published, but {green.alias} does not subscribe to it yet:"
                " its rows do not come",
                refresh,
            )
        if all(row.filter for row in rows):
            yield Finding(
                "break",
                "partly_published",
                name,
                f"only rows of {name} WHERE {rows[0].filter} are published: the others"
                " do not come",
                f"ALTER PUBLICATION {any_name} SET TABLE {name};",
            )
        lacking = columns.get(name, set())
        for row in rows:
            lacking = lacking - set(row.columns) if row.columns else set()
        if lacking:
            yield Finding(
                "break",
                "partly_published",
                name,
                f"columns of {name} are not published: {listed(sorted(lacking))}",
                f"ALTER PUBLICATION {any_name} SET TABLE {name};",
            )
    if left_out:
        yield Finding(
            "break",
            "partly_published",
            listed(sorted(names)),
            f"{', '.join(sorted(left_out)).upper()} is not published: such changes do"
            " not come",
            f"ALTER PUBLICATION {any_name} SET (publish = 'insert, update, delete,"
            " truncate');",
        )
    changes = {"update", "delete"} - left_out
    for name, table in relations.items():
        is_published = any(name_ in published for name_ in _line(name, relations))
        if table.kind != "r" or not is_published or not changes:
            continue
        if table.identity == "n" or (table.identity in "di" and not table.identities):
            yield Finding(
                "warning",
                "replica_identity",
                name,
                f"{name} has no replica identity: UPDATE and DELETE of its rows fail on"
                f" {blue.alias}, now",
                f"ALTER TABLE {name} ADD PRIMARY KEY (...); or ALTER TABLE {name}"
                " REPLICA IDENTITY FULL;",
            )


def _line(name: str, relations: Any) -> list[str]:
    """Return a table and what it is a partition of, up to the root."""
    line = [name]
    while (table := relations.get(line[-1])) is not None and table.parent:
        line.append(table.parent)
    return line


def _find_left_behind(
    blue: Facts, green: Facts, severity: Severity
) -> Iterator[Finding]:
    for name, table in blue.of("relations").items():
        if table.unlogged and table.kind == "r":
            yield Finding(
                severity,
                "not_replicated",
                name,
                f"{name} is UNLOGGED, which is not replicated: its rows stay behind",
                f"ALTER TABLE {name} SET LOGGED; or pg_dump --data-only --table={name}",
            )
    objects = blue.of("large_objects").get("large objects")
    there = green.of("large_objects").get("large objects")
    if objects and objects.number > (there.number if there else 0):
        yield Finding(
            severity,
            "not_replicated",
            "large objects",
            f"{count(objects.number, 'large object')} of {blue.alias}:"
            " large objects are not replicated and stay behind",
            "pg_dump --large-objects --data-only, once nothing writes any more; or"
            " SELECT lo_unlink(oid), where nobody needs them.",
        )


def _find_on_blue(blue: Facts, *, at_cutover: bool) -> Iterator[Finding]:
    severity: Severity = "break" if at_cutover else "warning"
    for name, slot in blue.of("slots").items():
        if not slot.active:
            kept = f" {show_bytes(slot.kept)} of" if slot.kept else ""
            yield Finding(
                "warning",
                "slot_unread",
                name,
                f"nobody reads the replication slot {name} of {blue.alias}: it keeps"
                f"{kept} WAL until the disk is full",
                f"SELECT pg_drop_replication_slot('{name}'); where nobody needs it.",
            )
    for name, row in blue.of("prepared").items():
        yield Finding(
            severity,
            "prepared_transaction",
            name,
            f"transaction {name} of {row.owner} is prepared on {blue.alias} since"
            f" {row.since}: its rows have not come",
            f"COMMIT PREPARED '{name}'; or ROLLBACK PREPARED '{name}';",
        )
    for row in blue.of("transactions").values():
        if not row.is_long and not (at_cutover and row.writes):
            continue
        yield Finding(
            "break" if at_cutover and row.writes else "warning",
            "long_transaction",
            row.name,
            f"a transaction of {row.role} ({row.application or 'no name'}, process"
            f" {row.name}) is open on {blue.alias} for {count(row.minutes, 'minute')}:"
            " its rows have not come",
            f"SELECT pg_terminate_backend({row.name}); where it hangs.",
        )


def show_bytes(number: int) -> str:
    """Write a number of bytes for people."""
    amount = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1024 or unit == "GB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}"
