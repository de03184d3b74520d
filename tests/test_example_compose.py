"""compose.yaml: that it holds together, and its services run without Docker."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import psycopg
import pytest
import yaml

from django_pg_hot_async.testing import PgBouncer, PostgreSQL, Replication
from django_pg_hot_async.testing._process import Keeper

from .example import EXAMPLE, TOP, Process, environ, free_port, wait_until

PROJECT = yaml.safe_load((TOP / "compose.yaml").read_text())
SERVICES = PROJECT["services"]
README = (EXAMPLE / "README.md").read_text()
DBNAME = "example_compose"


def test_services() -> None:
    """Each waits for what it needs, is pinned, and shows nothing to the world."""
    assert set(SERVICES) == {"blue", "green", "pgbouncer", "web", "jobs", "load"}
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
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["web"]
    for name in ("web", "jobs"):
        assert SERVICES[name]["environment"]["DATABASE_HOST"] in SERVICES


def test_image_gets_what_the_package_is_built_from() -> None:
    project = (TOP / "pyproject.toml").read_text()
    [names] = re.findall(r"^only-include = \[(.*)\]$", project, re.MULTILINE)
    needed = {"pyproject.toml", "README.md", "LICENSE", *re.findall(r'"(.*?)"', names)}
    copied = re.findall(
        r"^COPY (.+) \S+$", (EXAMPLE / "Dockerfile").read_text(), re.MULTILINE
    )
    assert needed < {name for names in copied for name in names.split()}
    ignored = (EXAMPLE / "Dockerfile.dockerignore").read_text().splitlines()
    assert needed < {name.removeprefix("!") for name in ignored if name[0] == "!"}


class Project:
    """The services of compose.yaml, each as a process of this machine."""

    def __init__(self, blue: PostgreSQL, green: PostgreSQL, keeper: Keeper) -> None:
        self._keeper = keeper
        self._program = PgBouncer(blue, DBNAME).program
        self._web_port = free_port()
        self.places = {
            "BLUE": f"{blue.host}:{blue.port}",
            "GREEN": f"{green.host}:{green.port}",
        }
        ini = (EXAMPLE / "docker" / "databases.ini").read_text()
        ini = ini.replace("shop", DBNAME)
        self._write(
            "databases.ini",
            ini.replace("host=blue port=5432", f"host={blue.host} port={blue.port}"),
        )
        self._write("users.txt", (EXAMPLE / "docker" / "users.txt").read_text())
        _, port = keeper.start(
            "PgBouncer", self._pgbouncer, self._is_up, None, ending=SIGKILL
        )
        self.places["PGBOUNCER"] = f"127.0.0.1:{port}"

    def _write(self, name: str, text: str) -> Path:
        return self._keeper.write(name, text)

    def _pgbouncer(self, port: int) -> list[str | Path]:
        [program, path] = SERVICES["pgbouncer"]["command"]
        ini = (EXAMPLE / Path(path).relative_to("/app")).read_text()
        directory = f"{self._keeper.directory}/"
        for ours, theirs in [
            ("/pool/", directory),
            ("/app/docker/", directory),
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
        given = {
            **SERVICES[service].get("environment", {}),
            "DATABASE_HOST": host,
            "DATABASE_PORT": port,
            "DATABASE_NAME": DBNAME,
            "DEMO_WITHOUT_APP": "0",
        }
        image = (EXAMPLE / "Dockerfile").read_text()
        [settings] = re.findall(r"DJANGO_SETTINGS_MODULE=(\w+)", image)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return environ(
            **given,
            **self.places,
            PATH=path,
            DJANGO_SETTINGS_MODULE=settings,
            DATABASES_INI=str(self._keeper.directory / "databases.ini"),
        )

    def command(self, words: list[str]) -> list[str]:
        """Return a command of compose.yaml as it is where there is one machine."""
        web = f"127.0.0.1:{self._web_port}"
        for there, here in [
            ("web:8000", web),
            ("127.0.0.1:8000", web),
            ("0.0.0.0 --port=8000", f"127.0.0.1 --port={self._web_port}"),
            ('("127.0.0.1", 6432)', str(tuple(self.places["PGBOUNCER"].split(":")))),
        ]:
            words = [word.replace(there, here) for word in words]
        return words

    def start(self, service: str, *more: str) -> Process:
        words = [*SERVICES[service]["command"], *more]
        return Process(self.command(words), self.environ(service))

    def healthy(self, service: str) -> bool:
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return not subprocess.run(
            self.command(words), env=self.environ(service), capture_output=True
        ).returncode

    def execute(self, line: str) -> str:
        """Run a ``docker compose exec`` of the README."""
        service, *words = line.removeprefix("docker compose exec ").split()
        done = subprocess.run(
            self.command(words),
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
        for source, target in ((blue, green), (green, blue)):
            # There is no database if it did not come as far as that.
            with contextlib.suppress(psycopg.OperationalError):
                Replication(source, target, DBNAME).stop()
        for server in (blue, green):
            server.execute(f"drop database if exists {DBNAME} with (force)")


@pytest.mark.slow
@pytest.mark.pgbouncer
def test_project(blue: PostgreSQL, green: PostgreSQL, project: Project) -> None:
    """Up, under load, over, and back by the README's commands: not one row wrong."""
    over, back = re.findall(r"^\$ (docker compose exec .*?)(?: +#.*)?$", README, re.M)
    assert project.healthy("pgbouncer")
    assert not project.healthy("web")
    with project.start("web") as web:
        wait_until(lambda: project.healthy("web") or not web.running(), 180)
        assert web.running(), web.log()
        assert "green replicates from blue" in web.log()
        with (
            project.start("jobs") as jobs,
            project.start("load", "--rate=40", "--clients=4") as load,
        ):
            said = ""
            for line, server in [("", blue), (over, green), (back, blue)]:
                said = project.execute(line) if line else said
                major = server.version // 10000
                before = len(load.log())
                wait_until(
                    lambda before=before, major=major: (
                        f"server {major} " in load.log()[before:]
                    )
                )
                assert not line or f"to {major}." in said
            assert jobs.stop() == 0
            assert "on sale" in jobs.log()
            load.stop()
            last = load.log().splitlines()[-1]
        assert "wrong rows 0  failed to decode 0  cut 0  other 0" in last
        assert web.stop() == 0
        assert not web.errors()
