"""The news component by itself: its own tests, a training on its own headlines, and the answers of the served model."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from headrace.config.component import DataInput
from headrace.config.settings import read_settings
from headrace.data.tables import arrays, read_table
from headrace.environment.uv import UvEnvironments
from headrace.evaluation.answers import read_outputs
from headrace.provenance.formats import check_formats
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving.offline import answers
from headrace.types import Arrays, ServedVersion, Signature, Task

FOLDER = Path(__file__).parents[2] / "examples" / "news_classifier"
CLASSES = ("world", "sports", "business", "science")


@pytest.fixture(scope="module")
def python() -> Path:
    environments = UvEnvironments(read_settings())
    return environments.build(environments.lock(FOLDER), progress=print).python


def run(python: Path, *command: str | Path, cwd: Path = FOLDER, **variables: str) -> str:
    env: Mapping[str, str] = read_settings().child_environment() | variables
    done = subprocess.run(
        [python, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedVersion, Path]:
    folder = tmp_path_factory.mktemp("news")
    run(python, "prepare.py", "--output", folder)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    data = ("--data", folder / "train.parquet")
    run(python, FOLDER / "train.py", *data, cwd=folder, MLFLOW_TRACKING_URI=store, PYTHONPATH=str(FOLDER))
    (model,) = (path.parent for path in folder.rglob("MLmodel"))
    return ServedVersion("news-classifier", 1, model, python), folder / "holdout.parquet"


def test_the_components_own_tests_pass(python: Path) -> None:
    out = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", FOLDER, FOLDER)
    assert " passed" in out


def test_the_logged_model_is_code_and_safetensors(trained: tuple[ServedVersion, Path]) -> None:
    version, _ = trained
    assert check_formats(version.model).pickled == ()
    model = read_mlmodel(version.model)
    assert model.signature is not None
    assert [field.name for field in model.signature.inputs] == ["text"]
    assert [field.name for field in model.signature.outputs] == ["label", *CLASSES]
    assert "artifacts/weights.safetensors" in model.files


def test_served_answers_are_right_and_the_same_at_any_batch_size(trained: tuple[ServedVersion, Path]) -> None:
    version, holdout = trained
    table = read_table(DataInput(uri=str(holdout), label="label", id="id"), holdout.parent)
    inputs = arrays(table.table, signature(version))
    together, alone = answers(version, inputs, batch_rows=64), answers(version, inputs, batch_rows=1)
    assert list(together["label"]) == list(alone["label"])
    assert largest_difference(together, alone) < 1e-5
    found = read_outputs(together, Task.CLASSIFICATION)
    assert np.mean(found.answer == table.labels) > 0.7


def test_odd_texts_get_an_answer(trained: tuple[ServedVersion, Path]) -> None:
    version, _ = trained
    odd = ["", " \n", "😀😀", "Привет, мир", "東京", "<script>goal</script>", "a\x00b", "x" * 1_000_000]
    found = answers(version, {"text": np.array(odd, dtype=object)})
    assert set(found["label"]) <= set(CLASSES)
    assert np.allclose(sum(found[name] for name in CLASSES), 1, atol=1e-5)


def signature(version: ServedVersion) -> Signature:
    found = read_mlmodel(version.model).signature
    assert found is not None
    return found


def largest_difference(one: Arrays, other: Arrays) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in CLASSES)
