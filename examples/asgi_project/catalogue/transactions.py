"""``transaction.atomic()`` for async views."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asgiref.sync import sync_to_async
from django.db import transaction


@asynccontextmanager
async def aatomic(using: str | None = None) -> AsyncIterator[None]:
    """Run the block's queries in one transaction.

    For what needs one, as ``select_for_update()`` does. Under ASGI the async ORM runs
    all queries of one request in one thread, with one connection: a transaction begun
    in that thread holds for them all. For awaits one after the other only; nothing in
    the block may be put into another task.
    """
    block = transaction.atomic(using=using)
    await sync_to_async(block.__enter__)()
    try:
        yield
    except BaseException:
        await sync_to_async(block.__exit__)(*sys.exc_info())
        raise
    else:
        await sync_to_async(block.__exit__)(None, None, None)
