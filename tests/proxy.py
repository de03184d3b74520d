"""A TCP proxy before a server, to break connections at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from django_pg_hot_async._core.catalog import MARK as READ

WAIT = 10.0  # seconds


class Wire:
    """A connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server = socket.create_connection(proxy.target)
        self._tail = b""
        for pump in (self._up, self._down):
            threading.Thread(target=pump, daemon=True).start()

    def reset(self) -> None:
        """End it for the client as a crashed machine or a firewall does: RST."""
        linger = struct.pack("ii", 1, 0)
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                # A thread that waits for data would keep it open.
                end.shutdown(socket.SHUT_RD)
            end.close()

    def _up(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.client.recv(65536):
                seen, self._tail = self._tail + data, data[-len(READ) :]
                if READ in seen:
                    self._tail = b""
                    self.proxy._at_read(self)
                self.server.sendall(data)
        self._end(self.server)

    def _down(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.server.recv(65536):
                self.client.sendall(self.proxy.answer(data))
        self._end(self.client)

    def _end(self, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)


class Proxy:
    """Listens on a loopback port; what it leads to may be changed.

    `at_read` is called in the moment in which a client has sent the read of types,
    with the server not having got it; it goes on when that returns. It is called
    once, then has to be set anew.
    """

    def __init__(self, server: Any) -> None:
        self.target = (server.host, server.port)
        self.at_read: Callable[[Wire], Any] | None = None
        # As it is; and no function of Python's, for the sake of a thread that dies.
        self.answer: Callable[[bytes], bytes] = bytes
        self.reads = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._wires: list[Wire] = []
        self._is_closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for wire in self._wires:
            wire.reset()

    def database(self, name: str) -> dict[str, Any]:
        """Return an entry for Django's DATABASES."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": "postgres",
            "HOST": self.host,
            "PORT": str(self.port),
        }

    def conninfo(self, name: str) -> str:
        return f"host={self.host} port={self.port} user=postgres dbname={name}"

    def hold(self) -> Held:
        """Hold the next read until told to let it go."""
        held = Held()
        self.at_read = held
        return held

    def _at_read(self, wire: Wire) -> None:
        self.reads += 1
        action, self.at_read = self.at_read, None
        if action is not None:
            action(wire)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    wire = Wire(self, client)
                except OSError:
                    client.close()
                    continue
                self._wires.append(wire)
                if self._is_closed:
                    wire.reset()


class Held:
    """A read that is held, by the connection it came over."""

    def __init__(self) -> None:
        self.wire: Wire | None = None
        self._came = threading.Event()
        self._go = threading.Event()

    def __call__(self, wire: Wire) -> None:
        self.wire = wire
        self._came.set()
        self._go.wait(WAIT)

    def wait(self) -> Wire:
        """Wait until a client has sent it."""
        assert self._came.wait(WAIT), "no read was sent"
        assert self.wire is not None
        return self.wire

    def release(self) -> None:
        self._go.set()
