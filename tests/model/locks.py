"""No lock is held across I/O : looked at whenever the app waits for a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import generators

from django_pg_hot_async._core import types
from django_pg_hot_async._core.runtime import runtime


class Locks:
    """The app's locks, as ones that know which thread holds them."""

    def __init__(self) -> None:
        self._locks: list[Any] = [threading.RLock(), threading.RLock()]

    def are_held(self) -> bool:
        """Whether this thread holds one."""
        return any(lock._is_owned() for lock in self._locks)

    @contextmanager
    def watched(self) -> Iterator[Locks]:
        """Have a thread that holds one fail when it waits for a server."""

        def watching(wait: Any) -> Any:
            def waiting(*args: Any) -> Any:
                assert not self.are_held(), "a lock is held across I/O"
                return (yield from wait(*args))

            return waiting

        with pytest.MonkeyPatch.context() as patch:
            for owner, name, lock in zip(
                (runtime, types), ("lock", "_lock"), self._locks, strict=True
            ):
                patch.setattr(owner, name, lock)
            for name in ("execute", "send", "fetch_many"):
                patch.setattr(generators, name, watching(getattr(generators, name)))
            yield self
