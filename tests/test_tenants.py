"""django-tenants: the search_path decides which type of a name is meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("binding", ["client", "server"])
@pytest.mark.parametrize("major", ["blue", "green"])
def test_two_tenants_have_a_status_of_their_own(request, major, binding):
    """40 requests in 4 threads over 2 connections; PostgreSQL 18 tells its path."""
    server = request.getfixturevalue(major)
    server.create_database("tenants")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.tenants", str(server.port), binding],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": ""},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "400\n"
    finally:
        server.terminate("tenants")
        server.drop_database("tenants")
