"""Being told of connects and checkouts, at next to no cost.

Django tells by `connection_created`. To send that, caching or not, took an eighth of
what a checkout from its pool costs (15,000 of 120,000 instructions: callgrind, Django
6.1.3, Python 3.13). Right before, its wrapper calls `init_connection_state()`, which
can tell as well: so the signal is not sent while nobody but us would listen.

None of it sends anything to a server, so it is right for `send()` and `asend()`,
in a thread and in an event loop, for synchronous and for async connections.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch.dispatcher import NO_RECEIVERS

from . import _connections, _contrib, _work_units, conf
from ._link import ATTRIBUTE, Link, link_of
from .conf import Trust

UID = "django_pg_hot_async"

# DatabaseWrapper.init_connection_state(), which PostGIS's inherits; Signal.lock,
# .receivers and .sender_receivers_cache, which connect() and disconnect() clear:
# Django 5.2.19, 6.0.9 and 6.1.3.
_init_connection_state = DatabaseWrapper.init_connection_state
_CHECKOUT = Trust.CHECKOUT


def init_connection_state(wrapper: Any) -> None:
    """Take the place of the wrapper's method: called at each connect and checkout."""
    _init_connection_state(wrapper)
    # link_of(), without a call.
    link: Link | None = getattr(wrapper.connection, ATTRIBUTE, None)
    if link is None:
        link = look_after(wrapper)
        if link is None:
            return
    elif link.memory.trust >= _CHECKOUT:
        link.renew()
    link.tells_checkouts = True


def connected(
    connection: Any, signal: Any = None, sender: Any = None, **kwargs: Any
) -> None:
    """Receive `connection_created`: of wrappers that do not tell us themselves."""
    link = link_of(connection.connection)
    if link is None:
        look_after(connection)
    elif not link.tells_checkouts:
        link.renew()
    elif sender is not None:
        spare(sender)


def look_after(wrapper: Any) -> Link | None:
    """Look after a new connection, if it is ours to look after."""
    if not _connections.is_ours(wrapper, wrapper.connection):
        return None
    link = _connections.look_after(wrapper.connection, wrapper.alias)
    _work_units.find_celery()
    return link


def spare(sender: Any) -> None:
    """Have Django not send the signal for *sender* while nobody but us listens.

    The receivers that look after an alias that was switched off are Django's.
    """
    ours = {UID, id(_contrib.register_type_handlers)}
    with connection_created.lock:
        lookup_keys = {receiver[0][0] for receiver in connection_created.receivers}
        if lookup_keys <= ours and not conf.is_any_off():
            connection_created.sender_receivers_cache[sender] = NO_RECEIVERS


def install() -> None:
    """Be told from now on."""
    DatabaseWrapper.init_connection_state = init_connection_state  # type: ignore[assignment,method-assign]
    connection_created.connect(connected, dispatch_uid=UID)


def uninstall() -> None:
    """Leave the wrapper its own method, and the signal as it was."""
    DatabaseWrapper.init_connection_state = _init_connection_state  # type: ignore[method-assign]
    connection_created.disconnect(dispatch_uid=UID)
