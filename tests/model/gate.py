"""A way to a pooler that lets it be moved between any two messages of a client."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from django_pg_hot_async import pool

from .clients import Client
from .world import Door

READY_AND_IDLE = b"Z\x00\x00\x00\x05I"
"""ReadyForQuery, out of a transaction: the client has no server until it speaks."""


class Gate:
    """Passes on what a client and a pooler send, for one client at a time.

    `between` is called whenever the client speaks again and no server is its own.
    """

    def __init__(self, host: str, port: int) -> None:
        self.between: Callable[[], Any] = lambda: None
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._is_free = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._is_free = False
                for pump in (self._up, self._down):
                    threading.Thread(
                        target=pump, args=(client, server), daemon=True
                    ).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._is_free:
                    self._is_free = False
                    if data[:1] != b"X":
                        self.between()
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                tail = (tail + data)[-len(READY_AND_IDLE) :]
                self._is_free = tail == READY_AND_IDLE
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        client.close()
        server.close()


class Edge(Client):
    """A connection by way of a gate, whose pooler may move at any moment."""

    def __init__(self, door: Door, gate: Gate) -> None:
        super().__init__("edge", door, "edge")
        self._gate = gate

    def open(self) -> None:
        assert self.door.bouncer is not None
        self._connection = psycopg.connect(
            self.door.bouncer.conninfo(
                port=self._gate.port, sslmode="disable", gssencmode="disable"
            ),
            autocommit=True,
            prepare_threshold=None,
        )
        pool.configure(self.alias)(self.connection)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        connection.close()
