# ruff: noqa: RUF012
import os

from django.contrib.postgres.fields import ArrayField, HStoreField
from django.contrib.postgres.operations import CITextExtension, HStoreExtension
from django.db import migrations, models

from shop.models import CITextField

# As somebody may have written it, to be refused where the extension is there.
RAW = [migrations.RunSQL("create extension hstore; create extension citext")]


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        *(RAW if "RAW_SQL" in os.environ else [HStoreExtension(), CITextExtension()]),
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("attrs", HStoreField()),
                ("tags", ArrayField(CITextField(), default=list)),
            ],
        ),
    ]
