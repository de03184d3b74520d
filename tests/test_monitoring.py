"""docs/monitoring.md is true: snippets run, samples and tables are the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncRequestFactory, RequestFactory
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from django_pg_hot_async import status
from django_pg_hot_async.contrib._counts import COUNTS
from django_pg_hot_async.contrib.prometheus import StatusCollector
from django_pg_hot_async.testing import PgBouncer

from .scenarios import close_all, read
from .test_commands_status import (
    KEYS,
    SQLITE,
    aliases,
    app,
    connect,
    run,
    run_failing,
    shop,
)
from .test_status import lead_to

__all__ = ["aliases", "app"]

PAGE = (Path(__file__).parent.parent / "docs" / "monitoring.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.M))


def block(section: str, language: str, number: int = 0) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    text: str = found[number]
    return text


def snippet(section: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "shop.apps"}
    exec(block(section, "python"), namespace)
    return namespace


def first_cells(section: str) -> list[str]:
    return re.findall(r"^\| `(.*?)` \|", SECTIONS[section], re.M)


def layout(text: str) -> list[str]:
    """What is left of *text* without its numbers and the width of its columns."""
    return [re.sub(r" +", " ", re.sub(r"\d+", "N", line)) for line in text.splitlines()]


def shape(value: Any) -> Any:
    """The keys and types of *value*."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [*map(shape, value)] if isinstance(value, list) else type(value)


def test_the_view_over_a_cutover(blue, green):
    """The JSON shown is what such a cutover leaves."""
    for server in (blue, green):
        lead_to(server)
        read()
    response = snippet("`status()`")["servers"](RequestFactory().get("/"))
    told = json.loads(response.content)["aliases"]
    assert told == status()
    shown = json.loads(block("`status()`", "json"))
    assert shape(shown) == shape(told)
    assert shown[0]["counts"] == told[0]["counts"]


def test_tables_of_status(blue):
    lead_to(blue)
    read()
    [entry] = status()
    assert first_cells("`status()`") == [*entry, *entry["counts"]]


@pytest.mark.pgbouncer
def test_what_the_command_prints(blue, green, aliases):
    with PgBouncer(blue, "shop") as bouncer:
        aliases(default=bouncer.database(), reporting=shop(green), cache=SQLITE)
        shown = block("`manage.py pg_hot_status`", "console").split("\n", 1)[1]
        assert layout(run()) == layout(shown)
        close_all()


def test_what_the_command_prints_to_a_script(blue, green, aliases, app):
    shown = block("`manage.py pg_hot_status`", "console", 1).splitlines()[1:]
    arguments = ("--expect", str(green.major), "--drained", "blue")
    aliases(default=shop(blue, **app), reporting=shop(green), cache=SQLITE)
    aliases(blue=shop(blue, **app))
    with connect(blue, "web"), connect(blue, "worker"):
        text, _, _ = run_failing(*arguments)
    aliases(default=shop(green, **app))
    then = run(*arguments)
    assert layout(text + then) == layout("\n".join(shown))


def test_keys_of_the_commands_json():
    [line] = re.findall(r"^\| `--json` \|(.*)\|$", PAGE, re.M)
    states = {"answered", "failed", "not_postgresql", "left_to_django"}
    named = re.findall(r"`(\w+)`", line)
    assert [name for name in named if name not in states] == KEYS
    assert states <= set(named)


async def test_health_check():
    [pattern] = snippet("django-health-check")["urlpatterns"]
    checks = pattern.callback.view_initkwargs["checks"]
    assert checks[0] == "health_check.Database"
    view = pattern.callback.view_class.as_view(checks=checks[1:])
    response = await view(AsyncRequestFactory().get("/health/", {"format": "json"}))
    assert response.status_code == 200


def test_prometheus(blue):
    before = set(REGISTRY._collector_to_names)
    config = snippet("Prometheus")["ShopConfig"]
    config.ready(None)
    lead_to(blue)
    read()
    try:
        name = "django_pg_hot_async_reads_total"
        assert REGISTRY.get_sample_value(name, {"alias": "default"}) == 1
    finally:
        for collector in set(REGISTRY._collector_to_names) - before:
            REGISTRY.unregister(collector)
    registry = CollectorRegistry()
    registry.register(StatusCollector())
    samples = [
        sample
        for family in parse(generate_latest(registry).decode())
        for sample in family.samples
    ]
    assert first_cells("Prometheus") == [*dict.fromkeys(each.name for each in samples)]
    for name, labels in re.findall(
        r"^\| `(\w+)` \| (.*?) \|", SECTIONS["Prometheus"], re.M
    ):
        [first, *_] = [each for each in samples if each.name == name]
        assert set(re.findall(r"`(\w+)`", labels)) == set(first.labels)
    for name in re.findall(r"django_pg_hot_async_\w+", block("Prometheus", "promql")):
        assert name in first_cells("Prometheus")


def test_opentelemetry():
    snippet("OpenTelemetry")["ShopConfig"].ready(None)
    rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \|", SECTIONS["OpenTelemetry"], re.M)
    assert rows == [
        (f"django_pg_hot_async.{count.opentelemetry}", count.unit) for count in COUNTS
    ]
    assert first_cells("OpenTelemetry")[len(rows) :] == [
        "django_pg_hot_async.server.version",
        "django_pg_hot_async.type.oid",
    ]


@pytest.mark.parametrize("extra", ["health-check", "prometheus", "opentelemetry"])
def test_extras(extra):
    pyproject = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f'pip install "django-pg-hot-async[{extra}]"' in PAGE
    assert f"\n{extra} = [" in pyproject
