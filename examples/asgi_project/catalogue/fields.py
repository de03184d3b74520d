"""The column type that Django no longer brings along."""

from __future__ import annotations

from typing import Any

from django.db import models


class CaseInsensitiveTextField(models.TextField):  # type: ignore[type-arg]
    """Text that compares without regard to case: PostgreSQL's ``citext``."""

    def db_type(self, connection: Any) -> str:
        return "citext"
