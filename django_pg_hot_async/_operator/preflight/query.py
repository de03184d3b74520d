"""A statement of the catalog, and what several of them share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """One statement, and what is known of it."""

    sql: str
    what: str
    """What it reads, in words: for where it cannot be read."""
    since: int = 0
    """The first release of PostgreSQL that can answer it; before, there is nothing."""
    locks: bool = False
    """Whether it locks tables in ACCESS SHARE mode, which the caller then undoes."""


def no_member(catalog: str, oid: str) -> str:
    return f"""NOT EXISTS (
    SELECT FROM pg_depend AS member WHERE member.objid = {oid}
    AND member.classid = '{catalog}'::regclass AND member.deptype = 'e')"""


USERS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
NAME = "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
