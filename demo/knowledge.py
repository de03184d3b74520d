"""Which OIDs a worker goes by, told as JSON.

No query is sent: what is not known stays unknown.
"""

from __future__ import annotations

import os
from typing import Any

from django.apps import apps
from django.contrib.postgres.signals import get_citext_oids, get_hstore_oids
from django.http import HttpRequest, JsonResponse

ALIAS = "default"


async def tell(request: HttpRequest) -> JsonResponse:
    """Answer with the process, whether it has the app, and the OIDs it knows.

    With the app also with the version of the server that they were read from.
    """
    app = apps.is_installed("django_pg_hot_async")
    server, types = known_to_app() if app else (None, known_to_django())
    return JsonResponse(
        {"pid": os.getpid(), "app": app, "server": server, "types": types}
    )


def known_to_app() -> tuple[int | None, dict[str, int]]:
    """Return what was last read from the server that the alias leads to."""
    from django_pg_hot_async import status

    for alias in status():
        if alias["alias"] == ALIAS and alias["server"] and alias["types"]:
            types: dict[str, int] = {}
            for name, type_ in alias["types"].items():
                types |= {name: type_["oid"], f"{name}[]": type_["array_oid"]}
            return alias["server"]["version"], types
    return None, {}


def known_to_django() -> dict[str, int]:
    """Return what Django, and the project, have kept since the first connection."""
    from .usual import known

    types = known(ALIAS)
    caches: dict[str, Any] = {"hstore": get_hstore_oids, "citext": get_citext_oids}
    for name, get_oids in caches.items():
        if get_oids.cache_info().currsize:
            oids, array_oids = get_oids(ALIAS)
            for oid, array_oid in zip(oids, array_oids, strict=True):
                types |= {name: oid, f"{name}[]": array_oid}
    return types
