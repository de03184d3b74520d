"""``python -m benchmarks.instructions``: what a statement costs the client, counted.

Instructions, by valgrind's callgrind, do not depend on what else the machine does. Of
the client's process alone: what the server does, and waiting, is not in them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import report, runs
from .measures import Measure, Variant
from .servers import Servers, what_is_missing
from .table import MEASURES

TIMES = 400
WARM = 60
"""How often it is done before: psycopg and Python keep what the first ones make."""

DEFAULT = (
    "checkout",
    "later-cursor-1",
    "later-orm-1",
    "untracked-cursor",
    "transaction-row",
    "transaction-plain",
    "transaction-extended",
)


def count(measure: Measure, variant: Variant, servers: Servers) -> float:
    """Return the instructions of one time, of the worker's process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        prefix = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "-q"),
            f"--callgrind-out-file={out}",
        ]
        with runs.start(measure, variant, servers, prefix) as worker:
            worker.run(WARM)
            _control(worker.pid, "--instr=on")
            worker.run(TIMES)
            _control(worker.pid, "--dump=what")
        [dump] = Path(folder).glob("out.*")
        return _total(dump) / TIMES


def _control(pid: int, what: str) -> None:
    subprocess.run(
        ["callgrind_control", what, str(pid)], check=True, stdout=subprocess.DEVNULL
    )


def _total(dump: Path) -> int:
    with dump.open() as lines:
        for line in lines:
            word, _, rest = line.partition(":")
            if word == "totals":
                return int(rest)
    raise RuntimeError(f"callgrind wrote no totals: {dump.read_text()[:200]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.instructions")
    names = [measure.name for measure in MEASURES]
    parser.add_argument("--only", metavar="NAME", action="append", choices=names)
    parser.add_argument("--postgresql", type=int, default=18, metavar="MAJOR")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed")
    with Servers(options.postgresql) as servers:
        about = report.environment(servers.main().version)
        print(", ".join(f"{name} {value}" for name, value in about.items()))
        for measure in MEASURES:
            if measure.name not in (options.only or DEFAULT):
                continue
            if what_is_missing(measure.needs):
                continue
            counts = {
                name: count(measure, variant, servers)
                for name, variant in measure.variants.items()
            }
            for row in measure.rows:
                if row.kind == "ratio" and row.against:
                    one, other = counts[row.variant], counts[row.against]
                    print(
                        f"{row.title}, against {row.beside}: {one / other:.3f},"
                        f" {one:,.0f} : {other:,.0f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
