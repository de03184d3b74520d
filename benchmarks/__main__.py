"""``python -m benchmarks``: measure, print the table, write JSON, draw the chart."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from . import chart, report, runs
from .cpus import pin_servers
from .servers import Servers, what_is_missing
from .table import MEASURES


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help=f"measure this: {', '.join(measure.name for measure in MEASURES)}",
    )
    parser.add_argument("--rounds", type=int, help="rounds for each set of processes")
    parser.add_argument("--processes", type=int, help="sets of processes")
    parser.add_argument(
        "--quick", action="store_true", help="show that it runs; the figures are noise"
    )
    parser.add_argument("--postgresql", type=int, default=18, metavar="MAJOR")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--chart", type=Path, default=Path("build/bench.svg"))
    options = parser.parse_args()
    unknown = set(options.only or ()) - {measure.name for measure in MEASURES}
    if unknown:
        parser.error(f"nothing to measure is called {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    options = arguments()
    plan = runs.Plan()
    if options.quick:
        plan = runs.Plan(processes=1, rounds=3, seconds=0.002, is_quick=True)
    for name in ("rounds", "processes"):
        if getattr(options, name):
            plan = dataclasses.replace(plan, **{name: getattr(options, name)})
    figures: list[runs.Figure] = []
    failed: list[str] = []
    pin_servers()
    with Servers(options.postgresql) as servers:
        about = report.environment(servers.main().version)
        for measure in MEASURES:
            if options.only and measure.name not in options.only:
                continue
            if missing := what_is_missing(measure.needs):
                print(f"{measure.name}: not measured: {missing}", file=sys.stderr)
                continue
            print(f"{measure.name} ...", file=sys.stderr, flush=True)
            try:
                figures += runs.run(measure, servers, plan)
            except runs.WorkerFailed as error:
                failed.append(measure.name)
                print(f"{measure.name}: {error}", file=sys.stderr)
    print(", ".join(f"{name} {value}" for name, value in about.items()), end="\n\n")
    print(report.markdown(figures))
    report.write_json(options.json, figures, about)
    chart.write(options.chart, figures)
    print(f"\n{options.json} and {options.chart} were written.", file=sys.stderr)
    if failed:
        sys.exit(f"could not be measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
