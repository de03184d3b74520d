"""What a product is made of, in Python; the types in PostgreSQL are named alike."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from psycopg.types.range import Range


class Status(models.TextChoices):
    """The enum ``status``: the values are its labels."""

    DRAFT = "draft"
    ON_SALE = "on sale"
    RETIRED = "retired"


class Unit(models.TextChoices):
    MM = "mm"
    CM = "cm"
    M = "m"


class Dimensions(NamedTuple):
    """The composite ``dimensions``: the same attributes in the same order."""

    width: Decimal
    depth: Decimal
    height: Decimal
    unit: str

    @classmethod
    def parse(cls, values: Iterable[Any]) -> Dimensions:
        """Make one of what a form or JSON has; raise `ValidationError`."""
        try:
            *lengths, unit = values
            width, depth, height = (
                Decimal(length).quantize(Decimal("0.01")) for length in lengths
            )
            if not 0 < min(width, depth, height) <= max(width, depth, height) < 10**6:
                raise ValueError("too small or too large")
            return cls(width, depth, height, Unit(unit).value)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValidationError(
                "Three lengths above 0 and a unit (mm, cm, m) expected.",
                code="invalid",
            ) from error


class ColumnEncoder(DjangoJSONEncoder):
    """JSON of any column: decimals are strings, a range is its two bounds."""

    def default(self, o: Any) -> Any:
        if isinstance(o, Range):
            return [o.lower, o.upper]
        return super().default(o)
