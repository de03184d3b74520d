"""What users call, and that there is no more of it than is said."""

from __future__ import annotations

import pytest
from django.utils.connection import ConnectionDoesNotExist

import django_pg_hot_async
from django_pg_hot_async import _memory, forget, signals, testing, work_unit
from django_pg_hot_async.conf import Trust


def test_public_names():
    for module in (django_pg_hot_async, testing):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
    assert django_pg_hot_async.__all__ == [
        "forget",
        "register_type",
        "status",
        "work_unit",
    ]
    assert hasattr(signals, "server_changed")


def test_forget_an_alias_that_does_not_exist():
    with pytest.raises(ConnectionDoesNotExist, match="cannot forget 'no_such'"):
        forget("no_such")
    assert "no_such" not in _memory.aliases()


def test_forget_by_the_label_of_a_pool():
    _memory.alias("my pool")
    forget("my pool")
    assert _memory.alias("my pool").epoch == 1


def test_forget_before_anything_was_remembered():
    forget()
    forget("default")
    assert _memory.alias("default").trust is Trust.CONNECTION


def test_work_unit_is_a_decorator_too():
    @work_unit()
    def task(value: int) -> int:
        return value + 1

    assert task(1) == 2
