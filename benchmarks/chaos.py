"""Kill -9 at every step boundary and in the middle of every step, on SQLite and on a real PostgreSQL.

.venv/bin/python -m benchmarks.chaos --json [--smoke] [--only kills|rounds|commands|real|machines]

kills      real engine, ledger and processes, quick stand-ins for the crafts; and what the engine costs a release
rounds     twenty promotions at once, twenty times
commands   `history` and `status` with ten thousand entries
real       real training and serving, with requests to production all the time (not in the smoke run)
machines   real workers with roles over one PostgreSQL; the one that trains is killed, or stopped and returns (nor this)

In `kills`, a first release, undisturbed, names all places that a release comes by. Then each of them, in turn, kills
the process that is there, or the other one, or the training child; the dead process is started again and the release
must end as if nothing had been: one version, one run, one entry of each kind, one alias, a valid chain, no orphan.
"""

import argparse
import os
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import chaos_machines, chaos_real, chaos_rounds, ledger, postgres
from benchmarks.chaos_house import FORK, bare, live
from benchmarks.report import Claim, report
from headrace.ledger.base import Action
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.events import Mark, read_events
from headrace.lifecycle.request import folder_name
from headrace.types import Stage

Part = tuple[list[dict[str, Any]], list[Claim]]
ONCE = (Action.REGISTERED, Action.GATED, Action.ACCEPTED, Action.PROMOTED)
WAIT_S = 120.0
SMOKE_KILLS = 4
ROUNDS_TIMED = 3


@dataclass
class House:
    """The processes of one store and what they left."""

    folder: Path
    variables: dict[str, str]
    ledger_url: str
    running: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    restarts: int = 0

    def keep(self, name: str) -> Any:
        """Return the way to a living process of this name, starting it where it is dead."""
        process, orders = self.running.get(name, (None, None))
        if process is not None and orders is not None and process.is_alive():
            return orders
        self.restarts += process is not None
        orders, theirs = FORK.Pipe()
        process = FORK.Process(target=live, args=(name, self.folder, self.variables, theirs), daemon=True)
        process.start()
        theirs.close()
        self.running[name] = (process, orders)
        if not orders.poll(WAIT_S) or orders.recv() != "ready":
            raise RuntimeError(f"{name} did not start: {(self.folder / f'{name}.log').read_text()[-2000:]}")
        return orders

    def order(self, name: str, *words: str) -> None:
        """Tell a process to do something; one that dies before it has heard is started and told again."""
        while True:
            orders = self.keep(name)
            try:
                orders.send(words)
                orders.recv()
            except (EOFError, OSError):
                continue
            return

    def ended(self, flow: str) -> dict[str, Any] | None:
        """Return a flow's outcome, if it has ended."""
        events = read_events(Path(self.variables["HEADRACE_HOME"]) / "flows" / folder_name(flow))
        return next((event.numbers for event in reversed(events) if event.mark is Mark.ENDED), None)

    def release(self, component: str) -> str:
        """Bring a release to its end, whatever dies meanwhile; return its trouble, or an empty text."""
        deadline = time.monotonic() + WAIT_S
        for attempt in (1, 2, 3):
            self.order("control", "release", component, str(attempt))
            outcome = self._end_of(f"{component}/commit-c0ffee/{attempt}", deadline)
            if outcome is None:
                return f"it did not end within {WAIT_S:.0f} s"
            following = str(outcome["next_flow"])
            if following:
                last = self._end_of(following, deadline)
                return "" if last and last["state"] == "promoted" else f"the promotion ended: {last}"
        return f"it failed three times: {outcome}"

    def overhead(self, repeats: int) -> tuple[float, float]:
        """Return how many seconds a release takes with the engine, and without it; the best of a few each."""
        return min(map(self._durable_s, range(repeats))), min(map(self._bare_s, range(repeats)))

    def _durable_s(self, number: int) -> float:
        for name in ("control", "worker"):
            self.keep(name)
        began = time.monotonic()
        trouble = self.release(f"durable{number}")
        if trouble:
            raise RuntimeError(f"the release that was timed went wrong: {trouble}")
        return time.monotonic() - began

    def _bare_s(self, number: int) -> float:
        mine, theirs = FORK.Pipe()
        process = FORK.Process(target=bare, args=(f"bare{number}", self.folder, self.variables, theirs), daemon=True)
        process.start()
        theirs.close()  # Its end is then the end of what can be read.
        try:
            seconds, state = mine.recv()
        except EOFError:
            state = f"died: {(self.folder / 'bare.log').read_text()[-2000:]}"
        process.join()
        if state != "promoted":
            raise RuntimeError(f"the release without an engine {state}")
        return float(seconds)

    def _end_of(self, flow: str, deadline: float) -> dict[str, Any] | None:
        while time.monotonic() < deadline:
            for name in ("control", "worker"):
                self.keep(name)
            outcome = self.ended(flow)
            if outcome is not None:
                return outcome
            time.sleep(0.05)
        return None

    def check(self, component: str) -> list[str]:
        """Return everything that is not as if nothing had been."""
        ledger = SqlLedger(self.ledger_url)
        try:
            counted = Counter(entry.action for entry in ledger.history(component, limit=1000))
            found = [f"{counted[action]} entries `{action.value}`" for action in ONCE if counted[action] != 1]
            if problem := ledger.verify(component).problem:
                found.append(problem)
            serving = ledger.serving(component, Stage.PRODUCTION)
            if serving is None or serving.version != 1:
                found.append("nothing serves")
            if any(one.component == component for one in ledger.unwritten()):
                found.append("the outbox holds an alias")
        finally:
            ledger.close()
        with closing(sqlite3.connect(self.folder / "registry.db", timeout=30)) as database:
            for what, query in (
                ("versions", "SELECT COUNT(*) FROM versions WHERE component = ?"),
                ("aliases", "SELECT COUNT(*) FROM aliases WHERE component = ? AND number = 1"),
            ):
                (count,) = database.execute(query, (component,)).fetchone()
                found += [f"{count} {what}"] if count != 1 else []
            query = "SELECT COUNT(*) FROM runs WHERE key LIKE ? AND state = 'FINISHED'"
            (count,) = database.execute(query, (f"{component}/%",)).fetchone()
            found += [f"{count} finished runs"] if count != 1 else []
        launches = list((Path(self.variables["HEADRACE_HOME"]) / "flows").glob(f"{component}--commit*/launches"))
        found += [f"{path.parent.name}: trained twice" for path in launches if len(path.read_text().split()) != 1]
        if list((self.folder / "target").glob(f"{component}.dev.json")):
            found.append("dev was left standing")
        return found

    def orphans(self) -> list[str]:
        """Return what still runs for this house."""
        own = {process.pid for process, _ in self.running.values()}
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if str(self.folder) in words and process.pid not in own and "postgres" not in words:
                found.append(words)
        return found

    def stop(self) -> None:
        for process, _ in self.running.values():
            process.kill()
            process.join()


