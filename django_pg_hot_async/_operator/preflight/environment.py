"""Comparing settings of the server, the database and the role, and the locale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .facts import Facts, Finding, Severity, listed, quoted
from .rules import Rule, Subject, apply, both

# Settings that change what a statement does, whoever set them and wherever.
_CHANGES: dict[str, str] = {
    "array_nulls": "NULL in arrays is read otherwise",
    "backslash_quote": "strings are read otherwise",
    "bytea_output": "bytea is written otherwise",
    "default_table_access_method": "new tables are stored otherwise",
    "default_tablespace": "new tables are made elsewhere",
    "default_text_search_config": "a text search finds other rows",
    "default_transaction_deferrable": "transactions wait otherwise",
    "default_transaction_isolation": "transactions see other rows",
    "extra_float_digits": "floats are written otherwise",
    "fsync": "rows may be lost when the machine crashes",
    "full_page_writes": "rows may be lost when the machine crashes",
    "idle_in_transaction_session_timeout": "transactions are cut off at another time",
    "idle_session_timeout": "connections are cut off at another time",
    "lc_messages": "messages are in another language",
    "lc_monetary": "money is written otherwise",
    "lc_numeric": "to_char() writes numbers otherwise",
    "lc_time": "to_char() writes dates otherwise",
    "local_preload_libraries": "other libraries are loaded",
    "lock_timeout": "statements that wait are cut off at another time",
    "row_security": "row security fails statements instead of leaving rows out",
    "session_preload_libraries": "other libraries are loaded",
    "shared_preload_libraries": "other libraries are loaded",
    "statement_timeout": "statements are cut off at another time",
    "synchronous_commit": "what is committed may be lost when the server crashes",
    "temp_tablespaces": "temporary files are made elsewhere",
    "TimeZone": "programs other than Django see other days",
    "timezone_abbreviations": "time zones are read otherwise",
    "transaction_timeout": "transactions are cut off at another time",
    "transform_null_equals": "= NULL means something else",
    "xmlbinary": "XML is written otherwise",
    "xmloption": "XML is read otherwise",
    "autovacuum": "statistics grow old",
    "track_counts": "autovacuum does nothing",
}
# Settings that fail statements where green has another value than blue.
_BREAKS: dict[str, tuple[str, str]] = {
    "DateStyle": ("ISO", "psycopg reads dates and timestamps in ISO only"),
    "IntervalStyle": ("postgres", "psycopg reads intervals in this style only"),
    "standard_conforming_strings": ("on", "a backslash means something else"),
    "session_replication_role": ("origin", "triggers and foreign keys hold nothing"),
}
"""What works, and why nothing else does."""
_UTC = {"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Zulu", "Etc/Zulu", "UCT", "Etc/UCT"}
# Numbers of what green can take: less of it is refused under load.
_AMOUNTS: dict[str, Severity] = {
    "max_connections": "warning",
    "max_locks_per_transaction": "warning",
    "max_prepared_transactions": "warning",
    "max_replication_slots": "note",
    "max_wal_senders": "note",
    "temp_file_limit": "warning",
    "work_mem": "note",
    "maintenance_work_mem": "note",
    "shared_buffers": "note",
    "effective_cache_size": "note",
    "max_worker_processes": "note",
    "max_parallel_workers_per_gather": "note",
}
_READ_ONLY = "default_transaction_read_only"
# These are compared elsewhere, or are of the client's own making.
_LEFT_OUT = {"search_path", "client_encoding", "role", "session_authorization"}


def find_in_environment(blue: Facts, green: Facts) -> Iterator[Finding]:
    yield from _find_in_settings(blue, green)
    yield from _find_in_new_settings(blue, green)
    yield from _find_in_role_settings(blue, green)
    yield from _find_in_path(blue, green)
    yield from apply(_DATABASE, blue, green, *both("database", blue, green))
    yield from _find_in_versions(blue, green)


def _find_in_settings(blue: Facts, green: Facts) -> Iterator[Finding]:
    here, there = both("settings", blue, green)
    side = green.alias
    for name in here.keys() & there.keys() - _LEFT_OUT:
        one, other = here[name], there[name]
        if one.value == other.value or {one.value, other.value} <= _UTC:
            continue
        values = (
            f"{name} is {_shown(other)} on {side}, but {_shown(one)} on {blue.alias}"
        )
        hint = _set(green, name, one)
        if name == _READ_ONLY:
            if other.value == "on":
                yield Finding(
                    "break",
                    "read_only",
                    name,
                    f"{name} is on on {side}: each write fails",
                    f"{_set(green, name, one)} or ALTER SYSTEM RESET {name};",
                )
        elif name in _BREAKS:
            good, why = _BREAKS[name]
            if other.value.split(",")[0] != good:
                yield Finding("break", "setting", name, f"{values}: {why}", hint)
            else:
                yield Finding("warning", "setting", name, values, hint)
        elif name in _AMOUNTS:
            if _is_smaller(other, one):
                yield Finding(
                    _AMOUNTS[name],
                    "amount",
                    name,
                    f"{values}: green has less of it",
                    f"ALTER SYSTEM SET {name} = '{one.value}'; and restart {side}.",
                )
        elif name in _CHANGES:
            severity: Severity = "note" if name == "lc_messages" else "warning"
            yield Finding(
                severity, "setting", name, f"{values}: {_CHANGES[name]}", hint
            )
        elif one.is_own or other.is_own or name.startswith("enable_"):
            yield Finding("warning", "setting", name, values, hint)


def _find_in_new_settings(blue: Facts, green: Facts) -> Iterator[Finding]:
    """Tell what is set for the role or the database that blue's release lacks."""
    here, there = both("settings", blue, green)
    for name in there.keys() - here.keys():
        row = there[name]
        if row.is_own and row.value != row.boot:
            yield Finding(
                "warning",
                "setting",
                name,
                f"{name} is {_shown(row)} on {green.alias}, and {blue.alias} has no"
                " such setting",
                f"ALTER DATABASE {quoted(green.server.dbname or '')} RESET {name};",
            )


