"""What the demo prints: the timeline, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .tally import Tally

COLUMNS = f"{'server':>10}{'wrong':>8}{'failed':>8}"


@dataclass
class Result:
    """One fleet: what its clients saw, and what its servers hold at the end."""

    tally: Tally
    cutovers: int = 0
    lost: int | None = None
    """Acknowledged new rows that are gone; None if nobody looked."""
    stored_wrong: int | None = None
    servers_agree: bool | None = None


class Timeline:
    """Print one line an event, with what the clients of each fleet have seen so far."""

    def __init__(
        self, tallies: Sequence[Tally], write: Callable[[str], object] = print
    ) -> None:
        self._tallies = tallies
        self._write = write
        titles = "".join(f"{tally.title:>{len(COLUMNS)}}" for tally in tallies)
        head = f"{'time':>7}  {'event':<48}" + COLUMNS * len(tallies)
        write(f"{'':<57}{titles}")
        write(head)
        write("-" * len(head))

    def tell(self, event: str) -> None:
        """Print *event*; in one piece, whichever thread calls."""
        self._write(
            f"{self._tallies[0].seconds:6.1f}s  {event:<48}"
            + "".join(
                f"{tally.versions():>10}{tally.wrong:>8}{tally.failures:>8}"
                for tally in self._tallies
            )
        )


def table(results: Sequence[Result]) -> str:
    """Set the fleets side by side."""
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
    """List what a fleet with the app must not show."""
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
