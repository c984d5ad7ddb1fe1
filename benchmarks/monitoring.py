"""False alarms, power, estimated quality and speed of the watch, beside Evidently, NannyML, KS, ADWIN and PageHinkley.

    .venv/bin/python -m benchmarks.monitoring --json [--smoke] [--only power,loss]
    .venv/bin/python -m benchmarks.monitoring --json --only false_alarms --kind real --rows 500 --windows 1000 --seed 3
    .venv/bin/python -m benchmarks.monitoring --json --combine RUN.json RUN.json …

Evidently and NannyML run in environments of their own, made by uv in a temporary folder, telemetry off. Windows of the
power tables are judged at equal false-alarm rates: each detector's threshold is the one that fires on 1 % of
drift-free windows. What cannot be run is a claim that holds neither way, with its reason. All of it takes about an hour
of CPU time; parts, kinds of data and sizes of windows can be run one by one.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.monitoring_alarms import KINDS, evidently, false_alarms
from benchmarks.monitoring_combine import combine
from benchmarks.monitoring_estimates import estimates
from benchmarks.monitoring_news import elec2, news
from benchmarks.monitoring_parts import FULL, SMOKE, Found, Sizes
from benchmarks.monitoring_power import loss, power
from benchmarks.monitoring_speed import join, memory, speed
from benchmarks.report import report

PARTS: dict[str, Callable[[Sizes], Found]] = {
    "speed": speed, "join": join, "memory": memory, "loss": loss, "power": power, "estimates": estimates,
    "false_alarms": false_alarms, "evidently": evidently, "news": news, "elec2": elec2,
}  # fmt: skip


def main() -> None:
    options = _options()
    if options.combine:
        found = combine(options.combine)
        print(report("monitoring", found.rows, found.claims))
        return
    sizes = SMOKE if options.smoke else FULL
    if options.windows:
        sizes = replace(sizes, windows=options.windows)
    if options.trials:
        sizes = replace(sizes, trials=options.trials, nulls=5 * options.trials)
    if options.kind:
        sizes = replace(sizes, kinds=(options.kind,))
    if options.rows:
        sizes = replace(sizes, window_rows=(options.rows,))
    sizes = replace(sizes, seed=options.seed)
    found = Found()
    for name in options.only.replace("-", "_").split(","):
        started, spent = time.perf_counter(), _spent()
        part = PARTS[name](sizes)
        found.rows += part.rows
        found.claims += part.claims
        print(f"{name}: {time.perf_counter() - started:.0f} s, {_spent() - spent:.1f} CPU s", file=sys.stderr)
    print(report("monitoring", found.rows, found.claims))


def _spent() -> float:
    """Return the CPU seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the only way it prints")
    parser.add_argument("--smoke", action="store_true", help="the same claims on smaller numbers, without peers")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run")
    parser.add_argument("--combine", type=Path, nargs="+", metavar="RUN", help="add up the documents of several runs")
    parser.add_argument("--windows", type=int, help="drift-free windows of each kind")
    parser.add_argument("--kind", choices=list(KINDS), help="one kind of drift-free data")
    parser.add_argument("--rows", type=int, help="one size of drift-free windows")
    parser.add_argument("--seed", type=int, default=0, help="for other drift-free windows than the usual")
    parser.add_argument(
        "--trials", type=int, help="shifted windows of each kind and size; five times as many steady ones"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
