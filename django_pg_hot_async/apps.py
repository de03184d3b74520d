"""The Django app."""

import logging
from types import ModuleType

from django.apps import AppConfig

logger = logging.getLogger("django_pg_hot_async")


class DjangoPgHotAsyncConfig(AppConfig):
    """Track every PostgreSQL connection from `ready()` on."""

    name = "django_pg_hot_async"
    verbose_name = "PostgreSQL server changes"

    def __init__(self, app_name: str, app_module: ModuleType | None) -> None:
        super().__init__(app_name, app_module)
        from . import checks

        # Not in ready(): that a subclass has a ready() of its own, and calls ours
        # no more, is one of the things to be told.
        checks.register()

    def ready(self) -> None:
        """Take the places and connect the receivers; nothing is sent anywhere.

        Without psycopg 3 nothing is done at all, as the log and the system checks
        say. Raise `ImproperlyConfigured` where ``PG_HOT_ASYNC`` is wrong.
        """
        from . import checks
        from ._django.driver import why_no_psycopg

        if why_no_psycopg():
            for problem in checks.check_psycopg():
                logger.error("%s", problem.msg)
            return
        from ._django import startup

        startup.install()
