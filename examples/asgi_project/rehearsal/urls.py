"""FOR THE DEMO ONLY: the example's addresses, and what the process knows."""

from asgi_project.urls import urlpatterns as example
from django.urls import path

from .knowledge import tell

urlpatterns = [*example, path("rehearsal/worker/", tell)]
