"""The form field of a composite: one input for each of its attributes."""

from __future__ import annotations

from typing import Any

from django import forms

from .values import Dimensions, Unit


class DimensionsWidget(forms.MultiWidget):
    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        length = forms.NumberInput({"step": "0.01", "min": "0.01"})
        unit = forms.Select(choices=[("", ""), *Unit.choices])
        super().__init__([length, length, length, unit], attrs)

    def decompress(self, value: Dimensions | None) -> list[Any]:
        return [None] * 4 if value is None else list(value)


class DimensionsFormField(forms.MultiValueField):
    widget = DimensionsWidget

    def __init__(self, **kwargs: Any) -> None:
        fields = [
            *(forms.DecimalField(max_digits=8, decimal_places=2) for _ in range(3)),
            forms.ChoiceField(choices=Unit.choices),
        ]
        super().__init__(fields, **kwargs)

    def compress(self, data_list: list[Any]) -> Dimensions | None:
        return Dimensions.parse(data_list) if data_list else None
