"""What can be wrong with a call of `register_type()`, and what to write instead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg.types import TypeInfo


def check_name(name: object) -> None:
    """Raise `TypeError`, which says what to pass, where *name* is no name at all."""
    from psycopg import sql
    from psycopg.types import TypeInfo

    if isinstance(name, (str, sql.Composable)):
        return
    wanted = 'the name of a type, as in SQL: register_type("mood", ...)'
    if isinstance(name, TypeInfo):
        text = f"{name.name!r}, {type(name).__name__}, ..."
        wanted = f"the name, and the class of the info: register_type({text})"
    elif isinstance(name, type) and issubclass(name, Enum):
        text = f'"{name.__name__.lower()}", EnumInfo, register_enum'
        wanted = f"the name first: register_type({text}, enum={name.__name__})"
    elif isinstance(name, type) and not issubclass(name, TypeInfo):
        text = f'"{name.__name__.lower()}", CompositeInfo, register_composite'
        wanted = f"the name first: register_type({text}, factory={name.__name__})"
    raise TypeError(f"{name!r} is not the name of a type; pass {wanted}.")


def check_info_class(name: object, info_class: object) -> None:
    """Raise `TypeError` where *info_class* is none of psycopg's."""
    from psycopg.types import TypeInfo

    from django_pg_hot_async._core.types import KINDS

    if isinstance(info_class, type) and issubclass(info_class, TypeInfo):
        return
    hint = ""
    if isinstance(info_class, type) and issubclass(info_class, Enum):
        hint = f"; pass EnumInfo, register_enum, enum={info_class.__name__}"
    elif isinstance(info_class, Hashable) and info_class in (known := _psycopgs()):
        hint = f"; pass {known[info_class].__name__} before it"
    names = ", ".join(known.__name__ for known in KINDS)
    raise TypeError(
        f"{name}: info_class is {info_class!r}; it must be one of psycopg's"
        f" {names}{hint}."
    )


def check_register(
    name: object,
    info_class: type[TypeInfo],
    register: Callable[..., object] | None,
    kwargs: Mapping[str, Any],
) -> None:
    """Raise `TypeError` where *register* does not go with *info_class* or *kwargs*."""
    if register is None:
        if kwargs:
            raise TypeError(
                f"{name}: {', '.join(kwargs)} given, but no register function to take"
                f" it{_for(kwargs)}."
            )
        return
    if not callable(register):
        raise TypeError(f"{name}: register is {register!r}; it must be callable.")
    function, keywords = _unwrap(register, kwargs)
    wanted = _psycopgs().get(function)
    if wanted is None:
        return
    if not issubclass(info_class, wanted):
        raise TypeError(
            f"{name}: {called(function)} takes {a_or_an(wanted)}, and info_class is"
            f" {info_class.__name__}; pass {wanted.__name__}."
        )
    enum, factory = keywords.get("enum"), keywords.get("factory")
    if enum is not None and not (isinstance(enum, type) and issubclass(enum, Enum)):
        raise TypeError(f"{name}: enum is {enum!r}; it must be a subclass of Enum.")
    if factory is not None and not callable(factory):
        raise TypeError(f"{name}: factory is {factory!r}; it must be callable.")


def check_signature(
    name: object,
    register: Callable[..., object],
    info: TypeInfo,
    kwargs: Mapping[str, Any],
) -> None:
    """Raise `TypeError` where *register* cannot be called as it is to be called."""
    if why := why_not_callable(register, info, None, **kwargs):
        raise TypeError(
            f"{name}: {called(register)} cannot be called with an info, a connection"
            f" and {', '.join(kwargs) or 'nothing else'}: {why}"
        )


def why_not_callable(function: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """Tell why *function* does not take the arguments; return "" where it does."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return ""  # Not every callable written in C has one.
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return ""


def factory_of(register: Callable[..., object]) -> Callable[..., object] | None:
    """Return the factory that psycopg calls with the attributes of a composite type.

    None where psycopg makes one, or where something else calls it.
    """
    from psycopg.types.composite import register_composite

    function, keywords = _unwrap(register, {})
    if function is not register_composite or keywords.get("make_object"):
        return None
    factory: Callable[..., object] | None = keywords.get("factory")
    return factory


def example(name: str, kind: str) -> str:
    """Write the declaration of a type of the `pg_type.typtype` *kind*."""
    arguments = {
        "e": "EnumInfo, register_enum, enum=...",
        "c": "CompositeInfo, register_composite, factory=...",
        "r": "RangeInfo, register_range",
        "m": "MultirangeInfo, register_multirange",
    }.get(kind)
    return f"register_type({', '.join(filter(None, (repr(name), arguments)))})"


def a_or_an(info_class: type) -> str:
    """Return the name of *info_class* with its article."""
    name = info_class.__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def called(function: Any) -> str:
    """Return what people call *function*."""
    return getattr(function, "__qualname__", None) or repr(function)


def _psycopgs() -> dict[Callable[..., object], type[TypeInfo]]:
    """Return psycopg's register functions, and the class that each takes."""
    # Not at import: `import django_pg_hot_async` loads no psycopg.
    from psycopg.types.composite import CompositeInfo, register_composite
    from psycopg.types.enum import EnumInfo, register_enum
    from psycopg.types.multirange import MultirangeInfo, register_multirange
    from psycopg.types.range import RangeInfo, register_range

    return {
        register_enum: EnumInfo,
        register_composite: CompositeInfo,
        register_range: RangeInfo,
        register_multirange: MultirangeInfo,
    }


def _for(kwargs: Mapping[str, Any]) -> str:
    """Name the register function that takes *kwargs*, if it is one of psycopg's."""
    if "enum" in kwargs:
        return "; pass EnumInfo and register_enum"
    return "; pass CompositeInfo and register_composite" if "factory" in kwargs else ""


def _unwrap(
    register: Callable[..., object], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., object], Mapping[str, Any]]:
    """Return the function within `functools.partial`s, and all keywords."""
    while isinstance(register, functools.partial):
        kwargs = {**register.keywords, **kwargs}
        register = register.func
    return register, kwargs
