"""Every comparison there is."""

from __future__ import annotations

from typing import Any

from .measures import (
    APP,
    BARE,
    CONTRIB,
    Measure,
    Row,
    Target,
    Variant,
    at_least,
    at_most,
    exactly,
)

DJANGO = "Django with contrib.postgres"
WITHOUT = "Django without contrib.postgres"
ITSELF = "this app"

POOL = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 2}}}
POSTGIS = {"ENGINE": "django.contrib.gis.db.backends.postgis"}
SERVER_SIDE = {"OPTIONS": {"server_side_binding": True}}
ASYNC = {"ENGINE": "django_async_backend.db.backends.postgresql"}
ASYNC_APP = (*APP, "django_async_backend")
ASYNC_BARE = (*BARE, "django_async_backend")


def wall(
    title: str, variant: str, against: str, beside: str, target: Target | None = None
) -> Row:
    return Row(title, variant, "wall", against, beside, target)


def cpu(
    title: str, variant: str, against: str, beside: str, target: Target | None = None
) -> Row:
    return Row(title, variant, "cpu", against, beside, target)


def traced(title: str, against: str, beside: str, target: Target | None = None) -> Row:
    return Row(title, "app", "traced", against, beside, target, unit="B")


def later(name: str, workload: str, title: str, rows: int, limit: float) -> Measure:
    options = {"rows": rows}
    return Measure(
        f"later-{name}",
        workload,
        {"app": Variant(APP, {}, options), "django": Variant(CONTRIB, {}, options)},
        (cpu(title, "app", "django", DJANGO, at_most(limit)),),
        control="django",
    )


def untracked(name: str, workload: str, title: str, **options: Any) -> Measure:
    return Measure(
        f"untracked-{name}",
        workload,
        {"app": Variant(APP, {}, options), "django": Variant(BARE, {}, options)},
        (cpu(title, "app", "django", WITHOUT, at_most(1.01)),),
        control="django",
    )


