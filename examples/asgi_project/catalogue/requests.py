"""From a request to a product, and from products to an answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.core.exceptions import BadRequest, ValidationError
from django.db.backends.postgresql.psycopg_any import DateRange
from django.http import HttpRequest, JsonResponse
from psycopg.types.range import Range

from .models import Product, ProductQuerySet
from .values import ColumnEncoder, Dimensions, Status

ROWS = 10


def as_is(value: Any) -> Any:
    return value


def days(value: Any) -> DateRange:
    """Make a range of ``["2026-01-01", null]``: from a day on, to before another."""
    lower, upper = (day and date.fromisoformat(day) for day in value)
    return DateRange(lower, upper)


def degrees(value: Any) -> Range[float]:
    lower, upper = (degree if degree is None else float(degree) for degree in value)
    return Range(lower, upper)


# What a client may write, and how that is read from JSON.
READ: dict[str, Callable[[Any], Any]] = {
    "name": as_is,
    "price": as_is,
    "attributes": as_is,
    "labels": as_is,
    "status": as_is,
    "dimensions": Dimensions.parse,
    "valid": days,
    "stored_at": degrees,
    "proof": as_is,
}


@contextmanager
def client_errors() -> Iterator[None]:
    """Answer 400 to what a client got wrong."""
    try:
        yield
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        ValidationError,
    ) as error:
        raise BadRequest(f"not understood: {error}") from error


def fill(product: Product, body: bytes) -> None:
    """Write the JSON object *body* to *product*."""
    with client_errors():
        values = json.loads(body)
        for name, value in values.items():
            setattr(product, name, None if value is None else READ[name](value))
        product.full_clean()
    if "proof" not in values:
        product.prove()


@dataclass(frozen=True)
class Page:
    """The products asked for: ``?after=10&status=on+sale&label=new&on=2026-11-22``."""

    after: int = 0
    status: Status | None = None
    label: str | None = None
    on: date | None = None

    @classmethod
    def of(cls, request: HttpRequest) -> Page:
        asked = request.GET
        with client_errors():
            return cls(
                after=int(asked.get("after", "0")),
                status=Status(asked["status"]) if "status" in asked else None,
                label=asked.get("label"),
                on=date.fromisoformat(asked["on"]) if "on" in asked else None,
            )

    def rows(self) -> ProductQuerySet:
        rows = Product.objects.with_server().filter(pk__gt=self.after)
        if self.status is not None:
            rows = rows.filter(status=self.status)
        if self.label is not None:
            rows = rows.filter(labels__contains=[self.label])
        if self.on is not None:
            rows = rows.filter(valid__contains=self.on)
        # Without the labels, as lists often go without something.
        return rows.defer("labels").order_by("pk")[:ROWS]


def summary(product: Any) -> dict[str, Any]:
    return {
        "id": product.pk,
        "name": product.name,
        "price": product.price,
        "attributes": product.attributes,
        "status": product.status,
        "dimensions": product.dimensions,
        "valid": product.valid,
        "stored_at": product.stored_at,
        "proof": product.proof,
        "server": product.server,
    }


def detail(product: Any) -> dict[str, Any]:
    return {
        **summary(product),
        "labels": product.labels,
        "status_label": product.status.label,
    }


def answer(rows: Iterable[dict[str, Any]], status: int = 200) -> JsonResponse:
    content = {"pid": os.getpid(), "products": list(rows)}
    return JsonResponse(content, status=status, encoder=ColumnEncoder)
