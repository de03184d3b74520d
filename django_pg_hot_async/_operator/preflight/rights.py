"""Comparing what the application's role may do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .facts import Facts, Finding, quoted
from .relations import KINDS, shared_tables
from .rules import Named, Rule, Subject, apply, both

_NEEDED = ("SELECT", "INSERT", "UPDATE", "DELETE", "USAGE")

_RELATIONS = Subject(
    differs=(
        Rule(
            "break",
            "rights",
            "{role} may not {blue.lost} {name} on {side}",
            "GRANT {blue.lost} ON {blue.what}{name} TO {blue.role};",
            lambda b, g: b.is_needed,
        ),
        Rule(
            "warning",
            "rights",
            "{role} may not {blue.lost} {name} on {side}",
            "GRANT {blue.lost} ON {blue.what}{name} TO {blue.role};",
            lambda b, g: b.lost,
        ),
        Rule(
            "warning",
            "owner",
            "{role} does not own {name} on {side}: migrations of it fail",
            "ALTER TABLE {name} OWNER TO {blue.role};",
            lambda b, g: b.owned and not g.owned,
        ),
    ),
)

_ROUTINES = Subject(
    differs=(
        Rule(
            "break",
            "rights",
            "{role} may not EXECUTE {name} on {side}",
            "GRANT EXECUTE ON ROUTINE {name} TO {blue.role};",
            lambda b, g: b.may_execute and not g.may_execute,
        ),
    ),
)

_SCHEMAS = Subject(
    missing=(
        Rule(
            "break",
            "schema_missing",
            "schema {name} is missing on {side}",
            "CREATE SCHEMA {name};",
        ),
    ),
    differs=(
        Rule(
            "break",
            "rights",
            "{role} has no USAGE on schema {name} on {side}: nothing in it is found",
            "GRANT USAGE ON SCHEMA {name} TO {blue.role};",
            lambda b, g: b.usage and not g.usage,
        ),
        Rule(
            "warning",
            "rights_to_migrate",
            "{role} has no CREATE on schema {name} on {side}: the next migration fails",
            "GRANT CREATE ON SCHEMA {name} TO {blue.role};",
            lambda b, g: b.may_create and not g.may_create,
        ),
    ),
)

_DATABASE = Subject(
    differs=(
        Rule(
            "break",
            "rights",
            "{role} may not CONNECT to the database of {side}",
            "GRANT CONNECT ON DATABASE {green.dbname} TO {blue.role};",
            lambda b, g: b.may_connect and not g.may_connect,
        ),
        Rule(
            "break",
            "rights",
            "{role} may not make TEMPORARY tables on {side}",
            "GRANT TEMPORARY ON DATABASE {green.dbname} TO {blue.role};",
            lambda b, g: b.may_temp and not g.may_temp,
        ),
        Rule(
            "warning",
            "rights_to_migrate",
            "{role} has no CREATE on the database of {side}: a migration that creates a"
            " schema or an extension fails",
            "GRANT CREATE ON DATABASE {green.dbname} TO {blue.role};",
            lambda b, g: b.may_create and not g.may_create,
        ),
        Rule(
            "warning",
            "connections",
            "the database of {side} takes {green.connections} connections at most",
            "ALTER DATABASE {green.dbname} CONNECTION LIMIT {blue.connections};",
            lambda b, g: _is_less(g.connections, b.connections),
        ),
    ),
)


def find_in_rights(blue: Facts, green: Facts) -> Iterator[Finding]:
    """Compare the rights of blue's role, by its name, on either side."""
    yield from _find_in_roles(blue, green)
    here, there = (_relations(facts) for facts in (blue, green))
    role = quoted(blue.role)
    for name, one in here.items():
        other = there.get(name)
        lost = [p for p in one.rights if other is not None and p not in other.rights]
        # A right on each column that one had it on does as well.
        one.lost = ", ".join(lost)
        one.is_needed = any(p in _NEEDED for p in lost)
        one.role = role
    tables = shared_tables(blue, green)
    known = tables | (blue.of("sequences").keys() & green.of("sequences").keys())
    yield from apply(
        _RELATIONS,
        blue,
        green,
        {name: one for name, one in here.items() if name in known},
        {name: one for name, one in there.items() if name in known},
    )
    yield from _find_in_columns(blue, green, tables)
    for kind, subject in (
        ("routines", _ROUTINES),
        ("schemas", _SCHEMAS),
        ("database", _DATABASE),
    ):
        sides = [
            {
                name: Named(row, role=role, dbname=quoted(facts.server.dbname or ""))
                for name, row in rows.items()
            }
            for rows, facts in zip(both(kind, blue, green), (blue, green), strict=True)
        ]
        yield from apply(subject, blue, green, sides[0], sides[1])


