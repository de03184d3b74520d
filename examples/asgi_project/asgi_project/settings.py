"""Settings of a Django project whose database may move to another server.

What matters for the move is marked (1) to (3). The rest is any project's. This app
needs no setting of its own, whichever route leads to the database.
"""

import os
from typing import Any

import django

from .pools import check_connection

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "for-the-example-only")
DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1").split(",")

INSTALLED_APPS = [
    "django_pg_hot_async",  # (1) all it takes
    "django.contrib.postgres",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "catalogue",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# Only the admin has sessions, and they need no table.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

ROOT_URLCONF = "asgi_project.urls"
ASGI_APPLICATION = "asgi_project.asgi.application"
STATIC_URL = "static/"

DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "USER": os.environ.get("DATABASE_USER", "shop"),
        "PASSWORD": os.environ.get("DATABASE_PASSWORD", ""),
        "OPTIONS": {
            # Under ASGI every request has a thread, and so a connection, of its
            # own; the pool spares it the connecting. A cutover may hold a
            # request back for some seconds, hence the time limit.
            "pool": {"min_size": 2, "max_size": 8, "timeout": 30},
        },
    }
}

# (2) That a connection has ended is found out when the pool hands it out, not by
# a request's query.
if django.VERSION >= (6, 1):
    DATABASES["default"]["OPTIONS"]["pool"]["check"] = check_connection
else:
    # The pool takes no other check then, and goes about it slowly: see there.
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True

# Two routes to the database; keep the one you have.
if "DATABASE_SERVICE" in os.environ:
    # A libpq service: each new connection looks up where the server is, in the
    # file that PGSERVICEFILE names. A DNS name works like that, too. A cutover
    # points it at the new server and ends the old connections.
    DATABASES["default"]["OPTIONS"]["service"] = os.environ["DATABASE_SERVICE"]
else:
    # PgBouncer in transaction mode. A cutover moves *live* connections to the new
    # server, between two transactions: this app notices by itself.
    DATABASES["default"]["HOST"] = os.environ.get("DATABASE_HOST", "127.0.0.1")
    DATABASES["default"]["PORT"] = os.environ.get("DATABASE_PORT", "6432")
    DATABASES["default"]["NAME"] = os.environ.get("DATABASE_NAME", "shop")
    # (3) A server-side cursor would outlive its transaction, and so its server.
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
