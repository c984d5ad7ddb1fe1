"""How long the ledger takes with many entries: opening, reading, verifying, and the commands that people type.

.venv/bin/python -m benchmarks.ledger --json [--smoke]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert, update

from benchmarks.report import Claim, report
from headrace.files import canonical_json
from headrace.ledger.base import Action, Draft
from headrace.ledger.chain import Head, as_json, link
from headrace.ledger.schema import entries, heads, open_engine
from headrace.ledger.sql import SqlLedger
from headrace.types import Actor, Stage

COMPONENT = "digits"
BAR_MS = 300


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
        program = Path(sys.executable).parent / "headrace"
        environment = {**os.environ, "HEADRACE_STATE": name, "HEADRACE_HOME": f"{name}/home"}

        def command() -> None:
            subprocess.run([program, "history", COMPONENT, "--json"], env=environment, check=True, capture_output=True)

        rows = [
            {"what": "open", "ms": best_ms(lambda: SqlLedger(url))},
            {"what": "history(limit=100)", "ms": best_ms(lambda: ledger.history(COMPONENT))},
            {"what": "serving", "ms": best_ms(lambda: ledger.serving(COMPONENT, Stage.PRODUCTION))},
            {"what": "verify the whole chain", "ms": best_ms(lambda: ledger.verify(COMPONENT), 3)},
            {"what": "append, durable", "ms": best_ms(append_next(ledger), 20)},
            {"what": "`headrace history --json`, a new process", "ms": best_ms(command)},
        ]
    took = {str(row["what"]): float(str(row["ms"])) for row in rows}
    return report("ledger", [{**row, "entries": count} for row in rows], claims(took, count))


def append_next(ledger: SqlLedger) -> Callable[[], object]:
    """Return something that appends a new entry with every call."""
    numbers = iter(range(10**6))
    return lambda: ledger.append(
        Draft(COMPONENT, Action.GATED, Actor("benchmark"), "one more", f"more-{next(numbers)}", version=1)
    )


def claims(took: dict[str, float], count: int) -> list[Claim]:
    read = took["open"] + took["history(limit=100)"] + took["serving"]
    whole = took["`headrace history --json`, a new process"]
    return [
        Claim("history_and_status_read_ms", round(read, 1), f"< {BAR_MS}", read < BAR_MS,
              f"open, history, serving; {count} entries"),
        Claim("history_command_ms", whole, f"< {BAR_MS}", whole < BAR_MS, "start of Python and imports included"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document (the default and only output)")
    parser.add_argument("--smoke", action="store_true", help="fewer entries")
    print(run(smoke=parser.parse_args().smoke))


if __name__ == "__main__":
    main()
