"""What every answer of the page comes with, and who gets none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from django.http import HttpRequest, HttpResponseBase, HttpResponseForbidden
from django.utils.decorators import async_only_middleware

from demo.room import room_of

HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

GetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


@async_only_middleware
def harden(get_response: GetResponse) -> GetResponse:
    """Answer under one of this machine's own names, with `HEADERS`.

    And, where the page has buttons, this machine alone.
    """

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase
        is_here = ip_address(request.META["REMOTE_ADDR"]).is_loopback
        if not (is_here or room_of(request).commands):
            response = HttpResponseForbidden("from this machine only")
        else:
            request.get_host()  # raises for a name that is not in ALLOWED_HOSTS
            response = await get_response(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return middleware
