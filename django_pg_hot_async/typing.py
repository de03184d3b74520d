"""Types for annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ._operator.status import AliasStatus

__all__ = ["AliasStatus", "ServerState", "Trust"]

Trust = Literal["auto", "server", "connection", "transaction"]
"""The levels that ``PG_HOT_ASYNC["TRUST"]`` takes."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server behind an alias, as `server_changed` passes it to receivers."""

    version: int
    """``server_version_num``: 180006 is 18.6."""
    host: str
    port: str
    dbname: str
    types: Mapping[str, int] | None
    """The OID of each tracked type by name. If several types share a name, each is
    under "schema.name". None if no types have been read from this server yet."""
