"""The ways to query: to read one row, and to send a value, by each kind of cursor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import time
from typing import Any

import psycopg
from asgiref.sync import async_to_sync
from hypothesis import strategies as st
from psycopg.rows import tuple_row
from psycopg.types.range import Range

from tests.shop.models import Product

from .clients import Client
from .schema import STRANGER, Layout, Mood

COLUMNS: dict[str, str | None] = {
    "attrs": "hstore",
    "tags": "citext[]",
    "parts": "hstore[]",
    "feels": "mood",
    "array[feels]": "mood[]",
    "array['new'::mood, feels]": "mood[]",
    "tags[1]": "citext",
    "opens": "shift",
    "array[opens]": "shift[]",
    "name": None,
}
"""The type of each, if it has an OID that servers do not agree on."""
LITERALS = {
    "'a=>1'::hstore": "hstore",
    "array['a=>1'::hstore]": "hstore[]",
    "'{x}'::citext[]": "citext[]",
    "'ok'::mood": "mood",
    "'[08:00,09:00)'::shift": "shift",
}
KINDS = {**COLUMNS, **LITERALS}
NEW_LABEL = "array['new'::mood, feels]"
MOODS = ("array[feels]", NEW_LABEL)
ELEMENTS = (*MOODS, "array[opens]", "opens")
"""Those that in binary have an OID in them, or no text, where nobody loads them."""

DJANGO_READS = ("cursor", "chunked", "orm", "iterator", "async orm")
READS = (
    "server",
    "client",
    "raw",
    "several",
    "binary",
    "named",
    "named raw",
    "named binary",
    "record",
    "pipeline",
    "stream",
    "copy",
    "copy binary",
)
DJANGO_SENDS = ("cursor", "orm")
SENDS = (
    "server",
    "client",
    "raw",
    "insert",
    "executemany",
    "both",
    "copy",
    "copy binary",
)
KEPT = ("cursor", "server", "client")
ORM = ("orm", "iterator", "async orm")
BINARY = {
    "binary": "server",
    "named binary": "named",
    "record": "server",
    "copy binary": "copy",
}
"""And the way that is the same in the text format, or nearly."""
# Where a result comes in several: DECLARE, its description, FETCH.
IN_PARTS = ("named", "named raw", "named binary", "chunked", "iterator")
PIPELINED = ("pipeline", "executemany")
# Where types are read, if they have to be, before rows are on their way.
COPIES = ("copy", "copy binary")
AHEAD = ("stream", "pipeline", *COPIES)

VALUES: dict[str, Any] = {
    "hstore": {"a": "1", "b c": None},
    "hstore[]": [{"a": '"'}, {}],
    "mood": Mood.OK,
    "mood[]": [Mood.SAD, Mood.OK],
    "shift": Range(time(8), time(9)),
    "shift[]": [Range(time(8), time(9)), Range(time(9), None)],
}
PROJECTS = ("mood", "mood[]", "shift", "shift[]")
"""Those that the project has to register."""
ARRIVED = {
    "hstore": '"a"=>"1", "b c"=>NULL',
    "hstore[]": r'{"\"a\"=>\"\\\"\"",""}',
    "mood": "ok",
    "mood[]": "{sad,ok}",
    "shift": "[08:00:00,09:00:00)",
    "shift[]": '{"[08:00:00,09:00:00)","[09:00:00,)"}',
}

column_lists = st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3)


class Select:
    """Some columns of one row."""

    def __init__(
        self,
        columns: Iterable[str],
        *,
        has_new_label: bool = False,
        loaded: Collection[str] = (),
    ) -> None:
        """*has_new_label*: the server has the label that one of them is of; *loaded*
        are the types whose values become something else than text."""
        if not has_new_label:
            columns = (MOODS[0] if name == NEW_LABEL else name for name in columns)
        self.columns = list(dict.fromkeys(columns))
        names = ", ".join(self.columns)
        self.sql = f"select {names} from product where name = 'anvil'"
        self.kinds = [KINDS[name] for name in self.columns]
        self.loaded = loaded

    @property
    def types(self) -> list[str]:
        """Those of the columns that have one of which servers do not agree."""
        return [kind for kind in self.kinds if kind]

    @property
    def named(self) -> list[str | int]:
        """What COPY is told that they are: 0 is a type that nobody tracks."""
        return [
            (kind if kind in self.loaded else 0) if kind else "text"
            for kind in self.kinds
        ]

    def musts(self, right: Iterable[bool]) -> list[bool]:
        """Tell for each column whether it has to be right, given it for each type."""
        known = iter(right)
        return [next(known) if kind else True for kind in self.kinds]


class Literals(Select):
    """A value of each type that there is, where there is no table."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(
            [name for name, kind in LITERALS.items() if kind in layout.oids]
        )
        self.sql = f"select {', '.join(self.columns)}"


