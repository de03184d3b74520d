"""uvicorn that ends with the process that started it: ``python -m demo.worker``.

Takes uvicorn's own arguments. Its standard input is a pipe that nobody writes to and
that the kernel closes when the other side is gone, killed or not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import uvicorn


def end_with_parent() -> None:
    """Wait for the end of standard input, then end as on SIGTERM."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    uvicorn.main()
