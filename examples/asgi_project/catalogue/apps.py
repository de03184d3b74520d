"""The types of the catalogue's columns, declared to psycopg."""

from django.apps import AppConfig
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.range import RangeInfo, register_range

from django_pg_hot_async import register_type


class CatalogueConfig(AppConfig):
    name = "catalogue"

    def ready(self) -> None:
        """Declare each type once, by name; for every connection, on every server.

        Nothing is asked of a database here. ``hstore`` and ``citext`` need no such
        line: they are tracked wherever ``django.contrib.postgres`` is.
        """
        # After the apps' registry is ready, for the models' sake.
        from .values import Dimensions, Status

        register_type(
            "status",
            EnumInfo,
            register_enum,
            enum=Status,
            mapping={status: status.value for status in Status},
        )
        register_type(
            "dimensions", CompositeInfo, register_composite, factory=Dimensions
        )
        register_type("celsius", RangeInfo, register_range)
