"""Celery's own code runs the tasks: eagerly, and in a worker of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import psycopg
import pytest
from celery import Celery, shared_task
from celery import signals as celery_signals
from celery.contrib.testing.worker import start_worker

from django_pg_hot_async import _work_units, pool

from .scenarios import KINDS, READ, ask_for, close_all, database, lead, trust

SELECT = "select attrs from product where name = 'anvil'"
ROW = ({"weight": "9 kg", "gone": None},)

app = Celery(
    "tests", broker="memory://", backend="cache+memory://", set_as_current=True
)
app.conf.update(
    broker_connection_retry_on_startup=False, worker_hijack_root_logger=False
)


@celery_signals.setup_logging.connect
def leave_logging_alone(**kwargs):
    """A worker would set the level of the root logger, and tests after it miss logs."""


@app.task
def ask(number):
    """Read twice; say who did."""
    assert ask_for(SELECT) == ask_for(SELECT) == ROW
    return number, threading.get_ident()


@shared_task
def ask_too():
    assert ask_for(SELECT) == ask_for(SELECT) == ROW


@app.task
def close():
    close_all()


@pytest.fixture(autouse=True)
def shop(green):
    _work_units.find_celery()  # what the next new connection would do
    with trust("checkout"):
        lead("default", database(green.database("shop"), KINDS["C2"]))
        yield


@pytest.fixture
def reads(green):
    @contextmanager
    def recorded(expected):
        with green.statements() as statements:
            yield
        seen = [text for text in statements if READ in text]
        assert len(seen) == expected, statements

    return recorded


def test_found_by_a_pool_that_checks(green):
    """Whose hook looks after a connection before Django has it."""
    _work_units._task_prerun = None
    try:
        with psycopg.connect(green.conninfo("shop")) as conn:
            pool.check("default")(conn)
        assert _work_units._task_prerun is celery_signals.task_prerun
    finally:
        _work_units.find_celery()


def test_a_worker(reads):
    """Three tasks in one thread, on one connection: three reads."""
    with (
        reads(3),
        start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30),
    ):
        try:
            done = [ask.delay(number).get(timeout=30) for number in range(3)]
        finally:
            close.delay().get(timeout=30)
    assert [number for number, _ in done] == [0, 1, 2]
    assert len({thread for _, thread in done} - {threading.get_ident()}) == 1


def test_called_in_place(reads):
    """``apply()``, which is what CELERY_TASK_ALWAYS_EAGER makes of ``delay()``."""
    assert ask_for(SELECT) == ROW
    with reads(2):
        assert ask.apply((1,)).get()[0] == 1
        ask_too.apply().get()


def test_a_shared_task_of_an_eager_app(reads):
    app.conf.task_always_eager = True
    try:
        assert ask_for(SELECT) == ROW
        with reads(1):
            ask_too.delay().get()
    finally:
        app.conf.task_always_eager = False


def test_a_new_connection_finds_celery(reads):
    """Where it was imported after Django was set up, and nothing was connected."""
    _work_units.uninstall()
    try:
        assert ask_for(SELECT) == ROW
        with reads(1):
            ask.apply((1,)).get()
    finally:
        _work_units.install()


def test_without_the_app_nothing_is_connected(without_app):
    assert not celery_signals.task_prerun.disconnect(dispatch_uid=_work_units.UID)


PROJECT = {
    "project/__init__.py": "from .celery import app as celery_app",
    "project/celery.py": """
from celery import Celery
app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")
# Celery's own Django code closes connections around each task otherwise.
app.conf.CELERY_DB_REUSE_MAX = 100
app.autodiscover_tasks()
""",
    "project/settings.py": """
DATABASES = {databases!r}
INSTALLED_APPS = ["django_pg_hot_async", "django.contrib.postgres", "project"]
PG_HOT_ASYNC = {{"TRUST": "checkout"}}
{broker}
""",
    "project/tasks.py": """
import os
from celery import shared_task
from django.db import connection

@shared_task
def ask():
    with connection.cursor() as cursor:
        for _ in range(2):
            cursor.execute("select attrs from product where name = 'anvil'")
            attrs, = cursor.fetchone()
    return attrs, os.getpid(), connection.connection.info.backend_pid
""",
}


@pytest.mark.slow
def test_a_project_and_its_worker(green, reads, tmp_path):
    """A project as Celery's documentation has it, and a worker that forks."""
    target = database(green.database("shop"), KINDS["C2"])
    folder = str(tmp_path / "messages")
    options = dict.fromkeys(
        ("data_folder_in", "data_folder_out", "control_folder"), folder
    )
    config = {
        "broker_url": "filesystem://",
        "broker_transport_options": options,
        "result_backend": f"file://{tmp_path}/results",
    }
    broker = "\n".join(f"CELERY_{k.upper()} = {v!r}" for k, v in config.items())
    for folder in ("messages", "results", "project"):
        (tmp_path / folder).mkdir()
    for name, content in PROJECT.items():
        content = content.format(databases={"default": target}, broker=broker)
        (tmp_path / name).write_text(content)
    client = Celery("client", set_as_current=False)
    client.conf.update(config)
    command = [sys.executable, "-m", "celery", "-A", "project", "worker"]
    command += ["--pool", "prefork", "--concurrency", "1", "--without-mingle"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "DJANGO_SETTINGS_MODULE": "project.settings",
            },
            stdout=log,
            stderr=log,
        ) as worker,
    ):
        try:
            with reads(3):
                done = [
                    client.send_task("project.tasks.ask").get(timeout=240)
                    for _ in range(3)
                ]
        except Exception as error:
            raise AssertionError((tmp_path / "log").read_text()) from error
        finally:
            worker.terminate()
    assert [attrs for attrs, _, _ in done] == [ROW[0]] * 3
    assert len({pid for _, pid, _ in done} - {worker.pid}) == 1
    assert len({backend for _, _, backend in done}) == 1


START = """
import sys, django
{before}
from django.conf import settings
settings.configure(INSTALLED_APPS=["django_pg_hot_async"])
django.setup()
from django_pg_hot_async import _work_units
print("celery" in sys.modules, _work_units._task_prerun is not None)
"""


@pytest.mark.parametrize(
    "before, expected",
    [
        pytest.param("", "False False", id="not imported"),
        pytest.param("from celery import Celery", "True True", id="project/__init__"),
        pytest.param("from celery import shared_task", "True True", id="tasks.py"),
    ],
)
def test_django_starts(before, expected):
    """Celery is not imported for our sake, and connected to where it was."""
    code = START.format(before=before)
    process = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert process.stdout.strip() == expected
