"""Server-sent events: products, as they change.

The table is asked once a second, in a statement of its own each time. LISTEN and
NOTIFY would be quicker, and are bound to one session on one server: a transaction
pooler breaks them, and so does a cutover.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from typing import Any

import psycopg
from asgi_project import async_pool
from django.utils import timezone

from .values import ColumnEncoder

logger = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two looks."""
LASTS = 60.0
"""Seconds a stream lasts. The browser opens the next, with the id of the last event;
and no web server that is told to end has to wait, or to cut, any longer."""
LATE = timedelta(seconds=5)
"""How long after it stamped a row a transaction may commit."""
LONGEST_GAP = timedelta(minutes=5)
"""How far back a client is served that was away."""

QUERY = """
    SELECT id, name, status, attributes, dimensions, valid, stored_at, changed_at,
           proof, current_setting('server_version_num') AS server
      FROM catalogue_product WHERE changed_at > %s ORDER BY changed_at, id
"""


async def events(last_event_id: str | None = None) -> AsyncIterator[str]:
    """Yield an event for each change after *last_event_id*, or from now on.

    While the database cannot be had, nothing is missed, only late: the next look
    begins where the last good one ended. Some may be told twice after a change of
    streams.
    """
    end = time.monotonic() + LASTS
    last, now = parsed(last_event_id), timezone.now()
    since = max(last, now - LONGEST_GAP) if last else now
    # A client that will have heard of nothing has something to resume from, too.
    yield f"retry: 1000\nid: {since.isoformat()}\n\n"
    # What was in the table before is no news: None until that is known.
    told: dict[int, datetime] | None = {} if last else None
    while time.monotonic() < end:
        news = []
        rows = await changed(since - LATE)
        if rows is not None:
            if told is None:
                told = versions(row for row in rows if row["changed_at"] < now)
            news = [row for row in rows if told.get(row["id"]) != row["changed_at"]]
            told = versions(rows)
        for row in news:
            yield event(row)
            since = max(since, row["changed_at"])
        if not news:
            # A comment: it tells the server whether the client is still there.
            yield ":\n\n"
        await asyncio.sleep(EVERY)


async def changed(after: datetime) -> list[dict[str, Any]] | None:
    """Return the rows changed after a point in time; None if that cannot be known."""
    try:
        async with async_pool.connection() as connection:
            cursor = await connection.execute(QUERY, [after])
            return await cursor.fetchall()
    except psycopg.OperationalError as error:
        logger.warning("the next look will tell what has changed: %s", error)
        return None


def versions(rows: Iterable[dict[str, Any]]) -> dict[int, datetime]:
    return {row["id"]: row["changed_at"] for row in rows}


def event(row: dict[str, Any]) -> str:
    data = json.dumps(row, cls=ColumnEncoder)
    return f"id: {row['changed_at'].isoformat()}\nevent: product\ndata: {data}\n\n"


def parsed(event_id: str | None) -> datetime | None:
    try:
        when = datetime.fromisoformat(event_id or "")
    except ValueError:
        return None
    return when if timezone.is_aware(when) else None
