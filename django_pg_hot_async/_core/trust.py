"""The levels of `TRUST`."""

from __future__ import annotations

import enum


class Trust(enum.Enum):
    """How long OIDs, once read from a server, are trusted."""

    AUTO = "auto"
    """As TRANSACTION until an answer has shown which backend serves the connection;
    then as CONNECTION where it is the backend that libpq was told of."""
    SERVER = "server"
    CONNECTION = "connection"
    TRANSACTION = "transaction"