def _find_in_role_settings(blue: Facts, green: Facts) -> Iterator[Finding]:
    """Compare what ALTER ROLE and ALTER DATABASE ... SET, which no dump brings.

    Settings of the application's role are compared as it meets them; what is left is
    those of other roles, and those of a project's own, which no server lists.
    """
    here, there = both("role_settings", blue, green)
    known = blue.of("settings").keys() | green.of("settings").keys()
    for name in sorted(here.keys() | there.keys()):
        one, other = here.get(name), there.get(name)
        if one and other and one.value == other.value:
            continue
        row: Any = one or other
        if row.setting == "search_path" and row.role in ("", blue.role):
            continue
        who = f"role {row.role}" if row.role else "the database"
        says = (
            f"{row.setting} of {who} is"
            f" {repr(other.value) if other else 'not set'} on {green.alias}, but"
            f" {repr(one.value) if one else 'not set'} on {blue.alias}"
        )
        target = (
            f"ROLE {quoted(row.role)}"
            if row.role
            else f"DATABASE {quoted(green.server.dbname or '')}"
        )
        hint = (
            f"ALTER {target} SET {row.setting} = '{one.value}';"
            if one
            else f"ALTER {target} RESET {row.setting};"
        )
        if row.role not in ("", blue.role):
            if row.role in green.of("roles") or not one:
                yield Finding("note", "setting_of_role", row.setting, says, hint)
        elif row.setting not in known:
            if other is None:
                says += ": current_setting() fails"
                yield Finding("break", "setting", row.setting, says, hint)
            else:
                yield Finding("warning", "setting", row.setting, says, hint)


def _find_in_path(blue: Facts, green: Facts) -> Iterator[Finding]:
    """Tell which schemas a name alone is no longer looked for in."""
    if blue.search_path == green.search_path:
        return
    gone = [name for name in blue.search_path if name not in green.search_path]
    used = {row.schema for row in blue.of("relations").values()}
    used |= {row.schema for row in blue.of("routines").values()}
    used |= {row.schema for row in blue.of("extensions").values()}
    used |= {type.schema for type in blue.types}
    lost = [name for name in gone if name in used]
    path = ", ".join(map(quoted, blue.search_path))
    for who in (f"ROLE {quoted(blue.role)}",):
        hint = f"ALTER {who} SET search_path = {path};"
    if lost:
        says = f"what is in {listed(lost)} is not found there by its name alone"
    elif gone:
        says = f"{listed(gone)} is not in it"
    else:
        says = "a name that is in several schemas may mean another thing"
    yield Finding(
        "break" if lost else "warning",
        "search_path",
        "search_path",
        f"the search_path leads to {green.path} on {green.alias}, but to {blue.path} on"
        f" {blue.alias}: {says}",
        hint,
    )


