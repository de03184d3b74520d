from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from django.contrib.postgres.fields import ArrayField, DateRangeField, HStoreField
from django.db import models

from .fields import (
    CaseInsensitiveTextField,
    CelsiusRangeField,
    DimensionsField,
    StatusField,
)
from .values import ColumnEncoder, Status

PROVED = ("attributes", "labels", "status", "dimensions", "valid", "stored_at")


class ProductQuerySet(models.QuerySet["Product"]):
    def with_server(self) -> ProductQuerySet:
        """Add ``server``: the version number of the server each row comes from.

        In the row itself, because what a connection says of its server can be
        out of date behind a pooler.
        """
        rows: ProductQuerySet = self.annotate(
            server=models.Func(
                models.Value("server_version_num"),
                function="current_setting",
                output_field=models.TextField(),
            )
        )
        return rows


class Product(models.Model):
    name = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2, default=Decimal(0))
    attributes = HStoreField(default=dict, blank=True)
    labels = ArrayField(CaseInsensitiveTextField(), default=list, blank=True)
    status = StatusField(default=Status.DRAFT)
    dimensions = DimensionsField(null=True, blank=True)
    valid = DateRangeField(null=True, blank=True, help_text="empty: always")
    stored_at = CelsiusRangeField(null=True, blank=True, help_text="°C")
    changed_at = models.DateTimeField(auto_now=True, db_index=True)
    # What the columns above must be, as a JSON object. Plain text has one OID on
    # every server, so this is read right whatever becomes of the others. It is
    # here for the demo, which compares; a catalogue of your own needs none.
    proof = models.TextField(editable=False)

    objects = ProductQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    def prove(self) -> None:
        """Have `proof` say what the other columns hold."""
        self.proof = proof_of(**{name: getattr(self, name) for name in PROVED})


def proof_of(**columns: Any) -> str:
    """Write *columns* of a product the way `Product.proof` keeps them."""
    return json.dumps(columns, cls=ColumnEncoder, sort_keys=True)
