"""A project with django-tenants; `test_tenants` runs it in a process of its own.

    python -m tests.tenants PORT BINDING

Two tenants have a ``status`` of their own in their schema, with other labels in
another order. Requests of both, in threads and over few connections, store and read
one; prints how many rows were compared.
"""

from __future__ import annotations

import enum
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import django
from django.conf import settings


class Status(enum.Enum):
    DRAFT = "draft"
    SOLD = "sold"
    LENT = "lent"


MEMBERS = {
    "one": [Status.DRAFT, Status.SOLD],
    "two": [Status.SOLD, Status.LENT, Status.DRAFT],
}


def configure(port: str, server_side_binding: bool) -> None:
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django_tenants.postgresql_backend",
                "NAME": "tenants",
                "HOST": "127.0.0.1",
                "PORT": port,
                "USER": "postgres",
                "CONN_HEALTH_CHECKS": True,
                "OPTIONS": {
                    "pool": {"min_size": 1, "max_size": 2},
                    "server_side_binding": server_side_binding,
                },
            }
        },
        INSTALLED_APPS=["django_pg_hot_async", "django.contrib.contenttypes"],
        USE_TZ=True,
    )
    django.setup()


def main(port: str, binding: str) -> None:
    configure(port, binding == "server")
    from django.db import connection as _connection
    from django.db import models
    from django_tenants.utils import schema_context
    from psycopg.types.enum import EnumInfo, register_enum

    from django_pg_hot_async import register_type

    mapping = {status: status.value for status in Status}
    connection: Any = _connection  # that of the thread, whichever it is
    register_type("status", EnumInfo, register_enum, enum=Status, mapping=mapping)

    class StatusField(models.Field):  # type: ignore[type-arg]
        def db_type(self, connection: Any) -> str:
            return "status"

    class Thing(models.Model):
        status = StatusField()
        objects: Any = models.Manager()

        class Meta:
            app_label = "things"

    for schema, members in MEMBERS.items():
        with connection.cursor() as cursor:
            labels = ", ".join(f"'{member.value}'" for member in members)
            cursor.execute(f"create schema {schema}")
            cursor.execute(f"create type {schema}.status as enum ({labels})")
        with schema_context(schema), connection.schema_editor() as editor:
            editor.create_model(Thing)

    def request(number: int) -> int:
        schema = ["one", "two"][number % 2]
        with closing(connection), schema_context(schema):
            rows = 0
            for member in MEMBERS[schema]:
                thing = Thing.objects.create(status=member)
                assert Thing.objects.get(pk=thing.pk).status is member
                assert Thing.objects.filter(status=member, pk=thing.pk).exists()
                with connection.cursor() as cursor:
                    cursor.execute(
                        "select %s, pg_typeof(%s)::oid = %s::regtype",
                        [member, member, f"{schema}.status"],
                    )
                    assert cursor.fetchone() == (member, True)
                rows += 4
        return rows

    with ThreadPoolExecutor(4) as pool:
        print(sum(pool.map(request, range(40))))
    connection.close_pool()


if __name__ == "__main__":
    main(*sys.argv[1:])
