"""Whether the app is installed where types are declared for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps

if TYPE_CHECKING:
    from django.core.checks import CheckMessage

APP = "django_pg_hot_async"
GROUP = "declared"
"""What `register_type()` keeps its types under."""


def check_installed(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Tell of declared types that nothing loads; `register_type()` registers this."""
    # Not at import: `import django_pg_hot_async` loads neither django.db nor psycopg.
    from django.core.checks import Warning

    from django_pg_hot_async._core.runtime import runtime

    if apps.is_installed(APP) or not runtime.group(GROUP):
        return []
    return [
        Warning(
            f"register_type() is called, and {APP!r} is not in INSTALLED_APPS: no"
            " declared type is loaded or sent.",
            hint=f"Add {APP!r} to INSTALLED_APPS.",
            id=f"{APP}.W010",
        )
    ]
