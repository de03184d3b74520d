"""The example's settings, with what the demo turns on and off.

To copy: ``examples/asgi_project/asgi_project/settings.py``, not this.
"""

import os

from asgi_project.settings import *  # noqa: F403
from asgi_project.settings import INSTALLED_APPS

# No admin, and none of what it needs: the demo has better things to do.
INSTALLED_APPS = [
    app
    for app in INSTALLED_APPS
    if app in ("django_pg_hot_async", "django.contrib.postgres", "catalogue")
]

if os.environ.get("DEMO_WITHOUT_APP") == "1":
    # The run that shows what happens without the app.
    INSTALLED_APPS.remove("django_pg_hot_async")
    INSTALLED_APPS.append("demo.usual.UsualConfig")

# What the page asks each worker.
ROOT_URLCONF = "demo.urls"

# One that tells the load generator what went wrong, not only that something did.
# Not the usual ones: each costs a request two changes of thread, and the demo's
# small machine has better things to do.
MIDDLEWARE = ["demo.middleware.TellErrors"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(process)d %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        "django_pg_hot_async": {"handlers": ["stderr"], "level": "INFO"},
        # Hundreds of tracebacks in the run without the app; they are counted.
        "django.request": {"level": "CRITICAL"},
    },
}
