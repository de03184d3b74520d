"""The table that queries are about."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField, HStoreField
from django.db import models


class Product(models.Model):
    name = models.TextField()
    made = models.DateTimeField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    attrs = HStoreField()
    tags = ArrayField(models.TextField())
    objects: Any = models.Manager()

    class Meta:
        app_label = "benchmarks"
        managed = False
        db_table = "product"
