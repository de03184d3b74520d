"""The example under uvicorn, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from .shop import PROJECT, child_environ


class Web:
    """uvicorn with some workers on a free loopback port, for the block."""

    def __init__(self, environ: Mapping[str, str], workers: int = 2) -> None:
        self._environ = {**child_environ(), **environ}
        self._workers = workers
        self._directory = tempfile.TemporaryDirectory(prefix="asgi-project-")
        self._log = Path(self._directory.name) / "web.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Web:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "demo.worker"),
                    "asgi_project.asgi:application",
                    *("--host=127.0.0.1", f"--port={port}"),
                    *(f"--workers={self._workers}", "--log-level=warning"),
                ],
                cwd=PROJECT,
                env=self._environ,
                # Closed by the kernel at the latest, and then the worker ends.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the caller, who then ends this, workers and all.
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        self._directory.cleanup()

    def log(self) -> str:
        """Return what uvicorn, Django and the app have logged."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End uvicorn and its workers."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()

    def _wait(self, timeout: float = 180) -> None:
        """Wait until every worker has answered."""
        assert self._process is not None
        seen: set[bytes] = set()
        until = time.monotonic() + timeout
        while len(seen) < self._workers and self._process.poll() is None:
            if time.monotonic() > until:
                break
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/health/", timeout=5) as answer,
            ):
                seen.add(answer.read())
            time.sleep(0.02)
        if len(seen) < self._workers:
            raise RuntimeError(
                f"{len(seen)} of {self._workers} workers started: {self.log()[-2000:]}"
            )


def free_port() -> int:
    """Return a port of 127.0.0.1 nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
