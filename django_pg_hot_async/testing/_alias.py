"""A cutover by a change of Django's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def point_alias(alias: str, database: Mapping[str, Any]) -> None:
    """Make a database alias of this process reach another server from now on.

    Change the settings of the alias in place, by the keys that *database* has, then
    close this thread's connection and the alias's pool (Django 5.1 and on).

    Wrappers of other threads share those settings and follow with their next connect;
    a connection they hold open is theirs, and stays where it is until they close it,
    as one under CONN_MAX_AGE does. So does a pool that is not Django's own. A wrapper
    given settings of its own is not reached.

    Raise what Django raises: `ConnectionDoesNotExist` for an unknown alias,
    `TransactionManagementError` inside an atomic block.
    """
    from django.db import connections

    wrapper = connections[alias]
    wrapper.validate_no_atomic_block()
    for settings in (connections.settings[alias], wrapper.settings_dict):
        settings.update(database)
    wrapper.close()
    close_pool = getattr(wrapper, "close_pool", None)
    if close_pool is not None:
        close_pool()
