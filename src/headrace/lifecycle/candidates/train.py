"""The first phase of a candidate: from the component's folder to a trained, evaluated and sealed model.

Runs on a worker of the role `train`. Every step may be repeated after a crash and finds what its first try left.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from headrace.config.component import CodePolicy, Component
from headrace.config.parse import read_component
from headrace.environment.base import Environment, Lock
from headrace.errors import Conflict, InvalidConfig, ModelRefused, TrainingFailed
from headrace.lifecycle.candidates.evaluate import Evaluated, evaluate
from headrace.lifecycle.candidates.inputs import Held, hold
from headrace.lifecycle.candidates.judgeable import check_can_be_judged, missing_data
from headrace.lifecycle.candidates.retrain import Gathered, gather
from headrace.lifecycle.candidates.seal import Ingredients, SealedVersion, seal_version
from headrace.lifecycle.durable import Durable
from headrace.lifecycle.request import CandidateRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.stopping import is_asked_to_stop
from headrace.provenance import code
from headrace.provenance.formats import Formats, check_formats
from headrace.registry.base import Run, RunState
from headrace.training import supervise
from headrace.training import train as training
from headrace.training.container import Container, Wish
from headrace.training.supervise import Attendant
from headrace.training.train import Workplace
from headrace.types import Json


@dataclass(frozen=True, slots=True)
class Checkout:
    """A clean copy of the component's project."""

    folder: str
    facts: dict[str, Json]
    config: dict[str, Json]
    top: str = ""  #: the copy's own top, where the project is a part of a repository


@dataclass(frozen=True, slots=True)
class Built:
    """The component's environment."""

    python: str
    digest: str
    python_version: str
    lock: str


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """The run that made the model, and where a copy of the model lies."""

    run_id: str
    model_uri: str
    model: str


@dataclass(frozen=True, slots=True)
class Trained:
    """What the phase hands on."""

    checkout: Checkout
    built: Built
    gathered: Gathered
    run: TrainedRun
    evaluated: Evaluated
    sealed: SealedVersion


@dataclass(frozen=True, slots=True)
class Work:
    """What every step of the phase needs at hand."""

    rooms: Rooms
    request: CandidateRequest
    component: Component

    @property
    def folder(self) -> Path:
        return self.rooms.place(self.request.flow_id)

    def must_end(self) -> bool:
        """Tell whether somebody stopped the flow, or took it over."""
        return is_asked_to_stop(self.rooms.folder(self.request.flow_id)) or self.rooms.claim.is_lost()


def train_phase(durable: Durable, rooms: Rooms, request: CandidateRequest) -> Trained:
    """Check out, build, test, train, evaluate, seal."""
    checkout = durable.step("checkout", check_out, rooms, request)
    config = Component.model_validate({**checkout.config, "folder": checkout.folder})
    work = Work(rooms, request, config)
    built = durable.step("environment", build_environment, work)
    if config.tests:
        durable.step("tests", run_tests, work, built)
    durable.step("data", prepare_data, work, built)
    gathered = durable.step("gather", gather, rooms, request, config)
    held = durable.step("hold", hold, rooms, request, config, gathered)
    run = durable.step("train", train, work, checkout, built, held)
    place = workplace(work, built)
    evaluated = durable.step("evaluate", evaluate, rooms, request, config, place, run.model, gathered)
    made_of = Ingredients(run.model, run.run_id, built.lock, built.digest, built.python_version, checkout.top)
    sealed = durable.step("seal", seal_version, rooms, request, config, made_of, held, evaluated)
    return Trained(checkout, built, gathered, run, evaluated, sealed)


