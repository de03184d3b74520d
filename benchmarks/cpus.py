"""A processor for the workers and another for the servers, where there are two.

Client and server wait for each other. Whether the kernel has the two of them on one
processor or on two decides what waking up costs, up to twice the client's CPU time,
and it leaves a pair where it was put: of two equal variants one may look twice as dear.
"""

from __future__ import annotations

import os

_CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin_servers() -> None:
    """Leave the first processor, with whatever this process starts from now on."""
    if len(_CPUS) > 1:
        os.sched_setaffinity(0, _CPUS[1:])


def pin_worker(pid: int) -> None:
    """Put a worker on the first processor; the workers take turns there."""
    if len(_CPUS) > 1:
        os.sched_setaffinity(pid, _CPUS[:1])
