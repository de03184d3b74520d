"""The chart: a dot for each ratio, on a card that is light or dark as the reader's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from .runs import Figure

WIDTH, LEFT, RIGHT, TOP, STEP = 880, 430, 130, 64, 34
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)

# A colour and a shape each, so that neither has to be told from the other alone.
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.card { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #d1d9e0 }
.one, .target { stroke: #59636e; stroke-width: 1.5 }
.met { fill: #1a7f37; stroke: #1a7f37 }
.missed { fill: #bc4c00; stroke: #bc4c00 }
.plain { fill: #0969da; stroke: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .small { fill: #9198a1 }
  .card { fill: #0d1117; stroke: #3d444d }
  .grid { stroke: #3d444d }
  .one, .target { stroke: #9198a1 }
  .met { fill: #3fb950; stroke: #3fb950 }
  .missed { fill: #f0883e; stroke: #f0883e }
  .plain { fill: #4493f8; stroke: #4493f8 }
}
"""
NOTE = (
    "Ratio, less is less cost. Dot: median; line through it: quartiles;"
    " upright: target; diamond: target missed."
)


def write(path: Path, figures: Iterable[Figure]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(draw([f for f in figures if f.row.kind == "ratio"]))


def draw(figures: list[Figure]) -> str:
    """Return the SVG for ratios, one below the other."""
    values = [
        value for f in figures for value in (f.value, *f.quartiles, *_bound(f), 1)
    ]
    low = max([tick for tick in TICKS if tick <= min(values)] or TICKS[:1])
    high = min([tick for tick in TICKS if tick >= max(values)] or TICKS[-1:])
    scale = (WIDTH - LEFT - RIGHT) / math.log(high / low)

    def x(value: float) -> float:
        return round(LEFT + scale * math.log(min(max(value, low), high) / low), 1)

    height = TOP + STEP * len(figures) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img">',
        "<title>Costs with django-pg-hot-async, against Django's own</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}"'
        f' height="{height - 1}" rx="6"/>',
        f'<text class="small" x="16" y="24">{NOTE}</text>',
    ]
    for tick in TICKS:
        if low <= tick <= high:
            name = "one" if tick == 1 else "grid"
            lines += [
                f'<path class="{name}" d="M{x(tick)} {TOP - 12}V{height - 12}"/>',
                f'<text class="small" x="{x(tick)}" y="{TOP - 18}"'
                f' text-anchor="middle">{tick:g}</text>',
            ]
    for number, figure in enumerate(figures):
        y = TOP + STEP * number + STEP // 2
        lines += _row(figure, y, *map(x, (figure.value, *figure.quartiles)))
        lines += [
            f'<path class="target" d="M{x(bound)} {y - 9}v18"/>'
            for bound in _bound(figure)
        ]
    return "\n".join([*lines, "</svg>", ""])


def _bound(figure: Figure) -> tuple[float, ...]:
    return (figure.row.target.value,) if figure.row.target else ()


def _row(figure: Figure, y: int, x: float, low: float, high: float) -> Iterator[str]:
    row = figure.row
    name = {True: "met", False: "missed", None: "plain"}[figure.is_met]
    shape = f"M{x - 6} {y}l6 -6 6 6 -6 6z"
    if figure.is_met is not False:
        shape = f"M{x - 5} {y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z"
    text = f"{figure.value:.2f}"
    if row.target:
        text += f" ({row.target})"
    yield f'<text x="16" y="{y - 1}">{escape(row.title)}</text>'
    yield (
        f'<text class="small" x="16" y="{y + 12}">against {escape(row.beside)}</text>'
    )
    yield f'<path class="{name}" d="M{low} {y}H{high}" stroke-width="2"/>'
    yield f'<path class="{name}" d="{shape}"/>'
    yield f'<text x="{WIDTH - 16}" y="{y + 4}" text-anchor="end">{text}</text>'
