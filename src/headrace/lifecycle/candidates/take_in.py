"""The first phase of a candidate that somebody else registered: fetched, its environment built, evaluated and sealed.

From here on it is a candidate like any other. What nobody checked is marked as stated in its baseline.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from headrace.config.component import Component
from headrace.environment.base import Lock
from headrace.lifecycle.candidates.adopt import STATED, draft_of_registered
from headrace.lifecycle.candidates.evaluate import Evaluated, evaluate
from headrace.lifecycle.candidates.inputs import Held, check_still, hold
from headrace.lifecycle.candidates.retrain import Gathered
from headrace.lifecycle.candidates.seal import SealedVersion
from headrace.lifecycle.candidates.train import Built, Trained, TrainedRun, Work, check_out, workplace
from headrace.lifecycle.durable import Durable
from headrace.lifecycle.evidence.doors import admit_version
from headrace.lifecycle.request import CandidateRequest
from headrace.lifecycle.rooms import Rooms
from headrace.provenance import baseline, golden, sign
from headrace.provenance.formats import check_formats
from headrace.types import Actor


def take_in_phase(durable: Durable, rooms: Rooms, request: CandidateRequest) -> Trained:
    """Fetch, build, evaluate, seal."""
    checkout = durable.step("checkout", check_out, rooms, request)
    config = Component.model_validate({**checkout.config, "folder": checkout.folder})
    run = durable.step("fetch", fetch, rooms, request, config)
    built = durable.step("environment", build_environment, rooms, request, config, run)
    gathered = Gathered()
    place = workplace(Work(rooms, request, config), built)
    held = durable.step("hold", hold, rooms, request, without_train(config), gathered)
    evaluated = durable.step("evaluate", evaluate, rooms, request, config, place, run.model, gathered)
    sealed = durable.step("seal", seal, rooms, request, config, run, built, held, evaluated)
    return Trained(checkout, built, gathered, run, evaluated, sealed)


def fetch(rooms: Rooms, request: CandidateRequest, component: Component) -> TrainedRun:
    """Copy the version's files. Raises ModelRefused where loading them would run code."""
    uri = f"models:/{request.component}/{request.version}"
    with rooms.journal(request.flow_id).step("fetch", uri) as note:
        version = rooms.registry.version(request.component, request.version)
        model = rooms.registry.download(uri, rooms.place(request.flow_id) / "model")
        formats = check_formats(model, allow_pickle=component.allow_pickle)
        note.found = ", ".join(formats.names) or str(model)
    return TrainedRun(version.run_id, uri, str(model))


def build_environment(rooms: Rooms, request: CandidateRequest, component: Component, run: TrainedRun) -> Built:
    """Build the environment that the model's own files name."""
    journal = rooms.journal(request.flow_id)
    with journal.step("environment", "locking what the model names") as note:
        environments = rooms.environments(component.environment)
        lock = environments.lock(Path(run.model), for_gpus=component.wants_gpus)
        environment = environments.build(lock, progress=lambda text: journal.progress("environment", text))
        note.found = f"Python {lock.python}, environment {lock.digest[:12]}"
    return Built(str(environment.python), lock.digest, lock.python, lock.text)


def without_train(component: Component) -> Component:
    """Return the component without its training data: what the version was trained on nobody here knows."""
    return component.model_copy(update={"data": component.data.model_copy(update={"train": None})})


def seal(
    rooms: Rooms,
    request: CandidateRequest,
    component: Component,
    run: TrainedRun,
    built: Built,
    held: Mapping[str, Held],
    evaluated: Evaluated,
) -> SealedVersion:
    """Seal what is known, and admit the model into the store."""
    with rooms.journal(request.flow_id).step("seal", "signing the baseline") as note:
        version = rooms.registry.version(request.component, request.version)
        lock = Lock(built.digest, built.lock, built.python_version)
        check_still(held)
        draft = replace(
            draft_of_registered(rooms, component, version, Path(run.model), lock),
            actor=Actor(request.trigger.actor),
            reason=request.trigger.reason,
            data={use: one.facts for use, one in held.items()},
            golden=golden.load(Path(evaluated.golden)),
            stated=STATED,
        )
        sealed = baseline.seal(draft, rooms.place(request.flow_id) / "baseline", sign.own_signer(rooms.settings.keys))
        admitted = admit_version(rooms, sealed.folder, Path(run.model), expected=sealed.digest)
        note.found = f"baseline {sealed.digest[:12]}; what nobody checked is marked as stated"
    return SealedVersion(sealed.digest, str(sealed.folder), str(admitted.model), admitted.seal, "")
