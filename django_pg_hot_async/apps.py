"""The Django app."""

from django.apps import AppConfig


class DjangoPgHotAsyncConfig(AppConfig):
    """Look after every PostgreSQL connection from `ready()` on."""

    name = "django_pg_hot_async"
    verbose_name = "PostgreSQL server changes"

    def ready(self) -> None:
        """Take the places and connect the receivers; nothing is sent anywhere.

        Raise `ImproperlyConfigured` where ``PG_HOT_ASYNC`` is wrong.
        """
        from . import _receiver

        _receiver.install()
