"""The canonical digest of a model's weights: equal where the numbers are, whatever the archive around them looks like.

SHA-256 over a line `<name> <dtype> <shape>` and the bytes in C order of every tensor, sorted by name. Read without
torch and without loading the model: pt2 archives, safetensors files, and scikit-learn's skops archives.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.provenance.digest import plain_files
from headrace.types import Json

#: torch's `ScalarType` to its name and numpy's type of the same size.
_DTYPES = {
    1: ("uint8", "u1"), 2: ("int8", "i1"), 3: ("int16", "<i2"), 4: ("int32", "<i4"), 5: ("int64", "<i8"),
    6: ("float16", "<f2"), 7: ("float32", "<f4"), 8: ("float64", "<f8"), 10: ("complex64", "<c8"),
    11: ("complex128", "<c16"), 12: ("bool", "?"), 13: ("bfloat16", "<u2"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    content: bytes


def tensor_digest(model_folder: Path) -> str:
    """Return the canonical digest of a model's weights; empty where they are in a format that is not read here."""
    found: list[_Tensor] = []
    try:
        for name in plain_files(model_folder):
            path = model_folder / name
            if name.endswith(".pt2"):
                found += _pt2(path, name)
            elif name.endswith(".safetensors"):
                found += _safetensors(path, name)
            elif name.endswith(".skops"):
                found += _skops(path, name)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError, OSError):
        return ""
    if not found:
        return ""
    digest = hashlib.sha256()
    for tensor in sorted(found, key=lambda tensor: tensor.name):
        digest.update(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.content)
    return digest.hexdigest()


def _pt2(path: Path, prefix: str) -> Iterator[_Tensor]:
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        members = {name.partition("/")[2]: name for name in archive.namelist()}
        configs = [name for name in members if name.startswith("data/") and name.endswith("_config.json")]
        for config in configs:
            for name, entry in json.loads(archive.read(members[config]))["config"].items():
                meta = entry["tensor_meta"]
                dtype, numpy_dtype = _DTYPES[meta["dtype"]]
                shape = tuple(size["as_int"] for size in meta["sizes"])
                raw = archive.read(members[f"{config.rpartition('/')[0]}/{entry['path_name']}"])
                flat = np.frombuffer(raw, numpy_dtype)[meta["storage_offset"]["as_int"] :]
                strides = [stride["as_int"] * flat.itemsize for stride in meta["strides"]]
                array = np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)
                yield _Tensor(f"{prefix}:{name}", dtype, shape, np.ascontiguousarray(array).tobytes())


def _safetensors(path: Path, prefix: str) -> Iterator[_Tensor]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            yield _Tensor(f"{prefix}:{name}", entry["dtype"], tuple(entry["shape"]), raw[start:end])


def _skops(path: Path, prefix: str) -> Iterator[_Tensor]:
    """Yield the object tree as one text, its arrays by their digests; names and ids in it change with every save."""
    with zipfile.ZipFile(path) as archive:
        ids: dict[int, int] = {}

        def settled(node: Any) -> Json:
            if isinstance(node, list):
                return [settled(item) for item in node]
            if not isinstance(node, dict):
                return node  # type: ignore[no-any-return]
            found: dict[str, Json] = {key: settled(node[key]) for key in sorted(node) if key not in ("__id__", "file")}
            if "__id__" in node:
                found["__id__"] = ids.setdefault(node["__id__"], len(ids))
            if isinstance(node.get("file"), str):
                found["file"] = hashlib.sha256(archive.read(node["file"])).hexdigest()
            return found

        text = json.dumps(settled(json.loads(archive.read("schema.json"))), sort_keys=True)
        yield _Tensor(f"{prefix}:tree", "skops", (), text.encode())
