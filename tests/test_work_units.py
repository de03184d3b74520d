"""Units of work: under "checkout" trust each reads anew, once, where it needs to.

Connections are persistent, so that nothing but the unit makes them read.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import django
import psycopg
import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.http import JsonResponse
from django.test.utils import override_settings
from django.urls import path
from psycopg_pool import AsyncConnectionPool

from django_pg_hot_async import _memory, _work_units, pool, work_unit

from .scenarios import (
    KINDS,
    READ,
    ask_for,
    close_all,
    connection,
    database,
    lead,
    trust,
)
from .shop.models import Product

SELECT = "select attrs from product where name = 'anvil'"
ATTRS = {"weight": "9 kg", "gone": None}


def read():
    assert ask_for(SELECT) == (ATTRS,)


async def aread():
    product = await Product.objects.aget(name="anvil")
    assert product.attrs == ATTRS


@pytest.fixture(autouse=True)
def shop(green):
    with trust("checkout"):
        lead("default", database(green.database("shop"), KINDS["C2"]))
        yield
        close_all()


@pytest.fixture
def reads(green):
    """Expect a number of reads of types during a block."""

    @contextmanager
    def recorded(expected):
        with green.statements() as statements:
            yield
        seen = [text for text in statements if READ in text]
        assert len(seen) == expected, statements

    return recorded


# What users call


def test_without_a_unit_nothing_is_read_again(reads):
    read()
    with reads(0):
        read()


def test_context_manager(reads):
    read()
    unit = work_unit()
    with reads(2):
        for _ in range(2):
            with unit:
                read()
                read()
            read()


def test_plain_call(reads):
    read()
    with reads(1):
        work_unit()
        read()
        read()


@pytest.mark.parametrize("decorator", [work_unit, work_unit()])
def test_decorator(reads, decorator):
    @decorator
    def task(value):
        """Do it."""
        read()
        return value + 1

    assert (task.__name__, task.__doc__) == ("task", "Do it.")
    read()
    with reads(2):
        assert task(1) == 2
        assert task(value=2) == 3


def test_decorator_of_a_method(reads):
    class Job:
        @work_unit
        def run(self):
            read()
            return self

    job = Job()
    read()
    with reads(1):
        assert job.run() is job


def test_decorator_of_a_generator_function(reads):
    @work_unit
    def rows():
        read()
        received = yield 1
        read()
        return received

    read()
    generator = rows()
    with reads(0):
        read()
    with reads(1):
        assert next(generator) == 1
        with pytest.raises(StopIteration) as end:
            generator.send("sent in")
    assert end.value.value == "sent in"


def test_an_exception_passes():
    @work_unit
    def failing():
        raise LookupError("as it was")

    with pytest.raises(LookupError, match="as it was"):
        failing()
    with pytest.raises(LookupError, match="as it was"), work_unit():
        raise LookupError("as it was")


def test_not_a_function():
    with pytest.raises(
        TypeError, match="a function or nothing expected, got 'default'"
    ):
        work_unit("default")  # type: ignore[call-overload]


def test_decorating_before_django_is_set_up():
    """Modules with tasks may be imported first, settings and psycopg not needed."""
    code = (
        "from django_pg_hot_async import work_unit\n"
        "@work_unit()\n"
        "def one(): pass\n"
        "@work_unit\n"
        "async def two(): pass\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# In threads and in asyncio tasks


def in_thread(function):
    failures = []

    def run():
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_a_thread_begins_its_own(reads):
    """Another thread's connection is read from again; this one's is not."""

    def other():
        read()
        with reads(1), work_unit():
            read()
        close_all()

    read()
    in_thread(other)
    with reads(0):
        read()


async def test_async_with_reaches_the_thread_of_the_orm(reads):
    async with ThreadSensitiveContext():
        await aread()
        with reads(0):
            await aread()
        with reads(1):
            async with work_unit():
                await aread()
                await aread()
        await sync_to_async(close_all)()


async def test_awaited_call(reads):
    async with ThreadSensitiveContext():
        await aread()
        with reads(1):
            await work_unit()
            await aread()
            await aread()
        await sync_to_async(close_all)()


@pytest.mark.parametrize("decorator", [work_unit, work_unit()])
async def test_decorator_of_a_coroutine_function(reads, decorator):
    """The unit begins when the coroutine runs, not when it is made."""

    @decorator
    async def task(value):
        await aread()
        return value

    assert asyncio.iscoroutinefunction(task)
    async with ThreadSensitiveContext():
        await aread()
        coroutine = task("done")
        with reads(0):
            await aread()
        with reads(1):
            assert await coroutine == "done"
        await sync_to_async(close_all)()


async def test_decorator_of_an_async_generator_function(reads):
    closed = []

    @work_unit
    async def rows():
        try:
            for number in range(3):
                await aread()
                yield number
        finally:
            closed.append(True)

    async with ThreadSensitiveContext():
        await aread()
        generator = rows()
        with reads(0):
            await aread()
        with reads(1):
            assert [number async for number in generator] == [0, 1, 2]
        abandoned = rows()
        assert await anext(abandoned) == 0
        await abandoned.aclose()
        assert closed == [True, True]
        await sync_to_async(close_all)()


async def test_a_coroutine_run_from_synchronous_code(reads):
    """It begins for the connection of the thread that waits for it."""

    @work_unit
    async def task():
        await aread()

    def synchronous():
        read()
        with reads(1):
            async_to_sync(task)()
            read()
        close_all()

    await asyncio.to_thread(synchronous)


async def test_tasks_begin_their_own(reads):
    """Two tasks, each with a thread for the ORM: a unit of one is not the other's."""
    connected = asyncio.Event()
    begun = asyncio.Event()

    async def beginning():
        async with ThreadSensitiveContext():
            await aread()
            await connected.wait()
            with reads(1):
                async with work_unit():
                    await aread()
            begun.set()
            await sync_to_async(close_all)()

    async def other():
        async with ThreadSensitiveContext():
            await aread()
            connected.set()
            await begun.wait()
            with reads(0):
                await aread()
            await sync_to_async(close_all)()

    await asyncio.wait_for(asyncio.gather(beginning(), other()), 30)


