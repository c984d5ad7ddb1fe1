"""MLflow Projects trained for real, in the component's own environment: what goes well, and each way to fail."""

import os
import threading
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from tests.conftest import TrainedDigits

from headrace.config.settings import Settings
from headrace.environment.base import Environment
from headrace.errors import Cancelled, InvalidConfig, TrainingFailed
from headrace.registry.base import Run, RunState
from headrace.registry.mlflow import MlflowRegistry
from headrace.registry.mlmodel import read_mlmodel
from headrace.training.supervise import Attendant
from headrace.training.train import TrainedModel, Workplace, collect, run_entry_point, run_tests, train

pytestmark = pytest.mark.slow

MLPROJECT = """\
name: odd
entry_points:
  raises: {command: "python -c 'print(1); raise ValueError(\\"no such column: label\\")'"}
  killed: {command: "python -c 'import os; os.kill(os.getpid(), 9)'"}
  silent: {command: "python -c 'print(\\"trained, but logged nothing\\")'"}
  naps: {command: "echo napping; sleep 600.77"}
  peeks: {command: "env"}
  logs: {parameters: {rate: {type: float, default: "1e-3"}}, command: "python logs.py {rate}"}
"""
LOGS = """\
import sys, mlflow
with mlflow.start_run():
    mlflow.log_param("rate", float(sys.argv[1]))
    for name in ("first", "second"):
        mlflow.pyfunc.log_model(name=name, python_model="model.py", pip_requirements=["mlflow"])
"""
MODEL = """\
import mlflow
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input
mlflow.models.set_model(Echo())
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> MlflowRegistry:
    folder = tmp_path_factory.mktemp("training")
    from headrace.config.settings import read_settings

    shared = read_settings()
    variables = {
        **shared.variables,
        "HEADRACE_TOKEN": "hidden-value",
        "AWS_SECRET_ACCESS_KEY": "hidden-value",
        "MLFLOW_RUN_ID": "x",
    }
    return MlflowRegistry(Settings(shared.state, folder / "home", None, "person:test", variables).prepare())


@pytest.fixture
def place(registry: MlflowRegistry, digits_environment: Environment, tmp_path: Path) -> Workplace:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "MLproject").write_text(MLPROJECT)
    (checkout / "logs.py").write_text(LOGS)
    (checkout / "model.py").write_text(MODEL)
    return Workplace(registry._settings, digits_environment, checkout)


@pytest.fixture
def run(registry: MlflowRegistry, request: pytest.FixtureRequest) -> Run:
    return registry.start_run("odd", key=request.node.name, tags={})


def trained(place: Workplace, registry: MlflowRegistry, run: Run, name: str) -> TrainedModel:
    folder = place.checkout.parent / "work"
    return train(place, registry, run, entry_point=name, parameters={}, folder=folder)


def test_the_digits_example_logs_a_model_that_takes_any_number_of_rows(trained_digits: TrainedDigits) -> None:
    model = read_mlmodel(trained_digits.model)
    assert model.pt2 is not None
    assert model.signature is not None
    assert [(field.dtype, field.shape) for field in model.signature.inputs] == [("float32", (-1, 64))]
    assert [field.shape for field in model.signature.outputs] == [(-1, 10)]
    requirements = (trained_digits.model / "requirements.txt").read_text()
    assert "torch==2.13.0\n" in requirements


def test_the_digits_files_share_no_image(trained_digits: TrainedDigits) -> None:
    files = sorted(trained_digits.data.glob("*.parquet"))
    ids = [one for file in files for one in pq.read_table(file)["id"].to_pylist()]
    assert len(files) == 6
    assert len(ids) == len(set(ids)) == 1797


def test_a_script_that_fails_ends_the_run_failed_and_tells_its_last_lines(
    place: Workplace, registry: MlflowRegistry, run: Run
) -> None:
    with pytest.raises(TrainingFailed, match="ended with exit code 1") as failed:
        trained(place, registry, run, "raises")
    assert failed.value.fact.rstrip().endswith("ValueError: no such column: label")
    assert "log" in failed.value.remedy
    assert registry.run(run.id).state is RunState.FAILED


def test_a_script_that_is_killed_is_told_from_one_that_fails(
    place: Workplace, registry: MlflowRegistry, run: Run
) -> None:
    with pytest.raises(TrainingFailed, match=r"killed by SIGKILL; perhaps the machine ran out of memory"):
        trained(place, registry, run, "killed")
    assert registry.run(run.id).state is RunState.FAILED


def test_a_script_that_logs_no_model_is_told_what_to_add(place: Workplace, registry: MlflowRegistry, run: Run) -> None:
    with pytest.raises(TrainingFailed, match="logged no model") as failed:
        trained(place, registry, run, "silent")
    assert "log_model(" in failed.value.remedy
    assert registry.run(run.id).models == []


def test_a_cancelled_training_ends_killed_with_nothing_left(
    place: Workplace, registry: MlflowRegistry, run: Run
) -> None:
    napping = threading.Event()
    attendant = Attendant(is_cancelled=napping.is_set, tell=lambda line: napping.set() if line == "napping" else None)
    watched = Workplace(place.settings, place.environment, place.checkout, attendant)
    with pytest.raises(Cancelled):
        trained(watched, registry, run, "naps")
    assert registry.run(run.id).state is RunState.KILLED
    assert [one.pid for one in psutil.process_iter(["cmdline"]) if "600.77" in (one.info["cmdline"] or [])] == []


def test_the_last_model_counts_and_the_script_may_log_its_parameters_itself(
    place: Workplace, registry: MlflowRegistry, run: Run
) -> None:
    found = trained(place, registry, run, "logs")
    assert len(found.run.models) == 2
    assert found.uri == found.run.models[-1]
    assert found.run.state is RunState.FINISHED
    assert found.run.parameters["rate"] == "0.001"
    assert (found.folder / "MLmodel").is_file()
    # A repeat finds the result and trains nothing again.
    assert trained(place, registry, run, "logs").uri == found.uri
    assert len(registry.run(run.id).models) == 2
    assert collect(registry, run.id, place.checkout.parent / "again")[0] == found.uri


def test_children_see_no_secrets_and_the_environments_programs_first(place: Workplace) -> None:
    outcome = run_entry_point(place, "peeks", {}, place.checkout.parent / "peek")
    seen = outcome.log.read_text()
    assert "hidden-value" not in seen
    assert "HEADRACE_" not in seen
    assert "MLFLOW_RUN_ID" not in seen
    # What is not tracked leaves no run in the store either.
    assert str(place.settings.home / "mlflow.db") not in seen
    assert f"PATH={place.environment.python.parent}{os.pathsep}" in seen


def test_an_unknown_entry_point_starts_nothing(place: Workplace, registry: MlflowRegistry, run: Run) -> None:
    with pytest.raises(InvalidConfig, match="no entry point `mian`"):
        trained(place, registry, run, "mian")
    assert not (place.checkout.parent / "work").exists()
    assert registry.run(run.id).state is RunState.FAILED


def test_tests_that_fail_stop_the_release(place: Workplace) -> None:
    with pytest.raises(TrainingFailed, match=r"tests \(`python -c 'assert 0'`\) failed"):
        run_tests(place, "python -c 'assert 0'", place.checkout.parent / "tests")
    assert run_tests(place, "true", place.checkout.parent / "others").code == 0


def test_an_environment_without_mlflow_is_said_so(
    place: Workplace, registry: MlflowRegistry, run: Run, tmp_path: Path
) -> None:
    bare = Environment("0" * 64, Path("/bin/false"), place.environment.lock)
    with pytest.raises(TrainingFailed, match="has no `mlflow`") as failed:
        trained(Workplace(place.settings, bare, place.checkout), registry, run, "silent")
    assert "python_env.yaml" in failed.value.remedy
