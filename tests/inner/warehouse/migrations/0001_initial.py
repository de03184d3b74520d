# ruff: noqa: RUF012
import django.contrib.postgres.fields
import django.contrib.postgres.fields.hstore
from django.contrib.postgres.operations import CITextExtension, HStoreExtension
from django.db import migrations, models

import tests.inner.warehouse.models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        HStoreExtension(),
        CITextExtension(),
        migrations.CreateModel(
            name="Item",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("name", models.TextField(unique=True)),
                (
                    "attrs",
                    django.contrib.postgres.fields.hstore.HStoreField(default=dict),
                ),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=tests.inner.warehouse.models.CITextField(),
                        default=list,
                        size=None,
                    ),
                ),
            ],
        ),
    ]
