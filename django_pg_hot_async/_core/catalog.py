"""What this package asks a server, and how the answers read.

Two questions. A *read* asks for types: by name, or by the OIDs that turned up in a
result. A *confirmation* asks whether the server is still the one that answered a
read, and its types are still called what they were called; it is short enough to
travel in the same message as a statement.

Names are qualified, operators too, so that no ``search_path`` can put something
else in the place of a catalog. What is not known to be ASCII is sent and received
as ASCII, so that no client encoding can fail on it.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from psycopg import errors, generators, pq

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

FIRST_NORMAL_OID = 16384
"""Below it only initdb creates types: FirstNormalObjectId in access/transam.h."""

MARK = b"/* django_pg_hot_async */ "
"""What every statement of this package begins with, in logs and pg_stat_activity."""

MAX_ROWS = 256
"""The most types that are read by name at once, those on the search_path first. A
database with a schema for each tenant may have thousands; the others are read by
their OIDs when they turn up."""

MAX_CONFIRMED = 64
"""The most types whose names are confirmed."""

NEWER = "40001"
"""SQLSTATE of `SerializationFailure`: run the transaction again."""

# Names and labels may not fit the client encoding, and then the server refuses to
# send them. In UTF-8, with all but ASCII escaped, they always do. SQL_ASCII stores
# bytes that nothing can convert.
_BYTES = b"""\
pg_catalog.convert_to(%s, CASE \
WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII' \
THEN 'SQL_ASCII' ELSE 'UTF8' END)"""
_ASCII = b"pg_catalog.encode(%s, 'escape')" % _BYTES

_READ = (
    b"""\
%s\
SELECT pg_catalog."extract"('epoch', pg_catalog.pg_postmaster_start_time()),
       pg_catalog.pg_backend_pid(),
       pg_catalog.current_setting('server_version_num'),
       pg_catalog.current_setting('transaction_isolation'),
       """
    + _ASCII % b"a.answer"
    + b"""
FROM (SELECT pg_catalog.json_build_object(
    'database', pg_catalog.current_database(),
    'types', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
        t.oid, t.typarray, t.typname, n.nspname, t.typtype, t.typdelim,
        pg_catalog.format_type(t.oid, NULL),
        pg_catalog.pg_type_is_visible(t.oid), t.total, t.typrelid, %s, %s, %s))
      FROM (%s) AS t JOIN pg_catalog.pg_namespace AS n
      ON n.oid OPERATOR(pg_catalog.=) t.typnamespace),
    'asked', %s)::pg_catalog.text) AS a (answer)"""
)

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

# What other sessions have in their temporary schemas cannot be reached from here.
_BY_NAME = b"""\
SELECT x.*, pg_catalog.count(*) OVER () AS total FROM pg_catalog.pg_type AS x
 WHERE (x.typname OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.name[])%s)
 AND x.typtype OPERATOR(pg_catalog.=) ANY (%s)
 AND NOT pg_catalog.pg_is_other_temp_schema(x.typnamespace)
 ORDER BY pg_catalog.pg_type_is_visible(x.oid) DESC, x.oid LIMIT %d"""

_BY_OID = b"""\
SELECT x.*, 0 AS total FROM pg_catalog.pg_type AS x
 WHERE x.oid OPERATOR(pg_catalog.=) ANY (ARRAY(
    SELECT CASE WHEN e.oid IS NULL THEN y.oid ELSE e.oid END
    FROM pg_catalog.pg_type AS y LEFT JOIN pg_catalog.pg_type AS e
    ON e.oid OPERATOR(pg_catalog.=) y.typelem
    AND e.typarray OPERATOR(pg_catalog.=) y.oid
    WHERE y.oid OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.oid[])))"""

# From the server's cache of types, which is never older than the statement.
_ASKED = b"""\
(SELECT pg_catalog.json_object_agg(o.oid, pg_catalog.format_type(o.oid, NULL))
 FROM pg_catalog.unnest(%s::pg_catalog.oid[]) AS o (oid))"""

_GONE = "???"
"""What format_type() says of a type that does not exist; one of that name is quoted. It
asks the cache as well, so a transaction may see a type in pg_type that is no more."""

FRESH = ("read committed", "read uncommitted")
"""The levels of isolation at which each statement sees what is there when it begins."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which types to ask for by name, and of which kinds they may be."""

    names: tuple[str, ...]
    """``pg_type.typname``, in whatever schema."""
    kinds: frozenset[str]
    """``pg_type.typtype`` of the types that are tracked."""

    def __bool__(self) -> bool:
        return bool(self.names)


@dataclass(frozen=True, slots=True)
class TypeRow:
    """A type as one server has it, whatever the search_path."""

    name: str
    schema: str
    oid: int
    array_oid: int
    kind: str
    """``pg_type.typtype``: ``b`` base, ``c`` composite, ``e`` enum ..."""
    delimiter: str
    labels: tuple[str, ...] = ()
    """Of an enum, in its order."""
    attributes: tuple[tuple[str, int], ...] = ()
    """Of a composite type, in its order: name and OID of the type."""
    range_oid: int = 0
    """Of a multirange: its range. Of a range: itself."""
    subtype: int = 0
    """Of a range or multirange: the OID of what it is a range of."""
    relation: int = 0
    """Of a composite type: the OID of its row in ``pg_class``."""

    @property
    def regtype(self) -> str:
        """The name to write in SQL: qualified and quoted, right under any path."""
        return f"{quote_name(self.schema)}.{quote_name(self.name)}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """The answer to a read."""

    version: int
    """The server's own word: ``server_version_num``."""
    start: int = 0
    """When its postmaster started, in µs since 1970: no two servers, and no server
    after a restart, give the same answer. 0 where nothing was read."""
    database: str = ""
    pid: int = 0
    """Of the backend that answered."""
    types: tuple[TypeRow, ...] = ()
    visible: frozenset[int] = frozenset()
    """OIDs of the types that the search_path leads to by their bare names."""
    confirmed: tuple[int, ...] = ()
    """The OIDs that a confirmation asks the names of."""
    names: str = "{}"
    """What they are called: what ``regtype[]`` prints under the search_path."""
    relations: tuple[int, ...] = ()
    """The composite types whose attributes are confirmed, by ``pg_class.oid``."""
    attributes: str = ""
    """Their types and names, in order: the answer that confirms them."""
    is_whole: bool = True
    """Whether *types* are all that have one of the names asked for."""
    is_old: bool = False
    """Whether it is as of the snapshot of a transaction, and types may be newer."""
    asked: dict[int, str] = field(default_factory=dict)
    """What each OID asked for is called; absent where the server has no such type."""
    reading: int = field(default_factory=itertools.count(1).__next__, compare=False)
    """Which read it comes of; what is added to it later is of the same."""


def quote_name(name: str) -> str:
    """Quote *name* as an identifier."""
    return '"{}"'.format(name.replace('"', '""'))


_PART = r'(?:"((?:[^"]|"")+)"|([^".]+))'
_NAME = re.compile(rf"(?:{_PART}\.)?{_PART}")


def parse_name(regtype: str) -> tuple[str | None, str]:
    """Return the schema, if there is one, and the name in what ``regtype`` prints."""
    match = _NAME.fullmatch(regtype.removesuffix("[]"))
    if match is None:
        return None, regtype
    schema, bare_schema, name, bare = match.groups()
    if schema is not None:
        bare_schema = schema.replace('""', '"')
    return bare_schema, bare or name.replace('""', '"')


def literal(text: str) -> bytes:
    """Write *text* as an expression in ASCII, right under any setting."""
    if text.isascii() and "\\" not in text:
        return b"'%s'" % text.replace("'", "''").encode()
    return (
        b"pg_catalog.convert_from(pg_catalog.decode('%s', 'hex'), 'UTF8')"
        % text.encode("utf-8", "surrogateescape").hex().encode()
    )


def read_by_name(question: Question) -> bytes:
    """Return the statement that reads the types *question* is about."""
    plain = [name for name in question.names if name.isascii()]
    others = [name for name in question.names if not name.isascii()]
    names = b"ARRAY[%s]" % b", ".join(map(literal, plain))
    # Compared as bytes: not every database can hold every name.
    more = b""
    if others:
        more = (
            b" OR pg_catalog.encode(%s, 'hex') OPERATOR(pg_catalog.=) ANY (ARRAY[%s])"
        )
        more %= (
            _BYTES % b"x.typname::pg_catalog.text",
            b", ".join(b"'%s'" % name.encode().hex().encode() for name in others),
        )
    kinds = b"'{%s}'" % ",".join(sorted(question.kinds)).encode()
    rows = _BY_NAME % (names, more, kinds, MAX_ROWS)
    return _READ % (MARK, *_shapes(question), rows, b"NULL")


def read_by_oid(question: Question, oids: Iterable[int]) -> bytes:
    """Return the statement that reads the types of *oids*, or of their elements."""
    array = b"'{%s}'" % b",".join(b"%d" % oid for oid in sorted(oids))
    rows = _BY_OID % array
    return _READ % (MARK, *_shapes(question), rows, _ASKED % array)


def _shapes(question: Question) -> Iterable[bytes]:
    for part, kinds in ((_LABELS, {"e"}), (_ATTRIBUTES, {"c"}), (_RANGE, {"r", "m"})):
        yield part if question.kinds.intersection(kinds) else b"NULL"


def ask(pgconn: PGconn, statement: bytes, encoding: str) -> PQGen[PGresult]:
    """Send *statement* and return its result: one round trip.

    A psycopg generator: it sends, yields while it has to wait, and leaves the
    waiting to its caller. libpq must be idle, or in a pipeline with no result to
    come; then there is no sync, which would end a transaction that began with the
    pipeline's first statement. Raise the database's own error.
    """
    if pgconn.pipeline_status == pq.PipelineStatus.OFF:
        # The simple protocol takes one message instead of five.
        pgconn.send_query(statement)
        results = yield from generators.execute(pgconn)
    else:
        pgconn.send_query_params(statement, None)
        pgconn.send_flush_request()
        yield from generators.send(pgconn)
        results = yield from generators.fetch_many(pgconn)
    if not results:
        raise errors.InternalError("got no answer to the read of types")
    return checked(results[-1], encoding)


def checked(result: PGresult, encoding: str) -> PGresult:
    """Return *result*; raise the database's own error where it is none with rows."""
    if result.status == pq.ExecStatus.PIPELINE_ABORTED:
        raise errors.PipelineAborted("pipeline aborted")
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise errors.error_from_result(result, encoding=encoding)
    return result


def parse(result: PGresult) -> Catalog:
    """Return what the *result* of a read says."""
    start, pid, version, isolation, answer = (
        bytes(result.get_value(0, column) or b"") for column in range(5)
    )
    found = json.loads(unescape(answer))
    rows = [row for row in found["types"] or () if row[6] != _GONE]
    asked = found["asked"] or {}
    asked_again = rows[:MAX_CONFIRMED]
    types = tuple(map(_type_row, rows))
    relations = {row.relation: row for row in types[:MAX_CONFIRMED] if row.kind == "c"}
    return Catalog(
        version=int(version),
        start=moment(start),
        database=found["database"],
        pid=int(pid),
        types=types,
        visible=frozenset(int(row[0]) for row in rows if row[7]),
        confirmed=tuple(int(oid) for row in asked_again for oid in row[:2]),
        names=_array(
            name
            for row in asked_again
            for name in (row[6], f"{row[6]}[]" if int(row[1]) else "-")
        ),
        relations=tuple(relations),
        attributes=" ".join(
            f"{oid} {name}"
            for relation in sorted(relations)
            for name, oid in relations[relation].attributes
        ),
        is_whole=all(row[8] <= MAX_ROWS for row in rows),
        is_old=isolation.decode() not in FRESH,
        asked={int(oid): name for oid, name in asked.items() if name != _GONE},
    )


def _array(elements: Iterable[str]) -> str:
    """Write an array as the server does."""
    written = (
        '"{}"'.format(re.sub(r'(["\\])', r"\\\1", element))
        if _QUOTED.search(element)
        else element
        for element in elements
    )
    return "{" + ",".join(written) + "}"


_QUOTED = re.compile(r'^$|^null$|["\\{},\s]', re.IGNORECASE)


def _type_row(row: Sequence[object]) -> TypeRow:
    oid, array_oid, name, schema, kind, delimiter, *_, relation = row[:10]
    shape = row[10:]
    # JSON has numbers for what is one in JavaScript, and OIDs as strings.
    labels, attributes, of_range = (part or () for part in shape)
    range_oid, subtype = of_range or (0, 0)  # type: ignore[misc]
    return TypeRow(
        name=str(name),
        schema=str(schema),
        oid=int(oid),  # type: ignore[call-overload]
        array_oid=int(array_oid),  # type: ignore[call-overload]
        kind=str(kind),
        delimiter=str(delimiter),
        labels=tuple(labels),  # type: ignore[arg-type]
        attributes=tuple((name, int(oid)) for name, oid in attributes),  # type: ignore[attr-defined]
        range_oid=int(range_oid),  # type: ignore[has-type]
        subtype=int(subtype),  # type: ignore[has-type]
        relation=int(relation),  # type: ignore[call-overload]
    )


_ESCAPED = re.compile(rb"\\(\\|[0-7]{3})")


def unescape(data: bytes) -> str:
    """Return what ``encode(..., 'escape')`` has written *data* for."""

    def original(match: re.Match[bytes]) -> bytes:
        return b"\\" if match[1] == b"\\" else bytes([int(match[1], 8)])

    return _ESCAPED.sub(original, data).decode("utf-8", "replace")


# Confirmations


_START = b"pg_catalog.\"extract\"('epoch', pg_catalog.pg_postmaster_start_time())"
_ISO = re.compile(
    rb"(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+)(?:\.(\d+))?([+-])(\d+)(?::(\d+))?(?::(\d+))?"
)


def moment(text: bytes) -> int:
    """Return the time that *text* is, in µs since 1970; 0 where it cannot be read.

    It is a number of seconds, or a time in the ISO format, whatever the time zone.
    """
    match = _ISO.fullmatch(text)
    if match is None:
        try:
            return int(Decimal(text.decode()) * 1_000_000)
        except ArithmeticError:
            return 0
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    since = datetime(year, month, day, hour, minute, second) - datetime(1970, 1, 1)
    zone = int(match[9]) * 3600 + int(match[10] or 0) * 60 + int(match[11] or 0)
    seconds = since.days * 86400 + since.seconds - (zone if match[8] == b"+" else -zone)
    return seconds * 1_000_000 + int((match[7] or b"").ljust(6, b"0"))


# A label that a value has is one that its enum has, and a range keeps its subtype. The
# types of attributes can be altered, and nothing shows it.
_ATTRIBUTES_OF = b"""\
(SELECT pg_catalog.string_agg(pg_catalog.concat(a.atttypid, ' ', a.attname), ' '
        ORDER BY a.attrelid, a.attnum) FROM pg_catalog.pg_attribute AS a
 WHERE a.attrelid OPERATOR(pg_catalog.=) ANY ('{%s}'::pg_catalog.oid[])
 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)"""


def _list(oids: Iterable[int]) -> bytes:
    return b",".join(b"%d" % oid for oid in oids)


def confirm(
    catalogs: Sequence[Catalog],
    *,
    is_ascii: bool,
    is_iso: bool,
    wants_pid: bool,
    wants_database: bool,
) -> bytes:
    """Return the statement that has a server confirm what it is and has.

    Its columns are the postmaster's start time; for each of *catalogs* what the server
    calls its OIDs, and the types of the attributes of its composite types, where there
    are any; the database and the backend's PID where they are wanted. Each column costs
    about two hundredths of a small statement. *is_ascii*: the session's client encoding
    can write any name (UTF-8), else names come escaped. *is_iso*: its DateStyle is one
    that can be read back.
    """
    columns = [b"pg_catalog.pg_postmaster_start_time()" if is_iso else _START]
    for catalog in catalogs:
        column = b"'{%s}'::pg_catalog.regtype[]" % _list(catalog.confirmed)
        columns.append(column if is_ascii else _ASCII % (column + b"::pg_catalog.text"))
        if catalog.relations:
            columns.append(_ASCII % (_ATTRIBUTES_OF % _list(catalog.relations)))
    if wants_database:
        name = b"pg_catalog.current_database()"
        columns.append(_ASCII % (name + b"::pg_catalog.text"))
    if wants_pid:
        columns.append(b"pg_catalog.pg_backend_pid()")
    return MARK + b"SELECT " + b", ".join(columns)


def find_paths(names: Iterable[str]) -> bytes:
    """Return the statement that asks which types bare *names* lead to now: OIDs, by
    the search_path of the session; NULL where to none."""
    columns = (
        b"pg_catalog.to_regtype(%s)::pg_catalog.oid" % literal(quote_name(name))
        for name in names
    )
    return MARK + b"SELECT " + b", ".join(columns)


def assert_served_by(
    catalog: Catalog, paths: dict[str, int], *, wants_database: bool
) -> bytes:
    """Return the statement that fails unless the server is that of *catalog*.

    In front of a statement, in one message, it keeps the statement from being executed
    with the OIDs of another server. *paths* are types that the search_path has to lead
    to by their bare names: OIDs, or 0. The error is ``22P02``: a text that says what
    happened is no integer. It is no constant, so nothing evaluates it early.
    """
    conditions = [
        b"%s OPERATOR(pg_catalog.*) 1000000 OPERATOR(pg_catalog.=) %d"
        % (_START, catalog.start)
    ]
    if wants_database:
        conditions.append(
            b"pg_catalog.current_database()::pg_catalog.text OPERATOR(pg_catalog.=) %s"
            % literal(catalog.database)
        )
    if catalog.confirmed and catalog.names:
        conditions.append(
            b"'{%s}'::pg_catalog.regtype[]::pg_catalog.text OPERATOR(pg_catalog.=) %s"
            % (_list(catalog.confirmed), literal(catalog.names))
        )
    if catalog.relations:
        conditions.append(
            b"%s OPERATOR(pg_catalog.=) %s"
            % (_ATTRIBUTES_OF % _list(catalog.relations), literal(catalog.attributes))
        )
    for name, oid in paths.items():
        # IS NOT DISTINCT FROM would take an operator by the search_path.
        is_there = b"OPERATOR(pg_catalog.=) '%d'::pg_catalog.oid" % oid
        conditions.append(
            b"pg_catalog.to_regtype(%s)::pg_catalog.oid %s"
            % (literal(quote_name(name)), is_there if oid else b"IS NULL")
        )
    return (
        b"%sSELECT CAST(CASE WHEN %s THEN '0' ELSE 'another server answers: nothing was"
        b" executed, and the statement is sent again' END AS pg_catalog.int4),"
        b" pg_catalog.pg_backend_pid()" % (MARK, b" AND ".join(conditions))
    )
