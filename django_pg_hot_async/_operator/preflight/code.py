"""Comparing what runs in the server: functions, triggers, policies and the like."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Facts, Finding
from .levelling import level_names, level_schemas, without_cost
from .relations import shared_tables, squeezed
from .rules import Named, Rule, Subject, apply, both

_CREATE = "{blue.definition};"

ROUTINES = Subject(
    missing=(
        Rule(
            "warning",
            "trigger_missing",
            "the trigger function {name} is missing on {side}",
            _CREATE,
            lambda b, g: b.result in ("trigger", "event_trigger"),
        ),
        Rule(
            "break",
            "routine_missing",
            "{name} is missing on {side}: SQL that calls it fails",
            _CREATE,
        ),
    ),
    differs=(
        Rule(
            "break",
            "routine_differs",
            "{name} returns {green.result} on {side}, but {blue.result} on {here}",
            "DROP FUNCTION {name}; {blue.definition};",
            lambda b, g: b.result_level != g.result_level,
        ),
        Rule(
            "warning",
            "routine_differs",
            "{name} has another definition on {side}: it does something else",
            _CREATE,
            lambda b, g: b.level != g.level,
        ),
    ),
)

TRIGGERS = Subject(
    missing=(
        Rule(
            "warning",
            "trigger_missing",
            "{blue.plain} of {blue.table} is missing on {side}: what it does is not"
            " done",
            _CREATE,
            lambda b, g: not b.inherited,
        ),
    ),
    extra=(
        Rule(
            "warning",
            "trigger_extra",
            "{green.plain} of {green.table} exists on {side} alone: it does what {here}"
            " does not",
            "DROP TRIGGER {green.plain} ON {green.table};",
            lambda b, g: g.enabled and not g.inherited,
        ),
    ),
    differs=(
        Rule(
            "warning",
            "trigger_disabled",
            "{blue.plain} of {blue.table} is disabled on {side}: what it does is not"
            " done",
            "ALTER TABLE {blue.table} ENABLE TRIGGER {blue.plain};",
            lambda b, g: b.enabled and not g.enabled,
        ),
        Rule(
            "warning",
            "trigger_disabled",
            "{blue.plain} of {blue.table} is enabled on {side} alone: it does what"
            " {here} does not",
            "ALTER TABLE {blue.table} DISABLE TRIGGER {blue.plain};",
            lambda b, g: g.enabled and not b.enabled,
        ),
        Rule(
            "warning",
            "trigger_differs",
            "{blue.plain} of {blue.table} has another definition on {side}:"
            " {green.definition}",
            "DROP TRIGGER {blue.plain} ON {blue.table}; {blue.definition};",
            lambda b, g: b.level != g.level,
        ),
    ),
)

POLICIES = Subject(
    missing=(
        Rule(
            "break",
            "policy",
            "policy {blue.plain} of {blue.table} is missing on {side}: other rows are"
            " seen, or none",
            "CREATE POLICY {blue.plain} ON {blue.table} ...; as it is on {here}.",
        ),
    ),
    extra=(
        Rule(
            "break",
            "policy",
            "policy {green.plain} of {green.table} exists on {side} alone: other rows"
            " are seen, or none",
            "DROP POLICY {green.plain} ON {green.table};",
        ),
    ),
    differs=(
        Rule(
            "break",
            "policy",
            "policy {blue.plain} of {blue.table} is {green.definition} on {side}, but"
            " {blue.definition} on {here}",
            "DROP POLICY {blue.plain} ON {blue.table}; and create it as on {here}.",
            lambda b, g: b.level != g.level,
        ),
    ),
)

EVENT_TRIGGERS = Subject(
    missing=(
        Rule(
            "warning",
            "trigger_missing",
            "event trigger {name} is missing on {side}",
            "CREATE EVENT TRIGGER {name} {blue.definition};",
        ),
    ),
    differs=(
        Rule(
            "warning",
            "trigger_disabled",
            "event trigger {name} is disabled on {side}",
            "ALTER EVENT TRIGGER {name} ENABLE;",
            lambda b, g: b.enabled and not g.enabled,
        ),
        Rule(
            "warning",
            "trigger_differs",
            "event trigger {name} is {green.definition} on {side}, but"
            " {blue.definition}",
            "DROP EVENT TRIGGER {name}; CREATE EVENT TRIGGER {name} {blue.definition};",
            lambda b, g: b.definition != g.definition,
        ),
    ),
)

OBJECTS = Subject(
    missing=(
        Rule(
            "warning",
            "statistics_missing",
            "the extended statistics {blue.object} are missing on {side}: the planner"
            " guesses",
            "{blue.definition}; ANALYZE;",
            lambda b, g: b.kind == "statistics",
        ),
        Rule(
            "warning",
            "rights_to_migrate",
            "{name} are missing on {side}: what migrations create comes without rights",
            "ALTER DEFAULT PRIVILEGES ... as on {here}: {blue.definition}",
            lambda b, g: b.kind == "default privileges",
        ),
        Rule(
            "break",
            "object_missing",
            "{name} is missing on {side}: SQL that needs it fails",
            "Create it on {side} as it is on {here}.",
        ),
    ),
    differs=(
        Rule(
            "warning",
            "object_differs",
            "{name} is {green.definition} on {side}, but {blue.definition} on {here}",
            "Make it on {side} what it is on {here}.",
            lambda b, g: b.level != g.level,
        ),
    ),
)


def find_in_code(blue: Facts, green: Facts) -> Iterator[Finding]:
    level = level_schemas(blue, green)
    names = level_names(blue, green)
    tables = shared_tables(blue, green)
    routines = [
        {
            name: Named(
                row,
                # A body of standard SQL is printed from its tree, as a view is.
                level=squeezed(names(level(row.definition)))
                if row.has_query
                else level(without_cost(row.definition)),
                result_level=level(row.result or ""),
            )
            for name, row in rows.items()
        }
        for rows in both("routines", blue, green)
    ]
    # Arguments may be of a type that moved.
    names_here = {level(name): name for name in routines[0]}
    there = {names_here.get(level(n), n): one for n, one in routines[1].items()}
    yield from apply(ROUTINES, blue, green, routines[0], there)
    for kind, subject in (("triggers", TRIGGERS), ("policies", POLICIES)):
        sides = [
            {
                name: Named(row, level=level(row.definition))
                for name, row in rows.items()
                if row.table in tables
            }
            for rows in both(kind, blue, green)
        ]
        yield from apply(subject, blue, green, sides[0], sides[1])
    yield from apply(EVENT_TRIGGERS, blue, green, *both("event_triggers", blue, green))
    objects = [
        {
            name: Named(row, table="", level=level(row.definition or ""))
            for name, row in rows.items()
        }
        for rows in both("objects", blue, green)
    ]
    yield from apply(OBJECTS, blue, green, *objects)
