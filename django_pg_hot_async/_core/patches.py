"""The one way in which names of other packages are replaced.

A patch is a row of a table: where the name stands, what it is tried on, and a function
that is given what stands there and returns what is to. All rows are verified before
the first is installed; where one does not fit, none is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


class DoesNotFit(Exception):
    """A name that is to be replaced is not what it was when that was tried."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One name that is replaced."""

    owner: Any
    """The class or module."""
    name: str
    make: Callable[[Any], Any]
    """Is given what stands there, and returns what calls it."""
    parameters: tuple[str, ...] | None = None
    """The first parameters that it has to take, where it is called."""
    is_inherited: bool = False
    """Whether it may stand in a base class of *owner*."""

    def __str__(self) -> str:
        owner = getattr(self.owner, "__qualname__", None) or self.owner.__name__
        return f"{self.owner.__module__}.{owner}.{self.name}" if inspect.isclass(
            self.owner
        ) else f"{owner}.{self.name}"  # fmt: skip

    def verify(self) -> None:
        """Raise `DoesNotFit` where the name is missing, or takes something else."""
        there = (
            getattr(self.owner, self.name, None)
            if self.is_inherited
            else vars(self.owner).get(self.name)
        )
        if there is None:
            raise DoesNotFit(f"{self} does not exist")
        if self.parameters is None:
            return
        try:
            found = tuple(inspect.signature(there).parameters)
        except (TypeError, ValueError):
            return
        # A wrapper of somebody else's may take anything.
        if "args" in found or found[: len(self.parameters)] == self.parameters:
            return
        raise DoesNotFit(
            f"{self} takes {', '.join(found)}; expected {', '.join(self.parameters)}"
        )

    def install(self) -> None:
        """Put the new one where the old one stands, for as long as the process runs."""
        there = (
            getattr(self.owner, self.name)
            if self.is_inherited
            else vars(self.owner)[self.name]
        )
        setattr(self.owner, self.name, self.make(there))


_installed: set[tuple[int, str]] = set()


def install(patches: Iterable[Patch]) -> None:
    """Verify all *patches*, then install those that are not installed yet.

    Raise `DoesNotFit`, with nothing installed, where one does not fit.
    """
    new = [one for one in patches if (id(one.owner), one.name) not in _installed]
    for patch in new:
        patch.verify()
    for patch in new:
        patch.install()
        _installed.add((id(patch.owner), patch.name))
