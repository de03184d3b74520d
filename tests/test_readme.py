"""README.md and docs/reference.md are true: snippets run, tables and names agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test.utils import override_settings

import django_pg_hot_async
from django_pg_hot_async import conf, pool, signals, testing, typing
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.trust import Trust
from django_pg_hot_async._django.installed import GROUP

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def snippets(text: str) -> list[str]:
    """Return the Python in *text*.

    Those that are tests are run as such, by test_rehearsal_plugin.py.
    """
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [snippet for snippet in found if "def test_" not in snippet]


SNIPPETS = [*snippets(README), *snippets(REFERENCE)]


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs(number, monkeypatch):
    namespace: dict[str, Any] = {}
    before = runtime.group(GROUP)
    exec(SNIPPETS[number], namespace)
    if "INSTALLED_APPS" in namespace:
        assert set(namespace["INSTALLED_APPS"]) <= set(settings.INSTALLED_APPS)
    if value := namespace.get("PG_HOT_ASYNC"):
        for alias in value["ALIASES"]:
            monkeypatch.setitem(settings.DATABASES, alias, {})
        with override_settings(PG_HOT_ASYNC=value):
            assert conf.trust("reporting") is Trust.SERVER
            assert conf.is_off("legacy")
    runtime.track(GROUP, before)
    if receiver := namespace.get("tell"):
        assert signals.server_changed.disconnect(receiver)


def test_each_part_of_the_contract_has_a_snippet():
    text = "\n".join(SNIPPETS)
    for part in (
        "INSTALLED_APPS",
        "PG_HOT_ASYNC",
        "register_type(",
        "forget(",
        "@receiver(server_changed)",
        "pool.configure(",
        "pool.aconfigure(",
    ):
        assert part in text


def test_every_public_name_is_told():
    for name in [*django_pg_hot_async.__all__, "server_changed", *typing.__all__]:
        assert name in REFERENCE
    rehearsal = (ROOT / "docs" / "rehearsal.md").read_text()
    for name in (
        "PostgreSQL",
        "ServiceFile",
        "PgBouncer",
        "Replication",
        "point_alias",
    ):
        assert name in testing.__all__
        assert f"| `{name}" in rehearsal


def test_trust_table_has_every_level_in_order():
    rows = re.findall(r"^\| `\"(\w+)\"` \|", README, re.MULTILINE)
    assert rows == [level.value for level in Trust]
    assert conf.read().default is Trust.AUTO
    assert '"TRUST": "auto",  # the default' in README
    for level in Trust:
        assert f'`"{level.value}"`' in REFERENCE


def test_the_hooks_are_told():
    for name in pool.__all__:
        assert f"pool.{name}(" in REFERENCE


def test_supported_versions_are_the_classifiers():
    pyproject = (ROOT / "pyproject.toml").read_text()
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", pyproject)
    djangos = re.findall(r"Framework :: Django :: (\d\.\d)", pyproject)
    assert f"| Python | {pythons[0]} to {pythons[-1]} |" in README
    assert f"| Django | {', '.join(djangos)} |" in README
    [psycopg] = re.findall(r'"psycopg>=([\d.]+)"', pyproject)
    assert f"| psycopg | {psycopg} and later" in README


def test_it_is_short():
    """What is longer belongs in docs/."""
    assert len(README.splitlines()) <= 130
