"""Kill -9 with real training and real serving, while requests go to production all the time.

The digits example, on SQLite and on a PostgreSQL of the benchmark's own. Killed are the control process, the training
child and a worker of the production endpoint, in the middle of steps and right after them; the dead control process is
started again, as a service manager would. Each release must end as if nothing had been.
"""

import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq

from benchmarks import postgres
from benchmarks.report import ROOT, Claim
from headrace import wiring
from headrace.cli import client as control
from headrace.cli.services import take_down
from headrace.config.settings import Settings, read_settings
from headrace.errors import HeadraceError
from headrace.ledger.base import Action, Outbox
from headrace.lifecycle.events import Event, Mark, read_events
from headrace.lifecycle.production.aliases import CHAMPION
from headrace.lifecycle.request import folder_name
from headrace.lifecycle.versions import RECORD
from headrace.processes import ProcessName, is_alive
from headrace.types import Stage

COMPONENT = "digits"
WAIT_S = 900.0
POLL_S = 0.005
PAUSE_S = 0.04
ONCE = (Action.REGISTERED, Action.GATED, Action.ACCEPTED, Action.PROMOTED)


@dataclass(frozen=True)
class Kill:
    """Whom to kill, and when: `delay_s` after a step's mark was seen, the `count`-th one of its kind."""

    victim: str
    step: str
    mark: Mark
    delay_s: float = 0.0
    count: int = 1

    def __str__(self) -> str:
        when = {Mark.STARTED: "in the middle of", Mark.PROGRESS: "in the middle of", Mark.DONE: "right after"}
        return f"{self.victim}, {when[self.mark]} {self.step}"


#: One release each.
ON_SQLITE: Sequence[Sequence[Kill]] = (
    (
        Kill("control", "train", Mark.PROGRESS, count=2),
        Kill("control", "register", Mark.DONE),
        Kill("control", "ledger", Mark.DONE),
    ),
    (
        Kill("training", "train", Mark.PROGRESS, count=2),
        Kill("control", "evaluate", Mark.STARTED, 0.5),
        Kill("worker", "warm", Mark.STARTED, 0.5),
    ),
    (
        Kill("control", "train", Mark.DONE),
        Kill("control", "dev", Mark.STARTED, 1.0),
        Kill("control", "warm", Mark.STARTED, 1.0),
        Kill("worker", "shift", Mark.STARTED),
    ),
)
ON_POSTGRESQL: Sequence[Sequence[Kill]] = (
    (
        Kill("database", "train", Mark.PROGRESS, count=2),
        Kill("control", "acceptance", Mark.STARTED, 0.3),
        Kill("control", "ledger", Mark.DONE),
    ),
    (Kill("training", "train", Mark.PROGRESS, count=2), Kill("worker", "warm", Mark.STARTED, 0.5)),
)


@dataclass
class Users:
    """Somebody who asks production all the time; every answer but a good one is a failed request."""

    url: str
    rows: list[list[float]]
    sent: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(30)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            while not self._ended.wait(PAUSE_S):
                row = self.rows[self.sent % len(self.rows)]
                began = time.monotonic()
                try:
                    answer = client.post("/invocations", json={"inputs": [row]})
                    if answer.status_code != 200:
                        self.failed[f"{answer.status_code}: {answer.text[:200]}"] += 1
                    self.versions[answer.headers.get("x-headrace-version", "?")] += 1
                except httpx.HTTPError as error:
                    self.failed[repr(error)] += 1
                self.sent += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)


