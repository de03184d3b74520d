from django.contrib.postgres.fields import ArrayField, HStoreField
from django.db import models


class CITextField(models.TextField):
    def db_type(self, connection):
        return "citext"


class Order(models.Model):
    attrs = HStoreField()
    tags = ArrayField(CITextField(), default=list)
