"""The demo as people start it, for tests of its page."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"the page: (http://127\.0\.0\.1:\d+/)")


class Demo:
    """``python -m demo`` on a free port, from its start to its end."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        self.url = ""
        self._found = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "demo", "--port=0", *arguments],
            cwd=TOP,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait(self, timeout: float = 600) -> None:
        """Wait until the page is there."""
        self._found.wait(timeout)
        assert self.url, self.output

    def end(self, number: int = signal.SIGINT, timeout: float = 90) -> int:
        """Send a signal and wait for the end; return the exit status."""
        self.process.send_signal(number)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(timeout)
        return status

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as stdout:
            for line in stdout:
                self.lines.append(line)
                if found := ADDRESS.search(line):
                    self.url = found[1]
                    self._found.set()
        self._found.set()


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Demo]:
    """Run the demo for the block, once its page is there; end it at the latest then."""
    demo = Demo(*arguments)
    try:
        demo.wait()
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.end()


def descendants(pid: int) -> set[int]:
    """Return the processes that *pid* has started, and those that they have."""
    children: dict[int, set[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold anything.
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), set()).add(int(path.parent.name))
    found: set[int] = set()
    new = {pid}
    while new:
        new = set().union(*(children.get(one, set()) for one in new)) - found
        found |= new
    return found


def alive(pids: set[int]) -> set[int]:
    """Return those of *pids* that run: zombies do not."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                found.add(pid)
    return found


def wait_for_end(pids: set[int], timeout: float = 60) -> set[int]:
    """Wait until none of *pids* runs; return those that still do."""
    until = time.monotonic() + timeout
    while (left := alive(pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return left
