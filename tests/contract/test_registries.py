"""Every registry does what `registry.base.Registry` says."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.config.settings import Settings
from headrace.errors import NotFound
from headrace.registry.base import Registry, RunState
from headrace.registry.memory import MemoryRegistry
from headrace.registry.mlflow import MlflowRegistry


@pytest.fixture(scope="module", params=["memory", "mlflow"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if request.param == "memory":
        yield MemoryRegistry(tmp_path_factory.mktemp("registry"))
    else:
        folder = tmp_path_factory.mktemp("mlflow")
        yield MlflowRegistry(Settings(state=folder, home=folder / "home"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\nsignature: null\n")
    (folder / "weights").write_bytes(b"weights")
    return folder


def test_a_run_is_started_once_per_key(registry: Registry) -> None:
    first = registry.start_run("digits", key="flow-1", tags={"mlflow.source.name": "digits"})
    assert registry.start_run("digits", key="flow-1", tags={}) == first
    assert registry.start_run("digits", key="flow-2", tags={}).id != first.id
    assert first.state is RunState.RUNNING
    assert first.tags["mlflow.source.name"] == "digits"
    assert first.experiment == "digits"


def test_several_processes_at_once_on_a_new_home_all_get_the_store(tmp_path: Path) -> None:
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - so that the processes below meet

    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(4)

    def open_it() -> None:
        gate.wait(120)
        MlflowRegistry(Settings(state=tmp_path, home=tmp_path / "home")).start_run("digits", key="flow-1", tags={})

    processes = [fork.Process(target=open_it) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


def test_what_is_logged_can_be_read(registry: Registry) -> None:
    run = registry.start_run("digits", key="logged", tags={})
    registry.log(run.id, parameters={"epochs": "3"}, metrics={"accuracy": 0.5}, tags={"commit": "abc"})
    registry.log(run.id, metrics={"accuracy": 0.75}, parameters={"epochs": "3"})
    read = registry.run(run.id)
    assert read.parameters == {"epochs": "3"}
    assert read.metrics == {"accuracy": 0.75}
    assert read.tags["commit"] == "abc"


def test_more_than_one_request_holds_is_logged_in_pieces(registry: Registry) -> None:
    run = registry.start_run("digits", key="many", tags={})
    registry.log(run.id, parameters={f"p{n}": str(n) for n in range(230)})
    assert len(registry.run(run.id).parameters) == 230


def test_a_run_that_has_ended_keeps_its_state(registry: Registry) -> None:
    run = registry.start_run("digits", key="ended", tags={})
    registry.end_run(run.id, RunState.FAILED)
    registry.end_run(run.id, RunState.FINISHED)
    assert registry.run(run.id).state is RunState.FAILED


def test_a_finished_run_may_turn_out_to_have_failed(registry: Registry) -> None:
    run = registry.start_run("digits", key="refused", tags={})
    registry.end_run(run.id, RunState.FINISHED)
    registry.end_run(run.id, RunState.KILLED)
    assert registry.run(run.id).state is RunState.FINISHED
    registry.end_run(run.id, RunState.FAILED)
    assert registry.run(run.id).state is RunState.FAILED


def test_a_run_that_is_not_there_is_not_found(registry: Registry) -> None:
    with pytest.raises(NotFound):
        registry.run("0" * 32)


def test_artifacts_come_back_as_they_went(registry: Registry, model: Path, tmp_path: Path) -> None:
    run = registry.start_run("digits", key="artifacts", tags={})
    registry.upload(run.id, model, "evidence")
    registry.upload(run.id, model / "weights", "single")
    there = registry.download(f"runs:/{run.id}/evidence", tmp_path / "a")
    assert sorted(path.name for path in there.iterdir()) == ["MLmodel", "weights"]
    assert (registry.download(f"runs:/{run.id}/single", tmp_path / "b") / "weights").read_bytes() == b"weights"
    assert (registry.download(str(model), tmp_path / "c") / "weights").read_bytes() == b"weights"


def test_a_version_is_registered_once_per_key(registry: Registry, model: Path, tmp_path: Path) -> None:
    run = registry.start_run("once", key="r", tags={})
    uri = _log_model(registry, run.id, model)
    first = registry.register("once", run_id=run.id, model=uri, key="v-1", tags={"baseline": "abc"})
    assert first.number == 1
    assert first.tags["baseline"] == "abc"
    assert first.source == uri
    assert registry.register("once", run_id=run.id, model=uri, key="v-1", tags={}).number == 1
    assert registry.register("once", run_id=run.id, model=uri, key="v-2", tags={}).number == 2
    assert [version.number for version in registry.versions("once")] == [2, 1]
    assert registry.run(run.id).models == [uri]
    assert (registry.download("models:/once/1", tmp_path / "got") / "weights").read_bytes() == b"weights"
    assert (registry.download(uri, tmp_path / "same") / "weights").read_bytes() == b"weights"


def test_versions_have_tags_and_aliases(registry: Registry, model: Path) -> None:
    run = registry.start_run("alias", key="r", tags={})
    uri = _log_model(registry, run.id, model)
    for key in ("a", "b"):
        registry.register("alias", run_id=run.id, model=uri, key=key, tags={})
    registry.tag_version("alias", 2, {"gate": "pass"})
    registry.set_alias("alias", "champion", 2)
    assert registry.version("alias", 2).tags["gate"] == "pass"
    assert registry.version("alias", 2).aliases == ["champion"]
    registry.set_alias("alias", "champion", 1)
    assert registry.alias("alias", "champion") == 1
    registry.set_alias("alias", "champion", None)
    assert registry.alias("alias", "champion") is None
    registry.set_alias("alias", "champion", None)


def test_what_was_never_registered_is_said_so(registry: Registry) -> None:
    assert registry.versions("never") == []
    assert registry.alias("never", "champion") is None
    with pytest.raises(NotFound):
        registry.version("never", 1)


def _log_model(registry: Registry, run_id: str, model: Path) -> str:
    """Log a model folder as a training does."""
    if isinstance(registry, MemoryRegistry):
        return registry.add_model(run_id, model)
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    assert isinstance(registry, MlflowRegistry)
    client = registry._client
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return f"models:/{logged.model_id}"
