"""A release over several workers: one PostgreSQL, one MLflow server, real training and serving.

Control, two that train, and one that serves and monitors, each with a run folder of its own as on machines of their
own. The one that trains is killed in mid-training with its child; in a second round it is stopped with its child and
returns.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import postgres
from benchmarks.chaos_real import COMPONENT, ONCE, copy_project, users_of
from benchmarks.report import Claim
from headrace.cli import client as control
from headrace.config.settings import Settings, read_settings
from headrace.errors import HeadraceError
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.events import Event, Mark, read_events
from headrace.lifecycle.nodes.sql import SqlNodes
from headrace.lifecycle.request import folder_name
from headrace.processes import free_port
from headrace.registry.mlflow import MlflowRegistry
from headrace.types import Stage

WAIT_S = 300.0
#: From the signal to the step's start on the other worker.
TAKEOVER_S = 15.0
ROLES = {"control": "control", "train-1": "train", "train-2": "train", "serve": "serve,monitor"}


def wait_for(what: str, ask: Callable[[], Any], seconds: float = WAIT_S) -> Any:
    """Return the first true answer. Raises TimeoutError that says what did not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(HeadraceError):
            found = ask()
            if found:
                return found
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s")


@dataclass
class Machines:
    """Workers that share home, state, database and MLflow."""

    root: Path
    url: str
    mlflow: str
    project: Path
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def settings(self, name: str) -> Settings:
        cache = os.environ.get("UV_CACHE_DIR") or str(read_settings().state / "cache" / "uv")
        return read_settings(
            {
                **os.environ, "HEADRACE_STATE": str(self.root / "state"), "HEADRACE_HOME": str(self.root / "home"),
                "HEADRACE_RUN": str(self.root / f"run-{name}"), "HEADRACE_NODE": name, "HEADRACE_URL": "",
                "HEADRACE_DATABASE_URL": self.url, "MLFLOW_TRACKING_URI": self.mlflow, "UV_CACHE_DIR": cache,
            }
        )  # fmt: skip

    def start(self, name: str) -> None:
        command = [str(Path(sys.executable).parent / "headrace"), "worker", "--role", ROLES[name]]
        with (self.root / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                command, env=dict(self.settings(name).variables), stdout=output, stderr=output, start_new_session=True
            )
        wait_for(name, lambda: self._is_up(name))

    def _is_up(self, name: str) -> bool:
        process = self.processes[name]
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended: {(self.root / f'{name}.out').read_text()[-2000:]}")
        book = SqlNodes(self.settings("control").ledger_url)
        try:
            return any(node.is_alive and node.pid == process.pid and node.figures for node in book.all())
        finally:
            book.close()

    def run(self, key: str) -> str:
        client = wait_for("control", lambda: control.find(self.settings("control")))
        asked = client.ask("POST", "/api/run", folder=str(self.project), actor="person:chaos", reason="chaos", key=key)
        return str(asked["flow"])

    def events(self, flow: str) -> Sequence[Event]:
        return read_events(self.settings("control").flows / folder_name(flow))

    def trainings(self) -> list[int]:
        """Return the pids of all training scripts that ever began."""
        path = self.root / "trainings"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def trainer(self, pid: int) -> str:
        """Return the worker whose training this is."""
        above = [process.pid for process in psutil.Process(pid).parents()]
        return next(name for name, process in self.processes.items() if process.pid in above)

    def started(self, flow: str) -> int:
        """Return how often its training was started."""
        return sum((event.step, event.mark) == ("train", Mark.STARTED) for event in self.events(flow))

    def ended(self, flow: str) -> dict[str, Any] | None:
        found = [dict(event.numbers) for event in self.events(flow) if event.mark is Mark.ENDED]
        return found[0] if found else None

    def stop(self) -> None:
        for process in self.processes.values():
            for one in [*_tree(process.pid)]:
                with suppress(psutil.NoSuchProcess):
                    one.resume()
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
        for left in _of_home(self.root):
            with suppress(psutil.NoSuchProcess):
                left.kill()

    def release(self, key: str, disturb: Callable[[str, str], dict[str, Any]] | None = None) -> dict[str, Any]:
        """Bring a release to production while its first trainer is disturbed, and say what became of it."""
        before, began = len(self.trainings()), time.monotonic()
        flow = self.run(key)
        row: dict[str, Any] = {"release": key, "kill": ""}
        if disturb is not None:
            wait_for("a training", lambda: len(self.trainings()) > before)
            row |= disturb(flow, self.trainer(self.trainings()[-1]))
        candidate = wait_for("the candidate's end", lambda: self.ended(flow))
        last = wait_for("the promotion's end", lambda: self.ended(str(candidate["next_flow"])))
        row |= {"seconds": round(time.monotonic() - began, 1), "state": last["state"], "flow": flow}
        row["trainings"] = len(self.trainings()) - before
        return row

    def kill(self, flow: str, name: str) -> dict[str, Any]:
        """The machine that trains is gone at once, with all that runs on it."""
        return self._disturb(flow, name, signal.SIGKILL)

    def freeze(self, flow: str, name: str) -> dict[str, Any]:
        """The machine that trains stands still; it comes back when another has taken over."""
        return self._disturb(flow, name, signal.SIGSTOP)

    def _disturb(self, flow: str, name: str, how: signal.Signals) -> dict[str, Any]:
        trained, started = len(self.trainings()), self.started(flow)
        began = time.monotonic()
        for process in _tree(self.processes[name].pid):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        wait_for("another worker", lambda: self.started(flow) > started)
        taken_over_s = time.monotonic() - began
        wait_for("another training", lambda: len(self.trainings()) > trained)
        again_s = time.monotonic() - began
        other = self.trainer(self.trainings()[-1])
        if how is signal.SIGSTOP:
            for process in _tree(self.processes[name].pid):
                process.resume()
        else:
            self.processes[name].wait(30)
        return {
            "kill": f"{how.name} to {name}, {other} went on", "taken_over_s": round(taken_over_s, 1),
            "script_runs_again_s": round(again_s, 1),
        }  # fmt: skip

    def wrong(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Return everything that is not as if nothing had been."""
        settings = self.settings("serve")
        ledger = SqlLedger(settings.ledger_url)
        try:
            entries = Counter(entry.action for entry in ledger.history(COMPONENT, limit=1000))
            serving, problem = ledger.serving(COMPONENT, Stage.PRODUCTION), ledger.verify(COMPONENT).problem
        finally:
            ledger.close()
        registry = MlflowRegistry(settings)
        versions, alias = registry.versions(COMPONENT), registry.alias(COMPONENT, "champion")
        found = [f"{entries[one]} entries `{one}`" for one in ONCE if entries[one] != len(rows)]
        found += [problem] if problem else []
        found += [f"{len(versions)} versions"] if len(versions) != len(rows) else []
        if serving is None or serving.version != alias:
            found.append(f"{serving} serves, and the alias is at {alias}")
        found += [f"{row['release']} ended {row['state']}" for row in rows if row["state"] != "promoted"]
        return found


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _of_home(root: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        home = (process.info["environ"] or {}).get("HEADRACE_HOME", "")
        if process.pid != os.getpid() and (str(root) in " ".join(process.info["cmdline"] or []) or str(root) in home):
            found.append(process)
    return found


def take_over(root: Path, *, smoke: bool) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Kill and freeze the worker that trains, and return what became of the releases."""
    if smoke:
        return [], [
            Claim("machines_promoted", None, "all", None, "a real training takes longer than the smoke run has")
        ]
    try:
        with postgres.running() as database, _mlflow(root) as address:
            return _take_over(Machines(root, database.url, address, copy_project(root)))
    except FileNotFoundError as error:
        return [], [Claim("machines_promoted", None, "all", None, str(error))]


def _take_over(house: Machines) -> tuple[list[dict[str, Any]], list[Claim]]:
    rows, users = list[dict[str, Any]](), None
    try:
        for name in ROLES:
            house.start(name)
        rows.append(_told(house.release("calm")))
        users = users_of(house.settings("serve"), house.project)
        users.start()
        rows.append(_told(house.release("killed", house.kill)))
        house.start(next(name for name, process in house.processes.items() if process.poll() is not None))
        rows.append(_told(house.release("frozen", house.freeze)))
        wait_for("all workers", lambda: all(house._is_up(name) for name in ROLES))
        rows.append(_told(house.release("after")))
        users.stop()
        problems = house.wrong(rows)
    finally:
        if users is not None:
            users.stop()
        house.stop()
    slowest = max(row.get("taken_over_s", 0.0) for row in rows)
    again = max(row.get("script_runs_again_s", 0.0) for row in rows)
    failed = f"{users.failed.total()} of {users.sent}"
    return rows, [
        Claim("machines_takeover_s", slowest, f"<= {TAKEOVER_S:g}", slowest <= TAKEOVER_S,
              f"from the signal until another worker began the step; its script ran after {again} s"),
        Claim("machines_promoted", f"{len(rows) - bool(problems)} of {len(rows)}", "all", not problems,
              "; ".join(problems) or "one version and one entry of each kind per release; alias agrees; valid chain"),
        Claim("machines_failed_requests", failed, "0", not users.failed, str(dict(users.failed))),
    ]  # fmt: skip


@contextmanager
def _mlflow(root: Path) -> Iterator[str]:
    """Run an MLflow server that also keeps the artifacts, and give its address."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", str(root / "artifacts"),
    ]  # fmt: skip
    with (root / "mlflow.log").open("wb") as output:
        process = subprocess.Popen(command, cwd=root, stdout=output, stderr=output)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for("MLflow", lambda: _is_healthy(address))
        yield address
    finally:
        for one in reversed(_tree(process.pid)):
            one.terminate()
        process.wait(30)


def _is_healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _told(row: dict[str, Any]) -> dict[str, Any]:
    print(f"machines: {json.dumps(row)}", file=sys.stderr, flush=True)
    return row
