"""What ``manage.py pg_hot_status`` prints: entries for programs, lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from django.db import connections

from django_pg_hot_async import conf
from django_pg_hot_async._core.trust import Trust
from django_pg_hot_async.checks import is_health_checked

from .output import CANNOT_TELL, NO, YES, count, table
from .probe import Answer, NotAsked
from .sessions import Sessions
from .status import (
    AliasStatus,
    ServerStatus,
    TypeStatus,
    describe_server,
    describe_types,
    is_version,
)


def entry_of(
    alias: str,
    answer: Answer | NotAsked,
    remembered: AliasStatus | None,
    expected: str | None,
    sessions: Sessions | NotAsked | None = None,
) -> dict[str, Any]:
    """Return what ``--json`` prints of one alias: always the same keys."""
    entry: dict[str, Any] = {
        "alias": alias,
        "state": "answered",
        "reason": None,
        "trust": None,
        "server": None,
        "backend": None,
        "is_standby": None,
        "is_pooled": None,
        "types": None,
        "missing": None,
        "notes": [],
        "is_expected": None,
        "is_final": False,
        "sessions": None,
        "ended": None,
        "remembered": remembered,
    }
    if isinstance(sessions, Sessions):
        entry["sessions"] = [asdict(session) for session in sessions.found]
        entry["ended"] = sessions.ended
    elif sessions is not None:
        answer = sessions
    if isinstance(answer, NotAsked):
        state = {"state": answer.state, "reason": answer.reason}
        return {**entry, **state, "is_final": answer.is_final}
    server = describe_server(answer.server, None)
    types = None if answer.snapshot is None else describe_types(answer.snapshot)
    return {
        **entry,
        "trust": conf.trust(alias).value,
        "server": server,
        "backend": {"host": answer.host, "port": answer.port},
        "is_standby": answer.is_standby,
        "is_pooled": answer.is_pooled,
        "types": types,
        "missing": list(answer.missing),
        "notes": list(notes(alias, answer)),
        "is_expected": is_version(server["version"], expected) if expected else None,
    }


def notes(alias: str, answer: Answer) -> Iterator[str]:
    """Say why another connection may lead elsewhere."""
    settings = connections.settings[alias]
    options = settings["OPTIONS"]
    if answer.is_pooled:
        yield "a pooler is in between: other connections may lead elsewhere"
        trust = conf.trust(alias)
        if trust in (Trust.SERVER, Trust.CONNECTION):
            yield (
                f"TRUST {trust.value!r} does not notice when a pooler moves"
                " open connections; 'auto' and 'transaction' do"
            )
    pool = options.get("pool")
    if pool:
        yield "connections idle in a process's pool may lead elsewhere"
        if not is_health_checked(settings):
            yield "nothing checks connections of that pool: CONN_HEALTH_CHECKS is off"
    age = settings["CONN_MAX_AGE"]
    if age != 0:
        how_long = "for good" if age is None else f"for up to {age} seconds"
        yield f"processes keep connections {how_long}: CONN_MAX_AGE"
    if "," in str(settings["HOST"] or options.get("host", "")):
        yield "several hosts are named: another connection may reach another"
    if service := options.get("service"):
        yield f"service {service!r} is what this process's service file says it is"


def lines(entry: dict[str, Any]) -> Iterator[str]:
    """Write what is known of one alias, for people."""
    yield entry["alias"]
    server, remembered = entry["server"], entry["remembered"]
    if server is None:
        yield _line("server", entry["reason"])
    else:
        standby = ", a read-only standby" if entry["is_standby"] else ""
        yield _line("server", _place(server) + standby)
        host, port = entry["backend"].values()
        if host and (host, str(port)) != (server["host"], server["port"]):
            yield _line("itself", f"at {host}:{port}")
        yield _line("trust", entry["trust"])
        yield from _type_lines(entry["types"], entry["missing"])
    if remembered and remembered["server"]:
        types = remembered["types"] or {}
        oids = ", ".join(f"{name} {each['oid']}" for name, each in types.items())
        yield _line("remembered", f"{_place(remembered['server'])}; {oids or 'unread'}")
    for note in entry["notes"]:
        yield _line("note", note)


def _type_lines(
    types: dict[str, TypeStatus] | None, missing: Sequence[str]
) -> Iterator[str]:
    if types is None:
        yield _line("types", "none are tracked")
        return
    rows = [("name", "schema", "oid", "array oid")]
    rows += [
        (name, each["schema"], str(each["oid"]), str(each["array_oid"] or "none"))
        for name, each in types.items()
    ]
    rows += [(name, "absent", "", "") for name in missing]
    for number, text in enumerate(table(rows, right=2)):
        yield _line("" if number else "types", text)


def _place(server: ServerStatus) -> str:
    return "PostgreSQL {release} at {host}:{port}/{dbname}".format(**server)


def _line(label: str, text: str) -> str:
    return f"  {label:10}  {text}".rstrip()


def short_lines(entries: Sequence[dict[str, Any]], expected: str) -> Iterator[str]:
    """Write one line an alias, for scripts that wait."""
    width = max((len(entry["alias"]) for entry in entries), default=0)
    for entry in entries:
        if entry["server"] is None:
            told = entry["reason"]
        else:
            verdict = "" if entry["is_expected"] else f", not {expected}"
            told = entry["server"]["release"] + verdict
        yield f"{entry['alias']:{width}}  {told}"


def session_lines(entry: dict[str, Any]) -> Iterator[str]:
    """Write who is connected to the database of an alias."""
    sessions = entry["sessions"]
    if sessions is None:
        yield f"{entry['alias']}  {entry['reason']}"
        return
    own = [session for session in sessions if session["is_own"]]
    ended = f", {entry['ended']} ended" if entry["ended"] else ""
    place = f"{_place(entry['server'])}: " if entry["server"] else ""
    yield (
        f"{entry['alias']}  {place}{count(len(own), 'connection')} of this"
        f" application{ended}"
    )
    if sessions:
        head = ("role", "application_name", "address", "state", "since", "connected")
        rows = [[str(session[key] or "-") for key in head] for session in sessions]
        for text in table([head, *rows]):
            yield f"  {text}"


def judge(entries: Sequence[dict[str, Any]], expected: str | None) -> tuple[int, str]:
    """Return the exit status, and why it is not 0."""
    failed = [entry for entry in entries if entry["state"] == "failed"]
    for is_final, status in ((True, CANNOT_TELL), (False, NO)):
        names = [entry["alias"] for entry in failed if entry["is_final"] is is_final]
        if names:
            hint = "; asking again would not help" if is_final else ""
            return status, f"no answer from {', '.join(names)}{hint}"
    others = [
        f"{entry['alias']} is on {entry['server']['release']}"
        for entry in entries
        if entry["is_expected"] is False
    ]
    if others:
        return NO, f"not on {expected} yet: {', '.join(others)}"
    for entry in entries:
        left = sum(session["is_own"] for session in entry["sessions"] or ())
        if left:
            still = "are" if left > 1 else "is"
            return NO, (
                f"{count(left, 'connection')} of this application {still} still open to"
                f" {entry['alias']}: --end ends {'them' if left > 1 else 'it'}"
            )
    return YES, ""
