"""A cutover by a change of Django's settings."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any


def point_alias(alias: str, database: Mapping[str, Any]) -> None:
    """Make a database alias of this process reach another server from now on.

    Change the settings of the alias in place, by the keys that *database* has, then
    close this thread's connection and the alias's pool (Django 5.1 and on).

    Wrappers of other threads share those settings and follow with their next connect;
    a connection they hold open is theirs, and stays where it is until they close it,
    as one under CONN_MAX_AGE does. So does a pool that is not Django's own. A wrapper
    given settings of its own is not reached.

    Raise what Django raises: `ConnectionDoesNotExist` for an unknown alias,
    `TransactionManagementError` inside an atomic block.
    """
    from django.db import connections

    wrapper = connections[alias]
    wrapper.validate_no_atomic_block()
    for settings in (connections.settings[alias], wrapper.settings_dict):
        settings.update(database)
    _close(wrapper)


@contextlib.contextmanager
def borrowed(alias: str, database: Mapping[str, Any]) -> Iterator[None]:
    """Have an alias lead elsewhere for the block, as in a process that begins there.

    This thread gets a wrapper of its own for the time, so nothing that Django keeps
    on one is from before. Wrappers of other threads share the settings, and follow
    with their next connect. The settings, and this thread's wrapper, are restored.

    Raise `TransactionManagementError` inside an atomic block.
    """
    from django.db import connections

    wrapper: Any = connections[alias]
    wrapper.validate_no_atomic_block()
    settings = connections.settings[alias]
    before = dict(settings)
    _close(wrapper)
    del connections[alias]
    settings.update(database)
    _start_afresh([alias])
    try:
        yield
    finally:
        _close(connections[alias])
        connections[alias] = wrapper
        settings.clear()
        settings.update(before)
        _start_afresh([alias])


def _start_afresh(aliases: Iterable[str]) -> None:
    """Drop what a process keeps of aliases that lead to another database now."""
    from django.apps import apps
    from django.contrib.postgres import signals
    from django.db import connections

    def close() -> None:
        for alias in aliases:
            connections[alias].close()
            del connections[alias]

    in_thread_of_async_code(close)
    for name in ("get_hstore_oids", "get_citext_oids"):
        getattr(signals, name).cache_clear()
    for label, name in (("contenttypes", "ContentType"), ("sites", "Site")):
        if apps.is_installed(f"django.contrib.{label}"):
            manager: Any = apps.get_model(label, name)._default_manager
            manager.clear_cache()


def in_thread_of_async_code(function: Callable[[], object]) -> None:
    """Run it in the one thread in which the ORM's async methods do their work.

    It outlives every test's event loop, and so do the connections it has open.
    """
    from asgiref.sync import sync_to_async

    failures: list[BaseException] = []

    def run() -> None:
        try:
            # In a thread without async_to_sync() up its stack: else it is this one.
            asyncio.run(sync_to_async(function)())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in failures:
        raise error


def _close(wrapper: Any) -> None:
    wrapper.close()
    close_pool = getattr(wrapper, "close_pool", None)
    if close_pool is not None:
        close_pool()
