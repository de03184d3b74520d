"""FOR THE DEMO ONLY: which OIDs a worker goes by, told as JSON.

No query is sent: what is not known stays unknown.
"""

from __future__ import annotations

import os
from typing import Any

from django.apps import apps
from django.contrib.postgres.signals import get_citext_oids, get_hstore_oids
from django.db import transaction
from django.http import HttpRequest, JsonResponse

ALIAS = "default"


@transaction.non_atomic_requests
async def tell(request: HttpRequest) -> JsonResponse:
    """Answer with the process, whether it has the app, and the OIDs it knows."""
    app = apps.is_installed("django_pg_hot_async")
    types = known_to_app() if app else known_to_django()
    return JsonResponse({"pid": os.getpid(), "app": app, "types": types})


def known_to_app() -> dict[str, int]:
    """Return what was last read from the server that the alias leads to."""
    from django_pg_hot_async import status

    for alias in status():
        if alias["alias"] == ALIAS:
            found: dict[str, int] = {}
            for name, type_ in (alias["types"] or {}).items():
                found[name] = type_["oid"]
                found[f"{name}[]"] = type_["array_oid"]
            return found
    return {}


def known_to_django() -> dict[str, int]:
    """Return what Django, and the project, have kept since the first connection."""
    from .usual import known

    found = known(ALIAS)
    caches: dict[str, Any] = {"hstore": get_hstore_oids, "citext": get_citext_oids}
    for name, get_oids in caches.items():
        if get_oids.cache_info().currsize:
            oids, array_oids = get_oids(ALIAS)
            for oid, array_oid in zip(oids, array_oids, strict=True):
                found |= {name: oid, f"{name}[]": array_oid}
    return found
