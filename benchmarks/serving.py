"""Our server against its peers, with the same weights on the same machine: `python -m benchmarks.serving --json`.

All servers of a workload are up at once and are loaded in turn, so that a busy minute hits them alike. Each is drained
before the next, and stands still while others are loaded: who polls while there is nothing to do, as LitServe does, is
not to take their cores. `--smoke` has the same claims on short windows.
"""

import argparse
import os
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import load, servers
from benchmarks.report import Claim, report
from benchmarks.servers import Place, Running
from benchmarks.small_models import bench_settings, component_python, made

NAME = "serving"
HERE = Path(__file__).parent
CONNECTIONS = (1, 8, 64)
OURS = ("headrace",)
PEERS = ("mlflow", "litserve", "torchserve")
DRAIN_S = 0.2


@dataclass(frozen=True)
class Scale:
    """How much is measured: a part at a time where a whole run takes too long.

    Attributes:
        workload: the only one; empty for all.
        connections: the only numbers of connections; empty for all.
    """

    seconds: float
    rounds: int
    workload: str = ""
    connections: tuple[int, ...] = ()

    def of(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of `numbers` that are asked for."""
        return tuple(one for one in numbers if not self.connections or one in self.connections)


@dataclass
class Measured:
    """One server at one number of connections: the windows of all rounds."""

    windows: list[load.Window] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(window.rate for window in self.windows)

    @property
    def cpu_us(self) -> float:
        return statistics.median(window.cpu_us for window in self.windows)

    def row(self) -> dict[str, Any]:
        return {
            "requests_per_s": round(self.rate, 1),
            "cpu_us_per_request": round(self.cpu_us, 1),
            "p50_ms": round(statistics.median(window.percentile_ms(50) for window in self.windows), 3),
            "p99_ms": round(statistics.median(window.percentile_ms(99) for window in self.windows), 3),
            "failed": sum(window.failed for window in self.windows),
        }


def rows_of(kind: str, *, mixed: bool) -> list[Any]:
    """Return 200 rows: numbers, or texts of 24 words (a quarter of them 100, where they are mixed)."""
    chance = random.Random(7)
    if kind == "mlp":
        return [[round(chance.gauss(0, 1), 4) for _ in range(30)] for _ in range(200)]
    words = [f"word{number}" for number in range(5000)]
    lengths = [100 if mixed and place % 4 == 0 else 24 for place in range(200)]
    return [" ".join(chance.choices(words, k=length)) for length in lengths]


class Bench:
    """All measurements of one run."""

    def __init__(self, home: Path, *, seconds: float, rounds: int) -> None:
        self.settings = bench_settings(home)
        self.python = component_python(self.settings)
        self.models = made(self.settings, HERE / "workloads.py", python=self.python)
        self.seconds, self.rounds = seconds, rounds
        self.rows: list[dict[str, Any]] = []
        self.claims: list[Claim] = []
        self.skipped: dict[str, str] = {}

    def workload(
        self,
        kind: str,
        servers: list[str],
        *,
        mixed: bool,
        connections: tuple[int, ...],
        beside: "Forward | None" = None,
    ) -> dict[tuple[str, int], Measured]:
        """Start the servers, load them in turn, and return what was seen by server and connections."""
        place = Place(
            self.settings, self.python, self.models, kind, rows_of(kind, mixed=mixed), len(os.sched_getaffinity(0))
        )
        running: list[Running] = []
        try:
            for name in servers:
                one = self._start(name, place)
                if one is None:
                    continue
                running.append(one)
                # Java compiles what it runs often: TorchServe's rate triples within some 20 s.
                warm_s = 4 * self.seconds if one.name == "torchserve" else min(self.seconds, 1.0)
                load.run(one.port, one.requests, connections=8, seconds=warm_s)
                one.pause()
            found = {(one.name, clients): Measured() for one in running for clients in connections}
            for _ in range(self.rounds):
                for clients in connections:
                    for one in running:
                        compared = beside if (one.name, clients) == ("headrace", 64) else None
                        found[one.name, clients].windows.append(self._window(one, clients, compared))
            for one in running:
                self._note(kind, mixed, one, found, connections)
        finally:
            for one in running:
                one.resume()
                one.stop()
        return found

    def _window(self, one: Running, clients: int, beside: "Forward | None") -> load.Window:
        """Load one server while the others stand still, then measure the forward alone, where that is asked for."""
        one.resume()
        time.sleep(DRAIN_S)
        before = served_batches(one.port)
        window = load.run(one.port, one.requests, connections=clients, seconds=self.seconds, pid=one.pid)
        rows, batches = served_batches(one.port) - before
        one.pause()
        if beside is not None:
            beside.measure(self, window.rate, rows / batches)
        return window

    def _start(self, name: str, place: Place) -> Running | None:
        starters: dict[str, Callable[[Place], Running]] = {
            "headrace": servers.ours,
            "headrace-without-log": lambda place: servers.ours(place, log_sample=0.0),
            "echo": servers.echo,
            "mlflow": servers.mlflow,
            "litserve": servers.litserve,
            "torchserve": servers.torchserve,
        }
        try:
            return starters[name](place)
        except Exception as error:
            if name == "headrace":
                raise
            self.skipped[name] = f"{type(error).__name__}: {error}"[:300]
            return None

    def _note(
        self, kind: str, mixed: bool, one: Running, found: dict[tuple[str, int], Measured], connections: tuple[int, ...]
    ) -> None:
        memory = round(load.memory_mb(one.pid))
        for clients in connections:
            self.rows.append(
                {
                    "workload": f"{kind}-mixed" if mixed else kind, "server": one.name, "connections": clients,
                    **found[one.name, clients].row(), "memory_mb": memory, "cold_start_s": round(one.cold_s, 2),
                }
            )  # fmt: skip

    # Claims

    def against_peers(
        self, name: str, found: dict[tuple[str, int], Measured], clients: int, bar: float, *, cpu: bool
    ) -> None:
        others = {peer: found[peer, clients] for peer in PEERS if (peer, clients) in found}
        missing = "; ".join(f"{peer} was skipped ({why})" for peer, why in self.skipped.items())
        if not others:
            self.claims.append(Claim(name, None, f">= {bar:g}", None, f"no peer could be run: {missing}"))
            return
        mine = found["headrace", clients]
        ratios = {
            peer: (one.cpu_us / mine.cpu_us if cpu else mine.rate / one.rate)
            for peer, one in others.items()
            if one.rate
        }
        best = min(ratios, key=lambda peer: ratios[peer])
        what = "CPU per request" if cpu else "requests/s"
        text = (
            f"{what} against {', '.join(f'{peer} {ratio:.2f}x' for peer, ratio in ratios.items())}. {missing}".strip()
        )
        self.claims.append(Claim(name, round(ratios[best], 2), f">= {bar:g}", ratios[best] >= bar, text))

    def against_echo(self, found: dict[tuple[str, int], Measured]) -> None:
        bare = found["echo", 64].cpu_us
        for server, bar in (("headrace-without-log", 2.0), ("headrace", 2.5)):
            ratio = found[server, 64].cpu_us / bare
            name = f"cpu_per_request_vs_echo_{'log_on' if server == 'headrace' else 'log_off'}"
            mine = found[server, 64].cpu_us
            text = f"{mine:.0f} us against {bare:.0f} us of the same engine's bare echo, 64 connections"
            self.claims.append(Claim(name, round(ratio, 2), f"<= {bar:g}", ratio <= bar, text))


def served_batches(port: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return how many rows our server's workers were sent so far, and in how many batches; zeros for other servers."""
    page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    names = ("headrace_batch_rows_sum", "headrace_batch_rows_count")
    return np.array([sum(float(n) for n in re.findall(rf"^{name}\S* (\S+)$", page, re.M)) for name in names])


@dataclass
class Forward:
    """The forward alone, in as many processes as there are workers, after each window on batches of its mean size."""

    rates: list[tuple[float, float, float]] = field(default_factory=list)

    def measure(self, bench: Bench, served: float, batch: float) -> None:
        """Note what was served beside what the forward alone does on batches of this mean size."""
        words = ["--raw", str(bench.models / "encoder-weights"), str(len(os.sched_getaffinity(0))), str(round(batch))]
        command = [str(bench.python), str(HERE / "workloads.py"), *words]
        done = subprocess.run(
            command, env=bench.settings.child_environment(), capture_output=True, text=True, check=True
        )
        self.rates.append((served, float(done.stdout.strip().splitlines()[-1]), batch))

    def claim(self) -> Claim:
        """Return the median of the windows' ratios."""
        ratio = statistics.median(served / raw for served, raw, _ in self.rates)
        shown = ", ".join(
            f"{served:.0f} requests/s / {raw:.0f} rows/s of the forward alone in batches of {batch:.0f}"
            for served, raw, batch in self.rates
        )
        return Claim("rate_vs_raw_forward_encoder_c64", round(ratio, 2), ">= 0.85", ratio >= 0.85, shown)


def measure(scale: Scale) -> str:
    """Run the workloads and return the document."""
    with tempfile.TemporaryDirectory(prefix="headrace-serving-") as home:
        bench = Bench(Path(home), seconds=scale.seconds, rounds=scale.rounds)
        for name, run in (("mlp", run_mlp), ("bag", run_bag), ("encoder", run_encoder)):
            if scale.workload in ("", name):
                run(bench, scale)
        return report(NAME, bench.rows, bench.claims)


def run_mlp(bench: Bench, scale: Scale) -> None:
    """A small network over 30 numbers."""
    at = scale.of(CONNECTIONS)
    found = bench.workload("mlp", [*OURS, "headrace-without-log", "echo", *PEERS], mixed=False, connections=at)
    if 64 in at:
        bench.against_peers("cpu_per_request_vs_best_peer_mlp_c64", found, 64, 8.0, cpu=True)
        bench.against_echo(found)
    if 1 in at:
        bench.against_peers("rate_vs_best_peer_mlp_c1", found, 1, 2.0, cpu=False)


def run_bag(bench: Bench, scale: Scale) -> None:
    """A text's words and pairs of words."""
    at = scale.of(CONNECTIONS)
    found = bench.workload("bag", [*OURS, *PEERS], mixed=False, connections=at)
    if 64 in at:
        bench.against_peers("cpu_per_request_vs_best_peer_bag_c64", found, 64, 5.0, cpu=True)


def run_encoder(bench: Bench, scale: Scale) -> None:
    """A transformer of MiniLM's size, with texts of one length and with mixed ones."""
    at = scale.of(CONNECTIONS)
    forward = Forward()
    found = bench.workload("encoder", [*OURS, *PEERS], mixed=False, connections=at, beside=forward)
    if 64 in at:
        bench.claims.append(forward.claim())
        bench.against_peers("rate_vs_best_peer_encoder_c64", found, 64, 1.2, cpu=False)
    if 1 in at:
        bench.against_peers("rate_vs_best_peer_encoder_c1", found, 1, 1.5, cpu=False)
    if 64 in at:
        found = bench.workload("encoder", [*OURS, *PEERS], mixed=True, connections=(64,))
        bench.against_peers("rate_vs_best_peer_encoder_mixed_c64", found, 64, 2.5, cpu=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document (the only form there is)")
    parser.add_argument("--smoke", action="store_true", help="the same claims on short windows")
    parser.add_argument("--workload", default="", choices=["", "mlp", "bag", "encoder"], help="one workload only")
    parser.add_argument(
        "--connections", type=int, action="append", choices=CONNECTIONS, help="only with so many; may be repeated"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="how long a window is")
    options = parser.parse_args()
    seconds, rounds = (0.7, 1) if options.smoke else (options.seconds, 3)
    print(measure(Scale(seconds, rounds, options.workload, tuple(options.connections or ()))))


if __name__ == "__main__":
    main()
