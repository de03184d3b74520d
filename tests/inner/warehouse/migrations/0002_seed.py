# ruff: noqa: RUF012
from django.db import migrations


def seed(apps, schema_editor):
    """Right after the extensions were created, in the same process."""
    item = apps.get_model("warehouse", "Item")
    item.objects.create(name="seed", attrs={"from": "migration"}, tags=["Old"])
    attrs, tags = item.objects.values_list("attrs", "tags").get(name="seed")
    assert (attrs, tags) == ({"from": "migration"}, ["Old"]), (attrs, tags)


class Migration(migrations.Migration):
    dependencies = [("warehouse", "0001_initial")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop)]
