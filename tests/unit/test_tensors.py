"""The canonical digest is equal where the numbers are, whatever the archive around them looks like."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from headrace.provenance.tensors import tensor_digest

WEIGHTS = np.arange(6, dtype="float32").reshape(2, 3)


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def pt2(folder: Path, raw: np.ndarray, strides: tuple[int, int], *, root: str = "model", offset: int = 0) -> Path:
    meta = {
        "dtype": 7, "sizes": [{"as_int": 2}, {"as_int": 3}], "strides": [{"as_int": stride} for stride in strides],
        "storage_offset": {"as_int": offset},
    }  # fmt: skip
    config = {"config": {"w": {"path_name": "weight_0", "use_pickle": False, "tensor_meta": meta}}}
    write_zip(
        folder / "data" / "model.pt2",
        {
            f"{root}/data/weights/weight_0": raw.tobytes(),
            f"{root}/data/weights/model_weights_config.json": json.dumps(config).encode(),
            f"{root}/.data/serialization_id": root.encode(),
        },
    )
    return folder


def test_layout_offset_and_archive_name_do_not_matter_but_every_number_does(tmp_path: Path) -> None:
    plain = tensor_digest(pt2(tmp_path / "a", WEIGHTS, (3, 1)))
    assert plain
    assert tensor_digest(pt2(tmp_path / "b", WEIGHTS.T.copy(), (1, 2), root="other")) == plain
    padded = np.concatenate([np.zeros(2, "float32"), WEIGHTS.ravel()])
    assert tensor_digest(pt2(tmp_path / "c", padded, (3, 1), offset=2)) == plain
    changed = WEIGHTS.copy()
    changed[1, 2] = np.nextafter(changed[1, 2], np.float32(9))
    assert tensor_digest(pt2(tmp_path / "d", changed, (3, 1))) != plain


def safetensors(folder: Path, order: tuple[str, ...]) -> Path:
    arrays = {"a": WEIGHTS.tobytes(), "b": WEIGHTS[:1].tobytes()}
    header: dict[str, Any] = {"__metadata__": {"order": "".join(order)}}
    body = b""
    for name in order:
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + len(arrays[name])]}
        body += arrays[name]
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    return folder


def test_the_order_in_a_safetensors_file_does_not_matter(tmp_path: Path) -> None:
    first = tensor_digest(safetensors(tmp_path / "a", ("a", "b")))
    assert first
    assert tensor_digest(safetensors(tmp_path / "b", ("b", "a"))) == first


def skops(folder: Path, number: int, content: bytes = b"coefficients") -> Path:
    tree = {
        "__class__": "LogisticRegression", "__id__": number,
        "content": {"coef_": {"type": "numpy", "file": f"{number + 1}.npy", "__id__": number + 1}},
    }  # fmt: skip
    write_zip(folder / "model.skops", {"schema.json": json.dumps(tree).encode(), f"{number + 1}.npy": content})
    return folder


def test_the_ids_in_a_skops_file_do_not_matter(tmp_path: Path) -> None:
    first = tensor_digest(skops(tmp_path / "a", 139))
    assert first
    assert tensor_digest(skops(tmp_path / "b", 777)) == first
    assert tensor_digest(skops(tmp_path / "c", 139, b"others")) != first


def test_what_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("tree")
    assert tensor_digest(tmp_path) == ""
    (tmp_path / "model.pt2").write_bytes(b"no archive")
    assert tensor_digest(tmp_path) == ""
