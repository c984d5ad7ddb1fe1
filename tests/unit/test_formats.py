"""Pickle is found by what a loader would execute, and the refusal shows the way out. Nothing is ever executed here."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import random
import zipfile
import zlib
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from headrace.errors import ModelRefused
from headrace.provenance.formats import check_formats
from headrace.provenance.pickles import artifact_unsafe, is_torchscript, pt2_unsafe, read_program, torch_file_unsafe
from headrace.registry.mlmodel import read_mlmodel

TENSOR = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nctorch\nFloatStorage\nccollections\nOrderedDict\n0."


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


@pytest.fixture
def evil(tmp_path: Path) -> Any:
    """A pickle that leaves a trace if anybody loads it."""
    trace = tmp_path / "executed"
    yield pickle.dumps(Evil(trace))
    assert not trace.exists()


def torch_zip(program: bytes, root: str = "archive", **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"data.pkl": program, "version": b"3", **more}.items():
            archive.writestr(f"{root}/{name}", content)
    return buffer.getvalue()


def pt2(**changed: bytes) -> bytes:
    config = {"config": {"w": {"path_name": "weight_0", "use_pickle": False}}}
    members = {
        "data/weights/weight_0": b"raw",
        "data/weights/model_weights_config.json": json.dumps(config).encode(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "data/sample_inputs/model.pt": torch_zip(TENSOR),
        "models/model.json": b"{}",
        **changed,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)
    return buffer.getvalue()


def weights_config(**entry: Any) -> bytes:
    return json.dumps({"config": {"w": {"path_name": "weight_0", "use_pickle": False, **entry}}}).encode()


def model(tmp_path: Path, flavors: dict[str, Any], **files: bytes) -> Path:
    folder = tmp_path / "model"
    for name, content in {"MLmodel": yaml.safe_dump({"flavors": flavors}).encode(), **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pyfunc(loader: str, **conf: Any) -> dict[str, Any]:
    return {"python_function": {"loader_module": loader, **conf}}


PYTORCH = {**pyfunc("mlflow.pytorch", data="data"), "pytorch": {"model_data": "data"}}


def test_a_pt2_archive_is_safe_although_its_sample_inputs_are_pickled_tensors(tmp_path: Path) -> None:
    formats = check_formats(model(tmp_path, PYTORCH, **{"data/model.pt2": pt2()}))
    assert formats.names == ("PyTorch pt2",)
    assert formats.worker_variables == {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


@pytest.mark.parametrize(
    "member", ["data/sample_inputs/model.pt", "data/weights/weight_0", "data/constants/custom_obj_0"]
)
def test_a_pt2_archive_that_would_execute_something_is_refused(tmp_path: Path, evil: bytes, member: str) -> None:
    changed = {member: torch_zip(evil), "data/weights/model_weights_config.json": weights_config(use_pickle=True)}
    with pytest.raises(ModelRefused, match=r"data/model\.pt2.*" + member):
        check_formats(model(tmp_path, PYTORCH, **{"data/model.pt2": pt2(**changed)}))


def test_a_pt2_archive_with_compiled_code_or_two_members_of_one_name_is_refused(tmp_path: Path) -> None:
    native = pt2(**{"data/aotinductor/model/x.so": b"\x7fELF"})
    with pytest.raises(ModelRefused, match="is compiled code"):
        check_formats(model(tmp_path, PYTORCH, **{"data/model.pt2": native}))
    doubled = io.BytesIO(pt2())
    with zipfile.ZipFile(doubled, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model/data/sample_inputs/model.pt", b"")
    with pytest.raises(ModelRefused, match="two members share one name"):
        check_formats(model(tmp_path, PYTORCH, **{"data/model.pt2": doubled.getvalue()}))


def test_a_broken_pt2_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelRefused, match="does not begin where the file does"
    ):  # The archive inside is found instead.
        check_formats(model(tmp_path, PYTORCH, **{"data/model.pt2": pt2()[:-30]}))
    with pytest.raises(ModelRefused, match=r"no archive of `torch\.export\.save`"):
        check_formats(model(tmp_path, PYTORCH, **{"data/model.pt2": pt2()[:30]}))


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "member",
    [
        "serialized_state_dict.pt",
        "serialized_constants.pt",
        "serialized_example_inputs.pt",
        "serialized_state_dict.json",
    ],
)
def test_a_pt2_archive_of_torch_before_2_8_is_checked_too(tmp_path: Path, evil: bytes, member: str) -> None:
    plain = {
        "serialized_exported_program.json": b"{}",
        "serialized_state_dict.pt": torch_zip(TENSOR),
        "serialized_constants.pt": torch_zip(TENSOR),
        "serialized_example_inputs.pt": torch_zip(TENSOR),
        "extra_files/notes.txt": b"",
    }
    path = tmp_path / "model.pt2"
    path.write_bytes(zipped(**plain, version=b"8.8"))
    assert pt2_unsafe(path) == []
    path.write_bytes(zipped(**{**plain, member: evil}, version=b"8.8"))
    assert pt2_unsafe(path) == [f"`{member}` would import posix system"]


def test_a_pt2_archive_is_read_as_torch_reads_it(tmp_path: Path, evil: bytes) -> None:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(io.BytesIO(pt2())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for other in ("other/version", "version", "/version"):
        path.write_bytes(zipped(**members, **{other: b""}))
        assert "more than one root folder" in pt2_unsafe(path)[0]
    del members["model/data/sample_inputs/model.pt"]
    path.write_bytes(zipped(**members, **{"model/Data/sample_inputs/model.PT": evil}))
    assert pt2_unsafe(path) == ["`data/sample_inputs/model.pt` would import posix system"]
    path.write_bytes(evil + pt2())
    assert "does not begin" in pt2_unsafe(path)[0]


def test_a_pickled_module_is_refused_with_the_code_change(tmp_path: Path) -> None:
    program = b"\x80\x02ctrain\nNet\n" + TENSOR[2:]
    folder = model(tmp_path, PYTORCH, **{"data/model.pth": torch_zip(program), "data/model.pt2": pt2()})
    with pytest.raises(ModelRefused, match=r"would unpickle `data/model\.pth`.*importing `train\.Net`") as refusal:
        check_formats(folder)
    assert 'serialization_format="pt2"' in refusal.value.remedy
    assert "allow_pickle: true" in refusal.value.remedy
    allowed = check_formats(folder, allow_pickle=True)
    assert [item.file for item in allowed.pickled] == ["data/model.pth"]
    assert allowed.worker_variables == {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}


def test_what_lightning_autologs_is_refused_with_the_switch_to_turn_off(tmp_path: Path) -> None:
    program = b"\x80\x02clightning.pytorch.core.module\nLightningModule\n."
    with pytest.raises(ModelRefused) as refusal:
        check_formats(model(tmp_path, PYTORCH, **{"data/model.pth": torch_zip(program)}))
    assert "autolog(log_models=False)" in refusal.value.remedy


def test_torchscript_is_safe_though_it_has_the_name_of_a_pickle(tmp_path: Path) -> None:
    script = torch_zip(b"\x80\x02c__torch__\nNet\n.", **{"constants.pkl": b"\x80\x02."})
    formats = check_formats(model(tmp_path, PYTORCH, **{"data/model.pth": script}))
    assert formats.names == ("TorchScript",)


@pytest.mark.parametrize(
    "constants", ["archive/extra/constants.pkl", "other/constants.pkl", "archive/CONSTANTS.PKL", "constants.pkl"]
)
def test_a_pickle_with_constants_at_another_place_is_no_torchscript(
    tmp_path: Path, evil: bytes, constants: str
) -> None:
    content = zipped(**{"archive/data.pkl": evil, constants: b"\x80\x02N."})
    folder = model(tmp_path, PYTORCH, **{"data/model.pth": content})
    with pytest.raises(ModelRefused, match=r"`data/model\.pth`"):
        check_formats(folder)
    assert artifact_unsafe(folder / "data/model.pth")


def test_a_pickle_with_an_archive_behind_it_is_a_pickle(tmp_path: Path, evil: bytes) -> None:
    script = torch_zip(b"\x80\x02c__torch__\nNet\n.", **{"constants.pkl": b"\x80\x02N."})
    (tmp_path / "a").write_bytes(evil + script)
    assert not is_torchscript(tmp_path / "a")
    assert torch_file_unsafe(tmp_path / "a") == artifact_unsafe(tmp_path / "a") == ["posix system"]
    (tmp_path / "a").write_bytes(torch_zip(evil) + script)
    assert not is_torchscript(tmp_path / "a")
    assert torch_file_unsafe(tmp_path / "a")
    assert artifact_unsafe(tmp_path / "a")


def test_the_program_of_a_torch_file_is_found_in_any_case(tmp_path: Path, evil: bytes) -> None:
    (tmp_path / "a").write_bytes(zipped(**{"archive/DATA.PKL": evil, "archive/sub/data.pkl": TENSOR}))
    assert torch_file_unsafe(tmp_path / "a") == artifact_unsafe(tmp_path / "a") == ["posix system"]


@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"text\n"])
def test_what_only_ends_like_an_archive_is_judged_without_failing(tmp_path: Path, evil: bytes, start: bytes) -> None:
    stray = b"PK\x05\x06" + b"\xff" * 16 + b"\0\0"
    (tmp_path / "a").write_bytes(start + stray)
    assert bool(artifact_unsafe(tmp_path / "a")) == start.startswith(b"PK")
    assert not is_torchscript(tmp_path / "a")
    (tmp_path / "a").write_bytes(evil + stray)
    assert artifact_unsafe(tmp_path / "a") == ["posix system"]


@pytest.mark.parametrize(
    ("flavor", "name"),
    [
        ({"serialization_format": "skops", "pickled_model": "model.skops"}, "scikit-learn skops"),
        ({"serialization_format": "skops", "skops_trusted_types": ["my_project.Transformer"]}, "scikit-learn skops"),
    ],
)
def test_skops_is_safe(tmp_path: Path, flavor: dict[str, Any], name: str) -> None:
    folder = model(tmp_path, {**pyfunc("mlflow.sklearn"), "sklearn": flavor}, **{"model.skops": b"PK"})
    assert check_formats(folder).names == (name,)


@pytest.mark.parametrize("form", ["pickle", "cloudpickle", None])
def test_a_pickled_estimator_is_refused_whatever_its_name(tmp_path: Path, evil: bytes, form: str | None) -> None:
    flavor = {"pickled_model": "model.skops", "serialization_format": form}
    folder = model(tmp_path, {**pyfunc("mlflow.sklearn"), "sklearn": flavor}, **{"model.skops": evil})
    with pytest.raises(ModelRefused, match=r"`model\.skops`.*importing `posix\.system`") as refusal:
        check_formats(folder)
    assert 'serialization_format="skops"' in refusal.value.remedy


def test_skops_told_to_trust_the_standard_library_is_refused(tmp_path: Path) -> None:
    flavor = {"serialization_format": "skops", "skops_trusted_types": ["os.system"]}
    with pytest.raises(ModelRefused, match=r"trust os\.system"):
        check_formats(model(tmp_path, {**pyfunc("mlflow.sklearn"), "sklearn": flavor}))


def test_xgboost_and_lightgbm_in_their_own_formats_are_safe(tmp_path: Path) -> None:
    xgboost = {**pyfunc("mlflow.xgboost"), "xgboost": {"model_class": "xgboost.sklearn.XGBClassifier"}}
    assert check_formats(model(tmp_path, xgboost)).names == ("XGBoost UBJ or JSON",)
    lightgbm = {**pyfunc("mlflow.lightgbm"), "lightgbm": {"data": "model.lgb"}}
    assert check_formats(model(tmp_path, lightgbm)).names == ("LightGBM text",)
    odd = {**pyfunc("mlflow.xgboost"), "xgboost": {"model_class": "os.system"}}
    with pytest.raises(ModelRefused, match="not known to be safe"):
        check_formats(model(tmp_path, odd))
    estimator = {
        **pyfunc("mlflow.lightgbm"),
        "lightgbm": {"model_class": "lightgbm.sklearn.LGBMClassifier", "data": "m"},
    }
    with pytest.raises(ModelRefused) as refusal:
        check_formats(model(tmp_path, estimator, m=pickle.dumps(1)))
    assert "booster_" in refusal.value.remedy


SKOPS = {"pickled_model": "model.skops", "serialization_format": "skops"}


@pytest.mark.parametrize("data", ["sub/evil.bin", "sub", "evil.bin", "../evil", "/evil", ".", "", "model.skops/", None])
def test_a_loader_that_is_led_to_another_file_than_the_judged_one_is_refused(
    tmp_path: Path, evil: bytes, data: str | None
) -> None:
    led = pyfunc("mlflow.sklearn", model_path="model.skops", data=data)
    files = {"model.skops": b"PK", "sub/evil.bin": evil, "evil.bin": evil}
    with pytest.raises(ModelRefused, match=r"is told to load it"):
        check_formats(model(tmp_path, {**led, "sklearn": SKOPS}, **files))


def test_a_skops_file_below_the_folder_is_refused_for_it_is_loaded_as_a_pickle_there(tmp_path: Path) -> None:
    flavors = {**pyfunc("mlflow.sklearn", data="sub/m"), "sklearn": {**SKOPS, "pickled_model": "sub/m"}}
    with pytest.raises(ModelRefused, match=r"`sub/m`"):
        check_formats(model(tmp_path, flavors, **{"sub/m": b"PK"}))


@pytest.mark.parametrize("flavor", ["lightgbm", "xgboost", "sklearn", "prophet"])
def test_a_second_mlmodel_in_the_folder_is_refused(tmp_path: Path, evil: bytes, flavor: str) -> None:
    flavors = {**pyfunc(f"mlflow.{flavor}"), flavor: {"data": "model.lgb", **SKOPS}}
    check_formats(model(tmp_path / "alone", flavors, **{"model.lgb": b"tree"}))
    inner = yaml.safe_dump({"flavors": {flavor: {"model_class": "lightgbm.sklearn.LGBMClassifier", "data": "evil"}}})
    files = {"model.lgb": b"tree", "sub/MLmodel": inner.encode(), "sub/evil": evil}
    with pytest.raises(ModelRefused, match=r"`sub/MLmodel`"):
        check_formats(model(tmp_path, flavors, **files))
    flavors["python_function"]["data"] = "sub"
    with pytest.raises(ModelRefused, match=r"`sub(/MLmodel)?`"):
        check_formats(model(tmp_path, flavors, **files))


@pytest.mark.parametrize(
    ("flavor", "section"),
    [
        ("sklearn", {**SKOPS, "pickled_model": "m"}),
        ("xgboost", {"data": "m", "model_class": "xgboost.core.Booster"}),
        ("lightgbm", {"data": "m", "model_class": "lightgbm.basic.Booster"}),
    ],
)
def test_a_loader_that_is_led_to_the_judged_file_passes(tmp_path: Path, flavor: str, section: dict[str, Any]) -> None:
    flavors = {**pyfunc(f"mlflow.{flavor}", data="m"), flavor: section}
    assert check_formats(model(tmp_path, flavors, m=b"x")).pickled == ()


@pytest.mark.parametrize("loader", ["mlflow.transformers", "mlflow.onnx", "mlflow.tensorflow", "my_loader"])
def test_no_loader_is_led_out_of_the_folder(tmp_path: Path, loader: str) -> None:
    for data in ("../other", "/other", "a/../../other", "__pycache__"):
        with pytest.raises(ModelRefused, match=r"is told to load it"):
            check_formats(model(tmp_path, pyfunc(loader, data=data)))


def test_a_pytorch_loader_without_a_place_is_judged_by_the_folder_that_it_is_given(tmp_path: Path, evil: bytes) -> None:
    flavors = {**pyfunc("mlflow.pytorch"), "pytorch": {"model_data": "data"}}
    with pytest.raises(ModelRefused, match=r"`model\.pth`"):
        check_formats(model(tmp_path, flavors, **{"data/model.pt2": pt2(), "model.pth": torch_zip(evil)}))


@pytest.mark.parametrize(("form", "pickled"), [("skops", []), ("cloudpickle", ["model.pkl"])])
def test_what_mlflow_itself_writes_is_judged_by_its_format(tmp_path: Path, form: str, pickled: list[str]) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression

    estimator = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    mlflow.sklearn.save_model(
        estimator, tmp_path / "saved", serialization_format=form, pip_requirements=["scikit-learn"]
    )
    found = check_formats(tmp_path / "saved", allow_pickle=True)
    assert [item.file for item in found.pickled] == pickled


def test_a_pickled_python_model_is_refused_and_one_from_code_is_not(tmp_path: Path, evil: bytes) -> None:
    flavors = pyfunc("mlflow.pyfunc.model", python_model="python_model.pkl")
    with pytest.raises(ModelRefused, match=r"`python_model\.pkl`") as refusal:
        check_formats(model(tmp_path, flavors, **{"python_model.pkl": evil}))
    assert 'python_model="model.py"' in refusal.value.remedy
    (tmp_path / "model" / "python_model.pkl").unlink()
    loader = "mlflow.pyfunc.loaders.code_model"
    from_code = pyfunc(loader, model_code_path="model.py", python_model="python_model.pkl")
    safe = {"artifacts/weights.pt": torch_zip(TENSOR), "artifacts/vocabulary.txt": b"a\nb"}
    folder = model(tmp_path, from_code, **{"model.py": b"", **safe})
    assert check_formats(folder).names == ("model from code",)
    (folder / "artifacts" / "harmless.txt").write_bytes(evil)
    with pytest.raises(ModelRefused, match=r"`artifacts/harmless\.txt`"):
        check_formats(folder)


def test_what_is_not_known_counts_as_pickled(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"`mlflow\.statsmodels` loads is not known to be safe"):
        check_formats(model(tmp_path, pyfunc("mlflow.statsmodels", data="model.statsmodels")))


@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        zlib.compress,
        bytes,
        bz2.compress,
        lzma.compress,
        partial(lzma.compress, format=lzma.FORMAT_ALONE),
    ],
)
@pytest.mark.parametrize("more", [0, 6_000_000], ids=["short", "long"])
def test_compressed_pickles_are_found(tmp_path: Path, evil: bytes, compress: Any, more: int) -> None:
    (tmp_path / "a").write_bytes(compress(evil + random.Random(0).randbytes(more)))
    assert artifact_unsafe(tmp_path / "a") == ["posix system"]


def test_what_lz4_packed_counts_as_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x04\x22M\x18" + bytes(8))
    assert artifact_unsafe(tmp_path / "a")


def test_arrays_of_objects_are_pickles_and_other_arrays_none(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    evil = np.array([Evil(Path("x"))], dtype=object)
    np.save(path, evil, allow_pickle=True)
    assert artifact_unsafe(path)
    np.savez(tmp_path / "b.npz", some=np.zeros(3), other=evil)
    assert artifact_unsafe(tmp_path / "b.npz")
    path.write_bytes(b"\x93NUMPY\x01\x00broken")
    assert artifact_unsafe(path)
    fields = np.zeros(2, dtype=[("O", "<f4"), ("ü", "<i8")])
    for plain in (np.zeros((2, 3), "float32"), np.array(["a", "bc"]), fields, np.zeros(1_000_000)):
        np.save(path, plain)
        assert artifact_unsafe(path) == []
        np.savez(tmp_path / "c.npz", plain)
        assert artifact_unsafe(tmp_path / "c.npz") == []
    np.savez(tmp_path / "c.npz", np.zeros(100))
    whole = bytearray((tmp_path / "c.npz").read_bytes())
    whole[400] ^= 0xFF  # The member's checksum tells.
    (tmp_path / "c.npz").write_bytes(whole)
    assert artifact_unsafe(tmp_path / "c.npz")


def test_pickles_that_hide_what_they_import_are_unsafe() -> None:
    for protocol in range(2, 6):
        assert read_program(pickle.dumps(Evil(Path("x")), protocol)).unsafe == ["posix system"]
        assert read_program(pickle.dumps(OrderedDict(a=1), protocol)).unsafe in (
            [],
            ["something that cannot be followed"],
        )
    by_memo = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x01x0h\x00h\x01\x93."
    assert read_program(by_memo).unsafe
    assert read_program(TENSOR).unsafe == []
    assert read_program(TENSOR[:-1]).unsafe == ["something that cannot be followed"]


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_found(tmp_path: Path, protocol: int) -> None:
    whole = pickle.dumps(Evil(Path("x")), protocol)
    for content in (whole, whole[:-1], whole + b"\n", b"".join(map(pickle.dumps, (1, {}))) + whole):
        (tmp_path / "a").write_bytes(content)
        assert artifact_unsafe(tmp_path / "a") == ["posix system"]


def test_a_file_of_an_old_torch_is_followed_to_its_last_pickle(tmp_path: Path) -> None:
    def saved(state: bytes) -> Path:
        heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        (tmp_path / "old.pt").write_bytes(b"".join(pickle.dumps(one, 2) for one in heads) + state + b"\x00" * 64)
        return tmp_path / "old.pt"

    assert artifact_unsafe(saved(pickle.dumps(Evil(Path("x")), 2))) == ["posix system"]
    assert torch_file_unsafe(saved(TENSOR)) == artifact_unsafe(saved(TENSOR)) == []


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\nbird\n",
        "(see) it.\n",
        "a,b\n1,2\n",
        "N.",
        "import os\nos.system('x')\n",
        "{}",
        "",
        ".",
    ],
)
def test_text_is_no_pickle(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert artifact_unsafe(tmp_path / "a.txt") == []


BEFORE = [b"S'" + b"a" * 6_000_000 + b"'\n0", b"X\x80\x8d\x5b\x00" + b"a" * 6_000_000 + b"0", b"N0" * 2_500_000]


@pytest.mark.parametrize("before", [*BEFORE, b"N." + BEFORE[1], b"\x80\x02N." + BEFORE[1]])
@pytest.mark.parametrize("compress", [bytes, partial(gzip.compress, compresslevel=1)])
def test_a_pickle_is_found_behind_what_is_longer_than_its_head(tmp_path: Path, before: bytes, compress: Any) -> None:
    (tmp_path / "a").write_bytes(compress(before + pickle.dumps(Evil(Path("x")), 0)))
    found = ["posix system"] if compress is bytes else ["something that cannot be followed"]
    assert artifact_unsafe(tmp_path / "a") == found


def large() -> dict[str, bytes]:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1_500_000], "data_offsets": [0, 6_000_000]}}).encode()
    random_bytes = [random.Random(seed).randbytes(6_000_000) for seed in range(8)]
    tensors = {
        f"safetensors {more}": (len(header) + more).to_bytes(8, "little") + header + b" " * more + random_bytes[0]
        for more in range(0, 256, 5)
    }
    return {
        **tensors,
        **{f"random {seed}": content for seed, content in enumerate(random_bytes)},
        **{f"random after {first!r}": first + random_bytes[0] for first in (b"X", b"B", b"T", b"\x8e", b"V", b"S")},
        "text": b"It was the best of times.\n" * 240_000,
        "Vline": b"Very long text without an end of line " * 160_000,
        "csv": b"0.25,1,-3\n" * 600_000,
        "json": json.dumps([{"id": 1, "text": "In the beginning"}] * 150_000).encode(),
        "zeros": bytes(6_000_000),
    }


def test_large_files_of_other_kinds_are_no_pickles(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for name, content in large().items():
        path.write_bytes(content)
        assert (name, list(artifact_unsafe(path))) == (name, [])


@pytest.mark.parametrize("data", ["./data", "data/.", "data//", "data/sub", "data/sub/a.bin", ".", "", None])
def test_what_an_own_loader_reads_is_looked_at_however_its_place_is_written(
    tmp_path: Path, evil: bytes, data: str | None
) -> None:
    flavors = pyfunc("my_loader", **({} if data is None else {"data": data}))
    with pytest.raises(ModelRefused, match=r"`data/sub/a\.bin`"):
        check_formats(model(tmp_path, flavors, **{"data/sub/a.bin": evil}))


def test_an_own_loader_without_a_place_is_judged_by_the_whole_folder(tmp_path: Path, evil: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"`other/a\.bin`"):
        check_formats(model(tmp_path, pyfunc("my_loader"), **{"other/a.bin": evil}))


def test_an_array_in_an_archive_is_found_whatever_its_name(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.array([Evil(Path("x"))], dtype=object), allow_pickle=True)
    (tmp_path / "a.npz").write_bytes(zipped(weights=array.getvalue()))
    assert artifact_unsafe(tmp_path / "a.npz")


@pytest.mark.parametrize("decoy", ["a pt2 archive", "TorchScript"])
def test_the_archive_that_a_worker_loads_is_looked_at_wherever_it_lies(tmp_path: Path, evil: bytes, decoy: str) -> None:
    script = torch_zip(b"", **{"constants.pkl": b""})
    bad = pt2(**{"data/sample_inputs/model.pt": evil})
    first = {"data/model.pth": script} if decoy == "TorchScript" else {"data/model.pt2": pt2()}
    for place in ("other", "data") if decoy == "TorchScript" else ("other",):
        flavors = {**pyfunc("mlflow.pytorch", data="data"), "pytorch": {"model_data": place}}
        folder = model(tmp_path / place, flavors, **first, **{f"{place}/model.pt2": bad})
        assert read_mlmodel(folder).pt2 == folder / place / "model.pt2"
        with pytest.raises(ModelRefused, match=rf"`{place}/model\.pt2`"):
            check_formats(folder)


def test_a_length_that_looks_like_a_pickle_makes_none_of_tensors(tmp_path: Path) -> None:
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(0x380).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert path.read_bytes()[:2] == b"\x80\x03"
    assert artifact_unsafe(path) == []
    path.write_bytes(b"\x80\x03" + pickle.dumps(Evil(Path("x")), 3)[2:])
    assert artifact_unsafe(path) == ["posix system"]
