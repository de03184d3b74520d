"""The page's web server, in the demo's own process and event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from django.core.asgi import get_asgi_application

from demo.room import Room

HOST = "127.0.0.1"


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the demo."""
        yield


@contextlib.asynccontextmanager
async def serve(room: Room, port: int, host: str = HOST) -> AsyncIterator[str]:
    """Serve the page about *room* for the block; yield its address.

    On the loopback interface, unless *host* says otherwise; at *port*, or at another
    one if that is taken. At the block's end the room has to be, too, or the browsers
    are not let go.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = "demo.page.settings"
    site = get_asgi_application()

    async def with_room(scope: Any, receive: Any, send: Any) -> None:
        await site({**scope, "room": room}, receive, send)

    config = uvicorn.Config(
        with_room,
        lifespan="off",
        log_config=None,
        access_log=False,
        # The peer is who connected, whatever it says of others.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = Server(config)
    with listen(host, port) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://{HOST}:{listening.getsockname()[1]}/"
        finally:
            room.end()
            server.should_exit = True
            await task


def listen(host: str, port: int) -> socket.socket:
    """Listen at *port*, or at any that is free."""
    for wanted in (port, 0):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, wanted))
            listening.listen()
        except OSError:
            listening.close()
            if not wanted:
                raise
        else:
            return listening
    raise AssertionError("unreachable")
