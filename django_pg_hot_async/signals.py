"""The signal that this package sends: `server_changed`."""

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger("django.dispatch")


class _Robust(Signal):
    # Signal._log_robust_failure: Django 5.2.19, 6.0.10 and 6.1.3. Django's own reads
    # the receiver's __qualname__, which an object with a __call__ lacks. The
    # AttributeError then leaves send_robust(), and later receivers are not called.
    def _log_robust_failure(self, receiver: Any, err: BaseException) -> None:
        logger.error(
            "Error calling %s in Signal.send_robust() (%s)",
            getattr(receiver, "__qualname__", repr(receiver)),
            err,
            exc_info=err,
        )


#: An alias leads to another server than before, or its types have other OIDs.
#:
#: Arguments:
#:
#: ``alias`` (`str`)
#:     The database alias, or the label of a pool.
#: ``old``, ``new`` (`ServerState`)
#:     Where the alias led before, and where it leads now. ``new.types`` is None if a
#:     new connection showed the change, and no types have been read from there yet.
#: ``is_return`` (`bool`)
#:     True if this process has reached that server before: a rollback.
#:
#: When it is sent: once in a process for each server that the alias had not reached
#: before, and for each new set of types. A type is new if its OID, a label or an
#: attribute differs; a label shows once a value has it. It is sent again when the alias
#: returns to a server that it last reached more than ten seconds ago; a shorter time
#: says nothing, since connections may reach two servers by turns. It is not sent for
#: each connection, nor for the first server of an alias.
#:
#: The sender is None. Take the arguments that you use, and ``**kwargs``. An exception
#: in a receiver is logged to "django.dispatch", and the query goes on.
#:
#: Receivers may be functions or coroutine functions, and may use the database, also by
#: this alias. They must not close its connection, because the caller is about to use
#: it.
#:
#: Where it is sent from: a synchronous connection of Django's sends it from the thread
#: that connects, before `connection_created` returns. In every other case (a query is
#: running, an event loop is running, a pool of the project's own is at work) a new
#: thread sends it, so that a receiver cannot wait for its own connection or block the
#: loop. Coroutine functions run in an event loop of that thread. To reach another loop,
#: call `asyncio.run_coroutine_threadsafe()`.
server_changed = _Robust()
