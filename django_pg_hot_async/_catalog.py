"""What this package asks a server, and what it answers.

Everything in it is qualified, operators too, so that no ``search_path`` can put
something else in the place of a catalog table or function.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from psycopg import errors, generators, pq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

FIRST_NORMAL_OID = 16384
"""Below it only initdb creates types: FirstNormalObjectId in access/transam.h."""

MARK = b"/* django_pg_hot_async */ "
"""What every statement of this package begins with, in logs and pg_stat_activity."""

MAX_CONFIRMED = 64
"""The most types that are confirmed rather than read: two columns of an answer each,
which has 1,664 at most (MaxTupleAttributeNumber in access/htup_details.h)."""

# The outer join keeps one row when the server has none of the types, so the
# version is always read. format_type() qualifies a name only where the
# connection's search_path asks for it.
_FIND_TYPES = b"""\
%sSELECT pg_catalog.current_setting('server_version_num'),
       pg_catalog.current_setting('transaction_isolation'),
       t.typname, n.nspname, t.oid, t.typarray, t.typtype, t.typdelim,
       pg_catalog.format_type(t.oid, NULL), pg_catalog.pg_type_is_visible(t.oid),
       %s, %s, %s
FROM (VALUES (1)) AS one
LEFT JOIN (pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n
           ON n.oid OPERATOR(pg_catalog.=) t.typnamespace)
ON t.typname OPERATOR(pg_catalog.=) ANY (ARRAY[%s]::pg_catalog.name[])"""

# The shape of a type, by the pg_type.typtype that has one. Left out where no
# tracked type may be of that kind: a fresh backend would open the tables for it.
_LABELS = b"""\
(SELECT pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder)
 FROM pg_catalog.pg_enum AS e WHERE e.enumtypid OPERATOR(pg_catalog.=) t.oid)"""
_ATTRIBUTES = b"""\
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attname, a.atttypid)
                            ORDER BY a.attnum)
 FROM pg_catalog.pg_attribute AS a
 WHERE a.attrelid OPERATOR(pg_catalog.=) t.typrelid
 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)"""
_RANGE = b"""\
(SELECT pg_catalog.json_build_array(r.rngtypid, r.rngsubtype)
 FROM pg_catalog.pg_range AS r WHERE r.rngtypid OPERATOR(pg_catalog.=) t.oid
 OR r.rngmultitypid OPERATOR(pg_catalog.=) t.oid)"""

_CONFIRM = b"%sSELECT pg_catalog.current_setting('server_version_num')"
_CONFIRM_TYPE = b", '%d'::pg_catalog.regtype"

# Looked up in the server's cache of types, which is never older than the statement.
# Compared there: not every client encoding can write the name of every type.
_FIND_NEWER = b"""\
%sSELECT n.name
FROM pg_catalog.unnest(ARRAY[%s]::pg_catalog.oid[]) AS t (oid),
     pg_catalog.unnest(ARRAY[%s]::pg_catalog.text[]) AS n (name)
WHERE pg_catalog.right(
        pg_catalog.concat(
            '.', pg_catalog.rtrim(pg_catalog.format_type(t.oid, NULL), '[]')
        ),
        pg_catalog.length(pg_catalog.quote_ident(n.name)) OPERATOR(pg_catalog.+) 1
    ) OPERATOR(pg_catalog.=) pg_catalog.concat('.', pg_catalog.quote_ident(n.name))"""

_GONE = "???"
"""What format_type() says of a type that was dropped; one of that name is quoted. It
asks the cache as well, so a transaction may see a type in pg_type that is no more."""

_FRESH = ("read committed", "read uncommitted")
"""The levels of isolation at which each statement sees what is there when it begins."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask a server: which types, and of which kinds they may be."""

    names: tuple[str, ...]
    """``pg_type.typname``, in whatever schema."""
    kinds: frozenset[str] = frozenset()
    """``pg_type.typtype``."""
    oids: frozenset[int] = frozenset()
    """Of values at hand. A transaction may be too old to see of which types."""

    def __bool__(self) -> bool:
        return bool(self.names)


