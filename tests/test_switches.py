"""DESIGN's matrix: switches down, kinds of connection across, reading and writing.

Each cell runs with the app at each level of trust that promises the switch, the
default among them, and once without the app, where it has to fail; else it would prove
nothing.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import InternalError

from django_pg_hot_async.testing import PgBouncer, PostgreSQL, ServiceFile

from . import scenarios
from .scenarios import (
    KINDS,
    ORDERS,
    Kind,
    WrongRow,
    connection,
    database,
    is_of_oids,
    lead,
    own_database,
    trust,
)

WORK = {"read": Kind.read, "write": Kind.write}


@dataclass
class Stage:
    """What a scenario plays with."""

    kind: Kind
    name: str
    """Of the work: "read" or "write"."""
    work: Callable[..., None]
    """One request; what it is given is called before the request ends."""
    may_be_refused: bool
    """On an open connection whose trust does not end with a transaction, a parameter
    is sent with the OID that it had; the server refuses that, nothing is written, and
    the next try is right."""
    blue: PostgreSQL
    green: PostgreSQL
    twin: PostgreSQL
    service: ServiceFile

    def lead(self, target: dict[str, Any]) -> None:
        # Server-side binding: with the other, PostgreSQL gets names, not OIDs.
        lead("default", database(target, self.kind, server_side_binding=True))

    def cut_over(self, old: PostgreSQL, new: PostgreSQL) -> None:
        """Have new connections reach *new*, and end those to *old*."""
        if pool := connection.pool:
            scenarios.settle(pool.get_stats)
        self.by_service(new)
        old.terminate("shop")

    def split(self, between: Callable[[], Any]) -> None:
        """Do the work, have something happen, and do it again: all in one request."""
        self.kind.split(self.name, between)

    def by_service(self, server: PostgreSQL) -> None:
        self.service.point("shop", server, "shop")


def s1_other_version(stage: Stage) -> None:
    """New connections reach another server, of another version."""
    stage.by_service(stage.blue)
    stage.lead(stage.service.database("shop"))
    stage.work()
    stage.cut_over(stage.blue, stage.green)
    stage.work()
    stage.work()


def s2_moved_alive(stage: Stage) -> None:
    """PgBouncer moves open connections: between requests, between two of a version."""
    with PgBouncer(stage.blue, "shop") as bouncer:
        stage.lead(bouncer.database())
        stage.work()
        for server in (stage.green, stage.twin, stage.blue):
            bouncer.switch(server)
            stage.work()
            stage.work()
        connection.close()
        connection.close_pool()


def s2_moved_within_a_request(stage: Stage) -> None:
    """PgBouncer moves open connections: in the middle of a request."""
    with PgBouncer(stage.blue, "shop") as bouncer:
        stage.lead(bouncer.database())
        for server in (stage.green, stage.twin, stage.blue):
            stage.split(functools.partial(bouncer.switch, server))
        connection.close()
        connection.close_pool()


def s3_same_version(stage: Stage) -> None:
    """New connections reach another server of the same version and address."""
    with PgBouncer(stage.green, "shop", pool_mode="session") as bouncer:
        stage.lead(bouncer.database())
        stage.work()
        bouncer.switch(stage.twin, kill=True)
        stage.work()
        stage.work()


def s4_extension_anew(stage: Stage) -> None:
    """The extensions are dropped, and created in another order."""
    with own_database(stage.green, "s4", ORDERS["blue"]):
        stage.lead(stage.green.database("s4"))
        stage.work()
        scenarios.drop_types(stage.green, "s4")
        scenarios.create_types(stage.green, "s4", ORDERS["green"])
        if stage.may_be_refused:
            with suppress(InternalError):
                stage.work()
        stage.work()
        stage.work()


def s5_two_at_once(stage: Stage) -> None:
    """Two servers behind one alias, connections to both open at the same time."""
    stage.by_service(stage.blue)
    stage.lead(stage.service.database("shop"))
    if pool := connection.pool:
        pool.open(wait=True)
        stage.by_service(stage.green)
        pool.resize(2)
        pool.wait()
    barrier = threading.Barrier(2, timeout=10)
    errors: list[BaseException] = []

    def requests(server: PostgreSQL, turn: int) -> None:
        try:
            if turn == 0:
                stage.by_service(server)
                stage.work(lambda: (barrier.wait(), barrier.wait()))
            else:
                # While the first request holds its connection to the other one.
                barrier.wait()
                stage.by_service(server)
                stage.work(barrier.wait)
            for _ in range(3):
                stage.work(barrier.wait)
        except BaseException as error:
            errors.append(error)
            barrier.abort()
        finally:
            connection.close()

    threads = [
        threading.Thread(target=requests, args=(server, order))
        for order, server in enumerate((stage.blue, stage.green))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next(
            (e for e in errors if not isinstance(e, threading.BrokenBarrierError)),
            errors[0],
        )


def s6_roll_back(stage: Stage) -> None:
    """There and back again."""
    s1_other_version(stage)
    stage.cut_over(stage.green, stage.blue)
    stage.work()
    stage.work()


def s7_created_late(stage: Stage) -> None:
    """The extensions appear after the process has connected, and looked."""
    with own_database(stage.green, "s7", []):
        stage.lead(stage.green.database("s7"))
        stage.kind.request(ask_for_anything)
        scenarios.create_types(stage.green, "s7", ORDERS["green"])
        stage.work()
        stage.work()


def s8_two_databases(stage: Stage) -> None:
    """One alias leads to another database in another thread."""
    with own_database(stage.green, "tenant", ORDERS["blue"]):
        stage.lead(stage.green.database("shop"))
        stage.work()
        in_a_thread(lambda: tenant(stage))
        stage.work()
        in_a_thread(lambda: tenant(stage))


def tenant(stage: Stage) -> None:
    connection.close_pool()  # Django has one pool an alias, whatever it leads to
    stage.lead(stage.green.database("tenant"))
    try:
        stage.work()
    finally:
        connection.close()
        connection.close_pool()
        stage.lead(stage.green.database("shop"))


def ask_for_anything() -> None:
    with connection.cursor() as cursor:
        cursor.execute("select 1")


def in_a_thread(work: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


SWITCHES = {
    "S1": (s1_other_version, ("auto", "server", "connection", "transaction")),
    "S2": (s2_moved_alive, ("auto", "transaction")),
    "S2mid": (s2_moved_within_a_request, ("auto", "transaction")),
    "S3": (s3_same_version, ("auto", "connection", "transaction")),
    "S4": (s4_extension_anew, ("auto", "connection", "transaction")),
    "S5": (s5_two_at_once, ("auto", "connection", "transaction")),
    "S6": (s6_roll_back, ("auto", "server", "connection", "transaction")),
    "S7": (s7_created_late, ("auto", "server", "connection", "transaction")),
    "S8": (s8_two_databases, ("auto", "server", "connection", "transaction")),
}


def cells(levels: bool) -> list[Any]:
    # S2 is about connections that stay open; C1 has none between requests.
    return [
        pytest.param(
            switch,
            KINDS[kind],
            work,
            *([level] if levels else []),
            id="-".join([code, kind, work] + ([level] if levels else [])),
            marks=[pytest.mark.pgbouncer] if code[:2] in ("S2", "S3") else [],
        )
        for code, (switch, trusts) in SWITCHES.items()
        for kind in KINDS
        for work in WORK
        if (code, kind) != ("S2", "C1")
        for level in (trusts if levels else ("",))
    ]


@pytest.fixture
def stage_of(
    blue: PostgreSQL, green: PostgreSQL, twin: PostgreSQL, service: ServiceFile
) -> Callable[[Kind, str], Stage]:
    def stage(kind: Kind, work: str, level: str = "") -> Stage:
        may_be_refused = (
            level in ("auto", "connection")
            and work == "write"
            and kind is not KINDS["C1"]
        )
        return Stage(
            kind,
            work,
            functools.partial(WORK[work], kind),
            may_be_refused,
            blue,
            green,
            twin,
            service,
        )

    return stage


@pytest.mark.parametrize(("switch", "kind", "work", "level"), cells(True))
def test_switch_is_survived(switch, kind, work, level, stage_of):
    with trust(level):
        switch(stage_of(kind, work, level))


@pytest.mark.parametrize(("switch", "kind", "work"), cells(False))
def test_switch_breaks_django_alone(switch, kind, work, stage_of, without_app):
    """Else the test above would prove nothing."""
    with pytest.raises(Exception) as caught:
        switch(stage_of(kind, work))
    assert isinstance(caught.value, WrongRow) or is_of_oids(caught.value)
