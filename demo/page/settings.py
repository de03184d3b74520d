"""Settings of the demo's page; the example's are elsewhere."""

from django.core.management.utils import get_random_secret_key

SECRET_KEY = get_random_secret_key()
# The loopback interface's names alone: another site's page cannot get here by
# having its own name point at it.
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["demo.page"]
MIDDLEWARE = [
    "demo.page.security.harden",
    "django.middleware.csrf.CsrfViewMiddleware",
]
ROOT_URLCONF = "demo.page.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.csrf"]},
    }
]
CSRF_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_HTTPONLY = True
USE_TZ = True
