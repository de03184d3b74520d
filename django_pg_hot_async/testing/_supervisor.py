"""Keep one process and one directory for a parent, and remove both after it.

Run as a script by ``_process.Keeper``, with a socket to the parent as standard
input: a line of JSON for each request, a line of JSON for each answer. When the
parent closes its end or dies, SIGKILL included, the process is ended and the
directory removed. Only the standard library, as it runs with ``-I``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

# A zombie waiting for somebody else to reap it is as good as gone.
GONE = ("Z", "X")
PATIENCE = 5  # seconds
STOPPED = ("T", "t", *GONE)


def processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the state letter of every process there is."""
    found = {}
    if os.path.isdir("/proc/self"):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                    # The command, in parentheses, may hold anything.
                    letter, parent = file.read().rpartition(")")[2].split()[:2]
                    found[int(name)] = (int(parent), letter)
    else:
        command = ["ps", "-A", "-o", "pid=,ppid=,state="]
        for line in subprocess.check_output(command, text=True).splitlines():
            pid, parent, letter = line.split()
            found[int(pid)] = (int(parent), letter[0])
    return found


def state_of(pid: int) -> str:
    return processes().get(pid, (0, GONE[0]))[1]


def until(condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Wait for a condition that comes true soon, if ever."""
    end = time.monotonic() + timeout
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Child:
    """The process kept. It is reaped here only, so its pid is never another's."""

    def __init__(
        self,
        argv: list[str],
        log: str,
        env: dict[str, str],
        user: list[int] | None,
        ending: int,
    ) -> None:
        identity: dict[str, Any] = {}
        if user:
            identity = {"user": user[0], "group": user[1], "extra_groups": []}
        self.ending = ending
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=env,
                start_new_session=True,
                **identity,
            )

    def tree(self, number: int) -> None:
        """Send a signal to the process and its children, none forked meanwhile."""
        if self.process.poll() is not None:
            return
        pid = self.process.pid
        self.process.send_signal(signal.SIGSTOP)
        # It may be in the middle of a fork until it is seen to have stopped.
        until(lambda: state_of(pid) in STOPPED)
        children = [p for p, (parent, _) in processes().items() if parent == pid]
        send(children, number)
        if number != signal.SIGSTOP:
            self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()
            # A new postmaster refuses to start while an old backend still is there.
            until(lambda: all(state_of(p) in GONE for p in children))

    def wait(self, timeout: float) -> int | None:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        self.tree(signal.SIGCONT)
        self.process.send_signal(self.ending)
        if self.wait(PATIENCE) is None:
            self.tree(signal.SIGKILL)


def answer(child: Child | None, request: dict[str, Any]) -> tuple[Child | None, Any]:
    """Do what is asked; return the child there is then, and the answer."""
    op = request.pop("op")
    if op == "spawn":
        child = Child(**request)
        return child, child.process.pid
    if child is None:
        return None, 0
    if op == "signal":
        if child.process.poll() is None:
            child.process.send_signal(request["number"])
    elif op == "tree":
        child.tree(request["number"])
    return child, child.wait(request.get("timeout", 0))


def remove(directory: str) -> None:
    """Remove a server's directory, and the shared memory a killed one leaves."""
    with contextlib.suppress(OSError, IndexError):
        with open(os.path.join(directory, "data", "postmaster.pid")) as file:
            segment = file.read().splitlines()[6].split()[1]
        subprocess.run(["ipcrm", "-m", segment], stderr=subprocess.DEVNULL)
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):
            break
        time.sleep(0.1)


def serve(ask: int, parent: int, told_to_end: list[int]) -> Child | None:
    """Answer requests on *ask* until the parent is gone; return the child there is."""
    child: Child | None = None
    received = b""
    # A fork of the parent may hold the socket open for longer than the parent
    # lives, hence the look at the parent's pid as well.
    while os.getppid() == parent and not told_to_end:
        if not select.select([ask], [], [], 0.5)[0]:
            answer(child, {"op": "reap"})
            continue
        try:
            data = os.read(ask, 65536)
            if not data:
                break
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                try:
                    child, result = answer(child, json.loads(line))
                    reply = {"result": result}
                except (OSError, subprocess.SubprocessError) as error:
                    reply = {"error": str(error)}
                os.write(ask, json.dumps(reply).encode() + b"\n")
        except OSError:
            break
    return child


def main() -> None:
    parent, directory = int(sys.argv[1]), sys.argv[2]
    told_to_end: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: told_to_end.append(number))
    child = serve(0, parent, told_to_end)
    if child and child.process.poll() is None:
        child.end()
    remove(directory)


if __name__ == "__main__":  # pragma: no cover (runs in a process of its own)
    main()
