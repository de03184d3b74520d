"""That every benchmark runs. What they measure is no test: see docs/benchmarks.md."""

from __future__ import annotations

import importlib
import inspect
import xml.etree.ElementTree

import pytest

from benchmarks import chart, report, runs
from benchmarks.measures import Row, at_least, at_most, exactly
from benchmarks.servers import Servers, what_is_missing
from benchmarks.table import MEASURES

# One of each workload, those without an argument of their own.
WORKLOADS = {measure.workload: measure for measure in reversed(MEASURES)}


@pytest.fixture(scope="module")
def servers():
    with Servers(18) as servers:
        yield servers


@pytest.mark.parametrize("workload", WORKLOADS)
def test_runs(workload, servers):
    measure = WORKLOADS[workload]
    if missing := what_is_missing(measure.needs):
        pytest.skip(missing)
    name = next(iter(measure.variants))
    # Twenty: the smallest of which a half, and a percentile, can be taken.
    with runs.start(measure, measure.variants[name], servers) as worker:
        metrics = worker.run(20)
    wanted = {row.metric for row in measure.rows if row.variant == name}
    assert wanted - {"statements"} <= metrics.keys()


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_is_complete(measure):
    """The workload takes the options, and rows name variants that there are."""
    module, _, function = measure.workload.rpartition(".")
    workloads = importlib.import_module(f"benchmarks.workloads.{module}")
    workload = getattr(workloads, function)
    for variant in measure.variants.values():
        inspect.signature(workload).bind(**variant.options)
    for row in measure.rows:
        assert {row.variant, row.against or row.variant} <= measure.variants.keys()
    assert measure.control is None or measure.control in measure.variants


def test_a_measure_gives_its_figures(servers):
    (measure,) = (one for one in MEASURES if one.name == "connect")
    plan = runs.Plan(processes=1, rounds=2, seconds=0.001)
    wall, cpu, statements = runs.run(measure, servers, plan)
    assert wall.control is not None
    assert wall.value > 0 < cpu.value
    assert (statements.value, statements.is_met) == (0, True)


def figure(title, value, target):
    row = Row(title, "app", "wall", "bare", "Django & more", target)
    return runs.Figure(row, value, (value, value), value, 1.0, 1.0, (value,))


def test_ratios_are_of_one_round():
    """A round that was slow for both says as much as any other."""
    (measure,) = (one for one in MEASURES if one.name == "postgis")
    rounds = {
        "app": [{"wall": 2.0}, {"wall": 20.0}, {"wall": 3.0}],
        "bare": [{"wall": 1.0}, {"wall": 10.0}, {"wall": 1.0}],
        "control": [{"wall": 1.0}, {"wall": 11.0}, {"wall": 1.0}],
    }
    found = runs.figure(measure.rows[0], measure, [rounds])
    assert (found.value, found.control, found.is_met) == (2.0, 1.0, False)


def test_report():
    figures = [
        figure("within", 0.5, at_most(0.6)),
        figure("beyond", 1.5, at_most(1.1)),
        figure("dear", 12.0, at_least(1.5)),
        figure("none", 0.9, exactly(0.9)),
        figure("only shown", 1.25, None),
    ]
    lines = report.markdown(figures).splitlines()
    assert len({len(line) for line in lines}) == 1
    met = [line.split("|")[7].strip() for line in lines[2:]]
    assert met == ["yes", "no", "yes", "yes", ""]
    svg = xml.etree.ElementTree.fromstring(chart.draw(figures))
    texts = {element.text for element in svg.iter() if element.text}
    assert {"within", "against Django & more", "1.50 (≤ 1.10)"} <= texts


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.56e-05, "s", "35.6 µs"),
        (0.0, "s", "0 µs"),
        (2048, "B", "2 KiB"),
        (3, "", "3"),
    ],
)
def test_figures_are_written_short(value, unit, text):
    assert report.show(value, unit) == text
