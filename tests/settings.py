"""Settings of the tests: two aliases that lead nowhere until a fixture points them."""

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
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
