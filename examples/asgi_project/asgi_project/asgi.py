"""``uvicorn asgi_project.asgi:application`` serves the example."""

import os

from django.core.asgi import get_asgi_application

from .lifespan import with_lifespan
from .pools import close_pools_at_exit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "asgi_project.settings")

django_application = get_asgi_application()
close_pools_at_exit()

# After the line that sets Django up.
from . import async_pool  # noqa: E402

application = with_lifespan(
    django_application, startup=async_pool.open_pool, shutdown=async_pool.close_pool
)
