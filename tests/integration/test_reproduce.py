"""The digits example, trained again from its baseline: identical, or what was changed is named."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import DIGITS, TrainedDigits

from headrace.config.parse import read_component
from headrace.config.settings import Settings
from headrace.data.tables import describe
from headrace.environment.uv import UvEnvironments
from headrace.lifecycle.candidates.reproduce import Likeness, Original, Workshop, reproduce
from headrace.provenance.baseline import DataFacts, Draft, read_baseline, seal
from headrace.provenance.code import checkout
from headrace.provenance.sign import own_signer
from headrace.registry.mlflow import MlflowRegistry
from headrace.training.train import Workplace, train
from headrace.types import Actor

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, trained_digits: TrainedDigits) -> Path:
    """The digits example in a repository of its own, with its data beside it as git ignores it."""
    project = tmp_path / "digits"
    shutil.copytree(DIGITS, project, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (project / ".gitignore").write_text("data/\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=project, check=True)
    shutil.copytree(trained_digits.data, project / "data")
    return project


def make_original(project: Path, settings: Settings, registry: MlflowRegistry, folder: Path) -> Original:
    """Train once and seal, as a release does."""
    copy = checkout(project, folder / "checkout")
    component = read_component(copy.folder)
    environments = UvEnvironments(settings)
    lock = environments.lock(copy.folder)
    environment = environments.build(lock, progress=print)
    path = project / "data" / "train.parquet"
    run = registry.start_run("digits", key="original", tags={})
    trained = train(
        Workplace(settings, environment, copy.folder), registry, run, entry_point="main",
        parameters={"train_data": str(path), "epochs": "2"}, folder=folder / "train",
    )  # fmt: skip
    described = describe(path)
    draft = Draft(
        component="digits", at=datetime.now(UTC), actor=Actor("person:test"), run_id=run.id, model=trained.folder,
        code=copy.code, lock=lock.text, lock_digest=lock.digest, python=lock.python,
        data={"train": DataFacts(uri=str(path), sha256=described.sha256, rows=described.rows)},
        parameters=trained.run.parameters, settings=component.as_json(),
    )  # fmt: skip
    sealed = seal(draft, folder / "baseline", own_signer(folder / "keys"))
    return Original(1, read_baseline(sealed.folder), sealed.folder, project, trained.run.metrics)


def test_a_version_is_reproduced_and_what_was_changed_is_named(
    project: Path, settings: Settings, tmp_path: Path
) -> None:
    registry = MlflowRegistry(settings)
    original = make_original(project, settings, registry, tmp_path / "first")
    assert original.baseline.model.tensors

    def again(name: str, *, here: bool = False) -> tuple[Likeness, str]:
        workshop = Workshop(settings, UvEnvironments(settings), registry, tmp_path / name)
        found = reproduce(original, workshop, here=here)
        return found.likeness, "\n".join(found.sentences)

    likeness, sentences = again("same")
    assert likeness is Likeness.IDENTICAL, sentences
    assert "bit by bit" in sentences

    pins = project / "python_env.yaml"
    pins.write_text(pins.read_text() + "  - iniconfig==2.1.0\n")
    likeness, sentences = again("other-pin", here=True)
    assert likeness is Likeness.DIFFERENT
    assert "environment: iniconfig 2." in sentences
    assert "at training, 2.1.0 here" in sentences
    assert "code: uncommitted changes here" in sentences

    path = project / "data" / "train.parquet"
    table = pq.read_table(path)
    labels = table.column("label").to_pylist()
    labels[0] = (labels[0] + 1) % 10
    place = table.schema.get_field_index("label")
    field = table.schema.field("label")
    pq.write_table(table.set_column(place, field, pa.array(labels, field.type)), path)
    likeness, sentences = again("other-data")
    assert likeness is Likeness.DIFFERENT
    assert f"data: train ({path}) is another file than at training" in sentences
