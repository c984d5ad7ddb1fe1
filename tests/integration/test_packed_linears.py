"""Packed linear layers give PyTorch's answers, and step aside where they cannot."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from headrace.config.settings import read_settings
from headrace.serving.worker import CHILD


@pytest.fixture(scope="module")
def found(component_python: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("packed_linears.py")
    done = subprocess.run(
        [component_python, script, CHILD], env=read_settings().child_environment(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "skipped" in said:
        pytest.skip(said["skipped"])
    return said


def test_answers_are_the_same_but_for_rounding_in_every_form_of_a_layer(found: dict[str, Any]) -> None:
    cases = {name: case for name, case in found.items() if isinstance(case, dict) and "apart" in case}
    assert len(cases) == 17
    for name, case in cases.items():
        assert case["same_kind"], name
        assert case["apart"] < 1e-5, name
        assert case["products"] == case["expected"], name


def test_where_gradients_are_asked_for_pytorch_computes(found: dict[str, Any]) -> None:
    assert found["gradients"] == {"requires_grad": True, "products": 0}


def test_pytorchs_functions_are_put_back(found: dict[str, Any]) -> None:
    assert found["left"] == "linear _transformer_encoder_layer_fwd"


def test_an_exported_graph_goes_by_them_and_back(found: dict[str, Any]) -> None:
    packed, plain = found["graph"]
    assert packed["products"] == 2
    assert packed["apart"] < 1e-5
    assert plain == {"apart": 0.0, "products": 0}
