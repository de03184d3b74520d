"""A collector for prometheus-client: the extra "prometheus".

    from django_pg_hot_async.contrib.prometheus import StatusCollector
    from prometheus_client import REGISTRY

    REGISTRY.register(StatusCollector())

Once in a process, in an `AppConfig.ready()` for one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "django_pg_hot_async.contrib.prometheus needs prometheus-client:"
        ' pip install "django-pg-hot-async[prometheus]"'
    ) from error

from django_pg_hot_async import status
from django_pg_hot_async._operator.status import AliasStatus

from ._counts import COUNTS

__all__ = ["StatusCollector"]

PREFIX = "django_pg_hot_async"


class StatusCollector(Collector):
    """What `status()` tells of the process that is scraped, as metrics.

    Each has the label "alias". Nothing is sent to any database. prometheus-client's
    multiprocess mode has no custom collectors: there, let each worker be scraped for
    itself, or use OpenTelemetry.
    """

    def describe(self) -> Iterable[Metric]:
        """Name the metrics, for the registry to find duplicates by."""
        return _metrics([])

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as of now."""
        return _metrics(status())


def _metrics(entries: list[AliasStatus]) -> list[Metric]:
    info = InfoMetricFamily(
        f"{PREFIX}_server",
        "The server that the newest connection reached",
        labels=["alias"],
    )
    version = GaugeMetricFamily(
        f"{PREFIX}_server_version",
        "Its version as a number: 180006 is 18.6",
        labels=["alias"],
    )
    since = GaugeMetricFamily(
        f"{PREFIX}_server_since_timestamp_seconds",
        "When it was reached, or its OIDs last changed",
        labels=["alias"],
    )
    oid = GaugeMetricFamily(
        f"{PREFIX}_type_oid",
        "OID of a type on that server, as last read",
        labels=["alias", "type"],
    )
    for entry in entries:
        alias, server = [entry["alias"]], entry["server"]
        if server is not None and entry["since"] is not None:
            info.add_metric(
                alias,
                {key: server[key] for key in ("release", "host", "port", "dbname")},
            )
            version.add_metric(alias, server["version"])
            moment = datetime.fromisoformat(entry["since"])
            since.add_metric(alias, moment.timestamp())
        for name, each in (entry["types"] or {}).items():
            oid.add_metric([*alias, name], each["oid"])
    counters: list[Metric] = []
    for count in COUNTS:
        counter = CounterMetricFamily(
            f"{PREFIX}_{count.prometheus}", count.description, labels=["alias"]
        )
        for entry in entries:
            counter.add_metric([entry["alias"]], count.of(entry["counts"]))
        counters.append(counter)
    return [info, version, since, oid, *counters]