def make_cursor(client: Client, how: str, **options: Any) -> Any:
    connection = client.connection
    if how == "cursor":
        return client.call(client.wrapper.cursor)  # type: ignore[attr-defined]
    kinds: dict[str, tuple[Any, Any]] = {
        "server": (psycopg.Cursor, psycopg.AsyncCursor),
        "client": (psycopg.ClientCursor, psycopg.AsyncClientCursor),
        "raw": (psycopg.RawCursor, psycopg.AsyncRawCursor),
    }
    return kinds[how][client.is_async](connection, row_factory=tuple_row, **options)


# Ways to read one row; each returns a list of rows.


def read_by_cursor(client: Client, how: str, select: Select) -> Any:
    cursor = make_cursor(client, how)
    client.call(cursor.execute, select.sql)
    rows = client.call(cursor.fetchall)
    client.call(cursor.close)
    return rows


def plain_query(client: Client) -> None:
    """Query what needs no tracked type, so that nothing is read of them."""
    cursor = make_cursor(client, "server")
    client.call(cursor.execute, "select 'x', 1")
    assert client.call(cursor.fetchall) == [("x", 1)]


def freeze(client: Client) -> None:
    """Have the transaction that has begun see what there is now, and nothing newer."""
    cursor = make_cursor(client, "server")
    client.call(
        cursor.execute, "set transaction isolation level repeatable read, read write"
    )
    plain_query(client)


def disown(client: Client) -> None:
    """Have the transaction that has begun go on as a role with the least rights."""
    cursor = make_cursor(client, "server")
    client.call(cursor.execute, f"set local role {STRANGER}")


def hear(client: Client) -> None:
    """Have the server process hear of what others changed since its transaction began.

    It does when it locks a relation; until then it may go by types that are gone.
    """
    cursor = make_cursor(client, "server")
    for sql in (
        "savepoint before",
        "select from pg_extension limit 0",
        "rollback to savepoint before",
        "release savepoint before",
    ):
        client.call(cursor.execute, sql)


def read_chunked(client: Any, how: str, select: Select) -> Any:
    with client.wrapper.chunked_cursor() as cursor:
        cursor.execute(select.sql)
        return cursor.fetchall()


def read_by_orm(client: Client, how: str, select: Select) -> Any:
    products = Product.objects.filter(name="anvil").values_list(*select.columns)
    return list(products.iterator(10) if how == "iterator" else products)


def read_by_async_orm(client: Client, how: str, select: Select) -> Any:
    """Out of a loop that `async_to_sync` runs: queries come back to this thread."""
    products = Product.objects.filter(name="anvil").values_list(*select.columns)

    async def fetch() -> Any:
        return [row async for row in products]

    return async_to_sync(fetch)()


def read_binary(client: Client, how: str, select: Select) -> Any:
    cursor = make_cursor(client, "server")
    client.call(cursor.execute, select.sql, binary=True)
    return client.call(cursor.fetchall)


def read_record(client: Client, how: str, select: Select) -> Any:
    """A record's fields are loaded when the row is fetched."""
    names = ", ".join(select.columns)
    cursor = make_cursor(client, "server")
    client.call(
        cursor.execute,
        f"select row({names}) from product where name = 'anvil'",
        binary=True,
    )
    [[record]] = client.call(cursor.fetchall)
    return [record]


def read_several(client: Client, how: str, select: Select) -> Any:
    """Several statements at once: the rows of each are for nextset()."""
    cursor = make_cursor(client, "server")
    sql = f"select 'x'; {select.sql}; {select.sql}"
    client.call(cursor.execute, sql, prepare=False)
    assert client.call(cursor.fetchall) == [("x",)]
    found = []
    while cursor.nextset():
        found.append(client.call(cursor.fetchall))
    first, second = found
    assert first == second, f"{first!r} is not {second!r}"
    return first


def read_named(client: Client, how: str, select: Select) -> Any:
    kinds: Any = (psycopg.ServerCursor, psycopg.AsyncServerCursor)
    if how == "named raw":
        kinds = (psycopg.RawServerCursor, psycopg.AsyncRawServerCursor)
    cursor = kinds[client.is_async](
        client.connection,
        "model",
        row_factory=tuple_row,
        withhold=not client.in_transaction,
    )
    with client.using(cursor):
        client.call(cursor.execute, select.sql, binary=how == "named binary")
        return client.call(cursor.fetchall)


def read_stream(client: Client, how: str, select: Select) -> Any:
    return client.collect(make_cursor(client, "server").stream(select.sql))


