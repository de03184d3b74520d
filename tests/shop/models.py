from django.contrib.postgres.fields import ArrayField, HStoreField
from django.db import models


class CITextField(models.TextField):  # type: ignore[type-arg]
    """A case-insensitive text; Django removed its own in 5.1."""

    def db_type(self, connection):
        return "citext"


class Product(models.Model):
    """The table is made by the fixtures, in another order on each server."""

    name = models.TextField()
    attrs = HStoreField(null=True)
    tags = ArrayField(CITextField(), null=True)
    parts = ArrayField(HStoreField(), null=True)

    class Meta:
        managed = False
        db_table = "product"
