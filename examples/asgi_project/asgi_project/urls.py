from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("catalogue.urls")),
    path("admin/", admin.site.urls),
]

if settings.DEBUG:
    # The admin's own files; in production another web server has them.
    urlpatterns += staticfiles_urlpatterns()
