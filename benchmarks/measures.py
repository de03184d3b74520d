"""What is measured, against what, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Metrics = dict[str, float]
Run = Callable[[int], Metrics]
"""Does something so many times; returns what one time took, by metric."""
Workload = Callable[..., Run]
"""Made in a worker process after `django.setup()`, with the variant's options."""

APP = ("django_pg_hot_async", "django.contrib.postgres")
CONTRIB = ("django.contrib.postgres",)
BARE: tuple[str, ...] = ()

CONTROL = "control"
"""A second process of a measure's baseline: how far two equal things differ."""


SIGNS = {"<=": "≤", ">=": "≥"}


@dataclass(frozen=True)
class Variant:
    """One of the processes that a measure compares."""

    apps: tuple[str, ...]
    database: Mapping[str, Any] = field(default_factory=dict)
    """What its entry in DATABASES has besides where the server is."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the workload."""
    trust: str = "auto"
    """``PG_HOT_ASYNC["TRUST"]``, where the app is in *apps*."""


@dataclass(frozen=True)
class Target:
    """What a figure should be; nothing fails where it is not."""

    sign: str
    value: float

    def __str__(self) -> str:
        return self.show(f"{self.value:.2f}")

    def show(self, value: str) -> str:
        """Write it with *value* written some other way."""
        return f"{SIGNS.get(self.sign, self.sign)} {value}"

    def is_met_by(self, figure: float) -> bool:
        if self.sign == "<=":
            return figure <= self.value
        return figure >= self.value if self.sign == ">=" else figure == self.value


def at_most(value: float) -> Target:
    return Target("<=", value)


def at_least(value: float) -> Target:
    return Target(">=", value)


def exactly(value: float) -> Target:
    return Target("=", value)


@dataclass(frozen=True)
class Row:
    """A line of the table: a metric of one variant, alone or beside another's."""

    title: str
    variant: str
    metric: str
    against: str | None = None
    beside: str = ""
    """What *against* is, in words."""
    target: Target | None = None
    kind: str = "ratio"
    """``ratio`` to, ``difference`` from *against*; ``plain`` without it."""
    unit: str = "s"


@dataclass(frozen=True)
class Measure:
    """Variants of one thing, run by turns, and the lines they give."""

    name: str
    workload: str
    """``module.function`` in `benchmarks.workloads`."""
    variants: Mapping[str, Variant]
    rows: tuple[Row, ...]
    control: str | None = None
    """The variant to run twice, as a control."""
    times: int | None = None
    """How often to do it, in a single round; None to have as many rounds as asked
    for, and in each as many times as take one turn."""
    processes: int | None = None
    """How many times to start the variants anew; None for as many as asked for."""
    statements: int = 0
    """How often to do it once more with the server's log on, to count statements."""
    needs: str = ""
    """``postgis``, ``async backend`` or ``two servers``."""
