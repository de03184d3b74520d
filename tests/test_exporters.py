"""status() by way of django-health-check, prometheus-client and OpenTelemetry."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from django.test import AsyncRequestFactory
from health_check.views import HealthCheckView
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader, Sum
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from django_pg_hot_async import forget
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async._core.server import Server
from django_pg_hot_async.contrib.health_check import PostgreSQLServer
from django_pg_hot_async.contrib.opentelemetry import instrument
from django_pg_hot_async.contrib.prometheus import StatusCollector

from .scenarios import read
from .test_status import be_refused, described, lead_to, only, types_of

ROOT = Path(__file__).parent.parent


# django-health-check


async def health(*checks, format="json"):
    view = HealthCheckView.as_view(checks=checks)
    response = await view(AsyncRequestFactory().get("/", {"format": format}))
    text = response.content.decode()
    return response.status_code, json.loads(text) if format == "json" else text


@pytest.fixture
def unused():
    """Nothing has been connected to yet."""
    assert runtime.aliases == {}


async def test_health_of_an_alias_that_nothing_used_yet(unused):
    checks = [PostgreSQLServer, (PostgreSQLServer, {"expect": "18"})]
    code, told = await health(*checks)
    assert code == 200
    assert set(told.values()) == {"OK"}
    forget("default")
    assert (await health(*checks))[0] == 200


async def test_health_of_an_alias_that_does_not_exist():
    code, told = await health((PostgreSQLServer, {"alias": "no_such"}))
    assert code == 500
    assert [*told.values()] == ["Unavailable: 'no_such' is no database alias"]


async def test_health_of_the_label_of_a_pool():
    runtime.alias("jobs")
    assert (await health((PostgreSQLServer, {"alias": "jobs"})))[0] == 200


def test_health_over_a_cutover(blue, green):
    path = "django_pg_hot_async.contrib.health_check.PostgreSQLServer"
    check = (path, {"expect": str(green.major)})
    lead_to(blue)
    read()
    code, told = asyncio.run(health(check))
    assert (code, told) == (
        500,
        {
            f"PostgreSQLServer(alias='default', expect='{green.major}',"
            " max_unexplained=None)": "Unavailable: default is on PostgreSQL"
            f" {described(blue)['release']}, not {green.major}"
        },
    )
    lead_to(green)
    read()
    assert asyncio.run(health(check))[0] == 200
    for expect in (described(green)["release"], green.major):
        assert asyncio.run(health((path, {"expect": expect})))[0] == 200


def expected_release() -> str | None:
    return EXPECTED[-1]


async def expected_release_async() -> str | None:
    return EXPECTED[-1]


EXPECTED: list[str | None] = []


@pytest.mark.parametrize("expect", [expected_release, expected_release_async])
def test_health_expects_what_a_function_returns(blue, green, expect):
    """What is expected changes without a deploy; a label has no address in it."""
    lead_to(blue)
    read()
    for release, expected in ((None, 200), (str(green.major), 500), (None, 200)):
        EXPECTED.append(release)
        code, told = asyncio.run(health((PostgreSQLServer, {"expect": expect})))
        assert code == expected
        assert f"expect={expect.__name__!r}" in next(iter(told))
    EXPECTED.append(str(blue.version))
    check = (PostgreSQLServer, {"expect": expect})
    code, text = asyncio.run(health(check, format="openmetrics"))
    assert code == 200
    assert f'expect="{expect.__name__}"' in text


def test_health_with_results_that_were_refused(blue):
    lead_to(blue)
    be_refused()
    assert asyncio.run(health(PostgreSQLServer))[0] == 200
    count = only()["counts"]["unexplained"]
    for most, expected in ((count, 200), (count - 1, 500)):
        code, told = asyncio.run(health((PostgreSQLServer, {"max_unexplained": most})))
        assert code == expected
    assert [*told.values()] == [
        f"Warning: {count} results of default could not be explained"
    ]


async def test_health_as_openmetrics():
    _, text = await health(PostgreSQLServer, format="openmetrics")
    assert re.search(r"_check_status\{.*PostgreSQLServer.*default.*\} 1\n", text)


# prometheus-client

PROMETHEUS = "django_pg_hot_async_"


@pytest.fixture
def registry(unused):
    """Registered before anything is known, as it is when Django starts."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(StatusCollector())
    return registry


def test_prometheus_before_anything_is_known(registry):
    families = list(parse(generate_latest(registry).decode()))
    assert all(not family.samples for family in families)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(StatusCollector())


def test_prometheus_over_a_cutover(blue, green, registry):
    def value(name, **labels):
        return registry.get_sample_value(
            PROMETHEUS + name, {"alias": "default", **labels}
        )

    for number, server in enumerate((blue, green)):
        lead_to(server)
        read()
        assert value("server_version") == server.version
        server_labels = {**described(server)}
        del server_labels["version"]
        assert value("server_info", **server_labels) == 1
        since = datetime.fromisoformat(only()["since"]).timestamp()
        assert value("server_since_timestamp_seconds") == since
        for name, each in types_of(server).items():
            assert value("type_oid", type=name) == each["oid"]
        assert value("reads_total") == number + 1
        assert value("changes_total") == number
    be_refused()
    assert value("unexplained_total") == only()["counts"]["unexplained"] > 0
    assert value("differences_total") == 0


