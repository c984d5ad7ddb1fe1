"""Three machines' worth of workers on one PostgreSQL: one dies in mid-training, one is stopped and comes back."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest
from benchmarks.postgres import Postgres

from headrace.cli import client as control
from headrace.config.settings import read_settings
from headrace.errors import Conflict
from headrace.ledger.base import Action
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.durable import Role
from headrace.lifecycle.events import Mark, read_events
from headrace.lifecycle.nodes.base import Condition, Node
from headrace.lifecycle.nodes.sql import SqlNodes
from headrace.lifecycle.request import folder_name
from headrace.types import Stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
WAIT_S = 180.0
T = TypeVar("T")


def wait_for(what: str, ask: Callable[[], T | None], seconds: float = WAIT_S) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = ask()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


@dataclass
class House:
    """Workers that share home, state and database, each with a run folder of its own."""

    folder: Path
    url: str
    workers: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def variables(self, name: str, label: str = "") -> dict[str, str]:
        return {
            **os.environ, "HEADRACE_STATE": str(self.folder / "state"), "HEADRACE_HOME": str(self.home),
            "HEADRACE_LABELS": label, "HEADRACE_DATABASE_URL": self.url, "HEADRACE_NODE": name,
            "HEADRACE_RUN": str(self.folder / f"run-{name}"), "HEADRACE_URL": "", "PYTHONPATH": str(ROOT),
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        }  # fmt: skip

    def start(self, name: str, roles: str, label: str = "") -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            command = [sys.executable, "-m", "tests.fault.workers_house", roles]
            self.workers[name] = subprocess.Popen(
                command, env=self.variables(name, label), cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )

    def is_up(self, name: str) -> bool:
        process = self.workers[name]
        assert process.poll() is None, (self.folder / f"{name}.out").read_text()[-3000:]
        return any(node.is_alive and node.pid == process.pid and node.figures for node in self.nodes())

    def nodes(self) -> list[Node]:
        book = SqlNodes(read_settings(self.variables("test")).ledger_url)
        try:
            return list(book.all())
        finally:
            book.close()

    def client(self) -> control.Client:
        found = wait_for("control", lambda: control.find(read_settings(self.variables("control"))))
        assert found is not None
        return found

    def run(self, component: str, *more: str) -> str:
        place = self.folder / component
        place.mkdir()
        (place / "headrace.yaml").write_text("\n".join([f"component: {component}", *more, ""]))
        answer = self.client().ask("POST", "/api/run", folder=str(place), reason="a test", key="k", actor="person:test")
        return str(answer["flow"])

    def launches(self) -> list[list[str]]:
        path = self.home / "launches"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def let_go(self, name: str) -> None:
        """Let the trainings of a node end."""
        (self.home / f"go-{name}").touch()

    def forget(self) -> None:
        """Begin a test: no training has begun, none may end, and no sealing is held."""
        marks = [self.home / name for name in ("launches", "hold", "held", "late", "tried")]
        for path in [*marks, *self.home.glob("go-*")]:
            path.unlink(missing_ok=True)

    def ends(self, flow: str) -> list[dict[str, Any]]:
        events = read_events(self.home / "flows" / folder_name(flow))
        return [event.numbers for event in events if event.mark is Mark.ENDED]

    def promoted(self, flow: str) -> None:
        (end,) = wait_for("the candidate's end", lambda: self.ends(flow))
        assert end["next_flow"], end
        (last,) = wait_for("the promotion's end", lambda: self.ends(str(end["next_flow"])))
        assert last["state"] == "promoted", last

    def facts(self, component: str, flow: str) -> dict[str, Any]:
        """Return all that a release leaves: rows, entries, aliases, and the files of whoever took it over."""
        ledger = SqlLedger(read_settings(self.variables("test")).ledger_url)
        try:
            entries = Counter(entry.action.value for entry in ledger.history(component, limit=1000))
            serving = ledger.serving(component, Stage.PRODUCTION)
            verified = ledger.verify(component)
        finally:
            ledger.close()
        with closing(sqlite3.connect(self.home / "registry.db", timeout=30)) as database:
            versions = database.execute("SELECT * FROM versions WHERE component = ?", (component,)).fetchall()
            aliases = database.execute("SELECT * FROM aliases WHERE component = ?", (component,)).fetchall()
            runs = database.execute("SELECT key, id, state FROM runs WHERE key LIKE ?", (f"{component}/%",)).fetchall()
        folder = self.home / "flows" / folder_name(flow)
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.glob("again-2/**/*"))
            if path.is_file() and path.name != "lock"
        }
        return {
            "entries": entries, "serving": serving and serving.version, "problem": verified.problem,
            "versions": versions, "aliases": aliases, "runs": runs, "files": files, "ends": len(self.ends(flow)),
        }  # fmt: skip

    def stop(self) -> None:
        for process in self.workers.values():
            for one in [*_children(process.pid), process.pid]:
                _send(one, signal.SIGCONT)
                _send(one, signal.SIGKILL)
            process.wait(30)
        for _, pid, _ in self.launches():
            _send(int(pid), signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _send(pid: int, number: int) -> None:
    """Send a signal to a process of the house, and to no other that may have its number by now."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        words = " ".join(psutil.Process(pid).cmdline())
        if "workers_house" in words or "launches" in words or "training/child.py" in words:
            os.kill(pid, number)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    place = Path(tempfile.mkdtemp(prefix="headrace-pg-", dir="/tmp"))
    try:
        database = Postgres(place)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    database.start()
    house = House(tmp_path_factory.mktemp("house"), database.url)
    try:
        house.start("control", "control")
        wait_for("control", lambda: house.is_up("control"))
        for name, roles in (("train-1", "train"), ("train-2", "train"), ("serve", "serve,monitor")):
            house.start(name, roles)
        for name in ("train-1", "train-2", "serve"):
            wait_for(name, lambda name=name: house.is_up(name))  # type: ignore[misc]
        yield house
    finally:
        house.stop()
        database.stop()
        shutil.rmtree(place, ignore_errors=True)


