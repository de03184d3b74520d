"""What users call: forgetting, and beginning a unit of work."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import aclosing
from typing import Any, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction
from django.apps import apps
from django.utils.connection import ConnectionDoesNotExist

from ._driver import why_no_psycopg

F = TypeVar("F", bound=Callable[..., Any])


def forget(alias: str | None = None) -> None:
    """Drop the OIDs remembered of *alias*, or of every alias.

    Nothing is sent: each connection reads again before it next decodes or sends
    a value of a tracked type. Safe in any thread, at any time. Raise
    `django.db.utils.ConnectionDoesNotExist` for an alias that is neither in
    DATABASES nor the label of a pool. Without psycopg 3 there is nothing to forget.
    """
    if why_no_psycopg():
        return
    from django.db import connections

    from . import _memory

    if alias is None:
        _memory.withdraw_all()
    elif alias in _memory.aliases() or alias in connections:
        _memory.alias(alias).withdraw()
    else:
        raise ConnectionDoesNotExist(
            f"cannot forget {alias!r}: it is no alias in DATABASES, and no pool is"
            " labelled so"
        )


@overload
def work_unit() -> WorkUnit: ...
@overload
def work_unit(function: F) -> F: ...
def work_unit(function: F | None = None) -> WorkUnit | F:
    """Begin a unit of work: under "checkout" trust, OIDs are read anew in it.

    Called, it begins one there and then. The result is a context manager, for
    ``with`` and for ``async with``, which begins one on entering, and a decorator,
    which begins one whenever the function is run; ``@work_unit`` without
    parentheses is the same. Functions may be coroutine functions, and generator
    functions, which begin theirs at the first value. In asynchronous code write
    ``async with``, decorate, or await the call: the ORM's async methods have their
    connections in a thread, and it takes an await to get there.

    A unit has no end other than the next one's beginning. It counts for the
    connections of Django's that this thread, or task, has open at its beginning,
    and for all of the project's own; one that is opened later is read from anyway.
    Requests, and tasks of `django.tasks` and of Celery, begin one by themselves.
    Without psycopg 3 nothing begins, and functions run as they are.
    """
    if function is not None:
        return WorkUnit()(function)
    # A decorator is called while modules are imported, before anything is set up.
    if apps.ready:
        WorkUnit().__enter__()
    return WorkUnit()


class WorkUnit:
    """What `work_unit` returns; it may be used again and again."""

    def __enter__(self) -> None:
        if why_no_psycopg():
            return
        from . import _work_units

        _work_units.begin()

    def __exit__(self, *exc: object) -> None:
        return None

    async def __aenter__(self) -> None:
        if why_no_psycopg():
            return
        from . import _work_units

        await _work_units.abegin()

    async def __aexit__(self, *exc: object) -> None:
        return None

    def __await__(self) -> Generator[Any, None, None]:
        return self.__aenter__().__await__()

    def __call__(self, function: F) -> F:
        if not callable(function):
            raise TypeError(f"a function or nothing expected, got {function!r}")
        return cast("F", functools.wraps(function)(_in_unit(self, function)))


def _in_unit(unit: WorkUnit, function: Any) -> Callable[..., Any]:
    """Return a function of the same kind that begins *unit* when it is run."""
    if iscoroutinefunction(function):

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            async with unit:
                return await function(*args, **kwargs)

        return coroutine

    if inspect.isasyncgenfunction(function):
        # For ``async for``: what is sent in, or thrown, stays here.
        async def async_generator(*args: Any, **kwargs: Any) -> Any:
            async with unit, aclosing(function(*args, **kwargs)) as values:
                async for value in values:
                    yield value

        return async_generator

    if inspect.isgeneratorfunction(function):

        def generator(*args: Any, **kwargs: Any) -> Any:
            with unit:
                return (yield from function(*args, **kwargs))

        return generator

    def call(*args: Any, **kwargs: Any) -> Any:
        with unit:
            return function(*args, **kwargs)

    return call
