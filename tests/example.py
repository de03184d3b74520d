"""The example project with its own settings, run as its users run it."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from demo import shop
from django_pg_hot_async.testing import PgBouncer, PostgreSQL, ServiceFile

TOP = Path(__file__).resolve().parents[1]
EXAMPLE = TOP / "examples" / "asgi_project"
DEMO = TOP / "demo"
DBNAME = "example_project"
SERVICE = "example_project"
ROWS = 40
PASSWORD = "correct horse"
FILL = f"""
import django
django.setup()
from asgi_project.pools import close_pools_at_exit
from django.core.management import call_command
close_pools_at_exit()
call_command("migrate", verbosity=0)
call_command("seed", {ROWS})
who = {{"username": "admin", "email": "admin@example.com"}}
call_command("createsuperuser", interactive=False, **who)
"""
LASTS = 60.0
"""Seconds a stream of the example lasts."""


class Shops:
    """The catalogue on two servers, and a service that leads to one of them."""

    def __init__(
        self, blue: PostgreSQL, green: PostgreSQL, service: ServiceFile
    ) -> None:
        self.blue = blue
        self.green = green
        self._service = service

    @property
    def environ(self) -> dict[str, str]:
        return {
            **environ(),
            **self._service.environ,
            "DATABASE_SERVICE": SERVICE,
            "DATABASE_USER": "postgres",
        }

    def lead_to(self, server: PostgreSQL) -> None:
        """Lead new connections to *server*, and cut those to the other."""
        self._service.point(SERVICE, server, DBNAME)
        for other in (self.blue, self.green):
            if other is not server:
                other.terminate(DBNAME)


@pytest.fixture(scope="session")
def shops(blue: PostgreSQL, green: PostgreSQL, service: ServiceFile) -> Iterator[Shops]:
    """The catalogue on both, with the same rows; what is hstore's OID on the one is
    that of ``citext[]`` on the other.
    """
    shop.aim(blue, green, DBNAME, fill)
    fill(green)
    # The hash as well: the admin's sessions depend on it.
    query = "select password from auth_user"
    green.execute(
        "update auth_user set password = %s",
        blue.execute(query, dbname=DBNAME)[0],
        dbname=DBNAME,
    )
    types = [shop.find_types(server, DBNAME) for server in (blue, green)]
    assert types[0]["hstore"] == types[1]["citext[]"], types
    assert len(types[0]) == 5 and not types[0].items() & types[1].items(), types
    shops = Shops(blue, green, service)
    shops.lead_to(blue)
    yield shops
    for server in (blue, green):
        server.drop_database(DBNAME)


def fill(server: PostgreSQL) -> None:
    """Have the example make its tables, some rows, and somebody to log in as."""
    run(to_address(server, DJANGO_SUPERUSER_PASSWORD=PASSWORD), "-c", FILL)


def environ(**more: str) -> dict[str, str]:
    """Return the environment for a process of the example."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DATABASE_")}
    return {
        **kept,
        "DJANGO_SETTINGS_MODULE": "asgi_project.settings",
        # What can be imported here can be imported there.
        "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(TOP)])),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def to_address(server: PostgreSQL | PgBouncer, **more: str) -> dict[str, str]:
    """Return the environment for a process of the example that talks to *server*."""
    return environ(
        **{
            "DATABASE_HOST": server.host,
            "DATABASE_PORT": str(server.port),
            "DATABASE_NAME": DBNAME,
            "DATABASE_USER": "postgres",
            **more,
        }
    )


def manage(environ: Mapping[str, str], *arguments: str) -> str:
    return run(environ, "manage.py", *arguments)


def run(environ: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=EXAMPLE,
        env=environ,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Process:
    """A process of the example, ended with the block."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            cwd=EXAMPLE,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            # Its workers with it.
            os.killpg(self._process.pid, 9)
        self._process.wait()
        self._log.close()

    def log(self) -> str:
        return os.pread(self._log.fileno(), 10**6, 0).decode(errors="replace")

    def errors(self) -> list[str]:
        """Return the last lines of the tracebacks in the log.

        But for Django's own of a client that left a stream: now and then nobody is
        there any more to whom its listener can tell (seen with 5.2 and 6.0).
        """
        ends = re.findall(
            r"^Traceback \(most recent call last\):\n(?:[ ].*\n)+(.*)",
            self.log(),
            re.MULTILINE,
        )
        return [end for end in ends if not end.endswith("RequestAborted")]

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> int:
        """End it as a supervisor would, and return its exit status."""
        self._process.terminate()
        return self._process.wait(30)


class Site(Process):
    """A web server that serves the example."""

    def __init__(self, command: str, environ: Mapping[str, str]) -> None:
        """Run *command*, one of the README's, on a port of its own."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        program, *arguments = command.replace("8000", str(port)).split()
        # Beside the interpreter, unless it says where it is.
        program = str(Path(sys.executable).parent / program)
        super().__init__([program, *arguments], environ)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def __enter__(self) -> Site:
        try:
            wait_until(self.answers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def answers(self) -> bool:
        assert self.running(), self.log()
        try:
            return bool(self.get("/health/"))
        except OSError:
            return False

    def open(self, path: str, data: bytes | None = None) -> Any:
        """Return the response to a request, which remembers cookies."""
        return self._opener.open(self.url + path, data, timeout=30)

    def get(self, path: str) -> Any:
        with self.open(path) as answer:
            return json.load(answer)

    def post(self, path: str, content: Mapping[str, Any]) -> Any:
        with self.open(path, json.dumps(content).encode()) as answer:
            return json.load(answer)


class Events:
    """The products told of by the example's stream.

    A stream that has lasted as long as it may is followed by the next, as in a browser.
    """

    def __init__(self, site: Site, last_event_id: str = "") -> None:
        self._url = site.url + "/products/changes/"
        self.last_id = last_event_id
        self._open()
        # From then on it listens.
        while not self._line().startswith(b"id: "):
            pass

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._response.close()

    def next(self) -> Any:
        """Return the next product told of, however long that takes."""
        while not (line := self._line()).startswith(b"data: "):
            pass
        return json.loads(line[6:])

    def _open(self) -> None:
        request = urllib.request.Request(self._url)
        if self.last_id:
            request.add_header("Last-Event-ID", self.last_id)
        self._until = time.monotonic() + LASTS
        self._response = urllib.request.urlopen(request, timeout=60)
        assert self._response.headers["Content-Type"] == "text/event-stream"

    def _line(self) -> bytes:
        while not (line := bytes(self._response.readline())):
            assert time.monotonic() >= self._until, "the stream has ended early"
            self._response.close()
            self._open()
        if line.startswith(b"id: "):
            self.last_id = line[4:].strip().decode()
        return line


def wait_until(true: Any, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"not {true} after {seconds} seconds"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