MEASURES = (
    Measure(
        "checkout",
        "connects.connect_and_close",
        {
            "app": Variant(APP, POOL),
            "contrib": Variant(CONTRIB, POOL),
            "bare": Variant(BARE, POOL),
        },
        (
            wall("Pooled checkout", "app", "contrib", DJANGO, at_most(0.60)),
            wall("Pooled checkout", "app", "bare", WITHOUT, at_most(1.10)),
        ),
        control="bare",
    ),
    Measure(
        "connect",
        "connects.connect_and_close",
        {"app": Variant(APP), "contrib": Variant(CONTRIB), "bare": Variant(BARE)},
        (
            wall("Fresh connection", "app", "contrib", DJANGO, at_most(1.02)),
            cpu("Fresh connection, client's CPU", "app", "contrib", DJANGO),
            Row(
                "Statements sent at connect",
                "app",
                "statements",
                target=exactly(0),
                kind="plain",
                unit="",
            ),
        ),
        control="contrib",
        statements=10,
    ),
    Measure(
        "first-hstore",
        "queries.first_hstore",
        {
            "app": Variant(APP),
            "contrib": Variant(CONTRIB),
            "bare": Variant(BARE, options={"select_one": True}),
        },
        (
            Row(
                "First hstore on a fresh connection, the query",
                "app",
                "query",
                "bare",
                "bare Django and a SELECT 1",
                at_most(1.10),
            ),
            wall(
                "First hstore on a fresh connection, connecting and query",
                "app",
                "bare",
                "bare Django and a SELECT 1",
            ),
            Row(
                "Messages more for the first hstore",
                "app",
                "statements",
                "contrib",
                DJANGO,
                exactly(0),
                kind="difference",
                unit="",
            ),
        ),
        control="bare",
        statements=10,
    ),
    Measure(
        "first-limit",
        "limits.first_statement",
        {
            "confirm": Variant(APP, options={"name": "with confirmation"}),
            "select one": Variant(APP, options={"name": "and select one"}),
        },
        (
            Row(
                "The same message, sent by libpq alone",
                "confirm",
                "query",
                "select one",
                "the query and a SELECT 1",
            ),
        ),
        control="select one",
    ),
    later("cursor-1", "queries.cursor", "hstore and citext[], cursor, 1 row", 1, 1.03),
    later("orm-1", "queries.orm", "hstore and citext[], ORM, 1 row", 1, 1.03),
    later(
        "cursor-10000",
        "queries.cursor",
        "hstore and citext[], cursor, 10,000 rows",
        10_000,
        1.00,
    ),
    later(
        "orm-10000",
        "queries.orm",
        "hstore and citext[], ORM, 10,000 rows",
        10_000,
        1.00,
    ),
    Measure(
        "idle-memory",
        "memory.idle_connections",
        {"app": Variant(APP), "contrib": Variant(CONTRIB), "bare": Variant(BARE)},
        (
            traced("Memory of an idle connection", "contrib", DJANGO, at_most(0.30)),
            traced("Memory of an idle connection", "bare", WITHOUT),
            Row(
                "Memory of a connection that has queried hstore",
                "app",
                "traced_after_query",
                "contrib",
                DJANGO,
                unit="B",
            ),
        ),
        times=200,
        processes=3,
    ),
    # As behind a pooler: nothing is trusted for longer than a transaction, and here
    # each statement is one.
    Measure(
        "transaction-row",
        "queries.cursor",
        {
            "app": Variant(APP, options={"rows": 1}, trust="transaction"),
            "django": Variant(CONTRIB, options={"rows": 1}),
            "twice": Variant(CONTRIB, options={"rows": 1, "select_one": True}),
        },
        (
            wall(
                "Autocommit behind a pooler, 1 row with hstore",
                "app",
                "django",
                DJANGO,
                at_most(1.20),
            ),
            wall("A second round trip instead", "twice", "django", DJANGO),
            Row(
                "Messages more for a statement behind a pooler",
                "app",
                "statements",
                "django",
                DJANGO,
                exactly(0),
                kind="difference",
                unit="",
            ),
        ),
        control="django",
        statements=10,
    ),
    Measure(
        "transaction-limit",
        "limits.statement",
        {
            "with": Variant(APP, options={"name": "with confirmation"}),
            "and": Variant(APP, options={"name": "and confirmation"}),
            "query": Variant(APP, options={"name": "query"}),
        },
        (
            wall("The same message, sent by libpq alone", "with", "query", "the query"),
            wall("As two messages", "and", "query", "the query"),
        ),
        control="query",
    ),
    Measure(
        "transaction-extended",
        "queries.cursor",
        {
            "app": Variant(APP, SERVER_SIDE, {"rows": 1}, trust="transaction"),
            "django": Variant(CONTRIB, SERVER_SIDE, {"rows": 1}),
        },
        (
            wall(
                "The same, parameters bound by the server",
                "app",
                "django",
                DJANGO,
                at_most(1.50),
            ),
        ),
        control="django",
    ),
    Measure(
        "transaction-plain",
        "queries.plain_cursor",
        {"app": Variant(APP, trust="transaction"), "django": Variant(BARE)},
        (
            wall(
                "Autocommit behind a pooler, built-in types",
                "app",
                "django",
                WITHOUT,
                at_most(1.02),
            ),
        ),
        control="django",
    ),
    untracked("cursor", "queries.plain_cursor", "Built-in types, cursor, 1 row"),
    untracked("orm", "queries.plain_orm", "Built-in types, ORM, 1 row"),
    untracked(
        "enum",
        "queries.plain_cursor",
        "An enum nobody tracks, cursor, 1 row",
        column="feels",
    ),
    Measure(
        "async-pool",
        "pools.getconn_and_putconn",
        {
            "app": Variant(APP, options={"configure": True}),
            "bare": Variant(APP),
        },
        (
            wall(
                "AsyncConnectionPool, aconfigure",
                "app",
                "bare",
                "without",
                at_most(1.05),
            ),
        ),
        control="bare",
    ),
    Measure(
        "async-backend",
        "asynchronous.connect_and_close",
        {"app": Variant(ASYNC_APP, ASYNC), "bare": Variant(ASYNC_BARE, ASYNC)},
        (
            wall(
                "django-async-backend, fresh connection",
                "app",
                "bare",
                WITHOUT,
                at_most(1.05),
            ),
        ),
        control="bare",
        needs="async backend",
    ),
    Measure(
        "async-backend-pool",
        "asynchronous.connect_and_close",
        {
            "app": Variant(ASYNC_APP, {**ASYNC, **POOL}),
            "bare": Variant(ASYNC_BARE, {**ASYNC, **POOL}),
        },
        (
            wall(
                "django-async-backend, pooled checkout",
                "app",
                "bare",
                WITHOUT,
                at_most(1.05),
            ),
        ),
        control="bare",
        needs="async backend",
    ),
    Measure(
        "postgis",
        "connects.connect_and_close",
        {
            "app": Variant(APP, {**POSTGIS, **POOL}),
            "bare": Variant(BARE, {**POSTGIS, **POOL}),
        },
        (wall("PostGIS, pooled checkout", "app", "bare", WITHOUT, at_most(1.00)),),
        control="bare",
        needs="postgis",
    ),
    Measure(
        "fetch",
        "connects.connect_and_close",
        {"app": Variant(APP), "fetch": Variant(BARE, options={"fetch": True})},
        (
            wall(
                "Reading at every connect instead, fresh connection",
                "fetch",
                "app",
                ITSELF,
                at_least(1.5),
            ),
        ),
        control="app",
    ),
    Measure(
        "fetch-query",
        "queries.first_hstore",
        {"app": Variant(APP), "fetch": Variant(BARE, options={"fetch": True})},
        (
            wall(
                "The same, and a query with hstore",
                "fetch",
                "app",
                ITSELF,
            ),
        ),
        control="app",
    ),
    Measure(
        "fetch-checkout",
        "connects.connect_and_close",
        {"app": Variant(APP, POOL), "fetch": Variant(BARE, POOL, {"fetch": True})},
        (
            wall(
                "Reading at every connect instead, pooled checkout",
                "fetch",
                "app",
                ITSELF,
                at_least(1.5),
            ),
        ),
        control="app",
    ),
    *(
        Measure(
            name,
            f"memory.{name}",
            {"app": Variant(APP)},
            (
                Row(
                    f"Memory grown by {title}",
                    "app",
                    "growth",
                    target=at_most(2**20),
                    kind="plain",
                    unit="B",
                ),
                Row(
                    "of that, in their second half",
                    "app",
                    "growth_second_half",
                    kind="plain",
                    unit="B",
                ),
            ),
            times=10_000,
            processes=1,
            needs=needs,
        )
        for name, title, needs in (
            ("switches", "10,000 switches between two servers", "two servers"),
            ("tenants", "10,000 switches over 1,000 databases, new OIDs each", ""),
        )
    ),
    Measure(
        "remembered",
        "connects.connect_and_close",
        {
            "1": Variant(APP, POOL),
            "100": Variant(APP, POOL, {"aliases": 100, "servers": 100}),
            "1,000": Variant(APP, POOL, {"aliases": 1000, "servers": 1000}),
        },
        tuple(
            wall(
                f"Pooled checkout, {number} aliases and servers remembered",
                number,
                "1",
                "1 remembered",
                at_most(1.05),
            )
            for number in ("100", "1,000")
        ),
        control="1",
    ),
    Measure(
        "loop",
        "asynchronous.receiver",
        {
            "fresh": Variant(ASYNC_APP, ASYNC),
            "pooled": Variant(ASYNC_APP, {**ASYNC, **POOL}),
        },
        tuple(
            Row(
                f"Event loop held by us, each of 10,000 {what}, {metric}",
                variant,
                metric,
                kind="plain",
            )
            for variant, what in (("fresh", "connects"), ("pooled", "checkouts"))
            for metric in ("p99", "longest")
        ),
        times=10_000,
        processes=1,
        needs="async backend",
    ),
)
