"""Comparing what Django keeps in tables of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .facts import Facts, Finding, count
from .query import Query
from .reading import Side
from .rights import may_read

DJANGO = {
    "django_migrations": "SELECT DISTINCT app::text, name::text FROM {}",
    "django_content_type": "SELECT id::int8, app_label::text, model::text FROM {}",
    "auth_permission": (
        "SELECT id::int8, content_type_id::int8, codename::text FROM {}"
    ),
}
"""Tables of Django's own, and what of them is compared, if small or not."""


def read_django(side: Side, facts: Facts) -> dict[str, list[Any]]:
    found = {}
    for name, table in facts.find_tables(DJANGO).items():
        if table.kind == "r" and may_read(table, facts):
            sql = DJANGO[name].format(table.name)
            rows = side.attempt(Query(sql, name, locks=True), None)
            if isinstance(rows, str):
                side.refused[name] = rows
            else:
                found[name] = [tuple(row) for row in rows]
    return found


def find_in_django(
    here: Mapping[str, list[Any]],
    there: Mapping[str, list[Any]],
    blue: Facts,
    green: Facts,
) -> Iterator[Finding]:
    """Compare what `read_django` has read of either side."""
    if "django_migrations" in here and "django_migrations" in there:
        one, other = (set(side["django_migrations"]) for side in (here, there))
        if lost := sorted(one - other):
            names = [f"{app}.{name}" for app, name in lost]
            yield Finding(
                "warning",
                "migrations",
                ", ".join(names[:5]),
                f"{count(len(names), 'migration')} of {blue.alias} not recorded on"
                f" {green.alias}, so that migrate runs them again: {_first(names)}",
                f"manage.py migrate --database {green.alias} {lost[0][0]} {lost[0][1]}"
                " --fake, for each of them, if what it made is there.",
            )
        if more := sorted(other - one):
            names = [f"{app}.{name}" for app, name in more]
            yield Finding(
                "warning",
                "migrations",
                ", ".join(names[:5]),
                f"{count(len(names), 'migration')} recorded on {green.alias} alone:"
                f" {_first(names)}",
                f"manage.py migrate --database {blue.alias}, or have {green.alias} made"
                f" from {blue.alias}'s schema.",
            )
    for table, code, what in (
        ("django_content_type", "content_types", "content type"),
        ("auth_permission", "permissions", "permission"),
    ):
        if table not in here or table not in there:
            continue
        left, right = (
            {row[0]: ".".join(map(str, row[1:])) for row in side[table]}
            for side in (here, there)
        )
        wrong = [
            f"{number} is {right[number]} instead of {name}"
            for number, name in sorted(left.items())
            if number in right and right[number] != name
        ]
        if wrong:
            yield Finding(
                "warning",
                code,
                table,
                f"{count(len(wrong), what)} with another meaning on {green.alias}:"
                f" {_first(wrong)}",
                f"Empty {table} on {green.alias}, and have it filled from"
                f" {blue.alias}.",
            )


def _first(names: Sequence[str]) -> str:
    more = len(names) - 5
    return "; ".join(names[:5]) + (f"; and {more} more" if more > 0 else "")
