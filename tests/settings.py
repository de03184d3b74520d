"""Settings of the tests: two aliases that lead nowhere until a fixture points them."""

from importlib.util import find_spec

SECRET_KEY = "tests only"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "shop",
        "HOST": "127.0.0.1",
        "PORT": "1",
        "USER": "postgres",
    },
}
INSTALLED_APPS = ["django_pg_hot_async", "django.contrib.postgres", "tests.shop"]
if find_spec("django_async_backend"):
    INSTALLED_APPS.append("django_async_backend")
    # Its receivers of request signals need a running task; most tests have none.
    ASYNC_BACKEND_DISABLE_REQUEST_SIGNALS = True
    ASYNC_BACKEND_DISABLE_POOL_WARNING = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
