"""The search for a counter-example, and that it finds one where there is one."""

from __future__ import annotations

import ast
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import DidNotReproduce, Flaky
from hypothesis.stateful import run_state_machine_as_test

from django_pg_hot_async.testing import PgBouncer, ServiceFile

from .conftest import BLUE, GREEN
from .model import backend, world
from .model.clients import Django
from .model.deployment import DOORS, OFF, Cast, counts
from .model.gate import Gate
from .model.locks import Locks
from .model.machine import Search
from .model.planted import BACKEND_FAULTS, FAULTS, Fault
from .model.world import Door, World
from .scenarios import connections

pytestmark = pytest.mark.pgbouncer

SEED = int(os.environ.get("MODEL_SEED", "1"))
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "15"))
STEPS = int(os.environ.get("MODEL_STEPS", "30"))
SECONDS = int(os.environ.get("MODEL_SECONDS", "600"))
SHRINK = os.environ.get("MODEL_SHRINK", "1") != "0"
"""Whether a counter-example is made as short as can be before it is shown."""
PLANTED = 40
"""Deployments from a seed in which a fault may show; most do within ten."""
MARK = "hypothesis_stateful_rule"
"""What Hypothesis marks a rule with (6.170)."""
SEEDS = 8
"""How many seeds are tried: the deployments that one leads to are much alike."""
FIND_SECONDS = int(os.environ.get("MODEL_FIND_SECONDS", "240"))
"""After which no other seed is tried."""


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
        Locks().watched() as locks,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setitem(connections.settings, OFF, connections.settings["default"])
        doors = {
            pooler: [Door(name, service, home) for name in DOORS]
            for pooler in (False, True)
        }
        doors[True][0].bouncer, doors[True][1].bouncer = front, back
        threads = [Django(name, doors[False][0]) for name in ("first", "second")]
        gate = Gate(front.host, front.port)
        cast = Cast(servers, doors, threads, locks, gate)
        yield cast
        gate.close()
        for thread in threads:
            thread.stop()
        cast.loop.close()


def search(
    cast: Cast,
    start: Callable[[Any], Any],
    *,
    examples: int = EXAMPLES,
    phases: tuple[Phase, ...] = (Phase.generate,),
    rules: Collection[str] = (),
    **where: Any,
) -> None:
    """Search from *start*: Hypothesis's decorator for a seed, or for an example.

    *where*: the levels of trust, whether there is a pooler, and whether the project's
    types are registered from the start. *rules*: no others; all where there are none.
    """
    others = {name for name in rules_of(Search) if rules and name not in rules}
    machine = type(
        "Search", (Search,), {"cast": cast, **where, **dict.fromkeys(others)}
    )
    run_state_machine_as_test(
        start(machine),
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


def rules_of(machine: type[Search]) -> set[str]:
    """Return the names of the rules of *machine*."""
    return {name for name in dir(machine) if hasattr(getattr(machine, name), MARK)}


def search_for_counter_example(cast: Cast, seed: int) -> None:
    try:
        phases = (Phase.generate, Phase.shrink) if SHRINK else (Phase.generate,)
        search(cast, hypothesis.seed(seed), phases=phases)
    except BaseException as error:
        error.args = (f"{error}\nMODEL_SEED={seed}", *error.args[1:])
        raise


def report(record_property: Callable[[str, object], None], what: str) -> None:
    for name, number in sorted(counts.items()):
        record_property(name, number)
    print(f"{what}: {dict(sorted(counts.items()))}")


def test_no_counter_example(cast, record_property):
    """MODEL_EXAMPLES, MODEL_STEPS and MODEL_SEED make it longer, or another one."""
    counts.clear()
    search_for_counter_example(cast, SEED)
    report(record_property, f"MODEL_SEED={SEED}")


@pytest.mark.long
def test_no_counter_example_for_minutes(cast, record_property):
    """``pytest -m long tests/test_model.py``: MODEL_SEED and the seeds after it."""
    counts.clear()
    seed, end = SEED, time.monotonic() + SECONDS
    while time.monotonic() < end:
        search_for_counter_example(cast, seed)
        seed += 1
    report(record_property, f"MODEL_SEED={SEED} to {seed - 1}")


def names(faults: dict[str, Fault]) -> list[Any]:
    return [
        pytest.param(name, marks=() if one.is_quick else pytest.mark.long, id=name)
        for name, one in faults.items()
    ]


@pytest.mark.parametrize("name", names(FAULTS))
def test_a_planted_fault_is_found(cast, monkeypatch, name):
    """By the rules that the fault has to do with, where it can show.

    Only a promise that is broken counts; and without the fault the very deployment
    that showed it is right, or it would be something else that was found.
    """
    plant_and_find(cast, monkeypatch, FAULTS[name])


@pytest.mark.skipif(not backend.is_installed, reason="needs django-async-backend")
@pytest.mark.parametrize("name", names(BACKEND_FAULTS))
def test_a_planted_fault_of_the_async_backend_is_found(cast, monkeypatch, name):
    plant_and_find(cast, monkeypatch, BACKEND_FAULTS[name])


def plant_and_find(cast: Cast, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    counts.clear()
    where: dict[str, Any] = {
        "levels": fault.levels,
        "poolers": fault.poolers,
        "starts": fault.starts,
        "rules": fault.rules,
    }
    with monkeypatch.context() as patch:
        fault.plant(patch.setattr)
        error = find(cast, where)
    print(f"{counts['deployments']} deployments: {error}")
    with pytest.raises(DidNotReproduce):
        search(cast, reproduce(error), **where)


def find(cast: Cast, where: dict[str, Any]) -> AssertionError:
    """Return the promise that the first deployment to break one has broken.

    One that breaks it once only, by a race, is passed over: it proves nothing.
    """
    end = time.monotonic() + FIND_SECONDS
    for seed in range(SEED, SEED + SEEDS):
        if time.monotonic() > end:
            break
        try:
            search(cast, hypothesis.seed(seed), examples=PLANTED, **where)
        except AssertionError as error:
            return error
        except Flaky:
            continue
    pytest.fail(f"not found in {counts['deployments']} deployments")


def reproduce(error: BaseException) -> Callable[[Any], Any]:
    """Return what starts a search with the one deployment that *error* ended."""
    notes = "\n".join(error.__notes__)  # type: ignore[attr-defined,unused-ignore]
    blob = re.search(r"@reproduce_failure\('(.*)', (b'.*')\)", notes)
    assert blob is not None, notes
    return hypothesis.reproduce_failure(blob[1], ast.literal_eval(blob[2]))
