"""Work done elsewhere: in another thread, in a forked child."""

from __future__ import annotations

import json
import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

from tests.scenarios import connections

from .deployment import ERRORS, identity_of


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Do *work* in a thread that ends with it."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((work(), None))
        except BaseException as error:
            outcome.extend((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    value, error = outcome
    if error is not None:
        raise error
    return value


def fork(work: Callable[[], Any]) -> Any:
    """Do *work* in a fork of this process; return what it returns, by way of JSON."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        # Threads do run; the child uses none of what they hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            os.write(theirs, json.dumps(work(), default=repr).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(text)


_left: list[Any] = []


def in_the_child(settings: dict[str, Any], sql: str) -> dict[str, Any]:
    """Query with a connection of one's own; leave alone what the parent has open."""
    from django.db.backends.postgresql.base import DatabaseWrapper

    pools: Any = vars(DatabaseWrapper)["_connection_pools"]
    _left.append(dict(pools))
    pools.clear()
    for wrapper in connections.all(initialized_only=True):
        _left.append(wrapper.connection)
        wrapper.connection = None
    wrapper = connections.create_connection("default")
    wrapper.settings_dict = settings
    row, error = None, None
    with wrapper.cursor() as cursor:
        identity = identity_of(wrapper.connection)
        try:
            cursor.execute(sql)
            row = cursor.fetchone()
        except ERRORS as caught:
            error = repr(caught)
    return {"identity": identity, "row": row, "error": error}
