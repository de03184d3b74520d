"""ASGI's lifespan, which Django leaves to others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Hook: TypeAlias = Callable[[], Awaitable[object]]


def with_lifespan(application: Any, *, startup: Hook, shutdown: Hook) -> Any:
    """Have *startup* awaited before the first request, *shutdown* after the last.

    By web servers that know the lifespan; Django by itself raises ValueError, and
    they go on without. A *startup* that raises keeps the worker from starting.
    """

    async def application_with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        await receive()
        await startup()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    return application_with_lifespan
