"""Processes that never outlive this one, and where they live."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

SUPERVISOR = Path(__file__).with_name("_supervisor.py")


class NotInstalled(RuntimeError):
    """A program this needs is neither installed nor to be had."""


class StartError(RuntimeError):
    """A process ended, or said nothing, instead of starting; its log says why."""


def run_user() -> tuple[int, int] | None:
    """Return the user and group to run servers as, or `None` for one's own.

    PostgreSQL and PgBouncer refuse to run as root.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise NotInstalled("root needs a user 'postgres' or 'nobody' to run servers as")


def reachable(path: Path) -> bool:
    """Tell whether the user who runs the servers can get at *path*."""
    if run_user() is None:
        return os.access(path, os.R_OK | os.X_OK)
    path = path.resolve()
    return all(p.stat().st_mode & 0o001 for p in (path, *path.parents) if p.exists())


def environment() -> dict[str, str]:
    """Return the environment for servers: messages in English, nothing of libpq's."""
    kept = {key: v for key, v in os.environ.items() if not key.startswith("PG")}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def run(argv: list[str | Path]) -> None:
    """Run a program as the user who runs the servers; raise with what it says."""
    identity: dict[str, Any] = {}
    if user := run_user():
        identity = {"user": user[0], "group": user[1], "extra_groups": []}
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=environment(),
        **identity,
    )
    if done.returncode:
        text = done.stdout.decode(errors="replace").strip()
        raise StartError(f"{Path(argv[0]).name} failed: {text}")


def work_directory() -> Path:
    """Make a directory that the user who runs the servers owns."""
    user = run_user()
    parents = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    parent = next((p for p in parents if reachable(Path(p))), parents[0])
    path = Path(tempfile.mkdtemp(prefix="django-pg-hot-async-", dir=parent))
    if user:
        os.chown(path, *user)
    return path


def free_port() -> int:
    """Return a loopback port nobody listens on.

    Below the ports systems hand to outgoing connections: while a server is down,
    nobody should get its port, least of all a client by connecting to itself. At
    random whatever is seeded: test runs in parallel, of one seed, would take the same.
    """
    system = random.SystemRandom()
    for port in [*(system.randint(15_000, 32_000) for _ in range(20)), 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise StartError("no free port on 127.0.0.1")


def poll(timeout: float, first: float = 0.002) -> Iterator[float]:
    """Yield the seconds left, with short pauses that grow, until none are left."""
    start = time.monotonic()
    pause = first
    while (left := start + timeout - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.05)


class Keeper:
    """Hold a directory and one process; both go when this process does.

    A supervisor process owns them and holds one end of a socket pair. It cleans up
    when the other end is closed: by `close()`, by the garbage collector, or by the
    kernel when this process ends, however it ends. A fork of this process has no
    part in it: there every method raises, and `close()` does nothing.
    """

    def __init__(self) -> None:
        self.directory = work_directory()
        self.log_path = self.directory / "server.log"
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._supervisor = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    str(SUPERVISOR),
                    str(self._owner),
                    str(self.directory),
                ],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.close = weakref.finalize(
            self, _close, self._owner, self._socket, self._supervisor
        )
        _keepers.add(self)

    def _ask(self, op: str, **arguments: Any) -> Any:
        if os.getpid() != self._owner:
            raise RuntimeError(f"started by process {self._owner}, not by this fork")
        with self._lock:
            try:
                request = json.dumps({"op": op, **arguments})
                self._socket.sendall(request.encode() + b"\n")
                received = b""
                while not received.endswith(b"\n"):
                    data = self._socket.recv(65536)
                    if not data:
                        raise OSError("no answer")
                    received += data
            except OSError as error:
                raise StartError(f"the supervisor is gone: {error}") from error
        reply = json.loads(received)
        if "error" in reply:
            raise StartError(reply["error"])
        return reply["result"]

    def spawn(self, argv: list[str | Path], ending: Signals) -> int:
        """Start the process and return its pid; *ending* is what to end it with."""
        pid: int = self._ask(
            "spawn",
            argv=[str(arg) for arg in argv],
            log=str(self.log_path),
            env=environment(),
            user=run_user(),
            ending=int(ending),
        )
        return pid

    def running(self) -> bool:
        return self._ask("wait", timeout=0) is None

    def signal(self, number: Signals) -> None:
        self._ask("signal", number=int(number))

    def signal_tree(self, number: Signals) -> None:
        """Signal the process and its children; with SIGKILL, wait till they are gone"""
        self._ask("tree", number=int(number))

    def wait(self, timeout: float) -> bool:
        """Wait for the process to end; tell whether it did."""
        return any(self._ask("wait", timeout=0.1) is not None for _ in poll(timeout))

    def log(self, offset: int = 0) -> str:
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")

    def log_size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def write(self, name: str, text: str) -> Path:
        """Replace a file of the directory in one step, readable for the server."""
        path = self.directory / name
        replace(path, text)
        return path

    def start(
        self,
        what: str,
        command: Callable[[int], list[str | Path]],
        ready: Callable[[int, int], bool],
        port: int | None,
        ending: Signals,
        timeout: float = 30,
    ) -> tuple[int, int]:
        """Start *command(port)*, wait until *ready(pid, port)*; return pid and port.

        Without a *port*, look for a free one, and for another when somebody else was
        quicker to take it.
        """
        attempts = 1 if port else 5
        while True:
            offset = self.log_size()
            chosen = port or free_port()
            pid = self.spawn(command(chosen), ending)
            for _ in poll(timeout):
                if ready(pid, chosen):
                    return pid, chosen
                if not self.running():
                    break
            else:
                self.signal_tree(SIGKILL)
            log = self.log(offset)
            attempts -= 1
            if not attempts or "Address already in use" not in log:
                tail = "\n".join(log.splitlines()[-20:])
                raise StartError(f"{what} did not start; the end of its log:\n{tail}")


def replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o644)
    os.replace(temporary, path)


def _close(
    owner: int, ours: socket.socket, supervisor: subprocess.Popen[bytes]
) -> None:
    if os.getpid() == owner:
        ours.close()
        supervisor.wait(30)


_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()


def _after_fork() -> None:
    for keeper in list(_keepers):
        keeper._socket.close()
        # It is no child of this process: nothing to warn of, nothing to wait for.
        keeper._supervisor.returncode = 0


os.register_at_fork(after_in_child=_after_fork)
