"""MLflow model folders are read as MLflow writes them, without mlflow."""

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.errors import ModelRefused
from headrace.registry.mlmodel import read_mlmodel
from headrace.types import UNNAMED, Field, FieldKind

PT2 = """\
flavors:
  python_function: {loader_module: mlflow.pytorch, data: data}
  pytorch: {model_data: data, pytorch_version: 2.13.0}
mlflow_version: 3.17.2
run_id: abc
saved_input_example_info: {serving_input_path: serving_input_example.json, type: ndarray}
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 64]}}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1,
    10]}}]'
  params: '[{"name": "top", "type": "long", "default": 3, "shape": null}]'
"""
COLUMNS = """\
flavors: {python_function: {loader_module: mlflow.sklearn}}
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}, {"type": "string", "name": "town", "required": false}]'
  outputs: '[{"type": "long", "required": true}]'
  params: null
"""


def folder_with(path: Path, mlmodel: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "MLmodel").write_text(mlmodel)
    return path


def test_pt2_model_is_found_with_signature_params_and_example(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", PT2)
    (folder / "data" / "__pycache__").mkdir(parents=True)
    (folder / "data" / "__pycache__" / "x.pyc").write_bytes(b"")
    (folder / "data" / "model.pt2").write_bytes(b"")
    (folder / "serving_input_example.json").write_text("{}")
    model = read_mlmodel(folder)
    assert model.pt2 == folder / "data" / "model.pt2"
    assert list(model.files) == ["MLmodel", "data/model.pt2", "serving_input_example.json"]
    assert model.example == folder / "serving_input_example.json"
    assert model.run_id == "abc"
    assert model.signature is not None
    assert model.signature.inputs == (Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 64)),)
    assert model.signature.outputs[0].shape == (-1, 10)
    assert model.signature.params == {"top": 3}
    assert not model.signature.is_tabular


def test_columns_keep_name_type_and_whether_they_are_required(tmp_path: Path) -> None:
    model = read_mlmodel(folder_with(tmp_path / "m", COLUMNS))
    assert model.signature is not None
    assert model.signature.is_tabular
    assert model.signature.inputs == (
        Field("age", FieldKind.COLUMN, "double"),
        Field("town", FieldKind.COLUMN, "string", required=False),
    )
    assert model.signature.outputs == (Field("0", FieldKind.COLUMN, "long"),)
    assert model.has_pyfunc
    assert model.pt2 is None


def test_model_without_signature_has_none(tmp_path: Path) -> None:
    assert read_mlmodel(folder_with(tmp_path / "m", "flavors: {python_function: {}}")).signature is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flavors: [", "cannot be read"),
        ("a: 1", "names no flavors"),
        ('flavors: {f: {}}\nsignature: {inputs: \'[{"type": "tensor"}]\'}', "signature"),
        ("flavors: {f: {}}\nsignature: {inputs: 'no json'}", "signature"),
    ],
)
def test_broken_mlmodel_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ModelRefused, match=words) as raised:
        read_mlmodel(folder_with(tmp_path / "m", text))
    assert str(tmp_path) in raised.value.fact


def test_folder_without_mlmodel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="has no file `MLmodel`"):
        read_mlmodel(tmp_path)


def test_reading_imports_no_mlflow() -> None:
    code = "import sys, headrace.registry.mlmodel; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
