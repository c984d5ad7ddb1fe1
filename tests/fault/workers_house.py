"""One worker of the test house: the real worker, engine, ledger, claims and API, with quick stand-ins for the crafts.

    python -m tests.fault.workers_house train,serve

The settings come from the environment. A training ends when the file `go-NODE` lies in the home; what has begun stands
in `launches`. A sealing on the node that the file `hold` names waits for the file `late`, then
tries to change everything.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.chaos_house import Accepted, FileRegistry, FileTarget, build, settings_of
from benchmarks.chaos_house import evaluate as evaluate_rows

from headrace.clock import SystemClock
from headrace.config.settings import Settings, read_settings
from headrace.dashboard.worker import Worker
from headrace.errors import HeadraceError, TrainingFailed
from headrace.files import write_atomically
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.candidates import candidate
from headrace.lifecycle.candidates.evaluate import Evaluated
from headrace.lifecycle.candidates.retrain import Gathered
from headrace.lifecycle.candidates.seal import SealedVersion
from headrace.lifecycle.candidates.train import Checkout, Trained, TrainedRun, start_run
from headrace.lifecycle.durable import Durable, roles_of
from headrace.lifecycle.events import Mark
from headrace.lifecycle.flows import PHASES
from headrace.lifecycle.production import promote
from headrace.lifecycle.request import CandidateRequest
from headrace.lifecycle.rooms import Rooms
from headrace.predictions.memory import MemoryLog
from headrace.registry.base import Run, RunState
from headrace.training.supervise import Attendant, attend
from headrace.types import Actor

CHILD = """
import os, sys, time
home, node, model, artifacts = sys.argv[1:]
with open(f"{home}/launches", "a") as file: file.write(f"{node} {os.getpid()} {time.time()}\\n")
print("training", flush=True)
while not os.path.exists(f"{home}/go-{node}"): time.sleep(0.05)
open(model, "w").write(f"the model of {node}")
open(artifacts, "a").write(f"{node}\\n")
"""


class KeptRegistry(FileRegistry):
    """The stand-in with what the claims ask of it."""

    def find_run(self, experiment: str, *, key: str) -> Run | None:
        with self._open() as database:
            row = database.execute("SELECT id, state FROM runs WHERE key = ?", (key,)).fetchone()
        return Run(row[0], experiment, RunState(row[1])) if row else None

    def log(self, run_id: str, *, tags: Mapping[str, str] | None = None, **_: Any) -> None:
        """Keep nothing."""


def train_phase(durable: Durable, rooms: Rooms, request: CandidateRequest) -> Trained:
    """The phase with the real steps' names and places."""
    checkout = durable.step("checkout", check_out, rooms, request)
    built = durable.step("environment", build, rooms, request)
    run = durable.step("train", train, rooms, request)
    evaluated = durable.step("evaluate", evaluate, rooms, request)
    sealed = durable.step("seal", seal, rooms, request, run)
    return Trained(checkout, built, Gathered(), run, evaluated, sealed)


def check_out(rooms: Rooms, request: CandidateRequest) -> Checkout:
    folder = rooms.place(request.flow_id) / "checkout"
    folder.mkdir(parents=True, exist_ok=True)
    return Checkout(str(folder), {"commit": "c0ffee"}, settings_of(request).as_json())


def train(rooms: Rooms, request: CandidateRequest) -> TrainedRun:
    """Run the child until somebody says go, or until the claim is lost."""
    settings, place = rooms.settings, rooms.place(request.flow_id)
    place.mkdir(parents=True, exist_ok=True)
    run = start_run(rooms, request, {})
    with rooms.journal(request.flow_id).step("train", f"on {settings.node}"):
        command = [
            sys.executable, "-c", CHILD, settings.home, settings.node, place / "model", settings.home / f"run-{run.id}"
        ]  # fmt: skip
        attendant = Attendant(is_cancelled=rooms.claim.is_lost)
        outcome = attend(command, cwd=place, env=dict(os.environ), folder=place / "train", attendant=attendant)
        if outcome.code != 0:
            rooms.registry.end_run(run.id, RunState.FAILED)
            raise TrainingFailed(f"The training {outcome.ending}.")
        rooms.registry.end_run(run.id, RunState.FINISHED)
    return TrainedRun(run.id, "models:/m", str(place / "model"))


def evaluate(rooms: Rooms, request: CandidateRequest) -> Evaluated:
    return evaluate_rows(rooms, request)


def seal(rooms: Rooms, request: CandidateRequest, run: TrainedRun) -> SealedVersion:
    folder = rooms.place(request.flow_id)
    for name in ("baseline", "reference"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    hold = rooms.settings.home / "hold"
    if hold.exists() and hold.read_text() == rooms.settings.node:
        (rooms.settings.home / "held").touch()
        while not (rooms.settings.home / "late").exists():
            time.sleep(0.02)
        # Whole or not at all: the worker may begin anew at any moment.
        write_atomically(rooms.settings.home / "tried", "\n".join(late_doings(rooms, request, run)))
    return SealedVersion("b" * 64, str(folder / "baseline"), run.model, "seal", "")


def late_doings(rooms: Rooms, request: CandidateRequest, run: TrainedRun) -> list[str]:
    """Try all that a worker can change, and return what each try came to."""
    draft = Draft(request.component, Action.ALARM, Actor("late"), "too late", f"{request.flow_id}/late")
    doings: dict[str, Callable[[], object]] = {
        "ledger": lambda: rooms.ledger.append(draft),
        "run": lambda: rooms.registry.end_run(run.run_id, RunState.FAILED),
        "version": lambda: rooms.registry.register(
            request.component, run_id=run.run_id, model=run.model_uri, key="late", tags={}
        ),
        "alias": lambda: rooms.registry.set_alias(request.component, "champion", 99),
        "journal": lambda: rooms.journal(request.flow_id).write("flow", Mark.ENDED, "late"),
    }
    found = []
    for name, doing in doings.items():
        try:
            doing()
            found.append(f"{name}: done")
        except HeadraceError as error:
            found.append(f"{name}: {type(error).__name__}")
    return found


def rooms_of(settings: Settings) -> Rooms:
    """Return the real ledger, and stand-ins on the shared disk."""
    clock = SystemClock()

    def no_environments(_kind: object) -> Any:
        raise AssertionError("no environment is built here")

    registry: Any = KeptRegistry(settings.home / "registry.db")
    target: Any = FileTarget(settings.home / "target")
    return Rooms(settings, clock, registry, SqlLedger(settings.ledger_url, clock), target, no_environments, MemoryLog())


def main() -> None:
    candidate.accept = lambda *_, **__: Accepted()  # type: ignore[assignment]
    candidate.golden = type("Golden", (), {"load": staticmethod(lambda _path: None)})  # type: ignore[assignment]
    candidate.signature_of = lambda _version: None  # type: ignore[assignment,return-value]
    for door in ("verify_version", "look", "baseline_of", "refuse_for_production"):
        setattr(candidate, door, lambda *_: None)
    promote.pass_production_door = lambda *_: None
    settings = read_settings().prepare()
    phases = {**PHASES, "train": train_phase}
    try:
        Worker(settings, roles_of(sys.argv[1]), make_rooms=rooms_of, phases=phases).play()
    except HeadraceError as error:
        sys.exit(f"{error.fact} {error.remedy}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
