"""One process of the chaos benchmark: the real engine, flows and ledger, with quick stand-ins for the crafts.

It takes orders, ("release", name, attempt) and ("arm", place, victim, name), and kills itself, its sibling or the
training child when it comes to the place that it was armed for. Forked from the benchmark, so that the imports, which
cost more than a release, are paid once; everything else begins anew.
"""

import json
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from headrace.clock import SystemClock
from headrace.config.component import Component
from headrace.config.settings import read_settings
from headrace.deploy.base import Route, Status
from headrace.errors import NotFound, TrainingFailed
from headrace.evaluation.base import Finding, Rows
from headrace.files import use_wal, write_atomically
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle import engine
from headrace.lifecycle.candidates import candidate
from headrace.lifecycle.candidates.evaluate import Evaluated, save_rows
from headrace.lifecycle.candidates.retrain import Gathered
from headrace.lifecycle.candidates.seal import SealedVersion
from headrace.lifecycle.candidates.train import Built, Checkout, Trained, TrainedRun
from headrace.lifecycle.durable import Durable, Role, Undurable
from headrace.lifecycle.flows import FLOWS
from headrace.lifecycle.production import promote
from headrace.lifecycle.request import CandidateRequest, Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.predictions.memory import MemoryLog
from headrace.registry.base import Run, RunState, Version
from headrace.training.supervise import Attendant, attend
from headrace.types import Endpoint, Stage, Task, Verdict

CHILD = """
import os, sys, time
with open(sys.argv[1], "a") as file: file.write(f"{os.getpid()}\\n")
print("training", flush=True)
time.sleep(0.4)
open(sys.argv[2], "w").write("a model")
"""
FORK = multiprocessing.get_context("fork")
ROLES = {"control": [Role.CONTROL], "worker": [Role.TRAIN, Role.SERVE, Role.MONITOR]}


