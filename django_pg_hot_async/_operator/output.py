"""What the commands print, and end with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

YES = 0
"""Exit status where what was asked for is so."""
NO = 1
"""Exit status where it is not so, yet."""
CANNOT_TELL = 2
"""Exit status where it cannot be found out, and asking again would not help."""


def as_json(data: Any) -> str:
    """Write *data* for programs."""
    return json.dumps(data, indent=2)


def count(number: int, noun: str) -> str:
    """Write how many there are of something whose plural ends in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(rows: Sequence[Sequence[str]], *, right: int | None = None) -> Iterator[str]:
    """Write *rows* in columns; those from the number *right* on end flush."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            cell.rjust(width) if right is not None and n >= right else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
