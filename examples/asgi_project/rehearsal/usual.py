"""FOR THE DEMO ONLY: what a project does about its types without the app.

For its own pool, that is: it looks the types up for each connection it opens, and
registers them. Django does the same for its own, once an alias.
"""

from __future__ import annotations

from typing import Any

from asgi_project import async_pool
from django.apps import AppConfig
from psycopg.types import TypeInfo
from psycopg.types.hstore import register_hstore


class UsualConfig(AppConfig):
    name = "rehearsal"

    def ready(self) -> None:
        async_pool.configure = configure
        async_pool.check = async_pool.AsyncConnectionPool.check_connection


async def configure(connection: Any) -> None:
    if info := await TypeInfo.fetch(connection, "hstore"):
        register_hstore(info, connection)
    if info := await TypeInfo.fetch(connection, "citext"):
        info.register(connection)
