"""Keep a running Django right when the PostgreSQL server behind an alias changes.

Add ``"django_pg_hot_async"`` to ``INSTALLED_APPS``; there is nothing else to do::

    INSTALLED_APPS = ["django_pg_hot_async", "django.contrib.postgres", ...]
    PG_HOT_ASYNC = {"TRUST": "connection"}  # optional; this is the default

    from django_pg_hot_async import forget, register_type
    register_type("mood", EnumInfo, register_enum, enum=Mood)  # a type of your own
    forget("default")  # read OIDs again before anything of "default" is decoded
"""

from ._control import forget, work_unit
from ._status import status
from ._types import register_type

__all__ = ["forget", "register_type", "status", "work_unit"]
