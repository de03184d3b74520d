"""INNER_DATABASE is an entry of DATABASES as JSON; INNER_APP asks for the app."""

import json
import os

SECRET_KEY = "tests only"
USE_TZ = True
DATABASES = {"default": json.loads(os.environ["INNER_DATABASE"])}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.postgres",
    "tests.inner.warehouse",
]
if os.environ.get("INNER_APP"):
    INSTALLED_APPS.insert(0, "django_pg_hot_async")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
