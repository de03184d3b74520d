"""Units of work: where "checkout" trust begins anew.

Requests, and the tasks of `django.tasks` and of Celery, begin one by themselves.
"""

from __future__ import annotations

import sys
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.signals import request_started
from django.db import connections

from . import _connections, _memory
from ._link import link_of
from .conf import Trust

UID = "django_pg_hot_async.work_unit"

_task_prerun: Any = None
"""Celery's signal, once it is connected to."""


def find_async_backend() -> Any:
    """Return the module for django-async-backend, where that app is installed."""
    if not apps.is_installed("django_async_backend"):
        return None
    from . import _async_backend

    return _async_backend


def begin(signal: object = None, **kwargs: Any) -> None:
    """Let "checkout" trust begin anew for this thread's, or context's, connections.

    Those that are open: one that is opened later is read from anyway. And for the
    project's own, since nothing tells whose they are: somebody else's then costs a
    read too many. Nothing is sent. A receiver of the signals below.
    """
    wrappers = connections.all(initialized_only=True)
    if async_backend := find_async_backend():
        wrappers += async_backend.open_wrappers()
    # What a pool checks was read from as it was handed out. Were it read from again
    # for each request that starts elsewhere, its event loop would be held for it.
    own_links = _connections.own_links(checked=signal is None)
    for link in (*(link_of(wrapper.connection) for wrapper in wrappers), *own_links):
        if link is not None:
            link.renew()


async def abegin() -> None:
    """Begin where the ORM's async methods run as well: in the thread they share.

    The async connections of the running task are read from right here, where that
    can be awaited: one round trip each, under "checkout" trust.
    """
    begin()
    if async_backend := find_async_backend():
        await async_backend.verify_open()
    # A hop to another thread, which nobody needs whose trust does not end here.
    if any(alias.trust >= Trust.CHECKOUT for alias in _memory.aliases().values()):
        await sync_to_async(begin)()


def install() -> None:
    """Begin units by themselves from now on."""
    request_started.connect(begin, dispatch_uid=UID)
    if django.VERSION >= (6, 0):
        from django.tasks.signals import task_started

        # Sent in the thread that then runs the task.
        task_started.connect(begin, dispatch_uid=UID)
    find_celery()


def find_celery() -> None:
    """Connect to Celery's `task_prerun`, once something has imported Celery.

    To import it for that would take every process some 100 ms, and where nothing
    else does so no task can run. A worker has imported it before it sets Django
    up; called for each new connection, this finds it wherever that comes later.
    """
    global _task_prerun
    if _task_prerun is None:
        # None while another thread is still importing it.
        signal = getattr(sys.modules.get("celery.signals"), "task_prerun", None)
        if signal is not None:
            signal.connect(begin, dispatch_uid=UID)
            _task_prerun = signal


def uninstall() -> None:
    """Undo `install`."""
    global _task_prerun
    request_started.disconnect(dispatch_uid=UID)
    if django.VERSION >= (6, 0):
        from django.tasks.signals import task_started

        task_started.disconnect(dispatch_uid=UID)
    if _task_prerun is not None:
        _task_prerun.disconnect(dispatch_uid=UID)
        _task_prerun = None
