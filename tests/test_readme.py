"""The README is true: its snippets run, its tables and names are the code's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test.utils import override_settings

import django_pg_hot_async
from django_pg_hot_async import _tracking, conf, pool, signals, testing

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
# Those that are tests are run as such, by test_rehearsal_plugin.py.
SNIPPETS = [
    snippet
    for snippet in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    if "def test_" not in snippet
]


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs(number, monkeypatch):
    namespace: dict[str, Any] = {}
    exec(SNIPPETS[number], namespace)
    if "INSTALLED_APPS" in namespace:
        assert set(namespace["INSTALLED_APPS"]) <= set(settings.INSTALLED_APPS)
    if value := namespace.get("PG_HOT_ASYNC"):
        for alias in value["ALIASES"]:
            monkeypatch.setitem(settings.DATABASES, alias, {})
        with override_settings(PG_HOT_ASYNC=value):
            assert conf.trust("reporting") is conf.Trust.CHECKOUT
            assert conf.is_off("legacy")
    _tracking.declare(())
    if receiver := namespace.get("tell"):
        assert signals.server_changed.disconnect(receiver)


def test_every_public_name_is_told():
    for name in [*django_pg_hot_async.__all__, "server_changed"]:
        assert name in README
    for name in (
        "PostgreSQL",
        "ServiceFile",
        "PgBouncer",
        "Replication",
        "point_alias",
    ):
        assert name in testing.__all__
        assert name in README


def test_trust_table_has_every_level_in_order():
    rows = re.findall(r"^\| `\"(\w+)\"` \|", README, re.MULTILINE)
    assert rows == [level.name.lower() for level in conf.Trust]
    assert conf.read().default is conf.Trust.CONNECTION
    assert '"TRUST": "connection",  # the default' in README


def test_the_hooks_are_told():
    for name in pool.__all__:
        assert f"pool.{name}(" in README


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        path = ROOT / target
        if not target.startswith("django_pg_hot_async/"):
            assert path.exists(), target
        else:
            # The package may be installed instead of lying here.
            package = Path(django_pg_hot_async.__file__).parent.parent
            assert (package / target).exists(), target


def test_supported_versions_are_the_classifiers():
    pyproject = (ROOT / "pyproject.toml").read_text()
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", pyproject)
    djangos = re.findall(r"Framework :: Django :: (\d\.\d)", pyproject)
    assert f"| Python | {pythons[0]} to {pythons[-1]} |" in README
    assert f"| Django | {', '.join(djangos)} |" in README
