"""The catalogue in Django's admin: nothing here knows of servers either."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.widgets import AdminTextareaWidget
from django.http import HttpRequest

from .models import Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "status", "price", "dimensions", "valid", "changed_at")
    list_filter = ("status",)
    search_fields = ("name",)
    readonly_fields = ("changed_at", "proof")

    def formfield_for_dbfield(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> Any:
        if db_field.name == "labels":
            # One a line: a comma may be part of a label.
            kwargs |= {"delimiter": "\n", "widget": AdminTextareaWidget}
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: Product, form: Any, change: bool
    ) -> None:
        obj.prove()
        super().save_model(request, obj, form, change)
