"""The example by itself, admin and all, on a PostgreSQL that is gone afterwards.

    python -m demo.sandbox [--major 15] [--port 8000]

For a look around; nothing is cut over here, `python -m demo` does that.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping

from django_pg_hot_async.testing import PostgreSQL, binaries

from .shop import PROJECT


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.sandbox", description="The example, to look at."
    )
    parser.add_argument("--major", type=int, default=15, help="of PostgreSQL: 14 to 18")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    binaries(options.major, progress=say)
    with contextlib.suppress(KeyboardInterrupt), PostgreSQL(options.major) as server:
        server.create_database("shop")
        password = secrets.token_urlsafe(8)
        environ = {
            **os.environ,
            "DATABASE_HOST": server.host,
            "DATABASE_PORT": str(server.port),
            "DATABASE_NAME": "shop",
            "DATABASE_USER": "postgres",
            "DJANGO_DEBUG": "1",
            "DJANGO_SETTINGS_MODULE": "asgi_project.settings",
            "DJANGO_SUPERUSER_PASSWORD": password,
            # What can be imported here can be imported there.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        # The checks would say that the types are not there yet.
        manage(environ, "migrate", "--verbosity=0", "--skip-checks")
        manage(environ, "seed")
        manage(
            environ,
            *("createsuperuser", "--noinput", "--verbosity=0"),
            *("--username=admin", "--email=admin@example.com"),
        )
        url = f"http://127.0.0.1:{options.port}"
        say(f"{url}/admin/    as admin, password {password}")
        say(f"{url}/products/, /async/products/, /raw/products/, /products/changes/")
        serve(environ, options.port)
    return 0


def manage(environ: Mapping[str, str], *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=PROJECT, env=environ, check=True
    )


def serve(environ: Mapping[str, str], port: int) -> None:
    """Run uvicorn until Ctrl-C, which it is sent as well, or until it ends."""
    command = [
        *(sys.executable, "-m", "uvicorn", "asgi_project.asgi:application"),
        *(f"--port={port}", "--timeout-graceful-shutdown=3", "--log-level=warning"),
    ]
    with subprocess.Popen(command, cwd=PROJECT, env=environ) as process:
        try:
            process.wait()
        finally:
            process.terminate()


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
