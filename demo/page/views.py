"""The page, what it is fed with, and what its buttons send."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import AsyncIterator
from pathlib import Path

from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from demo.room import BUTTONS, room_of
from demo.stage import Busy

ASSETS = {path.name: path for path in (Path(__file__).parent / "assets").iterdir()}


@require_GET
async def index(request: HttpRequest) -> HttpResponse:
    fleets = [
        {"id": "left", "title": "Without the app"},
        {"id": "right", "title": "With the app"},
    ]
    room = room_of(request)
    context = {
        "servers": room.describe_servers(),
        "fleets": fleets,
        "commands": room.commands,
    }
    return render(request, "page/index.html", context)


@require_GET
async def events(request: HttpRequest) -> StreamingHttpResponse:
    """Send what the room tells as server-sent events, until it ends."""

    async def stream() -> AsyncIterator[str]:
        async for name, state in room_of(request).follow():
            yield f"event: {name}\ndata: {json.dumps(state)}\n\n"

    return StreamingHttpResponse(
        stream(),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


@require_POST
async def press(request: HttpRequest, button: str) -> HttpResponse:
    """Do what a button says; 409 where it cannot be done now."""
    if button not in BUTTONS or room_of(request).commands:
        raise Http404
    try:
        room_of(request).press(button)
    except (Busy, ValueError) as error:
        return JsonResponse({"problem": str(error)}, status=409)
    if "application/json" in request.headers.get("Accept", ""):
        return JsonResponse({}, status=202)
    return redirect("index")


@require_GET
async def asset(request: HttpRequest, name: str) -> HttpResponse:
    """Send one of the page's own files."""
    if name not in ASSETS:
        raise Http404
    kind, _ = mimetypes.guess_type(name)
    return HttpResponse(
        ASSETS[name].read_bytes(),
        content_type=kind,
        headers={"Cache-Control": "no-cache"},
    )
