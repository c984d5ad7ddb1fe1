"""Golden predictions come back as they were, and a comparison says where answers differ."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import InvalidInput, ModelRefused
from headrace.provenance.golden import compare, load, save
from headrace.types import UNNAMED, Golden

NUMBERS = np.linspace(0, 1, 8, dtype="float32").reshape(4, 2)
TEXTS = np.array(["α", "", "b", "c"], dtype=object)
GOLDEN = Golden(
    {UNNAMED: NUMBERS, "text": TEXTS, "when": np.array(["2026-01-01"] * 4, dtype="datetime64[s]")},
    {"score": NUMBERS, "class": np.array([1, 2, 3, 4]), "label": TEXTS, "flag": np.array([True] * 4)},
    tolerance=1e-3,
)


def test_values_come_back_with_their_types(tmp_path: Path) -> None:
    save(GOLDEN, tmp_path)
    loaded = load(tmp_path)
    assert loaded.tolerance == GOLDEN.tolerance
    for arrays, originals in ((loaded.inputs, GOLDEN.inputs), (loaded.outputs, GOLDEN.outputs)):
        assert list(arrays) == list(originals)
        for name, array in arrays.items():
            assert array.dtype == originals[name].dtype
            np.testing.assert_array_equal(array, originals[name])
    assert compare(loaded, GOLDEN.outputs) == ""


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save(GOLDEN, tmp_path / name)
    for file in ("golden.json", "golden.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"score": NUMBERS + 0.01}, "output `score` differs in 4 of 4 golden rows by up to 0.01 (tolerance 0.001)"),
        ({"score": np.where(NUMBERS[2, 1] == NUMBERS, np.nan, NUMBERS)}, "first in row 2, expected 0.714286, got nan"),
        ({"score": NUMBERS[:3]}, "output `score` has shape (3, 2), not (4, 2)"),
        ({"class": np.array([1, 2, 3, 5])}, "`class` differs in 1 of 4 golden rows: first in row 3, expected 4, got 5"),
        (
            {"label": np.array(["α", "", "b", "d"])},
            "`label` differs in 1 of 4 golden rows: first in row 3, expected c, got d",
        ),
        ({"other": NUMBERS}, "the outputs are `class`, `flag`, `label`, `other`, `score`, not"),
    ],
)
def test_a_difference_is_said_in_one_sentence(changed: dict[str, np.ndarray], sentence: str) -> None:
    assert sentence in compare(GOLDEN, {**GOLDEN.outputs, **changed})


def test_answers_within_the_tolerance_and_in_another_precision_agree() -> None:
    near = {**GOLDEN.outputs, "score": NUMBERS.astype("float64") + 5e-4, "label": TEXTS.astype("U4")}
    assert compare(GOLDEN, near) == ""
    gaps = Golden({}, {"x": np.array([np.nan, np.inf])})
    assert compare(gaps, {"x": np.array([np.nan, np.inf])}) == ""


def test_values_that_would_need_pickle_are_refused(tmp_path: Path) -> None:
    odd = Golden({"x": np.array([datetime(2026, 1, 1)], dtype=object)}, {})
    with pytest.raises(InvalidInput, match="`x` holds a datetime"):
        save(odd, tmp_path)


@pytest.mark.parametrize("file", ["golden.json", "golden.npz"])
def test_broken_files_are_refused(tmp_path: Path, file: str) -> None:
    save(GOLDEN, tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:30])
    with pytest.raises(ModelRefused, match="cannot be read"):
        load(tmp_path)


def test_a_pickle_in_the_numbers_is_never_loaded(tmp_path: Path) -> None:
    save(GOLDEN, tmp_path)
    np.savez(tmp_path / "golden.npz", **{"inputs.0": np.array([{}], dtype=object)})
    with pytest.raises(ModelRefused, match="allow_pickle"):
        load(tmp_path)
