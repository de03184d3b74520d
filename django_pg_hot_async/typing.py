"""Names for annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ._operator.status import AliasStatus

__all__ = ["AliasStatus", "ServerState", "Trust"]

Trust = Literal["auto", "server", "connection", "transaction"]
"""What ``PG_HOT_ASYNC["TRUST"]`` may be."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """Where an alias leads: what `server_changed` hands to its receivers."""

    version: int
    """``server_version_num``: 180006 is 18.6."""
    host: str
    port: str
    dbname: str
    types: Mapping[str, int] | None
    """OID of each tracked type by name, of several of one name by "schema.name"; None
    where they have not been read."""
