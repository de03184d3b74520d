"""Carrying sequences over from blue to green, which logical replication does not do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from .access import batches, identity, opened, refuse_same

BATCH = 200
"""Sequences read, or set, in one statement."""

# Those of extensions belong to the extension's script.
_SEQUENCES = """\
SELECT n.nspname, c.relname, s.seqincrement, s.seqmin, s.seqmax,
       has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'),
       has_sequence_privilege(c.oid, 'UPDATE'),
       tn.nspname, t.relname, a.attname,
       a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
           AND has_schema_privilege(tn.oid, 'USAGE')
           AND has_column_privilege(t.oid, a.attnum, 'SELECT')
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_sequence AS s ON s.seqrelid = c.oid
LEFT JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
     AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
LEFT JOIN pg_class AS t ON t.oid = d.refobjid
LEFT JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
LEFT JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.deptype = 'e'
                      AND e.classid = 'pg_class'::regclass AND e.objid = c.oid)
ORDER BY 1, 2"""

Position = tuple[int, bool]
"""``last_value`` and ``is_called``."""


@dataclass(frozen=True, slots=True)
class SequenceFacts:
    """A sequence of a database; its names as they are in the catalog."""

    schema: str
    name: str
    increment: int
    minimum: int
    maximum: int
    is_readable: bool
    may_set: bool
    owner: tuple[str, str, str] | None
    """Schema, table and column that it belongs to."""
    has_integers: bool
    """Whether its column holds integers that the role may read."""
    position: Position | None = None

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    def is_further(self, one: Position | None, other: Position | None) -> bool:
        """Whether *one* is nearer to the sequence's end than *other*."""
        if one is None or other is None:
            return other is None and one is not None
        sign = 1 if self.increment > 0 else -1
        return (sign * one[0], one[1]) > (sign * other[0], other[1])


@dataclass(frozen=True, slots=True)
class Carried:
    """What is to be done, or was done, about one of blue's sequences."""

    sequence: str
    verdict: str
    """``same``, ``ahead``, ``behind``, ``carried``, or why it cannot be carried:
    ``missing``, ``not_readable``, ``not_allowed``, ``out_of_bounds``."""
    blue: int | None
    """``last_value``; None where it cannot be read."""
    green: int | None
    """``last_value`` before."""
    target: int | None
    """The ``last_value`` to set; None where there is nothing to set."""

    @property
    def is_done(self) -> bool:
        """Whether green's sequence goes on where blue's ends, or after it."""
        return self.verdict in ("same", "ahead", "carried")


def carry(
    blue: str, green: str, *, dry_run: bool = False, with_columns: bool = True
) -> list[Carried]:
    """Set green's sequences to where blue's are; return what was done about each.

    A sequence never goes backwards: it is set to the furthest of blue's, its own and,
    *with_columns*, the highest value in its column on green. Raise `CannotTell` where a
    server cannot be asked, or refuses.
    """
    with opened(blue) as cursor:
        left, wanted = identity(cursor), read_sequences(cursor)
    with opened(green, read_only=dry_run) as cursor:
        refuse_same(left, identity(cursor))
        there = read_sequences(cursor)
        columns = _read_columns(cursor, there) if with_columns else {}
        plans = [_plan(one, find(one, there), columns) for one in wanted]
        if dry_run:
            return [plan for plan, _ in plans]
        settings = [setting for _, setting in plans if setting is not None]
        for part in batches(settings, BATCH):
            cursor.execute(
                sql.SQL("SELECT {}").format(
                    sql.SQL(", ").join(
                        sql.SQL("setval({}, {}, {})").format(
                            sql.Literal(one.identifier.as_string(None)), *position
                        )
                        for one, position in part
                    )
                )
            )
    return [
        replace(plan, verdict="carried") if setting is not None else plan
        for plan, setting in plans
    ]


def read_sequences(cursor: Any) -> list[SequenceFacts]:
    """Read the sequences of a database, with where each one is."""
    cursor.execute(_SEQUENCES)
    found = [_facts(*row) for row in cursor.fetchall()]
    positions = _union(
        cursor,
        [one for one in found if one.is_readable],
        lambda one: sql.SQL("last_value, is_called FROM {}").format(one.identifier),
    )
    return [replace(one, position=positions.get(str(one))) for one in found]


def _facts(*row: Any) -> SequenceFacts:
    *facts, schema, table, column, has_integers = row
    owner = (schema, table, column) if column else None
    all_facts: list[Any] = [*facts, owner, bool(has_integers)]
    return SequenceFacts(*all_facts)


def find(wanted: SequenceFacts, there: Iterable[SequenceFacts]) -> SequenceFacts | None:
    """Find the sequence of the same name, or else of the same column."""
    by_owner = None
    for one in there:
        if (one.schema, one.name) == (wanted.schema, wanted.name):
            return one
        if wanted.owner is not None and one.owner == wanted.owner:
            by_owner = one
    return by_owner


def _plan(
    blue: SequenceFacts,
    green: SequenceFacts | None,
    columns: Mapping[str, tuple[int | None]],
) -> tuple[Carried, tuple[SequenceFacts, Position] | None]:
    """Tell what is to be done about a sequence, and what to set it to."""
    last = blue.position[0] if blue.position else None
    if green is None:
        return Carried(str(blue), "missing", last, None, None), None
    now = green.position
    [highest] = columns.get(str(green), (None,))
    furthest = now
    for one in (blue.position, None if highest is None else (highest, True)):
        if green.is_further(one, furthest):
            furthest = one
    verdict = "behind"
    if blue.position is None or now is None:
        verdict = "not_readable"
    elif furthest == now:
        verdict = "ahead" if green.is_further(now, blue.position) else "same"
    elif not green.may_set:
        verdict = "not_allowed"
    elif furthest and not green.minimum <= furthest[0] <= green.maximum:
        verdict = "out_of_bounds"
    before = now[0] if now else None
    target = furthest[0] if furthest and furthest != now else None
    setting = (green, furthest) if verdict == "behind" and furthest else None
    return Carried(str(blue), verdict, last, before, target), setting


def _read_columns(
    cursor: Any, sequences: Sequence[SequenceFacts]
) -> dict[str, tuple[int | None]]:
    """Read how far the values in the columns of *sequences* are."""

    def furthest(one: SequenceFacts) -> sql.Composed:
        assert one.owner is not None
        *table, column = one.owner
        return sql.SQL("{}({}) FROM {}").format(
            sql.SQL("max" if one.increment > 0 else "min"),
            sql.Identifier(column),
            sql.Identifier(*table),
        )

    return _union(cursor, [one for one in sequences if one.has_integers], furthest)


def _union(
    cursor: Any,
    sequences: Sequence[SequenceFacts],
    select: Callable[[SequenceFacts], sql.Composed],
) -> dict[str, Any]:
    """Read what *select* says of each of *sequences*, a batch in one statement."""
    found: dict[str, Any] = {}
    for part in batches(sequences, BATCH):
        cursor.execute(
            sql.SQL(" UNION ALL ").join(
                sql.SQL("SELECT {}, {}").format(number, select(one))
                for number, one in enumerate(part)
            )
        )
        found |= {str(part[number]): tuple(row) for number, *row in cursor.fetchall()}
    return found
