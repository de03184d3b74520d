"""Taking out of definitions what two releases print differently, and no one means.

Each step names what it is for; ``tests/test_preflight_pairs.py`` compares untouched
replicas of every pair of releases.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .facts import Facts, quoted

Level = Callable[[str], str]

# CREATE INDEX ... WITH (fillfactor=90): how it is stored, and not what it does.
_STORAGE = re.compile(r" WITH \([^)]*\)")
_COST = re.compile(r"\s+(?:COST|ROWS) [\d.]+")
_NAME = r'(?:"(?:[^"]|"")*"|[a-z_][\w$]*)'
_QUALIFIED = re.compile(rf"(?<![\w'.\"]){_NAME}\.(?={_NAME})")


def level_schemas(blue: Facts, green: Facts) -> Level:
    """Return what takes off the names of schemas that an extension moved between.

    The extension that moved is a finding of its own; every index, function and view
    that names something of it would be one more.
    """
    here, there = blue.of("extensions"), green.of("extensions")
    moved = {
        schema
        for name in here.keys() & there.keys()
        if here[name].schema != there[name].schema
        for schema in (here[name].schema, there[name].schema)
    }
    if not moved:
        return str
    names = "|".join(re.escape(quoted(schema)) for schema in sorted(moved))
    pattern = re.compile(rf"(?<![\w.\"])(?:{names})\.")
    return lambda text: pattern.sub("", text)


def level_names(blue: Facts, green: Facts) -> Level:
    """Return what takes the qualification off the columns of a query.

    16 and later leave out the table's name where a query reads one table: ``SELECT
    n`` instead of ``SELECT sales.n``. What a view is made of is compared apart.
    """
    if (blue.major < 16) == (green.major < 16):
        return str
    return lambda text: _QUALIFIED.sub("", text)


def without_cost(definition: str) -> str:
    """Take COST and ROWS out of a function's definition: they change plans alone."""
    head, mark, body = definition.partition("\nAS ")
    return _COST.sub("", head) + mark + body


def without_storage(definition: str) -> str:
    return _STORAGE.sub("", definition)


def without_name(definition: str, name: str) -> str:
    """Take the *name* of an index, trigger or policy out of its definition."""
    return definition.replace(f" {quoted(name)} ", " ", 1)
