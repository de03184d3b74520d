"""Metrics for OpenTelemetry, by its API alone: the extra "opentelemetry".

    from django_pg_hot_async.contrib.opentelemetry import instrument

    instrument()

Once in a process, in an `AppConfig.ready()` for one, before or after the provider of
meters is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version

try:
    from opentelemetry.metrics import (
        CallbackOptions,
        MeterProvider,
        Observation,
        get_meter,
    )
except ImportError as error:
    raise ImportError(
        "django_pg_hot_async.contrib.opentelemetry needs opentelemetry-api:"
        ' pip install "django-pg-hot-async[opentelemetry]"'
    ) from error

from django_pg_hot_async import status
from django_pg_hot_async._operator.status import AliasStatus

from ._counts import COUNTS, Count

__all__ = ["instrument"]

PREFIX = "django_pg_hot_async"
ALIAS = f"{PREFIX}.alias"

Callback = Callable[[CallbackOptions], Iterable[Observation]]


def instrument(meter_provider: MeterProvider | None = None) -> None:
    """Have what `status()` tells observed whenever metrics are collected.

    By *meter_provider*, else by the global one. Nothing is sent to any database.
    """
    meter = get_meter(PREFIX, _version(), meter_provider)
    for count in COUNTS:
        meter.create_observable_counter(
            f"{PREFIX}.{count.opentelemetry}",
            [_observer(count)],
            unit=count.unit,
            description=count.description,
        )
    meter.create_observable_gauge(
        f"{PREFIX}.server.version",
        [_observe_servers],
        description="Version of the server that the newest connection reached:"
        " 180006 is 18.6",
    )
    meter.create_observable_gauge(
        f"{PREFIX}.type.oid",
        [_observe_types],
        description="OID of a type on that server, as last read",
    )


def _observer(count: Count) -> Callback:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(count.of(entry["counts"]), {ALIAS: entry["alias"]})
            for entry in status()
        ]

    return observe


def _observe_servers(options: CallbackOptions) -> Iterable[Observation]:
    return [
        Observation(entry["server"]["version"], _attributes(entry))
        for entry in status()
        if entry["server"] is not None
    ]


def _attributes(entry: AliasStatus) -> dict[str, str | int]:
    """Name the server as OpenTelemetry's conventions for databases do."""
    server = entry["server"]
    assert server is not None
    attributes: dict[str, str | int] = {
        ALIAS: entry["alias"],
        "db.system.name": "postgresql",
        "db.namespace": server["dbname"],
        "server.address": server["host"],
    }
    if server["port"].isdecimal():
        attributes["server.port"] = int(server["port"])
    return attributes


def _observe_types(options: CallbackOptions) -> Iterable[Observation]:
    return [
        Observation(each["oid"], {ALIAS: entry["alias"], f"{PREFIX}.type": name})
        for entry in status()
        for name, each in (entry["types"] or {}).items()
    ]


def _version() -> str:
    try:
        return version("django-pg-hot-async")
    except PackageNotFoundError:
        return ""