def places(house: House, component: str) -> list[tuple[str, str]]:
    """Return (process, place) in the order in which an undisturbed release came by them."""
    lines = (house.folder / f"{component}.places").read_text().splitlines()
    return list(dict.fromkeys((line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines))


def kills(found: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return (process, place, victim): each process at each of its places, its sibling in the middle of each step."""
    planned = [(name, place, name) for name, place in found]
    sibling = {"control": "worker", "worker": "control"}
    middle = [one for one in found if one[1].endswith(("begun", "done, not kept"))]
    planned += [(name, place, sibling[name]) for name, place in middle]
    planned += [(name, place, "child") for name, place in found if place.endswith("the child runs")]
    return planned


def torment(house: House, *, most: int | None) -> list[dict[str, Any]]:
    """Kill at every place in turn and return what became of each release."""
    trouble = house.release("calm")
    if trouble or house.check("calm"):
        raise RuntimeError(f"the undisturbed release went wrong: {trouble} {house.check('calm')}")
    planned = kills(places(house, "calm"))
    if most is not None:
        planned = planned[:: max(1, len(planned) // most)][:most]
    rows = []
    for number, (name, place, victim) in enumerate(planned):
        component = f"r{number}"
        for each in ("control", "worker"):
            house.keep(each)
        house.order(name, "arm", place, victim, component)
        began = time.monotonic()
        trouble = house.release(component)
        was_killed = (house.folder / f"{component}.killed").exists()
        problems = [trouble] if trouble else house.check(component)
        if not was_killed:
            problems.append("the place was not reached")
        row = {"place": place, "victim": victim, "seconds": round(time.monotonic() - began, 2), "problems": problems}
        rows.append(row)
        if problems:
            print(f"{house.ledger_url.partition(':')[0]}: {row}", file=sys.stderr)
    return rows


@contextmanager
def sqlite_house(root: Path) -> Iterator[House]:
    folder = root / "sqlite"
    (folder / "home").mkdir(parents=True)
    variables = {**os.environ, "HEADRACE_STATE": str(folder / "state"), "HEADRACE_HOME": str(folder / "home")}
    house = House(folder, variables, f"sqlite:///{folder / 'home' / 'ledger.db'}")
    try:
        yield house
    finally:
        house.stop()


@contextmanager
def postgres_house(root: Path) -> Iterator[tuple[House, postgres.Postgres]]:
    folder = root / "postgresql"
    (folder / "home").mkdir(parents=True)
    with postgres.running() as database:
        variables = {
            **os.environ, "HEADRACE_STATE": str(folder / "state"), "HEADRACE_HOME": str(folder / "home"),
            "HEADRACE_DATABASE_URL": database.url,
        }  # fmt: skip
        house = House(folder, variables, database.url.replace("postgresql://", "postgresql+psycopg://"))
        try:
            yield house, database
        finally:
            house.stop()


def outage(house: House, database: postgres.Postgres) -> list[str]:
    """Stop the database in the middle of a training, start it again, and return what went wrong."""
    house.order("control", "release", "outage", "1")
    marker = house.folder / "outage.places"
    while not (marker.exists() and "the child runs" in marker.read_text()):
        time.sleep(0.02)
    database.stop()
    time.sleep(2)
    database.start()
    trouble = house.release("outage")
    return [trouble] if trouble else house.check("outage")


def claims_of(store: str, rows: list[dict[str, Any]], house: House, *, bar: int) -> list[Claim]:
    wrong = [row for row in rows if row["problems"]]
    converged = f"{len(rows) - len(wrong)} of {len(rows)}"
    first = f"; first: {wrong[0]['victim']} at {wrong[0]['place']}: {wrong[0]['problems']}" if wrong else ""
    orphans = house.orphans()
    return [
        Claim(f"{store}_kills", len(rows), f">= {bar}", len(rows) >= bar, "enumerated, kill -9 each"),
        Claim(f"{store}_converged", converged, "all", not wrong,
              f"one version, finished run, training, entry of each kind and alias; valid chain{first}"),
        Claim(f"{store}_orphans", len(orphans), "0", not orphans, "; ".join(orphans)[:300]),
    ]  # fmt: skip


def overhead_claim(store: str, house: House, *, smoke: bool) -> Claim:
    with_engine, without = house.overhead(1 if smoke else ROUNDS_TIMED)
    return Claim(
        f"{store}_engine_overhead_s", round(with_engine - without, 2), "< 3", with_engine - without < 3,
        f"a release of two flows and two phases: {with_engine:.2f} s durable, {without:.2f} s bare",
    )  # fmt: skip


def kill_everywhere(root: Path, *, smoke: bool) -> Part:
    """Return what became of every release with a kill, and of one whose database went away."""
    most, bar = (SMOKE_KILLS, SMOKE_KILLS) if smoke else (None, 100)
    with sqlite_house(root) as house:
        found = torment(house, most=most)
        claims = [*claims_of("sqlite", found, house, bar=bar), overhead_claim("sqlite", house, smoke=smoke)]
        rows: list[dict[str, Any]] = [{"store": "sqlite", **row} for row in found]
    try:
        with postgres_house(root) as (house, database):
            found = torment(house, most=most)
            claims += [
                *claims_of("postgresql", found, house, bar=bar),
                overhead_claim("postgresql", house, smoke=smoke),
            ]
            rows += [{"store": "postgresql", **row} for row in found]
            problems = outage(house, database)
            claims.append(
                Claim("postgresql_stopped_and_started", "; ".join(problems) or "converged", "converged",
                      not problems, "stopped for 2 s in the middle of a training")
            )  # fmt: skip
    except FileNotFoundError as error:
        claims.append(Claim("postgresql_converged", None, "all", None, str(error)))
    return rows, claims


def type_commands(_root: Path, *, smoke: bool) -> Part:
    """Return how long `history` and `status` take with many entries."""
    return ledger.type_commands(1_000 if smoke else 10_000)


PARTS: dict[str, Callable[..., Part]] = {
    "kills": kill_everywhere,
    "rounds": chaos_rounds.compete,
    "commands": type_commands,
    "real": chaos_real.torment,
    "machines": chaos_machines.take_over,
}


def run(parts: Sequence[str], *, smoke: bool) -> str:
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="headrace-chaos-", dir="/tmp") as name:
            found = PARTS[part](Path(name), smoke=smoke)
        rows += [{"part": part, **row} for row in found[0]]
        claims += found[1]
    return report("chaos", rows, claims)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document (the default and only output)")
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE_KILLS} kills for each store, none with training")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given several times")
    asked = parser.parse_args()
    print(run(asked.only or [*PARTS], smoke=asked.smoke))


if __name__ == "__main__":
    main()