@dataclass
class Places:
    """The places where a process can be killed, in the order in which a release comes by them."""

    folder: Path
    name: str
    armed: tuple[str, str, str] = ("", "", "")
    here: threading.local = field(default_factory=threading.local)
    child: int = 0

    def pass_by(self, label: str) -> None:
        """Say where the flow of this thread is, and die here if this is the place."""
        place = f"{getattr(self.here, 'step', 'flow')}/{label}"
        component = getattr(self.here, "component", "")
        with (self.folder / f"{component or 'none'}.places").open("a") as file:
            file.write(f"{self.name} {place}\n")
        if self.armed[0] == place and self.armed[2] == component:
            victim, self.armed = self.armed[1], ("", "", "")
            self._kill(victim, component, place)

    def _kill(self, victim: str, component: str, place: str) -> None:
        (self.folder / f"{component}.killed").write_text(f"{victim} at {place}")
        if victim == "child" and self.child:
            os.killpg(os.getpgid(self.child), signal.SIGKILL)
            return
        pid = os.getpid() if victim == self.name else int((self.folder / f"{victim}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


PLACES: Places


class WatchedSteps(engine.DbosSteps):
    """The real steps, with places before, between work and checkpoint, and after."""

    def step(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        component = next((part for part in map(_component, args) if part), getattr(PLACES.here, "component", ""))

        def work(*args: Any, **kwargs: Any) -> Any:
            PLACES.here.component, PLACES.here.step = component, name
            PLACES.pass_by("begun")
            found = function(*args, **kwargs)
            PLACES.pass_by("done, not kept")
            return found

        PLACES.here.component, PLACES.here.step = component, name
        PLACES.pass_by("before")
        found = super().step(name, work, *args, **kwargs)
        PLACES.here.component, PLACES.here.step = component, name
        PLACES.pass_by("kept")
        return found


def _component(value: object) -> str:
    return str(getattr(value, "component", "")) if not isinstance(value, Component) else value.component


class Passing:
    """A back end whose every call is two places."""

    def __init__(self, inner: Any, name: str, calls: Sequence[str]) -> None:
        self._inner, self._name, self._calls = inner, name, calls

    def __getattr__(self, call: str) -> Any:
        method = getattr(self._inner, call)
        if call not in self._calls:
            return method

        def passed(*args: Any, **kwargs: Any) -> Any:
            PLACES.pass_by(f"{self._name}.{call} before")
            found = method(*args, **kwargs)
            PLACES.pass_by(f"{self._name}.{call} done")
            return found

        return passed


class FileRegistry:
    """Runs, versions and aliases in one SQLite file: what survives a kill, without MLflow's import."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as database:
            use_wal(database)
            database.execute("CREATE TABLE IF NOT EXISTS runs (key TEXT PRIMARY KEY, id TEXT, state TEXT)")
            database.execute(
                "CREATE TABLE IF NOT EXISTS versions (component TEXT, number INTEGER, key TEXT UNIQUE, run TEXT)"
            )
            database.execute("CREATE TABLE IF NOT EXISTS aliases (component TEXT PRIMARY KEY, number INTEGER)")
            database.commit()

    def _open(self) -> Any:
        return closing(sqlite3.connect(self._path, timeout=30))

    def start_run(self, experiment: str, *, key: str, tags: Mapping[str, str]) -> Run:
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, 'RUNNING')", (key, os.urandom(8).hex()))
            database.commit()
            (found,) = database.execute("SELECT id FROM runs WHERE key = ?", (key,)).fetchone()
        return Run(found, experiment, RunState.RUNNING)

    def end_run(self, run_id: str, state: RunState) -> None:
        with self._open() as database:
            database.execute("UPDATE runs SET state = ? WHERE id = ? AND state = 'RUNNING'", (state.value, run_id))
            database.commit()

    def register(self, component: str, *, run_id: str, model: str, key: str, tags: Mapping[str, str]) -> Version:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            row = database.execute("SELECT number FROM versions WHERE key = ?", (key,)).fetchone()
            if row is None:
                query = "SELECT COUNT(*) + 1 FROM versions WHERE component = ?"
                row = database.execute(query, (component,)).fetchone()
                database.execute("INSERT INTO versions VALUES (?, ?, ?, ?)", (component, row[0], key, run_id))
            database.commit()
        return Version(component, row[0], run_id, model)

    def version(self, component: str, number: int) -> Version:
        raise NotFound("not asked for here")

    def upload(self, run_id: str, path: Path, place: str) -> None:
        """Keep nothing: statements lie beside the version, too."""

    def set_alias(self, component: str, alias: str, number: int | None) -> None:
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?)", (component, number))
            database.commit()

    def alias(self, component: str, alias: str) -> int | None:
        with self._open() as database:
            row = database.execute("SELECT number FROM aliases WHERE component = ?", (component,)).fetchone()
        return row[0] if row else None


class FileTarget:
    """Keeps each route in a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def apply(self, route: Route) -> Status:
        document = {"shares": {str(number): share for number, share in route.shares.items()}}
        write_atomically(self._path(route.component, route.stage), json.dumps(document))
        return self._status(route.component, route.stage, dict(route.shares))

    def status(self, component: str, stage: Stage) -> Status | None:
        path = self._path(component, stage)
        if not path.exists():
            return None
        shares = json.loads(path.read_text())["shares"]
        return self._status(component, stage, {int(number): share for number, share in shares.items()})

    def remove(self, component: str, stage: Stage) -> None:
        self._path(component, stage).unlink(missing_ok=True)

    def endpoints(self) -> Sequence[Endpoint]:
        return []

    def _path(self, component: str, stage: Stage) -> Path:
        return self._folder / f"{component}.{stage.value}.json"

    def _status(self, component: str, stage: Stage, shares: dict[int, float]) -> Status:
        return Status(Endpoint(component, stage, "http://nowhere", 0), 1, shares, [*shares])


def quick_train(durable: Durable, rooms: Rooms, request: CandidateRequest) -> Trained:
    """The phase with the real steps' names, a real supervised child, and stand-ins for everything slow."""
    checkout = durable.step("checkout", check_out, rooms, request)
    built = durable.step("environment", build, rooms, request)
    run = durable.step("train", train, rooms, request)
    evaluated = durable.step("evaluate", evaluate, rooms, request)
    sealed = durable.step("seal", seal, rooms, request)
    return Trained(checkout, built, Gathered(), run, evaluated, sealed)


def settings_of(request: CandidateRequest) -> Component:
    return Component.model_validate(
        {"component": request.component, "gate": {"metrics": {"accuracy": {"min": 0.5}}, "against_champion": None},
         "release": {"approval": "automatic"}}
    )  # fmt: skip


def check_out(rooms: Rooms, request: CandidateRequest) -> Checkout:
    folder = rooms.folder(request.flow_id) / "checkout"
    folder.mkdir(parents=True, exist_ok=True)
    return Checkout(str(folder), {"commit": "c0ffee"}, settings_of(request).as_json())


def build(rooms: Rooms, request: CandidateRequest) -> Built:
    return Built(sys.executable, "lock", "3", "")


def train(rooms: Rooms, request: CandidateRequest) -> TrainedRun:
    """Run the child once; a repeat attaches to it or finds its result."""
    folder = rooms.folder(request.flow_id)
    run = rooms.registry.start_run(request.component, key=request.flow_id, tags={})

    def told(_line: str) -> None:
        PLACES.child = int((folder / "launches").read_text().split()[-1])
        PLACES.pass_by("the child runs")

    model = folder / "model"
    command = [sys.executable, "-c", CHILD, folder / "launches", model]
    outcome = attend(command, cwd=folder, env=dict(os.environ), folder=folder / "work", attendant=Attendant(tell=told))
    if outcome.code != 0:
        rooms.registry.end_run(run.id, RunState.FAILED)
        raise TrainingFailed(f"The training {outcome.ending}.")
    rooms.registry.end_run(run.id, RunState.FINISHED)
    return TrainedRun(run.id, "models:/m", str(model))


def evaluate(rooms: Rooms, request: CandidateRequest) -> Evaluated:
    truth = np.arange(60) % 3
    folder = rooms.folder(request.flow_id)
    path = save_rows(Rows(np.arange(60), truth, truth), folder / "holdout.npz")
    return Evaluated(Task.CLASSIFICATION, {"accuracy": 1.0}, None, {"holdout.candidate": path}, str(folder))


def seal(rooms: Rooms, request: CandidateRequest) -> SealedVersion:
    folder = rooms.folder(request.flow_id)
    for name in ("baseline", "reference"):
        (folder / name).mkdir(exist_ok=True)
    return SealedVersion("b" * 64, str(folder / "baseline"), str(folder / "model"), "seal", "")


@dataclass(frozen=True)
class Accepted:
    """What acceptance would say."""

    verdict: Verdict = Verdict.PASS
    findings: Sequence[Finding] = (Finding("golden", Verdict.PASS, "all well"),)


PHASES = {"train": quick_train, "try-out": candidate.try_out_phase}


def request_of(name: str, attempt: int) -> CandidateRequest:
    return CandidateRequest(name, "/nowhere", Trigger(Cause.COMMIT, "c0ffee", "git:Ada", "a commit"), attempt)


def live(name: str, folder: Path, variables: dict[str, str], orders: Connection) -> None:
    """Be one process of the house until somebody ends it."""
    rooms = begin(name, folder, variables)
    running = engine.start_engine(rooms, roles=ROLES[name], flows=FLOWS, phases=PHASES, executor=name)
    orders.send("ready")
    while True:
        order, *words = orders.recv()
        if order == "release":
            request = request_of(words[0], int(words[1]))
            running.start("candidate", request.flow_id, request)
        elif order == "arm":
            PLACES.armed = (words[0], words[1], words[2])
        orders.send("heard")


def bare(component: str, folder: Path, variables: dict[str, str], orders: Connection) -> None:
    """Go through one release without the engine, and say how many seconds it took."""
    rooms = begin("bare", folder, variables)
    steps = undurable(rooms)
    began = time.monotonic()
    request = request_of(component, 1)
    outcomes = [FLOWS["candidate"](steps, rooms, request)]
    outcomes += [FLOWS["promote"](steps, rooms, promotion) for promotion in steps.started]
    orders.send((time.monotonic() - began, outcomes[-1].state.value))


def undurable(rooms: Rooms) -> Undurable:
    """Return steps and phases without the engine."""

    def bound(phase: Any) -> Any:
        return lambda durable, request, *args: phase(durable, rooms, request, *args)

    return Undurable({name: bound(phase) for name, phase in PHASES.items()})


def begin(name: str, folder: Path, variables: dict[str, str]) -> Rooms:
    """Make this process one of the house's."""
    global PLACES  # noqa: PLW0603 - one house, one list of places.
    with (folder / f"{name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(variables)
    PLACES = Places(folder, name)
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    engine.DbosSteps = WatchedSteps  # type: ignore[misc]
    candidate.accept = lambda *_, **__: Accepted()  # type: ignore[assignment]
    candidate.golden = type("Golden", (), {"load": staticmethod(lambda _path: None)})  # type: ignore[assignment]
    candidate.signature_of = lambda _version: None  # type: ignore[assignment,return-value]
    # The doors have tests of their own; what is asked here is the order of things.
    for door in ("verify_version", "look", "baseline_of", "refuse_for_production"):
        setattr(candidate, door, lambda *_: None)
    promote.pass_production_door = lambda *_: None
    return rooms_of(folder)


def rooms_of(folder: Path) -> Rooms:
    """Return real ledger and settings, and stand-ins that survive a kill."""
    settings, clock = read_settings().prepare(), SystemClock()
    registry: Any = Passing(
        FileRegistry(folder / "registry.db"), "registry", ("start_run", "end_run", "register", "set_alias")
    )
    target: Any = Passing(FileTarget(folder / "target"), "target", ("apply", "remove"))

    def no_environments(_kind: object) -> Any:
        raise AssertionError("no environment is built here")

    return Rooms(settings, clock, registry, Outboxed(settings.ledger_url, clock), target, no_environments, MemoryLog())


class Outboxed(SqlLedger):
    """The real ledger, its writes being places."""

    def append(self, draft: Any) -> Any:
        return self._passing("append", super().append, draft)

    def move(self, draft: Any, *, expected: int | None) -> Any:
        return self._passing("move", super().move, draft, expected=expected)

    def mark_written(self, projection: Any) -> None:
        self._passing("mark_written", super().mark_written, projection)

    def _passing(self, name: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        PLACES.pass_by(f"ledger.{name} before")
        found = method(*args, **kwargs)
        PLACES.pass_by(f"ledger.{name} done")
        return found