def check_out(rooms: Rooms, request: CandidateRequest) -> Checkout:
    """Copy the project at one commit into the flow's folder; the user's own checkout is never touched."""
    source = Path(request.folder)
    with rooms.journal(request.flow_id).step("checkout", f"copying {source}") as note:
        place = Path(request.repository) if request.repository else source
        top = rooms.place(request.flow_id) / "checkout"
        copy = code.checkout(place, top, request.commit or None)
        folder = copy.folder
        config = read_component(folder)
        if config.component != request.component:
            raise InvalidConfig(
                f"headrace.yaml names the component {config.component}, and this flow is for {request.component}.",
                "Start again with `headrace run`.",
            )
        note.found = str(copy.code)
        refuse_dirty(config, copy.code)
        check_can_be_judged(config, source)
    return Checkout(str(folder), copy.code.as_json(), config.as_json(), str(top))


def refuse_dirty(config: Component, found: code.Code) -> None:
    """Raise Conflict where no commit holds the code and headrace.yaml asks for one."""
    if config.code is not CodePolicy.REFUSE or not found.is_dirty:
        return
    changed = [*sorted(found.changes or ())]
    named = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
    fact = f"no commit holds {named}" if found.has_git else f"{found.repository} is not under git"
    raise Conflict(
        f"{config.component} says `code: refuse`, and {fact}.",
        "Commit it and run again, or write `code: allow-dev` in headrace.yaml to try it out in dev.",
    )


def build_environment(work: Work) -> Built:
    """Lock and build the component's own environment, saying beforehand what will be downloaded."""
    journal = work.rooms.journal(work.request.flow_id)
    environments = work.rooms.environments(work.component.environment)
    with journal.step("environment", "locking what the MLproject names") as note:
        if work.component.is_trained_in_container:
            work.rooms.containers.check(work.component)
        lock = environments.lock(work.component.project_folder, for_gpus=work.component.wants_gpus)
        download = environments.download(lock)
        if download.packages:
            journal.progress("environment", f"downloading {describe_download(download.packages, download.bytes)}")
        environment = environments.build(lock, progress=lambda text: journal.progress("environment", text))
        note.found = f"Python {lock.python}, {packages(lock)} packages, environment {lock.digest[:12]}"
        if not download.packages:
            note.found += " (nothing to download)"
    return Built(str(environment.python), lock.digest, lock.python, lock.text)


def describe_download(count: int, size: int) -> str:
    """Return `93 packages, about 612 MB` or the count alone where the size is not known."""
    return f"{count} packages" + (f", about {size / 1e6:.0f} MB" if size else "")


def packages(lock: Lock) -> int:
    """Return how many packages a lock holds."""
    return sum(1 for line in lock.text.splitlines() if line[:1].isalnum())


def workplace(work: Work, built: Built, tell: Callable[[str], None] = lambda _: None) -> Workplace:
    """Return where the component's commands run."""
    environment = Environment(built.digest, Path(built.python), Lock(built.digest, built.lock, built.python_version))
    attendant = Attendant(is_cancelled=work.must_end, tell=tell)
    return Workplace(work.rooms.settings, environment, work.component.project_folder, attendant)


def run_tests(work: Work, built: Built) -> None:
    """Run the component's own tests in its own environment."""
    command = work.component.tests or ""
    journal = work.rooms.journal(work.request.flow_id)
    with journal.step("tests", f"the component's own: {command}") as note:
        outcome = training.run_tests(workplace(work, built), command, work.folder / "tests")
        note.found = outcome.last_lines[-1].strip() if outcome.last_lines else "passed"


def prepare_data(work: Work, built: Built) -> None:
    """Make the data files that are absent with the entry point that is named for it."""
    prepare, folder = work.component.data.prepare, Path(work.request.folder)
    missing = missing_data(work.component, folder)
    if not missing or prepare is None:
        return
    with work.rooms.journal(work.request.flow_id).step("data", f"making {', '.join(missing)}") as note:
        place = replace(workplace(work, built), checkout=folder / work.component.project)
        training.run_entry_point(place, prepare, {}, work.folder / "prepare")
        still = missing_data(work.component, folder)
        if still:
            raise TrainingFailed(
                f"The entry point `{prepare}` ran and left no {', '.join(still)}.",
                "Write the files under the names that headrace.yaml gives under `data:`.",
            )
        note.found = f"{len(missing)} files"


