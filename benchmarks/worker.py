"""A process that does one thing, as often as it is told.

It reads JSON by lines: first what it is, then how often to do it, which it answers.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import django
from django.conf import settings


def prepare(job: dict[str, Any]) -> Any:
    """Set Django up as *job* says; return the workload, made."""
    settings.configure(
        DATABASES=job["databases"],
        INSTALLED_APPS=job["apps"],
        USE_TZ=True,
        TIME_ZONE="UTC",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ASYNC_BACKEND_DISABLE_REQUEST_SIGNALS=True,
        ASYNC_BACKEND_DISABLE_POOL_WARNING=True,
        PG_HOT_ASYNC={"TRUST": job["trust"]},
    )
    django.setup()
    module, _, function = job["workload"].rpartition(".")
    workloads = importlib.import_module(f"benchmarks.workloads.{module}")
    return getattr(workloads, function)(**job["options"])


def main() -> None:
    # What the measured code prints is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    run = prepare(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)
    # Pools have threads that would be waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
