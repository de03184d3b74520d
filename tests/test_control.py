"""What users call, and that there is no more of it than is said."""

from __future__ import annotations

from typing import get_args

import pytest
from django.utils.connection import ConnectionDoesNotExist

import django_pg_hot_async
from django_pg_hot_async import forget, pool, signals, testing, typing
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.trust import Trust


def test_public_names():
    for module in (django_pg_hot_async, pool, testing, typing):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
    assert django_pg_hot_async.__all__ == ["forget", "register_type", "status"]
    assert pool.__all__ == ["aconfigure", "configure"]
    assert typing.__all__ == ["AliasStatus", "ServerState", "Trust"]
    assert hasattr(signals, "server_changed")


def test_forget_an_alias_that_does_not_exist():
    with pytest.raises(ConnectionDoesNotExist, match="cannot forget 'no_such'"):
        forget("no_such")
    assert "no_such" not in runtime.aliases


def test_forget_by_the_label_of_a_pool():
    runtime.alias("my pool")
    forget("my pool")
    assert runtime.alias("my pool").generation == 1


def test_forget_before_anything_was_remembered():
    forget()
    forget("default")
    assert runtime.alias("default").trust is Trust.AUTO


def test_the_levels_that_are_typed_are_those_of_the_settings():
    assert get_args(typing.Trust) == tuple(level.value for level in Trust)