def train(work: Work, checkout: Checkout, built: Built, held: Mapping[str, Held]) -> TrainedRun:
    """Run the MLflow Project and fetch its model; a repeat finds the run and the child that are there."""
    rooms, request, component = work.rooms, work.request, work.component
    parameters = {name: str(value) for name, value in component.parameters.items()}
    data = component.data.train
    if data is not None and data.parameter:
        parameters[data.parameter] = held["train"].path
    run = start_run(rooms, request, run_tags(request, checkout))
    journal = rooms.journal(request.flow_id)
    with journal.step("train", f"mlflow run -e {component.entry_point} {spell(component.parameters)}".rstrip()) as note:
        place = workplace(work, built, lambda line: journal.progress("train", line))
        if component.is_trained_in_container:
            place = replace(place, container=container(work, checkout, place))
        trained = training.train(
            place, rooms.registry, run,
            entry_point=component.entry_point, parameters=parameters, folder=work.folder / "train",
        )  # fmt: skip
        formats = accepted_formats(rooms, run.id, trained.folder, allow_pickle=component.allow_pickle)
        metrics = dict(trained.run.metrics)
        shown = spell({name: f"{value:.4g}" for name, value in metrics.items()})
        note.found = ", ".join(part for part in (f"run {run.id[:8]}", shown, *formats.names) if part)
        note.numbers = {"run": run.id, **metrics}
    return TrainedRun(run.id, trained.uri, str(trained.folder))


def container(work: Work, checkout: Checkout, place: Workplace) -> Container:
    """Return what the training's container is made of; its image is built where it is not there."""
    commit = "" if checkout.facts.get("is_dirty") else str(checkout.facts.get("commit") or "")
    tell = place.attendant.tell
    try:
        return work.rooms.containers.make(Wish(work.component, place.environment, place.checkout, commit, tell))
    except BaseException:
        supervise.stop(work.folder / "train")  # What an earlier try has started, and this one cannot watch.
        raise


def start_run(rooms: Rooms, request: CandidateRequest, tags: Mapping[str, str]) -> Run:
    """Return this execution's own MLflow run; those of the executions before it, which lost the flow, are ended."""
    keys = [request.flow_id, *(f"{request.flow_id}#{epoch}" for epoch in range(2, rooms.claim.epoch + 1))]
    run = rooms.registry.start_run(request.component, key=keys[-1], tags=tags)
    for key in keys[:-1]:
        left = rooms.registry.find_run(request.component, key=key)
        if left is not None:
            rooms.registry.log(left.id, tags={"headrace.superseded_by": run.id})
            rooms.registry.end_run(left.id, RunState.KILLED)
    return run


def accepted_formats(rooms: Rooms, run_id: str, model: Path, *, allow_pickle: bool) -> Formats:
    """Return what the model's files are; one that is refused ends its run as FAILED, with the reason as a tag."""
    try:
        return check_formats(model, allow_pickle=allow_pickle)
    except ModelRefused as error:
        rooms.registry.log(run_id, tags={"headrace.refused": error.fact})
        rooms.registry.end_run(run_id, RunState.FAILED)
        raise


def run_tags(request: CandidateRequest, checkout: Checkout) -> dict[str, str]:
    """Return what the run is tagged with."""
    return {
        "headrace.flow": request.flow_id,
        "headrace.reason": request.trigger.reason,
        "headrace.dirty": str(checkout.facts.get("is_dirty", "")).lower(),
        "mlflow.source.git.commit": str(checkout.facts.get("commit") or ""),
    }


def spell(values: Mapping[str, object]) -> str:
    """Return a mapping as `a=1 b=2`, at most six of them."""
    return " ".join(f"{name}={value}" for name, value in list(values.items())[:6])
