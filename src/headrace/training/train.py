"""The component's own commands: its tests, its entry points, its training, and the model that the training left."""

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.config.settings import Settings
from headrace.environment.base import Environment
from headrace.errors import Cancelled, HeadraceError, InvalidConfig, TrainingFailed
from headrace.registry.base import Registry, Run, RunState
from headrace.training.container import Container, Errand, errand
from headrace.training.project import EntryPoint, Project, read_project
from headrace.training.supervise import Attendant, Outcome, attend

RUNNER = Path(__file__).with_name("mlflow_run.py")
#: Lines of MLflow's own that follow the first cause and say nothing.
NOISE = ("mlflow.projects: === Run", "mlflow.projects.utils: === ")
#: Mistakes that a script's last lines tell, and what mends them.
KNOWN = (
    (
        r"Untrusted types found in the file: (\[[^\]]*\])",
        "If you trust these types, name them where the model is logged: "
        "`mlflow.sklearn.log_model(…, skops_trusted_types={})`.",
    ),
    (
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        "Add `{}` to the project's python_env.yaml or requirements.txt.",
    ),
    (
        r"No such file or directory: '([^/'][^']*)'",
        "The training runs in a copy of the project at one commit. Commit `{0}`, or name it in headrace.yaml as "
        "`data: {{train: {{uri: {0}, parameter: NAME}}}}` and read what that parameter of the entry point says.",
    ),
)
#: What a shell that headrace was started from may have been set to; not this work's run or experiment.
OTHERS = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"}
LOG_A_MODEL = 'Call `mlflow.<flavor>.log_model(model, name="model", signature=…, input_example=…)` at its end.'


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a component's commands run.

    Attributes:
        checkout: the project's folder in a clean checkout.
        attendant: hears the output and says when to stop.
        container: what tracked entry points run in; None runs them as processes, as all others.
    """

    settings: Settings
    environment: Environment
    checkout: Path
    attendant: Attendant = field(default_factory=Attendant)
    container: Container | None = None

    def variables(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what the commands may see: the environment's programs first, MLflow's variables, no headrace keys."""
        known = self.settings.variables
        mlflow = {name: value for name, value in known.items() if name.startswith("MLFLOW_") and name not in OTHERS}
        programs = self.environment.python.parent
        own = {
            "PATH": f"{programs}:{known.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
            "VIRTUAL_ENV": str(programs.parent),
            "MLFLOW_TRACKING_URI": self.settings.mlflow_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        }
        return self.settings.child_environment(mlflow | own | dict(extra or {}))

    def untracked(self, folder: Path) -> dict[str, str]:
        """Return the same with a throw-away store: what tests log is none of the component's runs."""
        return self.variables({"MLFLOW_TRACKING_URI": f"sqlite:///{folder.absolute() / 'tracking.db'}"})


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a training left.

    Attributes:
        uri: the logged model (`models:/m-…`).
        folder: a local copy of its files; it holds `MLmodel`.
    """

    run: Run
    uri: str
    folder: Path
    seconds: float


def run_tests(place: Workplace, command: str, folder: Path) -> Outcome:
    """Run the component's own tests in its checkout and environment.

    Raises:
        TrainingFailed: they did not pass; the message has the exit code and the last lines.
    """
    outcome = attend(
        ["/bin/sh", "-c", command],
        cwd=place.checkout,
        env=place.untracked(folder),
        folder=folder,
        attendant=place.attendant,
    )
    if outcome.code != 0:
        raise _failed(f"The component's tests (`{command}`) failed: the command {outcome.ending}.", outcome)
    return outcome


def run_entry_point(
    place: Workplace, name: str, parameters: Mapping[str, str], folder: Path, *, run: Run | None = None
) -> Outcome:
    """Run an entry point of the MLproject, by `mlflow run` in the component's environment or in its container.

    Args:
        parameters: given ones; those that the entry point does not name are passed on as `--name value`.
        folder: where its log and result lie; a second call with the same folder attaches to the first.
        run: the MLflow run to log to; without one the entry point's command is run as it is, untracked.

    Raises:
        InvalidConfig: the entry point is unknown or a parameter is missing; nothing was started.
        TrainingFailed: it failed or was killed, or the environment lacks MLflow.
    """
    project = read_project(place.checkout)
    values = project.entry_point(name).complete(parameters)
    status = folder.absolute() / "entry-point.status"
    if run is None:
        work = Errand(["/bin/sh", "-c", project.entry_point(name).render(values)], place.untracked(folder))
    elif place.container is not None:
        work = _in_container(place, place.container, project.entry_point(name), values, run, folder)
    else:
        work = _as_process(place, project, name, values, run, status)
    outcome = attend(
        work.command, cwd=place.checkout, env=work.env, folder=folder, attendant=place.attendant, end=work.end
    )
    with contextlib.suppress(FileNotFoundError, ValueError):
        code = int(status.read_text())
        outcome = Outcome(code or outcome.code, outcome.seconds, outcome.log, outcome.last_lines)
    if outcome.code != 0:
        raise _failed(f"The entry point `{name}` {outcome.ending} after {outcome.seconds:.0f} s.", outcome)
    return outcome


def _as_process(
    place: Workplace, project: Project, name: str, values: Mapping[str, str], run: Run, status: Path
) -> Errand:
    """Return what runs an entry point by `mlflow run`. Raises InvalidConfig, and TrainingFailed without MLflow."""
    if project.docker is not None:
        raise InvalidConfig(
            f"The MLproject names the image {project.docker.image} to train in (`docker_env`).",
            "Write `training: docker` in headrace.yaml, or take `docker_env` out.",
        )
    _require_mlflow(place)
    arguments = {
        "uri": str(place.checkout), "entry_point": name, "parameters": dict(values), "env_manager": "local",
        "run_id": run.id, "experiment_name": run.experiment,
    }  # fmt: skip
    return Errand([place.environment.python, RUNNER, status, json.dumps(arguments)], place.variables())


def _in_container(
    place: Workplace, container: Container, point: EntryPoint, values: Mapping[str, str], run: Run, folder: Path
) -> Errand:
    """Return what runs an entry point in a container, with the variables that `mlflow run` would set."""
    own = {"MLFLOW_RUN_ID": run.id, "MLFLOW_EXPERIMENT_NAME": run.experiment}
    # Absolute paths only: relative ones are the project's, which is in the image.
    reads = [Path(value) for value in values.values() if value.startswith("/") and Path(value).exists()]
    return errand(container, folder, command=point.render(values), env=place.variables(own), reads=reads)


def train(
    place: Workplace, registry: Registry, run: Run, *, entry_point: str, parameters: Mapping[str, str], folder: Path
) -> TrainedModel:
    """Train by the project's entry point into `run`, and fetch the model that it logged into `folder/model`.

    A repeat attaches to a training that still goes on, and does not train again one that has ended.

    Raises:
        TrainingFailed: it failed (the run ends FAILED), was killed, or logged no model.
        Cancelled: the attendant said so; the run ends KILLED and nothing is left running.
    """
    with _ending(registry, run.id):
        values = read_project(place.checkout).entry_point(entry_point).complete(parameters)
        try:
            outcome = run_entry_point(place, entry_point, parameters, folder, run=run)
        except BaseException:
            # How the training ended is what counts, also where MLflow is out of reach.
            with contextlib.suppress(HeadraceError):
                _log(place, registry, run.id, entry_point, values)
            raise
        _log(place, registry, run.id, entry_point, values)
        model = collect(registry, run.id, folder / "model")
    return TrainedModel(registry.run(run.id), *model, outcome.seconds)


def _log(place: Workplace, registry: Registry, run_id: str, entry_point: str, values: Mapping[str, str]) -> None:
    """Log parameters and source; after the script: one that logs `0.010` as 0.01 would be refused as changing it."""
    logged = registry.run(run_id).parameters
    registry.log(
        run_id,
        parameters={name: value for name, value in values.items() if name not in logged},
        tags={"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": entry_point}
        | (place.container.facts if place.container else {}),
    )


def collect(registry: Registry, run_id: str, to: Path) -> tuple[str, Path]:
    """Return the URI of the model that a run logged, the last one where there are several, and a local copy.

    Raises:
        TrainingFailed: the run logged none.
    """
    models = registry.run(run_id).models
    if not models:
        raise TrainingFailed(f"The training (run {run_id}) ended well, but logged no model.", LOG_A_MODEL)
    shutil.rmtree(to, ignore_errors=True)
    folder = registry.download(models[-1], to)
    if not (folder / "MLmodel").is_file():
        raise TrainingFailed(
            f"What run {run_id} logged as {models[-1]} is no MLflow model: it has no MLmodel.", LOG_A_MODEL
        )
    return models[-1], folder


@contextlib.contextmanager
def _ending(registry: Registry, run_id: str) -> Iterator[None]:
    """See that the run ends as its training did, also where MLflow had no time to say so."""
    try:
        yield
    except BaseException as error:
        state = RunState.KILLED if isinstance(error, Cancelled | KeyboardInterrupt) else RunState.FAILED
        with contextlib.suppress(HeadraceError):
            registry.end_run(run_id, state)
        raise
    registry.end_run(run_id, RunState.FINISHED)


def _failed(fact: str, outcome: Outcome) -> TrainingFailed:
    told = [line for line in outcome.last_lines if not any(noise in line for noise in NOISE)]
    lines = "".join(f"\n    {line}" for line in told)
    remedy = f"{_known_remedy(lines)} The whole output: {outcome.log}".strip()
    return TrainingFailed(f"{fact} Its last lines:{lines}" if lines else fact, remedy)


def _known_remedy(lines: str) -> str:
    """Return what mends a mistake that beginners make; empty where the last lines tell of none."""
    for pattern, remedy in KNOWN:
        found = re.search(pattern, lines)
        if found is not None:
            return remedy.format(*found.groups())
    return ""


def _require_mlflow(place: Workplace) -> None:
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('mlflow') is None)"
    try:
        done = subprocess.run(
            [place.environment.python, "-c", probe], capture_output=True, env=place.variables(), check=False, timeout=60
        )
    except subprocess.TimeoutExpired:
        return  # A machine this busy; the run itself will tell.
    if done.returncode != 0:
        raise TrainingFailed(
            f"The component's environment {place.environment.digest[:12]} has no `mlflow`, which runs the project.",
            "Add `mlflow` to its python_env.yaml or requirements.txt.",
        )
