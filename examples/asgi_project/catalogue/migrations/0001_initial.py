# ruff: noqa: RUF012
from decimal import Decimal

import django.contrib.postgres.fields
import django.contrib.postgres.fields.hstore
from django.contrib.postgres.operations import CITextExtension, HStoreExtension
from django.db import migrations, models

import catalogue.fields


class Migration(migrations.Migration):
    """Extensions first; one that is there already is left as it is.

    PostgreSQL hands out OIDs in the order things are created. Where somebody
    made ``citext`` before this ran, every type below has another OID.
    """

    initial = True

    dependencies = []

    operations = [
        HStoreExtension(),
        CITextExtension(),
        migrations.CreateModel(
            name="Product",
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
                ("name", models.TextField()),
                (
                    "price",
                    models.DecimalField(
                        decimal_places=2, default=Decimal(0), max_digits=10
                    ),
                ),
                (
                    "attributes",
                    django.contrib.postgres.fields.hstore.HStoreField(
                        blank=True, default=dict
                    ),
                ),
                (
                    "labels",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=catalogue.fields.CaseInsensitiveTextField(),
                        blank=True,
                        default=list,
                        size=None,
                    ),
                ),
                ("proof", models.TextField(editable=False)),
            ],
        ),
    ]
