"""A project that rehearses its upgrade; copied and run by test_rehearsal_plugin.py."""

import os

SECRET_KEY = "tests only"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "shop.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sites",
    "django.contrib.postgres",
    "shop",
]
SITE_ID = 1
if "WITHOUT_APP" not in os.environ:
    INSTALLED_APPS.insert(0, "django_pg_hot_async")

DATABASE = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": "127.0.0.1",
    "PORT": os.environ.get("SHOP_PORT", "1"),
    "USER": "postgres",
    "PASSWORD": "secret",
    # None of it may reach the servers of a rehearsal, which have no TLS.
    "OPTIONS": {"sslmode": os.environ.get("SHOP_SSLMODE", "verify-full")},
}
DATABASES = {
    "default": {**DATABASE, "NAME": "shop"},
    "replica": {**DATABASE, "NAME": "shop", "TEST": {"MIRROR": "default"}},
    "archive": {**DATABASE, "NAME": "archive"},
}
