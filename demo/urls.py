"""The example's addresses, and what the process knows."""

from catalogue.urls import urlpatterns as catalogue
from django.urls import path

from .knowledge import tell

urlpatterns = [*catalogue, path("demo/worker/", tell)]
