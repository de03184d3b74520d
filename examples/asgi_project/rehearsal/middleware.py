"""FOR THE DEMO ONLY: answers that say which error it was."""

from __future__ import annotations

from django.http import Http404, HttpRequest, JsonResponse
from django.utils.deprecation import MiddlewareMixin


class TellErrors(MiddlewareMixin):
    """Turn an exception in a view into JSON, for the load generator to count."""

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> JsonResponse | None:
        if isinstance(exception, Http404):
            return None
        return JsonResponse(
            {
                "error": type(exception).__name__,
                "sqlstate": getattr(exception.__cause__, "sqlstate", None),
                "message": str(exception),
            },
            status=500,
        )
