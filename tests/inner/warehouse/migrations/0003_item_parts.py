# ruff: noqa: RUF012
import django.contrib.postgres.fields
import django.contrib.postgres.fields.hstore
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("warehouse", "0002_seed")]
    operations = [
        migrations.AddField(
            model_name="item",
            name="parts",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=django.contrib.postgres.fields.hstore.HStoreField(),
                default=list,
                size=None,
            ),
        ),
    ]