@dataclass
class RealHouse:
    """One home with a control process, a component, and production."""

    settings: Settings
    project: Path
    database: postgres.Postgres | None = None
    restarts: int = 0
    _last: ProcessName | None = None

    @property
    def client(self) -> control.Client:
        """Return the way to the control process, starting it where it is dead."""
        found = control.ensure(self.settings)
        if self._last is not None and found.process != self._last:
            self.restarts += 1
        self._last = found.process
        return found

    def start(self, key: str) -> str:
        """Start a candidate and return its flow."""
        for _ in range(10):
            with suppress(Exception):  # The control process may die while it is asked; the key makes one flow of all.
                asked = self.client.ask(
                    "POST", "/api/run", folder=str(self.project), actor="person:chaos", reason="chaos", key=key
                )
                return str(asked["flow"])
            time.sleep(1)
        raise RuntimeError(f"no flow could be started: {self._log()}")

    def events(self, flow: str) -> Sequence[Event]:
        return read_events(self.settings.flows / folder_name(flow))

    def of_release(self, flow: str) -> list[Event]:
        """Return the events of a candidate and of the promotion that follows."""
        subject, _, rest = flow.partition("/")
        return [*self.events(flow), *self.events(f"{subject}/promote/{rest}")]

    def outcome(self, flow: str) -> dict[str, Any] | None:
        """Return how a release ended, if it has."""
        ends = [event.numbers for event in self.of_release(flow) if event.mark is Mark.ENDED]
        if not ends or (len(ends) == 1 and ends[0].get("next_flow")):
            return None
        return dict(ends[-1])

    def kill(self, victim: str, flow: str) -> None:
        """End a process without a word, or take the database away for a while."""
        if victim == "database":
            assert self.database is not None
            self.database.stop()
            time.sleep(3)
            self.database.start()
            return
        pid = {"control": self._control, "training": lambda: self._training(flow), "worker": self._worker}[victim]()
        os.kill(pid, signal.SIGKILL)

    def _control(self) -> int:
        assert self._last is not None
        return self._last.pid

    def _training(self, flow: str) -> int:
        """Return the pid of the script that trains."""
        mark = str(self.settings.flows / folder_name(flow))
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or []
            if "train.py" in words and mark in (process.info["cwd"] or ""):
                return int(process.pid)
        raise RuntimeError("no training child was found")

    def _worker(self) -> int:
        """Return the pid of a worker of the version that answers in production."""
        status = wiring.target(self.settings).status(COMPONENT, Stage.PRODUCTION)
        assert status is not None
        serving = max(status.shares, key=lambda number: status.shares[number])
        record = self.settings.home / "versions" / COMPONENT / f"v{serving}" / RECORD
        model = json.loads(record.read_text())["model"]
        for process in psutil.Process(status.endpoint.pid).children(recursive=True):
            if model in process.cmdline():
                return int(process.pid)
        raise RuntimeError(f"version {serving} has no worker in production")

    def release(self, name: str, kills: Sequence[Kill]) -> dict[str, Any]:
        """Bring a release to its end while some are killed, and say what became of it."""
        began, flows, done = time.monotonic(), list[str](), list[str]()
        trainings = self._trainings()
        left, problems = list(kills), list[str]()
        for attempt in (1, 2, 3):
            flows.append(self.start(f"{name}-{attempt}"))
            outcome = self._through(flows[-1], left, done)
            if outcome is None or outcome["state"] == "promoted":
                break
        if outcome is None or outcome["state"] != "promoted":
            problems.append(f"it ended: {outcome}")
        problems += [f"not reached: {kill}" for kill in left]
        problems += self._until_right(lambda: self.wrong(flows))
        allowed = 1 + sum(kill.victim == "training" for kill in kills)
        trained = self._trainings() - trainings
        if trained > allowed:
            problems.append(f"trained {trained} times")
        return {
            "release": name, "kills": done, "attempts": len(flows), "seconds": round(time.monotonic() - began, 1),
            "problems": problems,
        }  # fmt: skip

    def _through(self, flow: str, left: list[Kill], done: list[str]) -> dict[str, Any] | None:
        """Follow a release to its end, and kill who is next when it comes by the place."""
        deadline, next_look_s = time.monotonic() + WAIT_S, 0.0
        while time.monotonic() < deadline:
            if left and self._is_there(left[0], flow):
                kill = left.pop(0)
                time.sleep(kill.delay_s)
                at = self.of_release(flow)[-1]
                self.kill(kill.victim, flow)
                done.append(f"{kill} (the last that was seen: {at.step} {at.mark.value})")
            if time.monotonic() > next_look_s:
                next_look_s = time.monotonic() + 0.5
                if self._last is None or not is_alive(self._last):
                    _ = self.client
                outcome = self.outcome(flow) or self._broken(flow)
                if outcome is not None:
                    return outcome
            time.sleep(POLL_S)
        return None

    def _broken(self, flow: str) -> dict[str, Any] | None:
        """Return the end of a flow that never wrote its own."""
        for one in (flow, "{0}/promote/{2}".format(*flow.partition("/"))):
            with suppress(HeadraceError):
                events = self.client.ask("GET", "/api/events", flow=one, after=len(self.events(one)))["events"]
                ends = [event["numbers"] for event in events if event["mark"] == Mark.ENDED.value]
                if ends and not ends[-1].get("next_flow"):
                    return dict(ends[-1])
        return None

    def _is_there(self, kill: Kill, flow: str) -> bool:
        seen = [event for event in self.of_release(flow) if (event.step, event.mark) == (kill.step, kill.mark)]
        return len(seen) >= kill.count

    def _until_right(self, wrong: Callable[[], list[str]]) -> list[str]:
        """Return what stays wrong; the outbox and dying workers get a moment."""
        deadline = time.monotonic() + 60
        while (found := wrong()) and time.monotonic() < deadline:
            time.sleep(1)
        return found

    def wrong(self, flows: Sequence[str]) -> list[str]:
        """Return everything that is not as if nothing had been."""
        ledger = wiring.ledger(self.settings)
        entries = [
            entry for entry in ledger.history(COMPONENT, limit=10_000)
            if any(entry.key.startswith(start) for flow in flows for start in _keys(flow))
        ]  # fmt: skip
        counted = Counter(entry.action for entry in entries)
        found = [f"{counted[action]} entries `{action.value}`" for action in ONCE if counted[action] != 1]
        versions = {entry.version for entry in entries}
        serving = ledger.serving(COMPONENT, Stage.PRODUCTION)
        if serving is None or {serving.version} != versions:
            found.append(f"versions {versions}, and {serving and serving.version} serves")
        if problem := ledger.verify(COMPONENT).problem:
            found.append(problem)
        if isinstance(ledger, Outbox) and ledger.unwritten():
            found.append("the outbox holds an alias")
        status = wiring.target(self.settings).status(COMPONENT, Stage.PRODUCTION)
        if status is None or serving is None or dict(status.shares) != {serving.version: 1.0}:
            found.append(f"the route is {status and dict(status.shares)}")
        if wiring.target(self.settings).status(COMPONENT, Stage.DEV) is not None:
            found.append("dev was left standing")
        return found + self._in_mlflow(flows, serving.version if serving else None) + self._left_over(flows)

    def _in_mlflow(self, flows: Sequence[str], serving: int | None) -> list[str]:
        marks = ", ".join("?" * len(flows))
        with closing(sqlite3.connect(self.settings.home / "mlflow.db", timeout=30)) as database:
            runs = Counter(
                state for (state,) in database.execute(
                    "SELECT r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid"
                    f" WHERE t.key = 'headrace.flow' AND t.value IN ({marks})", flows,
                )
            )  # fmt: skip
            (versions,) = database.execute(
                f"SELECT COUNT(*) FROM model_version_tags WHERE key = 'headrace.flow' AND value IN ({marks})", flows
            ).fetchone()
            (alias,) = database.execute(
                "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", (COMPONENT, CHAMPION)
            ).fetchone() or (None,)
        found = [] if runs["FINISHED"] == 1 and not runs["RUNNING"] else [f"runs: {dict(runs)}"]
        found += [] if versions == 1 else [f"{versions} versions"]
        return found + ([] if alias == serving else [f"the alias is at {alias}"])

    def _left_over(self, flows: Sequence[str]) -> list[str]:
        """Return what still works for flows that have ended."""
        marks = [str(self.settings.flows / folder_name(flow)) for flow in flows]
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if any(mark in words for mark in marks):
                found.append(f"still runs: {words[:200]}")
        return found

    def _trainings(self) -> int:
        path = self.project.parent / "trainings"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def _log(self) -> str:
        return (self.settings.run / "control.log").read_text()[-2000:]


