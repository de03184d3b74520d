"""Signals that this package sends."""

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger("django.dispatch")


class _Robust(Signal):
    # Signal._log_robust_failure: Django 5.2.19, 6.0.10 and 6.1.3. It takes the
    # receiver's __qualname__, which an object with a __call__ has not: that error
    # then passes through send_robust(), and the receivers after it are not called.
    def _log_robust_failure(self, receiver: Any, err: BaseException) -> None:
        logger.error(
            "Error calling %s in Signal.send_robust() (%s)",
            getattr(receiver, "__qualname__", repr(receiver)),
            err,
            exc_info=err,
        )


#: An alias reached another server, or other types, than it led to.
#:
#: Arguments:
#:
#: ``alias`` (`str`)
#:     The database alias.
#: ``old``, ``new`` (`ServerState`)
#:     Where the alias led before, and where it leads now. ``new.types`` is None
#:     where the server is new and its types have not been read yet.
#: ``is_return`` (`bool`)
#:     Whether this process has reached it before: a rollback. It is sent where the last
#:     time was more than ten seconds ago, since connections may reach two servers by
#:     turns.
#:
#: Sent once for each server, or set of types, and process, a type being another one
#: with another OID, label or attribute; not for each connection, and not for the first
#: server of an alias. The sender is None. An exception in a receiver is logged, and
#: harms nothing.
#:
#: Receivers may be functions or coroutine functions, and may use the database, that
#: alias included; they must not close its connection, which is about to be used. From
#: a synchronous connection of Django's the signal is sent before `connection_created`
#: returns. Where the change shows in the middle of a query, in an event loop, or to a
#: pool of a project's own, a thread of its own sends it right after: a receiver there
#: would wait for itself, or the loop for it. Coroutine functions run in an event loop
#: of that thread; what belongs to another loop is to be called by
#: `asyncio.run_coroutine_threadsafe()`.
server_changed = _Robust()
