"""`register_type`: what a project declares of its own types."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from . import arguments
from .installed import APP, GROUP, check_installed

if TYPE_CHECKING:
    from psycopg import sql
    from psycopg.types import TypeInfo

    from django_pg_hot_async._core.types import TrackedType

NAME_BYTES = 63
"""PostgreSQL cuts names off here: NAMEDATALEN less one."""

_PART = r'"(?:[^"]|"")+"|[^\W\d][\w$]*'
_NAME = re.compile(rf"\s*(?:({_PART})\s*\.\s*)?({_PART})\s*")


def register_type(
    name: str | sql.Identifier,
    info_class: type[TypeInfo] | None = None,
    register: Callable[..., object] | None = None,
    **kwargs: Any,
) -> None:
    """Load and send values of the type *name* on every connection looked after.

        register_type("mood", EnumInfo, register_enum, enum=Mood)
        register_type("shop.size", CompositeInfo, register_composite, factory=Size)
        register_type("ltree")

    *name* is written as in SQL, ``shop."Mood"``, or a `psycopg.sql.Identifier`. One
    without a schema counts in every schema; values are sent as the one that the
    connection's search_path leads to. Arrays of the type come with it. It need not
    exist yet, nor on every server.

    *info_class* is psycopg's: `TypeInfo` (the default), `EnumInfo`, `CompositeInfo`,
    `RangeInfo`, `MultirangeInfo`, or one derived from them. *register* is called as
    ``register(info, connection, **kwargs)``, by default ``info.register(connection)``;
    any number of times: with no labels or attributes, as for a server that lacks the
    type, and with those of each server met. It has to do the same each time. What it
    registers on the connection given, a `psycopg.abc.AdaptContext`, holds for
    every connection; the OIDs in *info* stand for those of whatever server is at
    hand, and are beyond 32 bits.

    Call it once, at import or in `AppConfig.ready()`; the same call again changes
    nothing. Nothing is sent. Connections that are open read their types once more
    when they next meet one. Raise `ValueError` for a name that is none,
    `TypeError`, which says what to pass, for arguments that do not go together,
    `ImproperlyConfigured` where *name* is registered otherwise. Where the app is not
    in ``INSTALLED_APPS``, nothing loads the type: warn, and have a system check.
    """
    from django.core import checks

    from django_pg_hot_async._core.runtime import runtime

    tracked = _declaration(name, info_class, register, kwargs)
    for other in runtime.group(GROUP):
        if (other.schema, other.name) == (tracked.schema, tracked.name):
            if _is_same(other, tracked):
                return
            raise ImproperlyConfigured(
                f"the type {other} is registered already, as {_show(other)}; it cannot"
                f" be {_show(tracked)} as well."
            )
    runtime.track(GROUP, (*runtime.group(GROUP), tracked))
    checks.register(check_installed)
    if apps.apps_ready:
        if not apps.is_installed(APP):
            warnings.warn(
                f"register_type({str(tracked)!r}, ...) does nothing: {APP!r} is not in"
                " INSTALLED_APPS",
                RuntimeWarning,
                stacklevel=2,
            )
        from . import connections

        connections.renew()
        runtime.withdraw_all()


def parse_name(name: str | sql.Identifier) -> tuple[str | None, str]:
    """Return schema and name of a type, as in ``pg_type``."""
    text = name if isinstance(name, str) else name.as_string(None)
    if match := _NAME.fullmatch(text):
        schema, last = (_unquote(part) for part in match.groups())
        if last is not None:
            return schema, last
    raise ValueError(
        f"{text!r} is no name of a type: write it as in SQL, such as mood, shop.mood"
        ' or shop."Mood"; arrays need none of their own.'
    )


def _unquote(part: str | None) -> str | None:
    if part is None:
        return None
    if part.startswith('"'):
        part = part[1:-1].replace('""', '"')
    else:
        # As the server does in UTF-8: other letters stay as they are.
        part = re.sub("[A-Z]+", lambda match: match[0].lower(), part)
    return part.encode()[:NAME_BYTES].decode(errors="ignore")


def _declaration(
    name: str | sql.Identifier,
    info_class: type[TypeInfo] | None,
    register: Callable[..., object] | None,
    kwargs: dict[str, Any],
) -> TrackedType:
    # Not at import: `import django_pg_hot_async` loads no psycopg.
    from psycopg.types import TypeInfo

    from django_pg_hot_async._core.types import (
        KINDS,
        UNKNOWN_SHAPE,
        TrackedType,
        make_info,
    )

    arguments.check_name(name)
    schema, last = parse_name(name)
    info_class = TypeInfo if info_class is None else info_class
    arguments.check_info_class(name, info_class)
    arguments.check_register(name, info_class, register, kwargs)
    kinds, python_types = next(
        found for known, found in KINDS.items() if issubclass(info_class, known)
    )
    tracked = TrackedType(
        name=last,
        kinds=kinds,
        register=functools.partial(register or _register_info, **kwargs),
        schema=schema,
        info_class=info_class,
        python_types=python_types,
    )
    try:
        info = make_info(tracked, 0, 0, UNKNOWN_SHAPE)
    except TypeError as error:
        raise TypeError(
            f"{name}: cannot make a {info_class.__name__}, which must take the"
            f" arguments of the psycopg class that it is derived from: {error}"
        ) from error
    if register is not None:
        arguments.check_signature(name, register, info, kwargs)
    return tracked


def _register_info(info: TypeInfo, connection: Any) -> None:
    info.register(connection)


def registers_nothing(tracked: TrackedType) -> bool:
    """Whether *tracked* was declared without a register function."""
    register: Any = tracked.register
    return register.func is _register_info


def _is_same(one: TrackedType, other: TrackedType) -> bool:
    a: Any = one.register
    b: Any = other.register
    return one.info_class is other.info_class and (a.func, a.keywords) == (
        b.func,
        b.keywords,
    )


def _show(tracked: TrackedType) -> str:
    register: Any = tracked.register
    keywords = "".join(f", {key}={value!r}" for key, value in register.keywords.items())
    return f"{tracked.info_class.__name__}, {arguments.called(register.func)}{keywords}"
