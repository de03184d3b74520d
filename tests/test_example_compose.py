"""compose.yaml: that it holds together, and its services run without Docker."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from demo import watch
from django_pg_hot_async.testing import PgBouncer, PostgreSQL, Replication
from django_pg_hot_async.testing._process import Keeper

from .example import DEMO, EXAMPLE, TOP, Process, environ, free_port, wait_until

PROJECT = yaml.safe_load((TOP / "compose.yaml").read_text())
SERVICES = PROJECT["services"]
README = (DEMO / "README.md").read_text()
DBNAME = "example_compose"
DATABASES = (DBNAME, f"{DBNAME}_without")


def test_services() -> None:
    """Each waits for what it needs, is pinned, and shows nothing to the world."""
    names = {"blue", "green", "pgbouncer", "web", "without", "jobs", "load"}
    assert set(SERVICES) == names
    for name, service in SERVICES.items():
        if "build" in service:
            dockerfile = (TOP / service["build"]["dockerfile"]).read_text()
            images = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
        else:
            images = [service["image"]]
        for image in images:
            assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?-[\w-]+", image), name
        for other, needs in service.get("depends_on", {}).items():
            assert needs == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in PROJECT["volumes"]
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["load"]
    for name in ("web", "without", "jobs"):
        given = SERVICES[name]["environment"]
        assert given["DATABASE_HOST"] in SERVICES
        assert given.get("DEMO_WITHOUT_APP") == ("1" if name == "without" else None)


def test_image_gets_what_the_package_is_built_from() -> None:
    project = (TOP / "pyproject.toml").read_text()
    [names] = re.findall(r"^only-include = \[(.*)\]$", project, re.MULTILINE)
    needed = {"pyproject.toml", "README.md", "LICENSE", *re.findall(r'"(.*?)"', names)}
    needed |= {"demo", "examples/asgi_project"}
    copied = re.findall(
        r"^COPY (.+) \S+$", (DEMO / "Dockerfile").read_text(), re.MULTILINE
    )
    assert needed <= {name for names in copied for name in names.split()}
    ignored = (DEMO / "Dockerfile.dockerignore").read_text().splitlines()
    assert needed <= {name.removeprefix("!") for name in ignored if name[0] == "!"}


class Project:
    """The services of compose.yaml, each as a process of this machine."""

    def __init__(self, blue: PostgreSQL, green: PostgreSQL, keeper: Keeper) -> None:
        self._keeper = keeper
        self._program = PgBouncer(blue, DBNAME).program
        self.ports = {name: free_port() for name in ("web", "without", "load")}
        self.places = {
            "BLUE": f"{blue.host}:{blue.port}",
            "GREEN": f"{green.host}:{green.port}",
        }
        ini = (DEMO / "docker" / "databases.ini").read_text()
        ini = ini.replace("shop", DBNAME)
        self._write(
            "databases.ini",
            ini.replace("host=blue port=5432", f"host={blue.host} port={blue.port}"),
        )
        self._write("users.txt", (DEMO / "docker" / "users.txt").read_text())
        _, port = keeper.start(
            "PgBouncer", self._pgbouncer, self._is_up, None, ending=SIGKILL
        )
        self.places["PGBOUNCER"] = f"127.0.0.1:{port}"

    def _write(self, name: str, text: str) -> Path:
        return self._keeper.write(name, text)

    def _pgbouncer(self, port: int) -> list[str | Path]:
        [program, path] = SERVICES["pgbouncer"]["command"]
        ini = (TOP / Path(path).relative_to("/app")).read_text()
        directory = f"{self._keeper.directory}/"
        for ours, theirs in [
            ("/pool/", directory),
            ("/app/demo/docker/", directory),
            ("listen_addr = *", "listen_addr = 127.0.0.1"),
            ("listen_port = 6432", f"listen_port = {port}"),
        ]:
            assert ours in ini
            ini = ini.replace(ours, theirs)
        assert program == "pgbouncer"
        assert self._program
        return [self._program, self._write("pgbouncer.ini", ini)]

    def _is_up(self, pid: int, port: int) -> bool:
        return f"[{pid}] LOG process up" in self._keeper.log()

    def environ(self, service: str) -> dict[str, str]:
        """Return what the service has in its environment, the image's included."""
        host, _, port = self.places["PGBOUNCER"].partition(":")
        given = SERVICES[service].get("environment", {})
        given = {
            **given,
            "DATABASE_HOST": host,
            "DATABASE_PORT": port,
            "DATABASE_NAME": given.get("DATABASE_NAME", "shop").replace("shop", DBNAME),
        }
        image = (DEMO / "Dockerfile").read_text()
        [settings] = re.findall(r"DJANGO_SETTINGS_MODULE=([\w.]+)", image)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return environ(
            **given,
            **self.places,
            PATH=path,
            DJANGO_SETTINGS_MODULE=settings,
            DATABASES_INI=str(self._keeper.directory / "databases.ini"),
        )

    def command(self, service: str, words: list[str]) -> list[str]:
        """Return a command of *service* as it is where there is one machine."""
        port = self.ports.get(service, 0)
        for there, here in [
            *((f"{name}:8000", f"127.0.0.1:{self.ports[name]}") for name in self.ports),
            ("127.0.0.1:8000", f"127.0.0.1:{port}"),
            ("=0.0.0.0", "=127.0.0.1"),
            ("--port=8000", f"--port={port}"),
            ('("127.0.0.1", 6432)', str(tuple(self.places["PGBOUNCER"].split(":")))),
        ]:
            words = [word.replace(there, here) for word in words]
        return words

    def start(self, service: str, *more: str) -> Process:
        words = [*SERVICES[service]["command"], *more]
        return Process(self.command(service, words), self.environ(service))

    def healthy(self, service: str) -> bool:
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return not subprocess.run(
            self.command(service, words),
            env=self.environ(service),
            capture_output=True,
        ).returncode

    def console(self, command: str) -> None:
        """Send a command to PgBouncer."""
        host, _, port = self.places["PGBOUNCER"].partition(":")
        with psycopg.connect(
            host=host, port=port, user="postgres", dbname="pgbouncer", autocommit=True
        ) as console:
            console.execute(command)

    def wait(self, service: str, process: Process) -> None:
        """Wait until *service* is healthy, as ``up --wait`` does."""
        wait_until(lambda: self.healthy(service) or not process.running(), 180)
        assert process.running(), process.log()

    def execute(self, line: str) -> str:
        """Run a ``docker compose exec`` of the README."""
        service, *words = line.removeprefix("docker compose exec ").split()
        done = subprocess.run(
            self.command(service, words),
            cwd=EXAMPLE,
            env=self.environ(service),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def project(blue: PostgreSQL, green: PostgreSQL) -> Iterator[Project]:
    keeper = Keeper()
    try:
        yield Project(blue, green, keeper)
    finally:
        keeper.close()
        for dbname in DATABASES:
            for source, target in ((blue, green), (green, blue)):
                # There is no database if it did not come as far as that.
                with contextlib.suppress(psycopg.OperationalError):
                    Replication(source, target, dbname, name=dbname).stop()
            for server in (blue, green):
                server.execute(f"drop database if exists {dbname} with (force)")


class Onlooker:
    """Somebody who has the page open."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.state: dict[str, Any] = {}

    def read(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Follow the events until the state is *wanted*, some minutes at most."""
        with self._client.stream("GET", "/events/") as answer:
            lines = (line for line in answer.iter_lines() if line.startswith("data: "))
            for _, line in zip(range(400), lines, strict=False):
                self.state |= json.loads(line[6:])
                if wanted(self.state):
                    return self.state
        raise AssertionError(self.state)


def are_on(state: dict[str, Any], server: int) -> bool:
    """Whether every worker with the app goes by the OIDs of a server."""
    described = state["servers"][server]
    workers = state["fleets"][1]["workers"]
    return len(workers) == 2 and all(
        worker["server"] == described["number"]
        and described["types"].items() <= worker["types"].items()
        for worker in workers
    )


@pytest.mark.slow
@pytest.mark.pgbouncer
def test_project(project: Project) -> None:
    """Up, under load, over, and back by the README's commands: not one row wrong.

    With the app, that is. The page shows both, has the commands, and cannot act.
    """
    commands = re.findall(r"^\$ (docker compose exec .*?)(?: +#.*)?$", README, re.M)
    assert list(watch.COMMANDS.values()) == commands
    assert project.healthy("pgbouncer")
    assert not project.healthy("web")
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(project.start("web"))
        project.wait("web", web)
        assert "green replicates from blue" in web.log()
        without = stack.enter_context(project.start("without"))
        jobs = stack.enter_context(project.start("jobs"))
        project.wait("without", without)
        load = stack.enter_context(project.start("load", "--rate=20", "--clients=4"))
        project.wait("load", load)
        url = f"http://127.0.0.1:{project.ports['load']}"
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        text = client.get("/").text
        assert "<form" not in text and all(line in text for line in commands)
        assert client.post("/press/cut-over/").status_code in (403, 404)
        onlooker = Onlooker(client)
        onlooker.read(lambda state: state.get("serving") == 0 and are_on(state, 0))
        # A pause is seen, and is no switch if nothing comes of it.
        project.console(f"PAUSE {DBNAME}")
        onlooker.read(lambda state: state["doing"].startswith("cutting over"))
        project.console(f"RESUME {DBNAME}")
        assert not onlooker.read(lambda state: not state["doing"])["switches"]
        for line, server in zip(commands, (1, 0), strict=True):
            before = onlooker.state["fleets"]
            said = project.execute(line)
            assert f"to {onlooker.state['servers'][server]['release']}" in said

            def is_there(
                state: dict[str, Any], server: int = server, before: Any = before
            ) -> bool:
                more = (
                    new["rows"] > old["rows"] + 50
                    for new, old in zip(state["fleets"], before, strict=True)
                )
                return (
                    state["serving"] == server
                    and not state["doing"]
                    and are_on(state, server)
                    and all(more)
                )

            state = onlooker.read(is_there)
            assert state["switches"][-1]["seconds"] > 0
            left, right = state["fleets"]
            assert left["wrong"] + left["undecoded"] and not left["app"]
            assert not (right["wrong"] or right["failed"]) and right["app"]
        assert len(state["switches"]) == 2
        assert jobs.stop() == 0, jobs.log()
        assert "on sale" in jobs.log()
        assert load.stop() == 0, load.log()
        assert load.log().splitlines()[-1] == "With the app: not one row read wrong."
        assert "moved from" in load.log()
        for site in (web, without):
            assert site.stop() == 0
        assert not web.errors()
