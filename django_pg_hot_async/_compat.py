"""Every private name of psycopg that this package touches, and why it has to.

`tests/test_compat.py` fails first when one of them changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg.types import TypesRegistry

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap

    from ._snapshot import Snapshot


class _Shared(dict):  # type: ignore[type-arg]
    """The content of a snapshot's types; a copy of it is a plain dict."""


def mark_shared(types: TypesRegistry) -> None:
    """Make the content of *types* known as a snapshot's own."""
    # TypesRegistry._registry: psycopg 3.2.13 and 3.3.9.
    types._registry = _Shared(types._registry)


def share_types(adapters: AdaptersMap, snapshot: Snapshot) -> None:
    """Let *adapters* know the types of *snapshot*, and none of another server.

    A registry that somebody has added to gets them added; any other is replaced
    by one that shares the snapshot's content: no copy, 9 KB less a connection.
    """
    content = adapters.types._registry
    if content is snapshot.types._registry:
        return
    if type(content) is _Shared or content is psycopg.adapters.types._registry:
        adapters.types = TypesRegistry(snapshot.types)
    else:
        for info in snapshot.infos:
            adapters.types.add(info)