def read_in_pipeline(client: Client, how: str, select: Select) -> Any:
    with client.using(client.connection.pipeline()) as pipeline:
        cursor = make_cursor(client, "server")
        client.call(cursor.execute, select.sql)
        client.call(pipeline.sync)
        return client.call(cursor.fetchall)


def format_of(how: str) -> str:
    """Name the format of a COPY."""
    return "binary" if how == "copy binary" else "text"


def read_copy(client: Client, how: str, select: Select) -> Any:
    """COPY tells no types; the connection is asked for them by name."""
    cursor = make_cursor(client, "server")
    sql = f"copy ({select.sql}) to stdout (format {format_of(how)})"
    with client.using(cursor.copy(sql)) as copy:
        missing = None
        try:
            copy.set_types(select.named)
        except KeyError as error:
            # Told when the rows have come: to cancel them would be to cancel a query.
            missing = error
        rows = client.collect(copy.rows())
    if missing is not None:
        raise psycopg.ProgrammingError(f"no type of that name: {missing}")
    return rows


READERS: dict[str, Callable[[Any, str, Select], Any]] = {
    "chunked": read_chunked,
    "orm": read_by_orm,
    "iterator": read_by_orm,
    "async orm": read_by_async_orm,
    "binary": read_binary,
    "several": read_several,
    "named": read_named,
    "named raw": read_named,
    "named binary": read_named,
    "record": read_record,
    "pipeline": read_in_pipeline,
    "stream": read_stream,
    **dict.fromkeys(COPIES, read_copy),
}


# Ways to send; each returns what arrived, as text, one value for each type.


SEND = "select v::text, pg_typeof(v)::text from (select %s as v) as t"
SEND_RAW = SEND.replace("%s", "$1")


def send_by_cursor(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = kept or make_cursor(client, how)
    # One object each: psycopg keeps what it made for the one before.
    client.call(cursor.execute, SEND_RAW if how == "raw" else SEND, [VALUES[kind]])
    [[text, name]] = client.call(cursor.fetchall)
    return [text if name == kind else f"{name}: {text}"]


HOW = "select attrs::text, parts::text from product where name = 'sent'"


def arrived(client: Client, how: str) -> Any:
    """What the server holds of what was sent; it is deleted again."""
    cursor = make_cursor(client, how)
    client.call(cursor.execute, HOW)
    rows = client.call(cursor.fetchall)
    client.call(cursor.execute, "delete from product where name = 'sent'")
    return rows


def send_insert(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = make_cursor(client, "server")
    client.call(
        cursor.execute,
        "insert into product (name, attrs, parts) values ('sent', %s, %s)",
        [VALUES["hstore"], VALUES["hstore[]"]],
    )
    [row] = arrived(client, "server")
    return list(row)


def send_by_orm(client: Client, how: str, kind: str, kept: Any) -> Any:
    Product.objects.create(
        name="sent", attrs=VALUES["hstore"], parts=VALUES["hstore[]"]
    )
    [row] = arrived(client, "cursor")
    return list(row)


def send_many(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = make_cursor(client, "server")
    client.call(
        cursor.executemany,
        "insert into product (name, attrs) values ('sent', %s)",
        [[None], [VALUES["hstore"]], [VALUES["hstore"]]],
    )
    values = [attrs for attrs, _ in arrived(client, "server")]
    assert len(values) == 3 and values.count(None) == 1, values
    [value] = {*values} - {None}
    return [value]


def send_and_read(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = make_cursor(client, "server")
    client.call(
        cursor.execute,
        "select v, v::text from (select hstore(array['a', '1', 'b c', NULL]) as v)"
        " as t where v @> %s",
        [VALUES["hstore"]],
    )
    [[value, text]] = client.call(cursor.fetchall)
    assert value == VALUES["hstore"], f"wrong: {value!r}"
    return [text]


def send_by_copy(client: Client, how: str, kind: str, kept: Any) -> Any:
    cursor = make_cursor(client, "server")
    sql = f"copy product (name, attrs, parts) from stdin (format {format_of(how)})"
    with client.using(cursor.copy(sql)) as copy:
        try:
            copy.set_types(["text", "hstore", "hstore[]"])
        except KeyError as error:
            raise psycopg.ProgrammingError(f"no type of that name: {error}") from error
        row = ["sent", VALUES["hstore"], VALUES["hstore[]"]]
        client.call(copy.write_row, row)
    [row] = arrived(client, "server")
    return list(row)


SENDERS: dict[str, Callable[[Any, str, str, Any], Any]] = {
    "orm": send_by_orm,
    "insert": send_insert,
    "executemany": send_many,
    "both": send_and_read,
    **dict.fromkeys(COPIES, send_by_copy),
}