async def test_where_trust_does_not_end_no_thread_is_asked(monkeypatch):
    asked: list[object] = []
    monkeypatch.setattr(_work_units, "sync_to_async", asked.append)
    with trust("connection"):
        await sync_to_async(read)()
        async with work_unit():
            await sync_to_async(close_all)()
    assert asked == []


# Requests


def view(request):
    read()
    read()
    return JsonResponse({})


async def aview(request):
    await aread()
    await aread()
    return JsonResponse({})


urlpatterns = [path("sync", view), path("async", aview)]


@pytest.mark.parametrize("name", ["sync", "async"])
@override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
def test_requests_over_wsgi(reads, name):
    handler = WSGIHandler()
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_NAME": "shop",
        "SERVER_PORT": "80",
        "PATH_INFO": f"/{name}",
        "wsgi.input": BytesIO(),
    }
    read()
    with reads(3):
        for _ in range(3):
            response = handler(environ, lambda status, headers, exc_info=None: bytes)
            assert response.status_code == 200
            response.close()
    assert connection.connection is not None


@pytest.mark.parametrize("name", ["sync", "async"])
@override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
async def test_requests_over_asgi(reads, name):
    """One thread for all, so that the connection is there before each request."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": f"/{name}",
        "query_string": b"",
        "headers": [(b"host", b"shop")],
    }
    async with ThreadSensitiveContext():
        await aread()
        with reads(3):
            for _ in range(3):
                sent: list[dict[str, object]] = []
                received = iter([{"type": "http.request", "body": b""}])
                await ASGIHandler()(scope, receiving(received), sending(sent))
                assert sent[0]["status"] == 200
        await sync_to_async(close_all)()


def receiving(messages):
    async def receive():
        for message in messages:
            return message
        return await asyncio.Event().wait()

    return receive


def sending(messages):
    async def send(message):
        messages.append(message)

    return send


def test_a_request_without_the_app_begins_none(reads, without_app):
    """The receivers are gone with the app."""
    assert not [
        entry for entry in request_started.receivers if entry[0][0] == _work_units.UID
    ]


# django.tasks


if django.VERSION >= (6, 0):
    from django.tasks import TaskResultStatus, task

    @task
    def a_task():
        read()
        read()

    @task
    async def an_async_task():
        await aread()
        await aread()


needs_tasks = pytest.mark.skipif(
    django.VERSION < (6, 0), reason="django.tasks came with Django 6.0"
)


@needs_tasks
@pytest.mark.parametrize("name", ["a_task", "an_async_task"])
def test_django_tasks(reads, name):
    one = globals()[name]
    read()
    with reads(2):
        for _ in range(2):
            result = one.enqueue()
            assert result.status == TaskResultStatus.SUCCESSFUL, result.errors


@needs_tasks
@pytest.mark.parametrize("name", ["a_task", "an_async_task"])
async def test_django_tasks_enqueued_by_a_coroutine(reads, name):
    one = globals()[name]
    async with ThreadSensitiveContext():
        await aread()
        with reads(2):
            for _ in range(2):
                result = await one.aenqueue()
                assert result.status == TaskResultStatus.SUCCESSFUL, result.errors
        await sync_to_async(close_all)()


# Which connections


def test_at_other_levels_a_unit_reads_nothing_of_its_own(reads):
    for level in ("server", "connection"):
        with trust(level):
            read()
            with reads(0), work_unit():
                read()
        close_all()


def test_a_unit_without_tracked_types_reads_nothing(reads):
    read()
    with reads(0), work_unit():
        assert ask_for("select 1") == (1,)


def test_nothing_is_sent_at_the_beginning(green):
    read()
    with green.statements() as statements, work_unit():
        pass
    assert statements == []
    assert _memory.alias("default").reads == 1


# Connections of the project's own


@pytest.fixture
async def own(green):
    """A pool with both hooks, and reads of its connections to count."""
    async with AsyncConnectionPool(
        green.conninfo("shop"),
        min_size=4,
        max_size=4,
        open=False,
        configure=pool.aconfigure("own"),
        check=pool.acheck("own"),
    ) as own:
        await own.wait()
        yield own


async def test_requests_leave_alone_what_a_pool_checks(own):
    """Requests at once, each with a connection: none has another's loop held."""
    used = 0

    async def requests():
        nonlocal used
        for _ in range(5):
            async with own.connection() as conn:
                for _ in range(3):
                    await request_started.asend(sender=None)
                    await (await conn.execute(SELECT)).fetchone()
            used += 1

    await asyncio.gather(*(requests() for _ in range(4)))
    alias = _memory.alias("own")
    assert (alias.reads, alias.reads_in_loop) == (4 + used, 0)


