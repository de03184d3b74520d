"""No lock is held across I/O (I3): looked at whenever types are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_pg_hot_async import _connections, _memory, _reading


class Locks:
    """The app's locks, as ones that know which thread holds them."""

    def __init__(self) -> None:
        self._locks: list[Any] = [threading.RLock(), threading.RLock()]

    def are_held(self) -> bool:
        """Whether this thread holds one."""
        return any(lock._is_owned() for lock in self._locks)

    @contextmanager
    def watched(self) -> Iterator[Locks]:
        """Have a read of types fail in a thread that holds one."""
        reading: Any = _reading
        read_types = reading.read_types

        def read(*args: Any) -> Any:
            assert not self.are_held(), "a lock is held across a read"
            return read_types(*args)

        with pytest.MonkeyPatch.context() as patch:
            for module, lock in zip((_memory, _connections), self._locks, strict=True):
                patch.setattr(module, "_lock", lock)
            patch.setattr(reading, "read_types", read)
            yield self
