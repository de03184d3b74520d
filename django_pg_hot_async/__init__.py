"""Keep a running Django right when the PostgreSQL server behind an alias changes.

Add ``"django_pg_hot_async"`` to ``INSTALLED_APPS``; there is nothing else to do::

    INSTALLED_APPS = ["django_pg_hot_async", "django.contrib.postgres", ...]

    from django_pg_hot_async import forget, register_type, status
    register_type("mood", EnumInfo, register_enum, enum=Mood)  # a type of your own
    forget("default")  # every connection of "default" asks its server again
    status()  # what this process knows of its servers, as plain dicts
"""

from ._django.control import forget
from ._django.declare import register_type
from ._operator.status import status

__all__ = ["forget", "register_type", "status"]
