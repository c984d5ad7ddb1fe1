"""What a model's own words mean for who made it."""

from pathlib import Path

import pytest

from headrace.errors import ModelRefused
from headrace.lifecycle.evidence.causes import explain
from headrace.serving.crash import of_exit, of_failure
from headrace.serving.frames import Failure
from headrace.types import ServedVersion

STRIDE = "Guard failed: x.stride()[0] != 4"


def test_a_graph_that_was_exported_from_a_slice_is_told_as_such() -> None:
    """The example had two rows; what was wrong is that it was `data[:2, :-1]`."""
    found = of_failure(Failure("predict", "AssertionError", STRIDE), ServedVersion("iris", 3, Path(), Path()))
    assert "ascontiguousarray" in found.remedy
    assert "two or more rows" not in found.remedy
    assert "ascontiguousarray" in explain(ModelRefused("it failed"), f"AssertionError: {STRIDE}")[1]


@pytest.mark.parametrize(("number", "name"), [(3, "iris version 3"), (0, "the model of iris")])
def test_a_candidate_without_a_number_is_not_called_version_0(number: int, name: str) -> None:
    version = ServedVersion("iris", number, Path(), Path())
    assert of_failure(Failure("predict", "ValueError", "no"), version).fact.startswith(name)
    assert name in of_exit(-9, version, peak_mb=3.0).fact