def _keys(flow: str) -> tuple[str, str]:
    """Return how the idempotency keys of a release's entries begin: the candidate's, and the promotion's."""
    subject, _, rest = flow.partition("/")
    return f"{flow}/", f"{subject}/promote/{rest}"


def house(root: Path, database: postgres.Postgres | None) -> RealHouse:
    """Return a home with a copy of the digits example that counts its trainings."""
    variables = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    variables |= {"HEADRACE_STATE": str(read_settings().state), "HEADRACE_HOME": str(root / "home")}
    if database is not None:
        variables["HEADRACE_DATABASE_URL"] = database.url
    return RealHouse(read_settings(variables).prepare(), copy_project(root), database)


def copy_project(root: Path) -> Path:
    """Return a copy of the digits example; each training that begins adds its pid to the file `trainings` in `root`."""
    project = root / "project"
    shutil.copytree(ROOT / "examples" / "digits", project, ignore=shutil.ignore_patterns("data", "__pycache__"))
    # Two workers, so that one can die; no tests and no watch, which are not what is asked here.
    config = (project / "headrace.yaml").read_text()
    kept = [line for line in config.splitlines() if not line.startswith(("tests:", "serve:", "monitor:", "retrain:"))]
    kept += ["serve: {workers: 2, max_batch: 64, deadline_ms: 10000}", "monitor: {window: 1000000 predictions}"]
    (project / "headrace.yaml").write_text("\n".join(kept) + "\n")
    script = project / "train.py"
    count = f"import os\nwith open({str(root / 'trainings')!r}, 'a') as file:\n    file.write(f'{{os.getpid()}}\\n')\n"
    script.write_text(count + script.read_text())
    return project