def _relations(facts: Facts) -> dict[str, Any]:
    """Return tables, sequences and columns with rights of their own."""
    found: dict[str, Any] = {}
    relations = facts.of("relations")
    for name, row in relations.items():
        found[name] = Named(row, what="" if row.kind in KINDS else "SEQUENCE ")
    for name, row in facts.of("sequences").items():
        found[name] = Named(row, what="SEQUENCE ", owned=False)
    return found


def _find_in_columns(blue: Facts, green: Facts, tables: set[str]) -> Iterator[Finding]:
    """Tell of rights on single columns, where there is none on the table."""
    columns, relations = green.of("columns"), green.of("relations")
    for name, row in blue.of("columns").items():
        other = columns.get(name)
        if not row.rights or other is None or row.table not in tables:
            continue
        held = {*other.rights, *relations[row.table].rights}
        held |= {*blue.of("relations")[row.table].rights}
        if lost := [right for right in row.rights if right not in held]:
            column = name[len(row.table) + 1 :]
            grants = ", ".join(f"{right} ({column})" for right in lost)
            yield Finding(
                "break",
                "rights",
                name,
                f"{blue.role} may not {', '.join(lost)} {name} on {green.alias}",
                f"GRANT {grants} ON {row.table} TO {quoted(blue.role)};",
            )


def _find_in_roles(blue: Facts, green: Facts) -> Iterator[Finding]:
    side, name = green.alias, blue.role
    here, there = (facts.of("roles").get(name) for facts in (blue, green))
    if green.role != name:
        yield Finding(
            "warning",
            "role",
            green.role,
            f"{side} is read as the role {green.role}, and {blue.alias} as {name}: the"
            f" settings and the connection of {name} on {side} were not looked at",
            f"DATABASES[{side!r}]['USER'] = {name!r}",
        )
    if here is None or not green.has("roles"):
        return
    if there is None:
        yield Finding(
            "break",
            "role_missing",
            name,
            f"the role {name} is missing on {side}: the application cannot connect",
            f"CREATE ROLE {quoted(name)} LOGIN; or pg_dumpall --roles-only of"
            f" {blue.alias}.",
        )
        return
    if here.super:
        yield Finding(
            "note",
            "superuser",
            name,
            f"{name} is a superuser: no right can be missing, and no rights were"
            " compared. Is it the role of the application?",
        )
    for fact, says, hint in (
        ("super", "is a superuser", "SUPERUSER"),
        ("bypass", "bypasses row security", "BYPASSRLS"),
    ):
        if getattr(here, fact) != getattr(there, fact):
            lost = getattr(here, fact)
            yield Finding(
                "break" if lost else "warning",
                "role",
                name,
                f"{name} {says} on {blue.alias if lost else side} alone",
                f"ALTER ROLE {quoted(name)} {'' if lost else 'NO'}{hint};",
            )
    if not there.login and here.login:
        yield Finding(
            "break",
            "role",
            name,
            f"{name} may not log in on {side}",
            f"ALTER ROLE {quoted(name)} LOGIN;",
        )
    if there.expired and not here.expired:
        yield Finding(
            "break",
            "role",
            name,
            f"the password of {name} has expired on {side}",
            f"ALTER ROLE {quoted(name)} VALID UNTIL 'infinity';",
        )
    if _is_less(there.connections, here.connections):
        yield Finding(
            "warning",
            "connections",
            name,
            f"{name} may have {there.connections} connections at most on {side}",
            f"ALTER ROLE {quoted(name)} CONNECTION LIMIT {here.connections};",
        )
    if gone := [group for group in here.groups if group not in there.groups]:
        yield Finding(
            "warning",
            "role",
            name,
            f"{name} is not a member of {', '.join(gone)} on {side}: SET ROLE fails,"
            " and rights that it has by these roles are missing",
            f"GRANT {', '.join(map(quoted, gone))} TO {quoted(name)};",
        )


def _is_less(limit: int, other: int) -> bool:
    return limit >= 0 and (other < 0 or limit < other)


def may_read(row: Any, facts: Facts) -> bool:
    """Whether the role that is connected may read the table *row*."""
    # The rights that were read are those of blue's role.
    me = facts.of("roles").get(facts.role)
    return "SELECT" in row.rights or bool(me and me.super)
