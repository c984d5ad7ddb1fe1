"""How long the ledger takes with many entries: opening, reading, verifying, and the commands that people type.

.venv/bin/python -m benchmarks.ledger --json [--smoke]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update

from benchmarks.report import Claim, report
from headrace.cli import client as control
from headrace.config.settings import read_settings
from headrace.files import canonical_json
from headrace.ledger.base import Action, Draft
from headrace.ledger.chain import Head, as_json, link
from headrace.ledger.schema import entries, heads, open_engine
from headrace.ledger.sql import SqlLedger
from headrace.processes import stop_alone
from headrace.types import Actor, Stage

COMPONENT = "digits"
BAR_MS = 300
REPEATS = 7


def fill(url: str, count: int) -> None:
    """Write a chain of `count` entries in one transaction."""
    engine = open_engine(url)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    head, rows = Head(), []
    for number in range(count):
        is_promotion = number % 5 == 0
        draft = Draft(
            COMPONENT, Action.PROMOTED if is_promotion else Action.GATED, Actor("person:ada"), f"reason {number}",
            f"key-{number}", Stage.PRODUCTION if is_promotion else None, number, "b" * 64,
            {"accuracy": 0.9 + number / (20 * count), "rows": 500, "findings": ["one", "two"]},
        )  # fmt: skip
        entry = link(draft, head, at=at + timedelta(minutes=number))
        head = Head(entry.sequence, entry.hash)
        rows.append(as_json(entry) | {"evidence": canonical_json(dict(entry.evidence)).decode(), "hash": entry.hash})
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(insert(heads).values(component=COMPONENT, sequence=head.sequence, hash=head.hash))
        connection.execute(insert(entries), rows)
        connection.execute(update(heads).values(sequence=head.sequence, hash=head.hash))
    engine.dispose()


def best_ms(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the best of a few, in milliseconds; the machine may be busy."""
    found = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        work()
        found.append((time.perf_counter() - start_s) * 1000)
    return round(min(found), 1)


def run(*, smoke: bool) -> str:
    count = 1_000 if smoke else 10_000
    with tempfile.TemporaryDirectory(prefix="headrace-ledger-") as name:
        url = f"sqlite:///{name}/home/ledger.db"
        fill(url, count)
        ledger = SqlLedger(url)
        rows = [
            {"what": "open", "ms": best_ms(lambda: SqlLedger(url))},
            {"what": "history(limit=100)", "ms": best_ms(lambda: ledger.history(COMPONENT))},
            {"what": "serving", "ms": best_ms(lambda: ledger.serving(COMPONENT, Stage.PRODUCTION))},
            {"what": "verify the whole chain", "ms": best_ms(lambda: ledger.verify(COMPONENT), 3)},
            {"what": "append, durable", "ms": best_ms(append_next(ledger), 20)},
        ]
    took = {str(row["what"]): float(str(row["ms"])) for row in rows}
    read = took["open"] + took["history(limit=100)"] + took["serving"]
    whole = Claim("history_and_status_read_ms", round(read, 1), f"< {BAR_MS}", read < BAR_MS,
                  f"open, history, serving; {count} entries")  # fmt: skip
    typed, claims = type_commands(count)
    return report("ledger", [{**row, "entries": count} for row in rows] + typed, [whole, *claims])


@dataclass(frozen=True, slots=True)
class Took:
    """What one command took, from the fork to its end."""

    wall_ms: float
    user_ms: float


def timed(words: Sequence[str], variables: dict[str, str]) -> Took:
    """Run the `headrace` command to its end. Raises RuntimeError where it fails."""
    command = [str(Path(sys.executable).parent / "headrace"), *words]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"headrace {' '.join(words)} ended with {process.returncode}")
    return Took(1000 * wall_s, 1000 * usage.ru_utime)


def type_commands(count: int) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Return how long `history` and `status` take as people type them, Python's start included; medians of seven."""
    rows, claims = list[dict[str, Any]](), list[Claim]()
    with tempfile.TemporaryDirectory(prefix="headrace-ledger-") as name:
        variables = {**os.environ, "HEADRACE_STATE": name, "HEADRACE_HOME": f"{name}/home"}
        settings = read_settings(variables).prepare()
        fill(settings.ledger_url, count)

        def measure(what: str, words: Sequence[str]) -> None:
            found = [timed(words, variables) for _ in range(REPEATS)]
            wall, user = (statistics.median(getattr(one, kind) for one in found) for kind in ("wall_ms", "user_ms"))
            rows.append({"what": what, "entries": count, "wall_ms": round(wall, 1), "user_cpu_ms": round(user, 1)})
            claims.append(
                Claim(f"{what.replace(' ', '_').replace(',', '')}_wall_ms", round(wall, 1), f"< {BAR_MS}",
                      wall < BAR_MS, f"median of {REPEATS} new processes, {count} entries; user CPU {user:.0f} ms")
            )  # fmt: skip

        measure("history", ["history", COMPONENT, "--json"])
        measure("status, nothing runs", ["status", "--json"])
        client = control.ensure(settings)
        try:
            measure("status, control runs", ["status", "--json"])
        finally:
            assert client.process is not None
            stop_alone(client.process)
    return rows, claims


def append_next(ledger: SqlLedger) -> Callable[[], object]:
    """Return something that appends a new entry with every call."""
    numbers = iter(range(10**6))
    return lambda: ledger.append(
        Draft(COMPONENT, Action.GATED, Actor("benchmark"), "one more", f"more-{next(numbers)}", version=1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document (the default and only output)")
    parser.add_argument("--smoke", action="store_true", help="fewer entries")
    print(run(smoke=parser.parse_args().smoke))


if __name__ == "__main__":
    main()