def test_prometheus_types_and_formats(blue, registry):
    """Counters are counters, in both formats, and what is not counted is a gauge."""
    lead_to(blue)
    read()
    text = generate_latest(registry).decode()
    kinds = {family.name: family.type for family in parse(text)}
    gauges = {"server_info", "server_version", "type_oid"}
    gauges |= {"server_since_timestamp_seconds"}
    counters = {"reads", "changes", "differences", "unexplained"}
    assert kinds == {
        **dict.fromkeys((PROMETHEUS + name for name in gauges), "gauge"),
        **dict.fromkeys((PROMETHEUS + name for name in counters), "counter"),
    }
    strict = list(parse_openmetrics(generate_openmetrics(registry).decode()))
    assert {family.name for family in strict} == {
        name.removesuffix("_info") for name in kinds
    }


def test_prometheus_has_one_series_an_alias(blue, registry):
    lead_to(blue)
    read()
    runtime.alias("jobs")
    [reads] = [
        family for family in registry.collect() if family.name == f"{PROMETHEUS}reads"
    ]
    assert [(s.labels, s.value) for s in reads.samples] == [
        ({"alias": "default"}, 1),
        ({"alias": "jobs"}, 0),
    ]


# OpenTelemetry

OTEL = "django_pg_hot_async."


@pytest.fixture
def observed(unused):
    """What the SDK collects: metrics by name."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    instrument(provider)

    def collect():
        data = reader.get_metrics_data()
        if data is None:
            return {}
        [of_resource] = data.resource_metrics
        [of_scope] = of_resource.scope_metrics
        assert of_scope.scope.name == "django_pg_hot_async"
        return {metric.name.removeprefix(OTEL): metric for metric in of_scope.metrics}

    yield collect
    provider.shutdown()


def points(metric):
    return [(dict(point.attributes), point.value) for point in metric.data.data_points]


def test_opentelemetry_before_anything_is_known(observed):
    assert observed() == {}


def test_opentelemetry_over_a_cutover(blue, green, observed):
    alias = {"django_pg_hot_async.alias": "default"}
    for number, server in enumerate((blue, green)):
        lead_to(server)
        read()
        metrics = observed()
        assert points(metrics["reads"]) == [(alias, number + 1)]
        assert points(metrics["changes"]) == [(alias, number)]
        assert points(metrics["differences"]) == [(alias, 0)]
        assert points(metrics["server.version"]) == [
            (
                {
                    **alias,
                    "db.system.name": "postgresql",
                    "db.namespace": "shop",
                    "server.address": "127.0.0.1",
                    "server.port": server.port,
                },
                server.version,
            )
        ]
        assert points(metrics["type.oid"]) == [
            ({**alias, "django_pg_hot_async.type": name}, each["oid"])
            for name, each in sorted(types_of(server).items())
        ]


def test_opentelemetry_kinds_and_units(blue, observed):
    lead_to(blue)
    be_refused()
    read()
    metrics = observed()
    assert {name: metric.unit for name, metric in metrics.items()} == {
        "reads": "{read}",
        "changes": "{change}",
        "differences": "{read}",
        "unexplained": "{result}",
        "server.version": "",
        "type.oid": "",
    }
    for name, metric in metrics.items():
        if name in ("server.version", "type.oid"):
            assert isinstance(metric.data, Gauge)
        else:
            assert isinstance(metric.data, Sum)
            assert metric.data.is_monotonic
    assert points(metrics["unexplained"])[0][1] == 1


def test_opentelemetry_by_a_unix_socket(observed):
    """A socket has no port number to speak of, though libpq gives one."""
    runtime.alias("default").arrive(Server(180006, "/run/postgresql", "", "shop"))
    [(attributes, _)] = points(observed()["server.version"])
    assert attributes["server.address"] == "/run/postgresql"
    assert "server.port" not in attributes


# All of them


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("health_check", "health_check", "health-check"),
        ("prometheus", "prometheus_client", "prometheus"),
        ("opentelemetry", "opentelemetry", "opentelemetry"),
    ],
)
def test_a_missing_library_is_told_by_the_extra(name, library, extra):
    out, err = run_python(
        f"import sys; sys.modules['{library}'] = None\n"
        f"try: import django_pg_hot_async.contrib.{name}\n"
        "except ImportError as error: print(error)"
    )
    assert out.startswith(f"django_pg_hot_async.contrib.{name} needs ")
    assert f'pip install "django-pg-hot-async[{extra}]"' in out
    assert err == ""
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert f"\n{extra} = [" in pyproject


def test_none_is_imported_by_the_app():
    code = """
import sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_pg_hot_async", "django.contrib.postgres"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "x"}},
)
django.setup()
import django_pg_hot_async.contrib
from django_pg_hot_async import pool, status
assert status() == []
names = {name.partition(".")[0] for name in sys.modules}
print(sorted(names & {"health_check", "prometheus_client", "opentelemetry"}))
"""
    assert run_python(code) == ("[]\n", "")


def test_opentelemetry_needs_the_api_alone():
    """And may come before the global provider is set, or without one."""
    code = """
import sys
sys.modules["opentelemetry.sdk"] = None
from django_pg_hot_async.contrib.opentelemetry import instrument
instrument()
print("well")
"""
    assert run_python(code) == ("well\n", "")


def test_opentelemetry_before_the_global_provider_is_set():
    code = """
from django_pg_hot_async._core.runtime import runtime
from django_pg_hot_async.contrib.opentelemetry import instrument
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
instrument()
reader = InMemoryMetricReader()
provider = MeterProvider([reader])
set_meter_provider(provider)
runtime.alias("default")
[of_resource] = reader.get_metrics_data().resource_metrics
[of_scope] = of_resource.scope_metrics
print(len(of_scope.metrics))
provider.shutdown()
"""
    assert run_python(code) == ("4\n", "")