_DATABASE = Subject(
    differs=(
        Rule(
            "break",
            "encoding",
            "the encoding is {green.encoding} on {side}, but {blue.encoding} on {here}:"
            " characters that it lacks cannot be saved",
            "Create the database of {side} anew: CREATE DATABASE ... ENCODING"
            " '{blue.encoding}' TEMPLATE template0;",
            lambda b, g: b.encoding != g.encoding and g.encoding != "UTF8",
        ),
        Rule(
            "warning",
            "encoding",
            "the encoding is {green.encoding} on {side}, but {blue.encoding} on {here}",
            "Create the database of {side} anew: CREATE DATABASE ... ENCODING"
            " '{blue.encoding}' TEMPLATE template0;",
            lambda b, g: b.encoding != g.encoding,
        ),
        Rule(
            "warning",
            "locale",
            "the collation is {green.collate} ({green.provider}) on {side}, but"
            " {blue.collate} ({blue.provider}) on {here}: rows sort otherwise, and"
            " upper(), lower() and LIKE may differ",
            "Create the database of {side} anew: CREATE DATABASE ... LC_COLLATE"
            " '{blue.collate}' LC_CTYPE '{blue.ctype}' TEMPLATE template0;",
            lambda b, g: (
                (_locale(b), b.provider, b.locale) != (_locale(g), g.provider, g.locale)
            ),
        ),
    )
)


def _locale(row: Any) -> tuple[str, str]:
    # Operating systems spell one locale in several ways: en_US.UTF-8, en_US.utf8.
    return tuple(
        name.lower().replace("utf-8", "utf8") for name in (row.collate, row.ctype)
    )


def _find_in_versions(blue: Facts, green: Facts) -> Iterator[Finding]:
    """Tell where indexes were made with another version of a collation."""
    side = green.alias
    actual = green.of("collation").get("database")
    recorded = green.database.recorded
    name = quoted(green.server.dbname or "")
    if actual and recorded is not None and recorded != actual.actual:
        yield Finding(
            "warning",
            "collation_version",
            "database",
            f"the database of {side} was made with version {recorded} of its collation,"
            f" and the server has {actual.actual or 'none'}: indexes of text may miss"
            " rows",
            f"REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION"
            " VERSION;",
        )
    for row in green.of("collations").values():
        if row.recorded != row.actual:
            yield Finding(
                "warning",
                "collation_version",
                row.name,
                f"collation {row.name} of {side} was made with version {row.recorded},"
                f" and the server has {row.actual or 'none'}: indexes may miss rows",
                f"REINDEX DATABASE {name}; ALTER COLLATION {row.name} REFRESH VERSION;",
            )
    before = blue.of("collation").get("database")
    same = (blue.database.collate, blue.database.provider) == (
        green.database.collate,
        green.database.provider,
    )
    if before and actual and same and before.actual != actual.actual:
        yield Finding(
            "note",
            "collation_version",
            "database",
            f"the collation {green.database.collate} is of version {actual.actual} on"
            f" {side}, but {before.actual} on {blue.alias}: some rows may sort"
            " otherwise",
        )


def _shown(row: Any) -> str:
    return f"{row.value!r}" + (f" {row.unit}" if row.unit else "")


def _set(green: Facts, name: str, row: Any) -> str:
    database = quoted(green.server.dbname or "")
    return f"ALTER DATABASE {database} SET {name} = '{row.value}';"


def _is_smaller(row: Any, than: Any) -> bool:
    one, other = float(row.value), float(than.value)
    if one < 0 or other < 0:  # No limit.
        return other < 0 <= one
    return one < other
