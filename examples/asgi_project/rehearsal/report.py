"""What the demo prints: the timeline of a run, and the table of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .tally import Tally

HEAD = f"{'time':>7}  {'event':<58}{'answers from':>13}{'wrong':>8}{'failed':>8}"


@dataclass
class Result:
    """One run: what the clients saw, and what the servers hold at its end."""

    tally: Tally
    cutovers: int = 0
    lost: int | None = None
    """Acknowledged new rows that are gone; None if the run was broken off."""
    stored_wrong: int | None = None
    servers_agree: bool | None = None


class Timeline:
    """Print one line an event, with what the clients have seen so far."""

    def __init__(self, tally: Tally, write: Callable[[str], object] = print) -> None:
        self._tally = tally
        self._write = write
        write(HEAD)
        write("-" * len(HEAD))

    def tell(self, event: str) -> None:
        tally = self._tally
        self._write(
            f"{tally.seconds:6.1f}s  {event:<58}{tally.versions():>13}"
            f"{tally.wrong:>8}{tally.failures:>8}"
        )


def table(results: Sequence[Result]) -> str:
    """Set the runs side by side."""
    lines: list[tuple[str, Callable[[Result], object]]] = [
        ("requests", lambda r: r.tally.requests),
        ("requests a second", lambda r: f"{r.tally.rate:.0f}"),
        ("cutovers", lambda r: r.cutovers),
        ("rows compared", lambda r: r.tally.rows),
        ("wrong rows", lambda r: r.tally.wrong),
        ("errors: failed to decode", lambda r: r.tally.undecoded),
        ("errors: server cut the connection", lambda r: r.tally.cut),
        ("errors: other", lambda r: sum(r.tally.other.values())),
        ("longest pause", lambda r: f"{r.tally.longest_pause:.2f} s"),
        ("rows lost", lambda r: _known(r.lost)),
        ("rows stored wrong", lambda r: _known(r.stored_wrong)),
        ("servers hold the same at the end", lambda r: _known(r.servers_agree)),
    ]
    width = max(len(name) for name, _ in lines) + 2
    text = [" " * width + "".join(f"{r.tally.title:>20}" for r in results)]
    text.append("-" * len(text[0]))
    for name, value in lines:
        text.append(f"{name:<{width}}" + "".join(f"{value(r):>20}" for r in results))
    for result in results:
        for kind, count in result.tally.other.items():
            text.append(f"other error, {result.tally.title}: {kind} ({count})")
    return "\n".join(text)


def find_problems(result: Result, *, clients_held: bool) -> list[str]:
    """List what a run with the app must not show."""
    tally = result.tally
    found = {
        "wrong rows": tally.wrong,
        "requests failed to decode": tally.undecoded,
        "other errors": sum(tally.other.values()),
        "rows lost": result.lost,
        "rows stored wrong": result.stored_wrong,
        "difference between the servers": result.servers_agree is False,
        "connections cut though PgBouncer held them": clients_held and tally.cut,
    }
    return [f"{int(count)} {what}" for what, count in found.items() if count]


def _known(value: object) -> str:
    names = {None: "not checked", True: "yes", False: "no"}
    return names[value] if value is None or isinstance(value, bool) else str(value)
