"""Running the variants of a measure by turns, and comparing them."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cpus import pin_worker
from .measures import CONTROL, Measure, Metrics, Row, Variant
from .servers import Servers

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Plan:
    """How much to do."""

    processes: int = 5
    """How many times each variant is started anew."""
    rounds: int = 40
    """In each of those, by turns."""
    seconds: float = 0.025
    """What one variant's turn takes, about."""
    is_quick: bool = False


@dataclass(frozen=True)
class Figure:
    """What came out for one row."""

    row: Row
    value: float
    quartiles: tuple[float, float]
    variant: float
    """The variant's own median."""
    against: float | None
    control: float | None
    """The ratio of the baseline to itself, in another process."""
    by_process: tuple[float, ...]
    """The median of each set of processes."""

    @property
    def is_met(self) -> bool | None:
        target = self.row.target
        return None if target is None else target.is_met_by(self.value)


class WorkerFailed(RuntimeError):
    """A worker process is gone; it wrote why to standard error."""


class Worker:
    """A process of `benchmarks.worker`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextlib.contextmanager
    def start(cls, job: dict[str, Any], prefix: Sequence[str] = ()) -> Iterator[Worker]:
        """Start one, by the command *prefix*; it gets ready by itself."""
        with subprocess.Popen(
            [*prefix, sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            pin_worker(process.pid)
            worker = cls(process)
            worker._tell(job)
            try:
                yield worker
            finally:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, times: int) -> Metrics:
        """Have it do what it does so many times; wait for what that took."""
        self._tell(times)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise WorkerFailed("a worker process ended; see what it wrote above")
        return json.loads(answer)  # type: ignore[no-any-return]

    def _tell(self, what: object) -> None:
        assert self._process.stdin is not None
        try:
            print(json.dumps(what), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise WorkerFailed("a worker process ended before it was told") from None


def run(measure: Measure, servers: Servers, plan: Plan) -> list[Figure]:
    """Run *measure*; return a figure for each of its rows."""
    variants = dict(measure.variants)
    if measure.control:
        variants[CONTROL] = variants[measure.control]
    by_process: list[dict[str, list[Metrics]]] = []
    for number in range(min(plan.processes, measure.processes or plan.processes)):
        with contextlib.ExitStack() as stack:
            workers = {
                name: stack.enter_context(start(measure, variant, servers))
                for name, variant in variants.items()
            }
            by_process.append(_take_turns(measure, workers, plan))
            if measure.statements and number == 0:
                counts = _count_statements(measure, workers, servers)
    if measure.statements:
        for process in by_process:
            for name, rounds in process.items():
                for metrics in rounds:
                    metrics["statements"] = counts[name]
    return [figure(row, measure, by_process) for row in measure.rows]


def start(
    measure: Measure, variant: Variant, servers: Servers, prefix: Sequence[str] = ()
) -> Any:
    return Worker.start(
        {
            "workload": measure.workload,
            "apps": variant.apps,
            "databases": servers.databases(variant, measure.needs),
            "options": dict(variant.options),
            "trust": variant.trust,
        },
        prefix,
    )


def _take_turns(
    measure: Measure, workers: dict[str, Worker], plan: Plan
) -> dict[str, list[Metrics]]:
    """Give each worker its turn, in random order, in each round."""
    if measure.times is None:
        rounds = plan.rounds
        # Also what warms them up.
        times = {name: _calibrate(worker, plan) for name, worker in workers.items()}
    else:
        rounds = 1
        times = dict.fromkeys(workers, measure.times // (100 if plan.is_quick else 1))
    done: dict[str, list[Metrics]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name in random.sample(list(workers), len(workers)):
            done[name].append(workers[name].run(times[name]))
    return done


def _calibrate(worker: Worker, plan: Plan) -> int:
    """Find how often something can be done in a turn."""
    # What is done once, as connecting, would make a turn of a few, all of them cold.
    worker.run(3)
    times, took = 1, 0.0
    while took < plan.seconds / 2:
        took = worker.run(times)["wall"] * times
        times *= 2
    return max(1, round(times / 2 * plan.seconds / took))


def _count_statements(
    measure: Measure, workers: dict[str, Worker], servers: Servers
) -> dict[str, float]:
    """Count what the server logs for each, by times done."""
    counts = {}
    for name, worker in workers.items():
        with servers.main().statements() as statements:
            worker.run(measure.statements)
        counts[name] = len(statements) / measure.statements
    return counts


def figure(
    row: Row, measure: Measure, by_process: list[dict[str, list[Metrics]]]
) -> Figure:
    values = [
        [_value(row, process, round_) for round_ in range(len(process[row.variant]))]
        for process in by_process
    ]
    flat = [value for process in values for value in process]

    def all_of(name: str) -> list[float]:
        return [m[row.metric] for process in by_process for m in process[name]]

    control = None
    if row.kind == "ratio" and measure.control:
        control = statistics.median(
            one / other
            for one, other in zip(all_of(CONTROL), all_of(measure.control), strict=True)
        )
    low, _, high = statistics.quantiles(flat, n=4) if len(flat) > 1 else (flat[0],) * 3
    return Figure(
        row=row,
        value=statistics.median(flat),
        quartiles=(low, high),
        variant=statistics.median(all_of(row.variant)),
        against=statistics.median(all_of(row.against)) if row.against else None,
        control=control,
        by_process=tuple(map(statistics.median, values)),
    )


def _value(row: Row, process: dict[str, list[Metrics]], round_: int) -> float:
    one = process[row.variant][round_][row.metric]
    if row.against is None:
        return one
    other = process[row.against][round_][row.metric]
    return one - other if row.kind == "difference" else one / other
