"""The search for a counter-example, and that it finds one where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import psycopg
import pytest
from django.db import DataError
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from django_pg_hot_async.testing import PgBouncer, ServiceFile

from .conftest import BLUE, GREEN
from .model import machine, world
from .model.clients import Django
from .model.machine import DOORS, Cast, Search
from .model.planted import BUGS
from .model.promise import LEVELS
from .model.world import Door, World

pytestmark = pytest.mark.pgbouncer

SEED = int(os.environ.get("MODEL_SEED", "1"))
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "60"))
PLANTED = 200
"""Deployments in which a planted bug has to show; most do within twenty."""
STEPS = int(os.environ.get("MODEL_STEPS", "40"))


@pytest.fixture(scope="module")
def servers() -> Iterator[World]:
    with world.build((BLUE, GREEN, GREEN)) as built:
        yield built


@pytest.fixture(scope="module")
def cast(servers: World, service: ServiceFile) -> Iterator[Cast]:
    home = servers.places[0]
    with (
        PgBouncer(home.server, home.dbname, alias="front") as front,
        PgBouncer(home.server, home.dbname, alias="back") as back,
    ):
        doors = {
            pooler: [Door(name, service, home) for name in DOORS]
            for pooler in (False, True)
        }
        doors[True][0].bouncer, doors[True][1].bouncer = front, back
        threads = [Django(name, doors[False][0]) for name in ("first", "second")]
        cast = Cast(servers, doors, threads)
        yield cast
        for thread in threads:
            thread.stop()
        cast.loop.close()


def search(
    cast: Cast,
    *,
    examples: int = EXAMPLES,
    levels: tuple[str, ...] = LEVELS,
    phases: tuple[Phase, ...] = (Phase.generate,),
) -> None:
    machine_class = type("Search", (Search,), {"cast": cast, "levels": levels})
    run_state_machine_as_test(
        hypothesis.seed(SEED)(machine_class),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_counter_example(cast, record_property):
    """MODEL_EXAMPLES, MODEL_STEPS and MODEL_SEED make it longer, or another one."""
    machine.counts.clear()
    try:
        search(cast, phases=(Phase.generate, Phase.shrink))
    except BaseException as error:
        error.args = (f"{error}\nMODEL_SEED={SEED}", *error.args[1:])
        raise
    finally:
        for name, number in sorted(machine.counts.items()):
            record_property(name, number)
        print(f"MODEL_SEED={SEED}: {dict(sorted(machine.counts.items()))}")


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(cast, monkeypatch, name):
    """By the search as it is, at the levels of trust at which it can show.

    Only a promise that is broken counts; and without the bug the very same
    deployments are right, or it would be something else that was found.
    """
    plant, levels = BUGS[name]
    machine.counts.clear()
    with monkeypatch.context() as patch:
        plant(patch.setattr)
        with pytest.raises((AssertionError, DataError, psycopg.DataError)) as caught:
            search(cast, examples=PLANTED, levels=levels)
    deployments = machine.counts["deployments"]
    print(f"{deployments} deployments: {str(caught.value).splitlines()[0]}")
    search(cast, examples=deployments, levels=levels)