@dataclass(frozen=True, slots=True)
class TypeRow:
    """A type as one server has it."""

    name: str
    schema: str
    oid: int
    array_oid: int
    kind: str
    """``pg_type.typtype``: ``b`` base, ``c`` composite, ``e`` enum ..."""
    delimiter: str
    regtype: str
    """The name to write in SQL, quoted and qualified as the search_path needs."""
    visible: bool
    """Whether the search_path of the connection leads to this very type."""
    labels: tuple[str, ...] = ()
    """Of an enum, in its order."""
    attributes: tuple[tuple[str, int], ...] = ()
    """Of a composite type, in its order: name and OID of the type."""
    range_oid: int = 0
    """Of a multirange: its range. Of a range: itself."""
    subtype: int = 0
    """Of a range or multirange: the OID of what it is a range of."""

    @property
    def identity(self) -> tuple[object, ...]:
        """All but what depends on the search_path of the connection that asked."""
        return (
            self.oid,
            self.array_oid,
            self.schema,
            self.name,
            self.kind,
            self.delimiter,
            self.labels,
            self.attributes,
            self.range_oid,
            self.subtype,
        )


@dataclass(frozen=True, slots=True)
class Catalog:
    """The answer: the server's own word on its version, and the types it has."""

    version: int
    types: tuple[TypeRow, ...]
    is_old: bool = field(default=False, compare=False)
    """Whether it is as of the snapshot of a transaction, and types may be newer."""


NOTHING = Catalog(0, ())
"""What is known before anything was read."""


