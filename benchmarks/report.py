"""The table that is printed, and the JSON that is written."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from psycopg import pq

from .runs import Figure

UNITS = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B": ((2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "": ((1.0, ""),),
}
HEADINGS = (
    "measure",
    "against",
    "figure",
    "quartiles",
    "control",
    "target",
    "met",
    "medians",
)


def show(value: float, unit: str) -> str:
    """Write *value* with three digits, in the unit that suits it."""
    scale, name = next(
        ((scale, name) for scale, name in UNITS[unit] if abs(value) >= scale),
        UNITS[unit][-1],
    )
    return f"{value / scale:.3g} {name}".strip()


def cells(figure: Figure) -> list[str]:
    row = figure.row
    is_ratio = row.kind == "ratio"

    def written(value: float) -> str:
        return f"{value:.3f}" if is_ratio else show(value, row.unit)

    low, high = figure.quartiles
    target = ""
    if row.target:
        target = str(row.target)
        if not is_ratio:
            target = row.target.show(show(row.target.value, row.unit))
    medians = [show(figure.variant, row.unit)]
    if figure.against is not None:
        medians.append(show(figure.against, row.unit))
    return [
        row.title,
        row.beside,
        written(figure.value),
        f"{written(low)} - {written(high)}" if low != high else "",
        "" if figure.control is None else f"{figure.control:.3f}",
        target,
        {True: "yes", False: "no", None: ""}[figure.is_met],
        " : ".join(medians) if figure.against is not None else "",
    ]


def markdown(figures: list[Figure]) -> str:
    """Return the table, aligned."""
    lines = [list(HEADINGS), *map(cells, figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        )
        + " |"
        for line in lines
    )


def environment(server: int) -> dict[str, Any]:
    """What the figures were measured with."""
    packages = ("Django", "psycopg", "psycopg-pool", "django-async-backend")
    return {
        "python": sys.version.split()[0],
        "postgresql": f"{server // 10000}.{server % 10000}",
        "libpq": pq.version(),
        "psycopg implementation": pq.__impl__,
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in packages if _is_installed(name)},
    }


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ImportError:
        return False


def write_json(path: Path, figures: list[Figure], about: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "environment": about,
        "figures": [
            dataclasses.asdict(figure) | {"met": figure.is_met} for figure in figures
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
