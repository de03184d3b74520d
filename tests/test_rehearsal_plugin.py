"""The pytest plugin, as a project of its own uses it: in a pytest of its own."""

from __future__ import annotations

import functools
import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import pytest_django_pg_hot_async as plugin
from django_pg_hot_async.testing import Stage

from .conftest import BLUE, GREEN
from .test_readme import README

PROJECT = Path(__file__).with_name("rehearsal_project")
OUTER = {"CI", "DJANGO_SETTINGS_MODULE", "PGSERVICEFILE", "PYTEST_ADDOPTS"}
NAME = plugin.__name__
PAGE = (Path(__file__).parent.parent / "docs" / "rehearsal.md").read_text()
[SNIPPET] = re.findall(r"```python\n([^`]*def test_.*?)```", README, re.DOTALL)
PAGE_SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def is_installed():
    return any(point.value == NAME for point in entry_points(group="pytest11"))


def copy_project(directory):
    project = Path(shutil.copytree(PROJECT, directory / "project"))
    (project / "test_readme.py").write_text(SNIPPET)
    return project


def run_pytest(project, *args, **environ):
    # A checkout is no installation: there is no entry point then.
    command = [] if is_installed() else ["-p", NAME]
    command += ["-rA", "-p", "no:randomly", "-p", "no:cacheprovider"]
    command += ["-o", f"pg_hot_blue={BLUE}", "-o", f"pg_hot_green={GREEN}"]
    root = str(Path(plugin.__file__).parent)
    kept = {key: value for key, value in os.environ.items() if key not in OUTER}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *command, *args],
        cwd=project,
        env={**kept, "PYTHONPATH": f"{project}:{root}", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def results(done):
    """What became of each test, as the summary says: "PASSED", or "ERROR FAILED"."""
    found: dict[str, list[str]] = {}
    for word, name in re.findall(
        r"^(PASSED|FAILED|ERROR|SKIPPED) \S+?::(\S+)", done.stdout, re.MULTILINE
    ):
        found.setdefault(name, []).append(word)
    return {name: " ".join(sorted(words)) for name, words in found.items()}


@pytest.fixture
def project(tmp_path):
    return copy_project(tmp_path)


@pytest.fixture
def run(project):
    return functools.partial(run_pytest, project)


@pytest.fixture(scope="module")
def with_app(tmp_path_factory, green):
    """All the project's tests, and pytest-django's database on a server of ours."""
    project = copy_project(tmp_path_factory.mktemp("with"))
    for number, snippet in enumerate(PAGE_SNIPPETS):
        if "# conftest.py" in snippet:
            (project / "conftest.py").write_text(snippet)
        elif "unittest" not in snippet:
            (project / f"test_page_{number}.py").write_text(snippet)
    return run_pytest(
        project,
        *(*sorted(path.name for path in project.glob("test_*.py")), "upgrade.py"),
        SHOP_PORT=str(green.port),
        SHOP_SSLMODE="disable",
    )


@pytest.fixture(scope="module")
def without_app(tmp_path_factory):
    return run_pytest(
        copy_project(tmp_path_factory.mktemp("without")),
        *("test_readme.py", "upgrade.py", "-k", "order or watched or async"),
        WITHOUT_APP="1",
    )


LINES = "test_an_order_survives_the_upgrade"
PAGE_RESULTS = {
    "test_our_code_survives": "PASSED",
    "test_either_route[service]": "PASSED",
    "test_either_route[pgbouncer]": "PASSED",
    "test_async_code": "PASSED",
    "test_who_is_reached": "PASSED",
}


def test_the_lines_of_the_readme(with_app):
    assert results(with_app)[LINES] == "PASSED", with_app.stdout


def test_the_lines_of_the_readme_fail_without_the_app(without_app):
    """By the test itself, and by the watcher."""
    assert results(without_app)[LINES] == "ERROR FAILED", without_app.stdout
    assert without_app.returncode == 1


@pytest.mark.pgbouncer
def test_what_a_project_may_ask(with_app):
    assert results(with_app) == {
        LINES: "PASSED",
        **PAGE_RESULTS,
        "test_watched[service]": "PASSED",
        "test_watched[pgbouncer]": "PASSED",
        "test_async": "PASSED",
        "test_aliases[service]": "PASSED",
        "test_aliases[pgbouncer]": "PASSED",
        "test_what_migrations_wrote": "PASSED",
        "test_live_server": "PASSED",
        "test_own_database": "PASSED",
        "test_transactional_db": "PASSED",
        "test_db": "ERROR",
    }, with_app.stdout
    assert "'default' is in a transaction, as in a TestCase" in with_app.stdout


@pytest.mark.pgbouncer
def test_the_watcher_fails_without_the_app(without_app):
    """Where the project's own tests assert nothing, and read nothing."""
    assert results(without_app) == {
        LINES: "ERROR FAILED",
        "test_watched[service]": "FAILED",
        "test_watched[pgbouncer]": "FAILED",
        "test_async": "FAILED",
    }, without_app.stdout
    assert re.search(r"WrongRows: \d+ values wrong", without_app.stdout)
    for line in (
        'shop.Order.attrs: \'"gift"=>"yes"\' where a dict is expected',
        "shop.Order.tags: '{New}' where it was ['New'] on blue",
    ):
        assert line in without_app.stdout


def test_extensions_that_a_migration_insists_on_creating(run):
    done = run("upgrade.py", "-k", "async", RAW_SQL="1")
    assert results(done) == {"test_async": "PASSED"}, done.stdout


@pytest.fixture
def without_pytest_django(project, run):
    """Run pytest without pytest-django, and without what is said to that."""
    file = project / "pytest.ini"
    file.write_text(re.sub("(?m)^DJANGO_SETTINGS_MODULE.*\n", "", file.read_text()))
    return functools.partial(run, "-p", "no:django")


def test_the_page_without_pytest(project):
    [snippet] = [snippet for snippet in PAGE_SNIPPETS if "unittest" in snippet]
    (project / "test_unit.py").write_text(snippet)
    environ = {key: value for key, value in os.environ.items() if key not in OUTER}
    path = f"{project}:{Path(plugin.__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "test_unit", "--settings", "settings"],
        cwd=project,
        env={**environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert "Ran 1 test" in done.stdout and done.returncode == 0, done.stdout


def test_the_page_names_every_option_and_its_default():
    options = re.findall(r"^\| `(pg_hot_\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    defaults = inspect.signature(Stage).parameters
    assert dict(options) == {
        "pg_hot_blue": str(defaults["blue"].default),
        "pg_hot_green": str(defaults["green"].default),
        "pg_hot_aliases": " ".join(defaults["aliases"].default),
        "pg_hot_route": inspect.signature(Stage.rehearse).parameters["route"].default,
    }
    for target in re.findall(r"\]\(\.\./([^)#]+)", PAGE):
        assert (Path(__file__).parent.parent / target).exists()


def test_without_pytest_django(project, without_pytest_django):
    """Django is set up by the variable that it reads itself."""
    (project / "test_it.py").write_text(
        """
def test_it(pg_hot_rehearsal, no_wrong_rows):
    from shop.models import Order

    Order.objects.create(attrs={"gift": "yes"})
    pg_hot_rehearsal.cutover()
"""
    )
    done = without_pytest_django("test_it.py", DJANGO_SETTINGS_MODULE="settings")
    assert results(done) == {"test_it": "PASSED"}, done.stdout


def test_a_database_is_prepared(project, run):
    (project / "conftest.py").write_text(
        """
import pytest

@pytest.fixture(scope="session")
def pg_hot_prepare():
    def prepare(server, dbname):
        server.execute("create table prepared (name text)", dbname=dbname)
        server.execute("insert into prepared values (%s)", [dbname], dbname=dbname)
    return prepare
"""
    )
    (project / "test_prepared.py").write_text(
        """
from django.db import connection

def test_prepared(pg_hot_rehearsal):
    for _ in range(2):
        with connection.cursor() as cursor:
            cursor.execute("select name from prepared")
            assert cursor.fetchall() == [("default template",)]
        if pg_hot_rehearsal.server is pg_hot_rehearsal.blue:
            pg_hot_rehearsal.cutover()
"""
    )
    done = run("test_prepared.py", "-o", "pg_hot_aliases=default")
    assert results(done) == {"test_prepared": "PASSED"}, done.stdout


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("pg_hot_blue=15.3", "pg_hot_blue is '15.3'; a release of PostgreSQL from 14"),
        ("pg_hot_green=13", "pg_hot_green is '13'; a release of PostgreSQL from 14"),
        ("pg_hot_route=dns", "pg_hot_route is 'dns'; 'service' or 'pgbouncer'"),
        ("pg_hot_aliases=shop", "pg_hot_aliases names 'shop', which is no alias"),
        (
            "pg_hot_green_schema=no.sql",
            "'default', 'archive' expected, in this order",
        ),
    ],
)
def test_an_option_that_is_wrong(project, run, option, said):
    (project / "test_it.py").write_text("def test_it(pg_hot_rehearsal): pass")
    done = run("test_it.py", "-o", option)
    assert results(done) == {"test_it": "ERROR"}, done.stdout
    assert said in done.stdout


@pytest.mark.parametrize("place", ["servers", "pgbouncer"])
def test_what_is_not_installed(project, run, place):
    """Skipped with the reason; not so in CI, where nobody reads of it."""
    (project / "conftest.py").write_text(
        {
            "servers": """
from django_pg_hot_async.testing import NotInstalled, _server

def binaries(major):
    raise NotInstalled("no such program here")

_server.binaries = binaries
""",
            "pgbouncer": """
from django_pg_hot_async.testing import _pgbouncer

_pgbouncer._find = lambda: None
""",
        }[place]
    )
    reason = {"servers": "no such program", "pgbouncer": "pgbouncer is neither"}[place]
    wanted = ("upgrade.py", "-k", "watched and pgbouncer")
    done = run(*wanted)
    assert "1 skipped" in done.stdout and reason in done.stdout, done.stdout
    assert done.returncode == 0
    done = run(*wanted, CI="1")
    assert "1 error" in done.stdout and reason in done.stdout, done.stdout


def test_it_costs_nothing_where_it_is_not_used(project, without_pytest_django):
    """Nothing is imported, nothing is connected, no fixture is used by itself."""
    (project / "test_none.py").write_text(
        f"""
import sys

def test_none(request):
    assert "{NAME}" in sys.modules
    assert not {{"django", "psycopg", "django_pg_hot_async"}} & sys.modules.keys()
    assert not [name for name in request.fixturenames if "pg_hot" in name]
"""
    )
    done = without_pytest_django("test_none.py")
    assert results(done) == {"test_none": "PASSED"}, done.stdout


def test_its_fixtures_and_options_say_what_they_are_for(run):
    done, help = run("--fixtures"), run("--help")
    for name in ("pg_hot_stage", "pg_hot_rehearsal", "pg_hot_prepare", "no_wrong_rows"):
        assert re.search(rf"^{name}\b.* -- .*\n    \w", done.stdout, re.MULTILINE)
    for option in ("blue", "green", "route", "aliases"):
        assert f"  pg_hot_{option} (" in help.stdout
