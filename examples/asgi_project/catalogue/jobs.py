"""What happens to products without a request."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.db import transaction
from django.utils import timezone

from .models import Product
from .values import Status

AT_ONCE = 500


def follow_the_calendar(today: date) -> dict[str, int]:
    """Put drafts on sale whose days have come, and retire what is past its days.

    Return how many of each.
    """
    products = Product.objects.all()
    due = products.filter(status=Status.DRAFT, valid__contains=today)
    over = products.exclude(status=Status.RETIRED).filter(valid__fully_lt=(today, None))
    return {
        "put on sale": move(due, Status.ON_SALE),
        "retired": move(over, Status.RETIRED),
    }


@transaction.atomic
def move(products: Any, status: Status) -> int:
    """Give the first of *products* a *status*; those being changed are left alone."""
    rows = list(products.select_for_update(skip_locked=True).order_by("pk")[:AT_ONCE])
    for product in rows:
        product.status = status
        product.changed_at = timezone.now()
        product.prove()
    Product.objects.bulk_update(rows, ["status", "changed_at", "proof"])
    return len(rows)
