"""Answers that say which error it was."""

from __future__ import annotations

import psycopg
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.deprecation import MiddlewareMixin
from psycopg import DataError, InterfaceError, OperationalError, ProgrammingError


class TellErrors(MiddlewareMixin):
    """Turn an exception in a view into JSON, for the load generator to count."""

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> JsonResponse | None:
        if isinstance(exception, Http404):
            return None
        return JsonResponse(
            {
                "error": kind_of(exception),
                "sqlstate": sqlstate_of(exception),
                "message": str(exception),
            },
            status=500,
        )


def kind_of(exception: Exception) -> str:
    """Name its kind as Django would: psycopg's own have a class for each sqlstate."""
    kinds = (OperationalError, InterfaceError, DataError, ProgrammingError)
    for kind in kinds:
        if isinstance(exception, kind):
            return kind.__name__
    return type(exception).__name__


def sqlstate_of(exception: Exception) -> str | None:
    # Django's exceptions are caused by psycopg's.
    cause = exception if isinstance(exception, psycopg.Error) else exception.__cause__
    return getattr(cause, "sqlstate", None)
