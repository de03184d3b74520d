"""Columns of types that PostgreSQL lets a database define.

Each needs three things: the type, which a migration creates; the name of the type,
which the field knows; and what a value is in Python, which psycopg is told once a
process (`catalogue.apps`). A value then needs no conversion of its own here.
"""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib.postgres.fields.ranges import RangeField
from django.contrib.postgres.forms.ranges import BaseRangeField
from django.core.exceptions import ValidationError
from django.db import models
from psycopg.types.range import Range

from .forms import DimensionsFormField
from .values import Dimensions, Status


class CaseInsensitiveTextField(models.TextField):  # type: ignore[type-arg]
    """Text that compares without regard to case: PostgreSQL's ``citext``."""

    def db_type(self, connection: Any) -> str:
        return "citext"


class StatusField(models.TextField):  # type: ignore[type-arg]
    """An enum: a member of `Status`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["choices"] = Status.choices
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        # The labels are the type's, and the type is the migrations'.
        name, path, args, kwargs = super().deconstruct()
        del kwargs["choices"]
        return name, path, args, kwargs

    def db_type(self, connection: Any) -> str:
        return "status"

    def to_python(self, value: Any) -> Status | None:
        try:
            return None if value is None else Status(value)
        except ValueError:
            raise ValidationError(
                self.error_messages["invalid_choice"],
                code="invalid_choice",
                params={"value": value},
            ) from None


class DimensionsField(models.Field):  # type: ignore[type-arg]
    """A composite: `Dimensions`."""

    description = "Width, depth and height"
    empty_strings_allowed = False

    def db_type(self, connection: Any) -> str:
        return "dimensions"

    def to_python(self, value: Any) -> Dimensions | None:
        if value is None or isinstance(value, Dimensions):
            return value
        # A string is what value_to_string() made of it.
        return Dimensions.parse(json.loads(value) if isinstance(value, str) else value)

    def value_to_string(self, obj: models.Model) -> Any:
        value = self.value_from_object(obj)
        return None if value is None else json.dumps(value, default=str)

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"form_class": DimensionsFormField, **kwargs})


class CelsiusRangeFormField(BaseRangeField):
    base_field = forms.FloatField
    range_type = Range


class CelsiusRangeField(RangeField):  # type: ignore[type-arg]
    """A range type of one's own: from a temperature to a temperature."""

    base_field = models.FloatField
    range_type = Range
    form_field = CelsiusRangeFormField

    def db_type(self, connection: Any) -> str:
        return "celsius"