class Confirmation:
    """The question whether a server still has what *catalog* has, and the answer yes.

    The server is asked what it calls each OID, which is looked up in its cache of
    types. To plan and run a query of tables, a fresh backend has to fill many more.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        oids: list[int] = []
        names: list[str] = []
        for row in catalog.types:
            oids += (row.oid, row.array_oid)
            # Qualified where the search_path asks for it, so that they tell as well
            # which of two types of one name it leads to.
            names += (row.regtype, f"{row.regtype}[]" if row.array_oid else "-")
        self.statement = _CONFIRM % MARK + b"".join(_CONFIRM_TYPE % oid for oid in oids)
        # In UTF-8: a name that another client encoding writes otherwise is read.
        self.answer = [name.encode() for name in (str(catalog.version), *names)]

    def is_given_by(self, result: PGresult) -> bool:
        """Whether *result* is that answer."""
        values = [result.get_value(0, column) for column in range(result.nfields)]
        return values == self.answer


def read_types(
    pgconn: PGconn,
    question: Question,
    encoding: str,
    confirmation: Confirmation | None = None,
) -> PQGen[Catalog]:
    """Read the types that *question* is about: one round trip.

    With a *confirmation*, ask for that first, which is cheaper; where it is not given,
    a second round trip reads.

    A psycopg generator: it sends, yields while it has to wait, and leaves the
    waiting to its caller. libpq must be idle, and no result of a pipeline to come; a
    transaction is neither begun nor ended. A type that the server lacks is left out
    of the answer. *encoding* is Python's name of the client encoding. Raise the
    database's own error where the read fails, and `SerializationFailure` where one of
    the question's OIDs is of such a type, which the transaction cannot see.
    """
    if encoding == "ascii":
        # SQL_ASCII: the server sends bytes as it stores them, mostly UTF-8.
        encoding = "utf-8"
    if confirmation is not None:
        result = yield from _ask(pgconn, confirmation.statement, encoding)
        if confirmation.is_given_by(result):
            return confirmation.catalog
    in_transaction = pgconn.transaction_status == pq.TransactionStatus.INTRANS
    result = yield from _ask(pgconn, _statement(pgconn, question, encoding), encoding)
    catalog = _parse(result, encoding)
    isolation = _text(result.get_value(0, 1), encoding)
    if in_transaction and isolation not in _FRESH:
        yield from _look_for_newer(pgconn, question, encoding, catalog, isolation)
        return replace(catalog, is_old=True)
    return catalog


def _look_for_newer(
    pgconn: PGconn, question: Question, encoding: str, catalog: Catalog, isolation: str
) -> PQGen[None]:
    """Raise where a value is of a type that is newer than what *catalog* shows.

    A transaction at that level of isolation reads pg_type as it was when the
    transaction began, yet can meet types created since.
    """
    found = {oid for row in catalog.types for oid in (row.oid, row.array_oid)}
    missing = sorted(question.oids - found)
    if not missing:
        return
    statement = _FIND_NEWER % (
        MARK,
        b", ".join(b"%d" % oid for oid in missing),
        _literals(pgconn, question.names, encoding),
    )
    result = yield from _ask(pgconn, statement, encoding)
    if result.ntuples:
        name = _text(result.get_value(0, 0), encoding)
        raise errors.SerializationFailure(
            f"the type {name} was created after the snapshot of this transaction,"
            f" whose isolation level is {isolation}, and cannot be read in it;"
            " run the transaction again"
        )


def _ask(pgconn: PGconn, statement: bytes, encoding: str) -> PQGen[PGresult]:
    if pgconn.pipeline_status == pq.PipelineStatus.OFF:
        # The simple protocol takes one message instead of five, and a pooler that
        # pools by transaction or statement keeps it whole.
        pgconn.send_query(statement)
        results = yield from generators.execute(pgconn)
    else:
        # As a part of the pipeline. There is no sync: that would end a transaction
        # which began with the first statement of it.
        pgconn.send_query_params(statement, None)
        pgconn.send_flush_request()
        yield from generators.send(pgconn)
        results = yield from generators.fetch_many(pgconn)
    if not results:
        raise errors.InternalError("got no answer to the read of types")
    result: PGresult = results[-1]
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise errors.error_from_result(result, encoding=encoding)
    return result


def _statement(pgconn: PGconn, question: Question, encoding: str) -> bytes:
    parts = [
        part if question.kinds.intersection(kinds) else b"NULL"
        for part, kinds in (
            (_LABELS, {"e"}),
            (_ATTRIBUTES, {"c"}),
            (_RANGE, {"r", "m"}),
        )
    ]
    names = _literals(pgconn, question.names, encoding)
    return _FIND_TYPES % (MARK, *parts, names)


def _literals(pgconn: PGconn, names: Sequence[str], encoding: str) -> bytes:
    escape = pq.Escaping(pgconn).escape_literal
    # A name that the client encoding cannot write cannot come from there either.
    return b", ".join(bytes(escape(name.encode(encoding, "replace"))) for name in names)


def _parse(result: PGresult, encoding: str) -> Catalog:
    rows = [
        [_text(result.get_value(row, column), encoding) for column in range(13)]
        for row in range(result.ntuples)
    ]
    types = [_type_row(row) for row in rows if row[4] and row[8] != _GONE]
    return Catalog(version=int(rows[0][0]), types=tuple(sorted(types, key=_by_oid)))


def _type_row(row: Sequence[str]) -> TypeRow:
    _, _, name, schema, oid, array_oid, kind, delimiter, regtype, visible, *shape = row
    # JSON has numbers for what is one in JavaScript, and OIDs as strings.
    labels, attributes, of_range = (json.loads(part) if part else () for part in shape)
    range_oid, subtype = of_range or (0, 0)
    return TypeRow(
        name=name,
        schema=schema,
        oid=int(oid),
        array_oid=int(array_oid),
        kind=kind,
        delimiter=delimiter,
        regtype=regtype,
        visible=visible == "t",
        labels=tuple(labels),
        attributes=tuple((name, int(oid)) for name, oid in attributes),
        range_oid=int(range_oid),
        subtype=int(subtype),
    )


def _by_oid(row: TypeRow) -> int:
    return row.oid


def _text(value: bytes | None, encoding: str) -> str:
    return "" if value is None else value.decode(encoding, "replace")