def check(facts: dict[str, Any]) -> None:
    """One version, one finished run that it was made of, one entry of each kind, a valid chain, one end."""
    assert facts["problem"] == ""
    assert facts["ends"] == 1
    assert facts["serving"] == 1
    assert len(facts["versions"]) == len(facts["aliases"]) == 1
    for action in (Action.REGISTERED, Action.GATED, Action.ACCEPTED, Action.PROMOTED):
        assert facts["entries"][action.value] == 1, facts["entries"]
    assert Action.ALARM.value not in facts["entries"]
    states = {key: state for key, _, state in facts["runs"]}
    assert sorted(states.values()) == ["FINISHED", "KILLED"], states
    (finished,) = [run for key, run, state in facts["runs"] if state == "FINISHED"]
    assert facts["versions"][0][3] == finished


def test_another_worker_goes_on_when_one_is_killed(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    flow = house.run("killed")
    ((first, child, _),) = wait_for("a training", house.launches)
    began = time.monotonic()
    house.workers[first].kill()
    house.workers[first].wait()
    second = wait_for("another training", lambda: house.launches()[1:])[0]
    took_s = time.monotonic() - began
    with capsys.disabled():
        print(f"\nkilled: {second[0]} took over from {first} after {took_s:.1f} s")
    assert second[0] != first
    house.let_go(second[0])
    house.promoted(flow)
    check(house.facts("killed", flow))
    # The machine comes back: what the dead worker left is no concern of the new one, and nothing of it is left.
    house.start(first, "train")
    wait_for(first, lambda: house.is_up(first))
    wait_for("the end of the old child", lambda: not _lives(int(child)))
    check(house.facts("killed", flow))


def test_what_a_stopped_worker_does_late_changes_nothing(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    house.forget()
    flow = house.run("stopped")
    ((first, child, _),) = wait_for("a training", house.launches)
    session = {node.name: node.session for node in house.nodes()}[first]
    frozen = [house.workers[first].pid, int(child)]
    began = time.monotonic()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    second = wait_for("another training", lambda: house.launches()[1:])[0]
    with capsys.disabled():
        print(f"\nstopped: {second[0]} took over from {first} after {time.monotonic() - began:.1f} s")
    house.let_go(second[0])
    house.promoted(flow)
    before = house.facts("stopped", flow)
    check(before)
    house.let_go(first)
    # Its training ends well now, and late: it may write its model and its own run's artifacts, which nobody reads.
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    wait_for("a fresh start", lambda: any(one.name == first and one.session != session for one in house.nodes()))
    wait_for(first, lambda: house.is_up(first))
    assert house.facts("stopped", flow) == before


def test_a_stopped_worker_is_refused_at_every_door(house: House) -> None:
    house.forget()
    flow = house.run("doors")
    ((first, _, _),) = wait_for("a training", house.launches)
    (house.home / "hold").write_text(first)
    house.let_go(first)
    wait_for("its sealing", (house.home / "held").exists)
    session = {node.name: node.session for node in house.nodes()}[first]
    os.kill(house.workers[first].pid, signal.SIGSTOP)
    house.promoted(flow)
    before = house.facts("doors", flow)
    (house.home / "late").touch()
    os.kill(house.workers[first].pid, signal.SIGCONT)
    # Where it begins anew before its thread got so far, nothing was tried, and nothing may have changed either.
    wait_for("a fresh start", lambda: any(one.name == first and one.session != session for one in house.nodes()))
    wait_for(first, lambda: house.is_up(first))
    if (house.home / "tried").exists():
        tried = (house.home / "tried").read_text().splitlines()
        assert len(tried) == 5
        assert all(line.endswith(": Superseded") for line in tried), tried
    assert house.facts("doors", flow) == before
    assert before["problem"] == ""
    assert before["entries"][Action.PROMOTED.value] == 1


def test_a_component_is_trained_where_its_label_is(house: House) -> None:
    house.forget()
    picky = house.run("picky", "runs_on: tpu")
    events = wait_for("what it waits for", lambda: read_events(house.home / "flows" / folder_name(picky)))
    assert "runs on workers with the label `tpu`, and none is at work" in events[0].text
    assert "headrace worker --role train --label tpu" in events[0].text
    # Who trains without the label is idle, takes other work, and leaves this.
    plain = house.run("plain")
    ((name, _, _),) = wait_for("a training", house.launches)
    house.let_go(name)
    house.promoted(plain)
    assert len(house.launches()) == 1
    house.start("train-tpu", "train", "tpu")
    (_, (name, _, _)) = wait_for("the other training", lambda: house.launches()[1:] and house.launches())
    assert name == "train-tpu"
    house.let_go(name)
    house.promoted(picky)


def test_a_worker_of_another_protocol_does_not_join(house: House) -> None:
    book = SqlNodes(read_settings(house.variables("test")).ledger_url)
    stranger = Node("new", [Role.TRAIN], "s", "99", "9.9", "elsewhere", 1)
    with pytest.raises(Conflict, match=r"speaks protocol 99; at work are control on .*protocol 1"):
        book.join(stranger)
    book.close()


def test_a_command_makes_no_worker_of_its_machine(house: House) -> None:
    variables = house.variables("admin")
    command = [sys.executable, "-m", "headrace.dashboard.worker"]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "The control process of this database is control on " in done.stderr
    assert "HEADRACE_URL=http://127.0.0.1:" in done.stderr


def test_a_worker_without_the_shared_folders_does_not_join(house: House, tmp_path: Path) -> None:
    variables = {**house.variables("far"), "HEADRACE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "headrace.dashboard.worker", "train"]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "is not the folder that the workers of this database share" in done.stderr


def test_nodes_drain_and_restart(house: House) -> None:
    def command(*words: str) -> Any:
        program = [sys.executable, "-c", "from headrace.cli.main import run_command; run_command()", *words, "--json"]
        done = subprocess.run(
            program, env=house.variables("test"), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    found = {node["name"]: node for node in command("nodes")["nodes"]}
    assert found["serve"]["roles"] == ["serve", "monitor"]
    assert found["serve"]["condition"] == "alive"
    assert httpx.get(found["control"]["url"] + "/api/status", timeout=60).status_code == 401
    assert command("drain", "train-1")["condition"] == Condition.DRAINED
    assert command("restart", "train-1")["condition"] == Condition.ALIVE
    assert command("logs", "train-1")["logs"][0]["lines"]
