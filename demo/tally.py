"""What came of the requests: counted, and judged row by row."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from .client import Answer

# What a connection that the server (or the way to it) has ended says for itself.
CUT_STATES = re.compile("57P0[123]|08...")
CUT_MESSAGES = re.compile(
    "server closed the connection|connection is (closed|lost)|terminating connection"
    "|connection (already closed|reset)|consuming input failed|sending query failed"
)
# Errors that come of reading or writing a value with the wrong OID.
DECODE_ERRORS = {
    "AttributeError",
    "DataError",
    "ProgrammingError",
    "TypeError",
    "ValueError",
}
SHOWN_EXAMPLES = 4


@dataclass
class Tally:
    """Everything counted in one run."""

    title: str
    requests: int = 0
    rows: int = 0
    wrong: int = 0
    undecoded: int = 0
    """Requests that failed because a value could not be decoded."""
    cut: int = 0
    """Requests that failed because a server had cut their connection."""
    other: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    workers: Counter[int] = field(default_factory=Counter)
    worker_servers: dict[int, int] = field(default_factory=dict)
    """Version of the server that a worker's last row came from."""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=5000))
    """Seconds the last requests took, for whoever takes them away."""
    servers: dict[int, float] = field(default_factory=dict)
    """Major version of a server that rows came from, and when they last did."""
    created: set[int] = field(default_factory=set)
    """Primary keys of rows that a write has been acknowledged for."""
    examples: dict[str, str] = field(default_factory=dict)
    last_fault: str = ""
    longest_pause: float = 0.0
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    _last_good: float | None = None

    @property
    def failures(self) -> int:
        return self.undecoded + self.cut + sum(self.other.values())

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    def add(
        self,
        kind: str,
        answer: Answer,
        sent: dict[str, Any] | None,
        seconds: float | None = None,
    ) -> None:
        """Count *answer* to a request of *kind*, a write if *sent* is given.

        *seconds* is how long it took.
        """
        now = time.monotonic()
        self.requests += 1
        if seconds is not None:
            self.latencies.append(seconds)
        self.by_kind[kind] += 1
        content = answer.json()
        if answer.status not in (200, 201) or not isinstance(content, dict):
            self._add_error(kind, answer, content)
            return
        self.workers[content["pid"]] += 1
        faults = 0
        for row in content["products"]:
            self.rows += 1
            server = int(row["server"])
            self.servers[server // 10000] = now
            self.worker_servers[content["pid"]] = server
            if fault := find_fault(row, sent):
                faults += 1
                self.last_fault = fault
                self._example(f"wrong row, {type_of(row)}", f"{kind}: {fault}")
            if answer.status == 201:
                self.created.add(row["id"])
        self.wrong += faults
        if not faults:
            self._good(now)

    def add_broken(self, kind: str, error: BaseException) -> None:
        """Count a request that got no answer: the web server's own failure."""
        self.requests += 1
        self.by_kind[kind] += 1
        self.other[f"no answer: {type(error).__name__}"] += 1

    def end(self) -> None:
        """Stop the clock; a pause that lasts until now counts."""
        self.ended = time.monotonic()
        self._good(self.ended)

    def versions(self, within: float = 1.0) -> str:
        """Say which major versions answered during the last *within* seconds."""
        after = time.monotonic() - within
        seen = [str(v) for v, last in sorted(self.servers.items()) if last > after]
        return "+".join(seen) or "-"

    def _good(self, now: float) -> None:
        since = self.began if self._last_good is None else self._last_good
        self.longest_pause = max(self.longest_pause, now - since)
        self._last_good = now

    def _add_error(self, kind: str, answer: Answer, content: Any) -> None:
        told = content if isinstance(content, dict) else {}
        name = str(told.get("error", f"HTTP {answer.status}"))
        message = str(told.get("message", ""))
        if is_cut(name, told.get("sqlstate"), message):
            self.cut += 1
        elif name in DECODE_ERRORS:
            self.undecoded += 1
            self._example(f"failed to decode, {name}", f"{kind}: {message}")
        else:
            self.other[name] += 1
            self._example(f"other error, {name}", f"{kind}: {message}")

    def _example(self, key: str, text: str) -> None:
        if len(self.examples) < SHOWN_EXAMPLES:
            self.examples.setdefault(key, " ".join(text.split()))


def find_fault(row: dict[str, Any], sent: dict[str, Any] | None = None) -> str | None:
    """Say what is wrong with *row*, or return None.

    Its columns must be what its proof says, and after a write (*sent*) what was
    sent.
    """
    if sent is not None and row["proof"] != sent["proof"]:
        return f"product {row['id']} is not the one that was sent"
    for name, value in json.loads(row["proof"]).items():
        if name in row and row[name] != value:
            return f"product {row['id']}: {name} is {row[name]!r}, must be {value!r}"
    return None


def type_of(row: dict[str, Any]) -> str:
    """Name the Python types that the row's columns came as."""
    names = [name for name in json.loads(row["proof"]) if name in row]
    return ", ".join(f"{name} as {type(row[name]).__name__}" for name in names)


def is_cut(name: str, sqlstate: str | None, message: str) -> bool:
    """Whether an error says that the connection was cut under a request."""
    if name not in ("OperationalError", "InterfaceError"):
        return False
    if sqlstate is not None:
        return CUT_STATES.fullmatch(sqlstate) is not None
    return CUT_MESSAGES.search(message) is not None