def torment(root: Path, *, smoke: bool) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Kill while real releases go on, and return what became of them."""
    if smoke:
        return [], [Claim("real_kills", None, ">= 6", None, "a real training takes longer than the smoke run has")]
    rows, claims = _tormented(root / "sqlite", "sqlite", ON_SQLITE, None)
    try:
        with postgres.running() as database:
            more = _tormented(root / "postgresql", "postgresql", ON_POSTGRESQL, database)
    except FileNotFoundError as error:
        return rows, [*claims, Claim("postgresql_real_kills", None, ">= 3", None, str(error))]
    return rows + more[0], claims + more[1]


def _tormented(
    root: Path, store: str, plan: Sequence[Sequence[Kill]], database: postgres.Postgres | None
) -> tuple[list[dict[str, Any]], list[Claim]]:
    root.mkdir()
    made = house(root, database)
    try:
        rows = [made.release("calm", ())]
        _say(store, rows[-1])
        idle = _idle_share(made)
        users = users_of(made.settings, made.project)
        users.start()
        for number, kills in enumerate(plan, 1):
            rows.append(made.release(f"r{number}", kills))
            _say(store, rows[-1])
        users.stop()
    finally:
        take_down(made.settings)
    left = made._until_right(lambda: _of_home(made.settings))
    killed = [kill for row in rows for kill in row["kills"]]
    wrong = [row for row in rows if row["problems"]]
    bar = sum(map(len, plan))
    failed = f"{users.failed.total()} of {users.sent}"
    claims = [
        Claim(f"{store}_real_kills", len(killed), f">= {bar}", len(killed) >= bar, "; ".join(killed)),
        Claim(f"{store}_real_converged", f"{len(rows) - len(wrong)} of {len(rows)} releases", "all", not wrong,
              "one version, finished run and entry of each kind per release; route, alias and ledger agree; valid chain"
              + "".join(f"; {row['release']}: {row['problems']}" for row in wrong[:1])),
        Claim(f"{store}_real_failed_requests", failed, "0", not users.failed,
              f"answered by version: {dict(users.versions)}; the slowest took {users.slowest_s:.2f} s; "
              f"control was started again {made.restarts} times; idle it takes {idle:.0%} of a core"
              + "".join(f"; {why} ({count})" for why, count in users.failed.most_common(2))),
        Claim(f"{store}_real_orphans", len(left), "0", not left, "; ".join(left)[:300]),
    ]  # fmt: skip
    for claim in claims:
        _say(store, asdict(claim))
    return [{"store": store, **row} for row in rows], claims


def users_of(settings: Settings, project: Path) -> Users:
    """Return users of what serves in production. Raises RuntimeError where nothing does."""
    status = wiring.target(settings).status(COMPONENT, Stage.PRODUCTION)
    if status is None:
        raise RuntimeError("the first release did not come to production")
    table = pq.read_table(project / "data" / "holdout.parquet", columns=["pixels"])
    return Users(status.endpoint.url, table.column("pixels").to_pylist()[:100])


def _idle_share(made: RealHouse) -> float:
    """Return what share of a core the control process takes while nothing happens."""
    process = psutil.Process(made._control())
    before = sum(process.cpu_times()[:2])
    time.sleep(5)
    return float(sum(process.cpu_times()[:2]) - before) / 5


def _of_home(settings: Settings) -> list[str]:
    """Return the command lines of everything that runs for a home."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        home = (process.info["environ"] or {}).get("HEADRACE_HOME")
        if process.pid != os.getpid() and (home == str(settings.home) or str(settings.home) in words):
            found.append(words)
    return found


def _say(store: str, row: dict[str, Any]) -> None:
    print(f"{store}: {json.dumps(row)}", file=sys.stderr, flush=True)
