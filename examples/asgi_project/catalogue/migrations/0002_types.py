# ruff: noqa: RUF012
import django.contrib.postgres.fields.ranges
from django.db import migrations, models
from django.utils import timezone

import catalogue.fields


class Migration(migrations.Migration):
    """Types of the catalogue's own, each with the way back, and their columns."""

    dependencies = [("catalogue", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "CREATE TYPE status AS ENUM ('draft', 'on sale', 'retired')",
            "DROP TYPE status",
        ),
        migrations.RunSQL(
            "CREATE TYPE dimensions AS (width numeric(8, 2), depth numeric(8, 2),"
            " height numeric(8, 2), unit text)",
            "DROP TYPE dimensions",
        ),
        migrations.RunSQL(
            "CREATE TYPE celsius AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi)",
            "DROP TYPE celsius",
        ),
        migrations.AddField(
            model_name="product",
            name="status",
            field=catalogue.fields.StatusField(default="draft"),
        ),
        migrations.AddField(
            model_name="product",
            name="dimensions",
            field=catalogue.fields.DimensionsField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="product",
            name="valid",
            field=django.contrib.postgres.fields.ranges.DateRangeField(
                blank=True, help_text="empty: always", null=True
            ),
        ),
        migrations.AddField(
            model_name="product",
            name="stored_at",
            field=catalogue.fields.CelsiusRangeField(
                blank=True, help_text="°C", null=True
            ),
        ),
        migrations.AddField(
            model_name="product",
            name="changed_at",
            field=models.DateTimeField(
                auto_now=True, db_index=True, default=timezone.now
            ),
            preserve_default=False,
        ),
    ]