async def test_requests_count_for_connections_that_nothing_checks(green):
    async with await psycopg.AsyncConnection.connect(green.conninfo("shop")) as amine:
        await pool.aconfigure("own")(amine)
        await request_started.asend(sender=None)
        assert await (await amine.execute(SELECT)).fetchone() == (ATTRS,)
    with psycopg.connect(green.conninfo("shop")) as mine:
        pool.configure("own")(mine)
        request_started.send(sender=None)
        assert mine.execute(SELECT).fetchone() == (ATTRS,)
    assert _memory.alias("own").reads == 4


async def test_a_unit_begun_by_hand_counts_for_all(own):
    async with own.connection() as conn:
        before = _memory.alias("own").reads
        async with work_unit():
            await (await conn.execute(SELECT)).fetchone()
        assert _memory.alias("own").reads == before + 1


# docs/work-units.md


def test_the_page_is_true(reads):
    """Its example runs, and each way in it begins a unit a job."""
    page = (Path(__file__).parent.parent / "docs" / "work-units.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    jobs = [Job(), Job()]

    async def ajobs():
        for job in jobs:
            yield AJob(job)

    read()
    for consume in (names["consume"], names["loop"]):
        with reads(2):
            consume(jobs)
    with reads(2):
        async_to_sync(names["aconsume"])(ajobs())
    names["nightly_report"]()
    async_to_sync(names["import_prices"])()


class Job:
    def run(self):
        read()
        read()


class AJob:
    def __init__(self, job):
        self.run = sync_to_async(job.run)
