"""TorchServe archives: what is in them, and that equal content gives equal bytes."""

import json
import zipfile
from pathlib import Path

import pytest

from headrace.deploy.torchserve.archive import build, build_state_dict
from headrace.errors import InvalidInput, ModelRefused
from headrace.types import ServedVersion

MLMODEL = """\
flavors:
  python_function: {loader_module: mlflow.pytorch, data: data}
  pytorch: {model_data: data, serialization_format: pt2}
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 64]}}]'
  outputs: null
  params: null
"""


def version(tmp_path: Path) -> ServedVersion:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "data" / "model.pt2").write_bytes(b"weights")
    return ServedVersion("digits", 3, folder, tmp_path / "python", baseline="b" * 64, seal="5" * 64)


def test_an_archive_holds_the_model_the_handler_and_what_they_need_to_know(tmp_path: Path) -> None:
    built = build(version(tmp_path), tmp_path / "out")
    with zipfile.ZipFile(built.path) as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        about = json.loads(archive.read("headrace.json"))
        names = set(archive.namelist())
        assert archive.read("model/data/model.pt2") == b"weights"
    assert manifest["model"] == {"modelName": "digits", "modelVersion": "3", "handler": "headrace_handler.py"}
    assert names >= {"headrace_handler.py", "headrace_worker.py", "model/MLmodel"}
    assert (about["kind"], about["pt2"], about["seal"]) == ("pt2", "data/model.pt2", "5" * 64)
    assert about["inputs"] == [{"name": "", "kind": "tensor", "dtype": "float32", "shape": [-1, 64], "required": True}]
    # Where it was built and by which interpreter it is served is no part of it.
    assert str(tmp_path) not in json.dumps(about)


def test_equal_content_gives_equal_archives(tmp_path: Path) -> None:
    one = version(tmp_path)
    first = build(one, tmp_path / "a")
    (one.model / "MLmodel").touch()
    assert build(one, tmp_path / "b").digest == first.digest
    (one.model / "data" / "model.pt2").write_bytes(b"other")
    assert build(one, tmp_path / "c").digest != first.digest


def test_a_model_that_nothing_can_load_is_refused(tmp_path: Path) -> None:
    one = version(tmp_path)
    (one.model / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}\n")
    with pytest.raises(ModelRefused, match="neither a pt2 archive nor the python_function flavor"):
        build(one, tmp_path / "out")


def test_plain_weights_need_their_network(tmp_path: Path) -> None:
    code, weights = tmp_path / "network.py", tmp_path / "weights.pt"
    code.write_text("import torch\n")
    with pytest.raises(InvalidInput, match=r"weights\.pt does not exist"):
        build_state_dict("net", 1, tmp_path / "out", code=code, weights=weights)
    weights.write_bytes(b"weights")
    built = build_state_dict("net", 1, tmp_path / "out", code=code, weights=weights)
    with zipfile.ZipFile(built.path) as archive:
        assert json.loads(archive.read("headrace.json"))["weights"] == "weights.pt"
        assert {"network.py", "weights.pt"} <= set(archive.namelist())
