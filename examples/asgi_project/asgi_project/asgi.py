"""``uvicorn asgi_project.asgi:application`` serves the example."""

import os

from django.core.asgi import get_asgi_application

from .pools import close_pools_at_exit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "asgi_project.settings")

application = get_asgi_application()
close_pools_at_exit()
