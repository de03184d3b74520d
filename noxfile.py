"""Everything there is to run; ``uvx nox -l`` lists it.

Set-up included: ``uvx nox -s demo`` and ``uvx nox -s tests`` need nothing on the
machine but Python and uv.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint"]
# The matrix runs on what is installed, and says what it skips.
nox.options.error_on_missing_interpreters = False
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
DJANGOS = [
    name.rpartition(" ")[2]
    for name in PROJECT["project"]["classifiers"]
    if name.startswith("Framework :: Django :: ")
]
PSYCOPGS = ["3.2", "3.3"]
IMPLEMENTATIONS = ["binary", "python"]
PACKAGE = {"django_pg_hot_async", "pytest_django_pg_hot_async.py"}
POSTGRESQLS = [14, 15, 16, 17, 18]
LEFT_OUT = [
    *(
        f"--ignore-glob=tests/{name}"
        for name in (
            "test_benchmarks.py",
            "test_browser.py",
            "test_demo.py",
            "test_example*",
            "test_preflight*",
            "test_rehearsal*",
            "test_stress.py",
            "test_testing_*",
        )
    ),
    "--deselect=tests/test_model.py::test_a_planted_fault_is_found",
]
"""Tests that take long, and try the same whatever Python and Django are."""
FIRST_POSTGRESQL = {"5.2": 14, "6.0": 14, "6.1": 15}
"""The oldest PostgreSQL that a release of Django connects to."""
FIRST = [
    f"django=={DJANGOS[0]}",
    "asgiref==3.8.1",
    # The pool has versions of its own.
    "psycopg[binary]==3.2.10",
    "psycopg-pool==3.2.0",
]
"""The oldest of what the package depends on."""
FIRST_PYTHON = {"5.2": "3.10", "6.0": "3.12", "6.1": "3.12"}
"""The oldest Python that a release of Django runs on."""


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on this interpreter, with the newest Django that it can run."""
    install_tests(session, newest_django(session))
    run_tests(session, PSYCOPG_IMPL="binary")


def newest_django(session: nox.Session) -> str:
    """The newest Django that the session's Python can run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = str(session.run("python", "-c", code, silent=True)).strip()
    able = [name for name in DJANGOS if numbers(python) >= numbers(FIRST_PYTHON[name])]
    return able[-1]


def newest_python() -> str | None:
    """The newest supported Python that is installed: with the newest Django."""
    for version in reversed(PYTHONS):
        # pyenv leaves programs on the path that only say which version to choose.
        command = [shutil.which(f"python{version}") or "false", "-V"]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return version
    return None


@nox.session(python=newest_python())
def newest(session: nox.Session) -> None:
    """Run the tests that depend on versions on the newest Python, and its Django."""
    install_tests(session, newest_django(session))
    run_tests(session, *LEFT_OUT, PSYCOPG_IMPL="binary")


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run them on the oldest of all that is supported, to the last digit."""
    install_tests(session, DJANGOS[0], *FIRST)
    run_tests(session, *LEFT_OUT, PSYCOPG_IMPL="binary")


def combinations() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield Python, Django, psycopg, its implementation, blue and green servers.

    Each Python with each Django and psycopg; each Django with each psycopg in each
    implementation, and with each release of PostgreSQL that it supports on either
    side. All with all would be nine times as many.
    """
    for j, django in enumerate(DJANGOS):
        releases = [one for one in POSTGRESQLS if one >= FIRST_POSTGRESQL[django]]
        sides = itertools.cycle(zip(releases, releases[1:] + releases[:1], strict=True))
        pythons = [
            name for name in PYTHONS if numbers(name) >= numbers(FIRST_PYTHON[django])
        ]
        for i, python in enumerate(pythons):
            for k, psycopg in enumerate(PSYCOPGS):
                implementation = IMPLEMENTATIONS[(i + j + k) % 2]
                blue, green = next(sides)
                yield python, django, psycopg, implementation, f"{blue} to {green}"


@nox.session
@nox.parametrize("python,django,psycopg,implementation,servers", combinations())
def matrix(
    session: nox.Session, django: str, psycopg: str, implementation: str, servers: str
) -> None:
    """Run the tests that depend on versions on all that is supported and installed."""
    install_tests(session, django, f"psycopg[binary]=={psycopg}.*")
    blue, _, green = servers.partition(" to ")
    env = {"PSYCOPG_IMPL": implementation, "BLUE": blue, "GREEN": green}
    run_tests(session, *LEFT_OUT, **env)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and the Compose file."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run(
        "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"
    )


@nox.session
def demo(session: nox.Session) -> None:
    """Show fleets with the app and without it cut over from 15 to 18, under load."""
    install(session, "demo")
    session.run(
        *("python", "-m", "demo"),
        *session.posargs,
        # Seconds it has for its table after Ctrl-C.
        interrupt_timeout=60,
        terminate_timeout=10,
    )


@nox.session
def browser(session: nox.Session) -> None:
    """Test the demo's page in Chromium; needs that, and npm for axe-core."""
    install(session, "browser")
    session.run("python", "-m", "pytest", "tests/test_browser.py", *session.posargs)


@nox.session(python=newest_python())
def bench(session: nox.Session) -> None:
    """Measure what the app costs, against Django's own."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=newest_python())
def instructions(session: nox.Session) -> None:
    """Count what statements cost the client, by valgrind: no noise, no server."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks.instructions", *session.posargs)


def install(session: nox.Session, group: str, *requirements: str) -> None:
    session.install(*nox.project.dependency_groups(PROJECT, group), *requirements, ".")


def install_tests(session: nox.Session, django: str, *requirements: str) -> None:
    groups = ["tests"]
    if django == DJANGOS[-1]:
        groups.append("async-backend")
    wanted = nox.project.dependency_groups(PROJECT, *groups)
    session.install(*wanted, f"django=={django}.*", *requirements, ".")


def run_tests(session: nox.Session, *options: str, **env: str) -> None:
    """Run pytest on the package as installed; all tests, with their coverage.

    In a copy of the project without the package's source, so that a file the
    built package lacks is missed.
    """
    project = Path(session.create_tmp()) / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(".", project, ignore=without_package)
    session.chdir(project)
    # A file's tests share their servers.
    xdist = ["-n2", "--dist=loadfile", "--max-worker-restart=0"]
    command = ["-m", "pytest", *xdist, *options, *session.posargs]
    if options or session.posargs:
        session.run("python", *command, env=env)
    else:
        session.run("coverage", "run", *command, env=env)
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report")


def without_package(directory: str, names: list[str]) -> set[str]:
    ignored = {name for name in names if name.startswith(".") or name == "__pycache__"}
    return ignored | (PACKAGE if directory == "." else set())
