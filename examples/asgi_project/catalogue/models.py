from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from django.contrib.postgres.fields import ArrayField, HStoreField
from django.db import models

from .fields import CaseInsensitiveTextField


def proof_of(**columns: Any) -> str:
    """Write *columns* of a product the way `Product.proof` keeps them."""
    return json.dumps(columns, sort_keys=True, separators=(",", ":"))


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
    attributes = HStoreField(default=dict)
    labels = ArrayField(CaseInsensitiveTextField(), default=list)
    # What the columns above must be, as a JSON object. Plain text has one OID on
    # every server, so this is read right whatever becomes of the others.
    proof = models.TextField()

    objects = ProductQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name
