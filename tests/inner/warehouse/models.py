from django.contrib.postgres.fields import ArrayField, HStoreField
from django.db import models


class CITextField(models.TextField):  # type: ignore[type-arg]
    """A case-insensitive text."""

    def db_type(self, connection):
        return "citext"


class Item(models.Model):
    name = models.TextField(unique=True)
    attrs = HStoreField(default=dict)
    tags = ArrayField(CITextField(), default=list)
    parts = ArrayField(HStoreField(), default=list)
