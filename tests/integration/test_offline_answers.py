"""Answers without an endpoint come from a real worker in a component's environment."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import SmallModels

from headrace.errors import InvalidInput, ModelRefused
from headrace.serving.offline import answers
from headrace.serving.worker_child import folder_digest
from headrace.types import UNNAMED, ServedVersion

pytestmark = pytest.mark.slow


def version(models: SmallModels, folder: Path, seal: str = "") -> ServedVersion:
    return ServedVersion("small", 1, folder, models.python, seal=seal)


def test_pt2_answers_every_row_in_batches_of_any_size(small_models: SmallModels) -> None:
    rows = np.random.default_rng(1).random((101, 64), dtype="float32")
    served = version(small_models, small_models.mlp, folder_digest(str(small_models.mlp)))
    found = answers(served, {UNNAMED: rows}, batch_rows=50)[UNNAMED]
    assert found.shape == (101, 10)
    assert found.dtype == np.float32
    again = answers(served, {UNNAMED: rows[100:]})[UNNAMED]
    np.testing.assert_allclose(again, found[100:], rtol=1e-5, atol=1e-6)


def test_pyfunc_takes_columns_of_numbers_and_text(small_models: SmallModels) -> None:
    inputs = {"town": np.array(["Bern", "Ulm"]), "age": np.array([1.0, 2.5]), "rooms": np.array([3, 4])}
    found = answers(version(small_models, small_models.table), inputs)[UNNAMED]
    np.testing.assert_allclose(found, [15.0, 9.0])


def test_pyfunc_answers_with_columns_of_text_and_numbers(small_models: SmallModels) -> None:
    inputs = {"text": np.array(["hi", "a text of more than twenty letters", "hé, 日本"])}
    found = answers(version(small_models, small_models.text), inputs)
    assert found["label"].tolist() == ["short", "long", "short"]
    assert found["label"].dtype.kind == "U"
    assert found["length"].tolist() == [2, 34, 6]


def test_one_flipped_byte_is_refused_before_anything_is_loaded(small_models: SmallModels, tmp_path: Path) -> None:
    seal = folder_digest(str(small_models.mlp))
    copy = tmp_path / "copy"
    shutil.copytree(small_models.mlp, copy)
    content = bytearray((copy / "data" / "model.pt2").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "data" / "model.pt2").write_bytes(content)
    with pytest.raises(ModelRefused, match="digest"):
        answers(version(small_models, copy, seal), {UNNAMED: np.zeros((1, 64), "float32")})


def test_missing_column_is_named(small_models: SmallModels) -> None:
    with pytest.raises(InvalidInput, match="`rooms`"):
        answers(version(small_models, small_models.table), {"age": np.zeros(2), "town": np.array(["a", "b"])})
