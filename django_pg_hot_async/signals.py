"""Signals that this package sends."""

from django.dispatch import Signal

#: An alias reached a server, or OIDs, that this process had not seen it reach.
#:
#: Arguments:
#:
#: ``alias`` (`str`)
#:     The database alias.
#: ``old``, ``new`` (`ServerState`)
#:     Where the alias led before, and where it leads now. ``new.types`` is None
#:     where the server is new and its types have not been read yet.
#:
#: Sent once for each server, or set of OIDs, and process; not for each
#: connection, not for the first server of an alias, and not for a way back to
#: one seen before. The sender is None. From a synchronous connection the signal
#: is sent before `connection_created` returns; where the change shows in the
#: middle of a query, a thread of its own sends it right after, since a receiver
#: that used the connection there would wait for itself. An exception in a
#: receiver is logged, and harms nothing.
server_changed = Signal()
