"""A cutover by Django's settings, in a process of its own."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import threading

import django
from django.conf import settings
from django.db import connections
from django.db.transaction import TransactionManagementError, atomic
from django.db.utils import ConnectionDoesNotExist
from django_pg_hot_async.testing import PostgreSQL, ServiceFile, point_alias

def version(alias="default"):
    with connections[alias].cursor() as cursor:
        cursor.execute("show server_version_num")
        return int(cursor.fetchone()[0]) // 10000

with PostgreSQL(15) as blue, PostgreSQL(18) as green:
    settings.configure(
        DATABASES={
            "default": {**blue.database("postgres"), "CONN_MAX_AGE": 60},
            "pooled": {**blue.database("postgres"), "OPTIONS": {"pool": True}},
            "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        }
    )
    django.setup()
    assert version() == 15

    # Another thread follows with its next connect.
    steps = threading.Barrier(2)
    seen = []

    def other():
        seen.append(version())
        steps.wait()
        steps.wait()
        seen.append(version())
        connections.close_all()
        seen.append(version())
        connections.close_all()

    thread = threading.Thread(target=other)
    thread.start()
    steps.wait()
    point_alias("default", green.database("postgres"))
    assert version() == 18
    steps.wait()
    thread.join()
    assert seen == [15, 15, 18], seen
    assert connections["default"].settings_dict["CONN_MAX_AGE"] == 60

    assert version("pooled") == 15
    point_alias("pooled", green.database("postgres"))
    assert version("pooled") == 18
    connections["pooled"].close()
    connections["pooled"].close_pool()

    with ServiceFile() as service:
        service.point("shop", blue, "postgres")
        blank = dict(NAME="", HOST="", PORT="", USER="")
        point_alias("default", {**blank, **service.database("shop")})
        assert version() == 15
        service.point("shop", green, "postgres")
        assert version() == 15
        connections["default"].close()
        assert version() == 18

    # A backend without pools.
    point_alias("lite", {"NAME": ":memory:"})

    try:
        with atomic():
            point_alias("default", blue.database("postgres"))
    except TransactionManagementError:
        pass
    else:
        raise AssertionError
    assert version() == 18

    try:
        point_alias("nowhere", blue.database("postgres"))
    except ConnectionDoesNotExist as error:
        assert "nowhere" in str(error)
    else:
        raise AssertionError
    connections.close_all()
print("well")
"""


def test_point_alias():
    """This thread at once, others with their next connect, a pool with the next one."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_import_needs_no_settings():
    """Neither does it import Django's database layer."""
    code = "import sys, django_pg_hot_async.testing; print('django.db' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stderr == ""
