"""A model in a process of its own. This one file is all that a version's environment gets from headrace.

Run by the version's own interpreter, it needs the standard library, numpy, and what the model needs. It checks the
model folder's seal before it loads anything, then answers frames. A frame is

    u32 length of all that follows | u32 length of the header | header (JSON, padded with spaces) | buffers

little-endian; buffers start at a multiple of 64 bytes from the frame's start, each padded to 8. A header's `blocks` say
what the buffers are: [name or [column names], dtype, shape, bytes]. The dtypes `json` and `base64` are JSON lists.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import faulthandler
import gc
import hashlib
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

PREFIX = struct.Struct("<II")
ALIGN = 64
FIRST_BYTES = 16 * 1024
encode = json.JSONEncoder(separators=(",", ":")).encode
#: Without what `json.loads` does around it, for which a process that has just woken takes longer than for this.
decode = json.JSONDecoder().raw_decode
#: Failed requests whose traceback is written to the log in a minute.
TRACEBACKS = 10
SKIPPED = {"__pycache__", ".DS_Store"}
#: How a model takes a smaller batch: with the same answers, with others, or not at all.
SAME, DIFFERENT, REFUSED = "same", "different", "refused"
LIFTED = {"PARAMETER", "BUFFER", "CONSTANT_TENSOR"}
#: From how long a forward on its linear layers are worth packing, and how much of it must be saved.
PACK_MS, PACK_GAIN = 1.0, 0.03
#: How long forwards of one batch are measured.
FORWARD_S = 0.5
#: How many rows quicker ways are tried with, and for how long.
TRIED_ROWS, TRY_S = 8, 2.0
#: From how long a forward on more threads are worth a try, and how much of it must be saved.
SPREAD_MS, SPREAD_GAIN = 5.0, 0.1
#: How many threads a heavy model may have, beside busy workers and while there is none: `4,8`; not set for `1,1`.
HEAVY_THREADS = "HEADRACE_HEAVY_THREADS"
#: What packed weights may take beside the others, in bytes, and of what memory is left at most a quarter.
PACK_ROOM = 1 << 30
#: What a tensor of texts may take as numpy's own type, in bytes.
TEXT_ROOM = 32 << 20
#: What scikit-learn has for users of torch tensors. skops visits every module of scikit-learn for the names that it
#: trusts, and through this one would load torch for a model that does without: seconds, and 180 MB.
TORCH_BRIDGE = "sklearn.externals.array_api_compat.torch"

#: (name or names, array); a table's block has names and shape (rows, names).
Named = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Batch:
    """Rows for the model: `container` is what it is given (`array`, `dict` or `frame`), `order` a frame's columns."""

    rows: int
    container: str
    named: Named
    order: list[str]
    params: dict[str, Any]

    def cut(self, start: int, size: int) -> Batch:
        """Return `size` rows from `start` on, the last one repeated where there are too few."""
        return replace(
            self, rows=size, named=[(name, _stretch(v[start : start + size], size)) for name, v in self.named]
        )


@dataclass(frozen=True)
class Answer:
    """What the model gave: `container` is `array`, `dict`, `frame`, or `value` for one JSON text."""

    container: str
    named: Named


class Listen(Exception):
    """The parent is done with warming up: others may connect."""


class SealBroken(Exception):
    """The model folder is not the one that was sealed."""


# Frames


def receive(connection: socket.socket) -> tuple[dict[str, Any], memoryview] | None:
    """Return (header, buffers), or None where the peer has gone; a peer sends no frame before it has its answer."""
    # Most frames are small and come whole: one call to the system for them. Buffers keep the frame's alignment.
    content = memoryview(bytearray(FIRST_BYTES))
    taken = connection.recv_into(content)
    if not taken or (taken < PREFIX.size and not _fill(connection, content[taken : PREFIX.size])):
        return None
    taken = max(taken, PREFIX.size)
    length, header_length = PREFIX.unpack_from(content)
    if length + 4 > FIRST_BYTES:
        content, first = memoryview(bytearray(length + 4)), content
        content[:taken] = first[:taken]
    if taken < length + 4 and not _fill(connection, content[taken : length + 4]):
        return None
    start = PREFIX.size + header_length
    return decode(str(content[PREFIX.size : start], "utf-8"))[0], content[start : length + 4]


def _fill(connection: socket.socket, view: memoryview) -> bool:
    while view:
        taken = connection.recv_into(view)
        if not taken:
            return False
        view = view[taken:]
    return True


def send(connection: socket.socket, header: dict[str, Any] | str, buffers: list[bytes] | None = None) -> None:
    """Write one frame; `header` may be JSON already."""
    text = (header if isinstance(header, str) else encode(header)).encode()
    text += b" " * (-(PREFIX.size + len(text)) % ALIGN)
    body = b"".join(part for buffer in buffers or () for part in (buffer, bytes(-len(buffer) % 8)))
    connection.sendall(PREFIX.pack(4 + len(text) + len(body), len(text)) + text + body)


def unpack(blocks: list[list[Any]], view: memoryview) -> Named:
    """Return the arrays that a frame's buffers hold."""
    import numpy as np

    found: Named = []
    at = 0
    for name, dtype, shape, size in blocks:
        piece = view[at : at + size]
        at += size + (-size % 8)
        if dtype in ("json", "base64"):
            listed = json.loads(bytes(piece))
            if dtype == "base64":
                listed = [None if text is None else base64.b64decode(text) for text in listed]
            values: Any = _texts(listed) if isinstance(name, str) else None
            if values is None:
                values = np.empty(len(listed), object)
                values[:] = listed
        elif dtype.startswith("datetime64"):
            values = np.frombuffer(piece, "int64").view(dtype)
        else:
            values = np.frombuffer(piece, dtype)
        found.append((name, values.reshape(shape)))
    return found


def _texts(listed: list[Any]) -> Any:
    """Return a tensor's texts in numpy's own type, as MLflow takes them, or None where that does not hold them."""
    import numpy as np

    if not listed or not all(isinstance(text, str) for text in listed):
        return None
    # Each takes the longest one's room.
    if 4 * len(listed) * max(map(len, listed)) > TEXT_ROOM:
        return None
    values = np.array(listed, str)
    return values if values.tolist() == listed else None  # Zeros at the end are lost.


def pack(named: Named) -> tuple[tuple[Any, ...], list[bytes]]:
    """Return (blocks, buffers) of arrays."""
    import numpy as np

    blocks, buffers = [], []
    for name, value in named:
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            buffer, dtype = array.tobytes(), _name_of(array.dtype)
        else:
            flat = (np.datetime_as_string(array) if array.dtype.kind == "M" else array).ravel().tolist()
            buffer, dtype = _json(flat), "json"
        blocks.append((name, dtype, array.shape, len(buffer)))
        buffers.append(buffer)
    return tuple(blocks), buffers


@lru_cache(64)
def described(container: str, blocks: tuple[Any, ...]) -> str:
    """Return what a reply's header says of its buffers, without braces: most replies say the same."""
    return encode({"container": container, "blocks": blocks})[1:-1]


@cache
def _name_of(dtype: Any) -> str:
    return str(dtype)


def _json(value: Any) -> bytes:
    """Return JSON, what is not a number as null: a literal NaN is no JSON."""
    try:
        return json.dumps(value, default=_plain, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_without_nan(value), default=lambda one: _without_nan(_plain(one))).encode()


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return value


def _plain(value: Any) -> Any:
    """Return what JSON can say of a value that it does not know."""
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if hasattr(value, "tolist"):
        return value.tolist()
    if type(value).__name__ == "NAType":  # pandas' missing value.
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def folder_digest(folder: str) -> str:
    """Return SHA-256 over what `sha256sum` would print for the folder's files, sorted by path."""
    lines = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED]
        files[:] = [name for name in files if name not in SKIPPED]
        for name in [*folders, *files]:
            if os.path.islink(os.path.join(place, name)):
                raise SealBroken(f"{os.path.join(place, name)} is a link; only plain files can be sealed")
        for name in files:
            path = os.path.join(place, name)
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            lines[relative] = f"{digest.hexdigest()}  {relative}\n"
    return hashlib.sha256("".join(lines[name] for name in sorted(lines)).encode()).hexdigest()


# Models


class Pt2:
    """A `torch.export` archive without mlflow in between: same inputs and answers as its pytorch flavor."""

    def __init__(self, path: str, threads: int) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        program = torch.export.load(path)
        self.module = program.module()
        self.names = list(program.graph_signature.user_inputs)
        tensors = list(program.state_dict.values()) or [torch.empty(0)]
        self.device = tensors[0].device
        self.is_cpu = self.device.type == "cpu"
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"the model was exported on a GPU ({self.device}) and there is none here")
        self.graph: Any = self.module
        self._packed: set[str] = set()
        self.forward: Any = self._lifted(program) or self.module
        # For good: this process has one thread and does nothing else, and entering it costs each call.
        self._mode = torch.inference_mode()
        self._mode.__enter__()

    def _lifted(self, program: Any) -> Any:
        """Return the graph as a plain function of its one input, or None where it is more than that.

        The archive's module costs 200 µs per call in guards and pytrees; rows are checked before they get here.
        """
        signature = program.graph_signature
        *lifted, last = signature.input_specs
        if any(spec.kind.name not in LIFTED for spec in lifted) or last.kind.name != "USER_INPUT":
            return None
        if [spec.kind.name for spec in signature.output_specs] != ["USER_OUTPUT"]:
            return None
        weights = [program.state_dict.get(spec.target, program.constants.get(spec.target)) for spec in lifted]
        if any(weight is None for weight in weights):
            return None
        weights = [self.torch.nn.Parameter(weight.detach(), requires_grad=False) for weight in weights]
        graph = self.graph = program.graph_module
        self._shorten()
        return lambda tensor: graph.forward(*weights, tensor)[0]

    def _shorten(self) -> None:
        """Have the graph call functions that do the same as its operators and look less up on the way."""
        torch, aten, nn = self.torch, self.torch.ops.aten, self.torch.nn.functional
        direct = {
            aten.linear.default: nn.linear, aten.gelu.default: nn.gelu, aten.relu.default: torch.relu,
            aten.tanh.default: torch.tanh, aten.sigmoid.default: torch.sigmoid,
        }  # fmt: skip
        for node in self.graph.graph.nodes:
            if node.op == "call_function":
                node.target = direct.get(node.target, node.target)
        self.graph.recompile()

    def prepare(self, example: Batch) -> None:
        """Keep the plain graph only if it gives what the archive's module gives."""
        if self.forward is self.module:
            return
        try:
            tensor = self._tensor(self._single(example))
            is_same = self.torch.equal(self.forward(tensor), self.module(tensor))
        except Exception:  # noqa: BLE001 - any failure of the short cut means the long way
            is_same = False
        if not is_same:
            self.graph, self.forward = self.module, self.module

    def use(self, linears: PackedLinears | None) -> None:
        """Have linear layers go by packed weights, or by PyTorch again."""
        plain = self.torch.nn.functional.linear
        for node in self.graph.graph.nodes:
            is_linear = node.target in (plain, self.torch.ops.aten.linear.default)
            if node.op == "call_function" and (is_linear or node.name in self._packed):
                self._packed.add(node.name)
                node.target = linears.linear if linears else plain
        self.graph.recompile()

    def predict(self, batch: Batch) -> Answer:
        if batch.container == "dict":
            given = {name: self._tensor(value) for name, value in batch.named}
            by_name = set(given) <= set(self.names)
            answer = self.module(**given) if by_name else self.module(*given.values())
        elif batch.params:
            answer = self.module(self._tensor(self._single(batch)), **batch.params)
        else:
            answer = self.forward(self._tensor(self._single(batch)))
        if isinstance(answer, self.torch.Tensor):
            values = answer.numpy() if self.is_cpu else answer.cpu().numpy()
            if not values.ndim:
                return as_answer(values)
            if batch.container != "frame":
                return Answer("array", [("", values)])
            values = values.reshape(len(values), -1)
            return Answer("frame", [(str(place), values[:, place]) for place in range(values.shape[1])])
        if not isinstance(answer, dict):
            answer = {f"output_{place}": value for place, value in enumerate(answer)}
        return as_answer({name: value.cpu().numpy() for name, value in answer.items()})

    def _tensor(self, array: Any) -> Any:
        tensor = self.torch.from_numpy(array)
        return tensor if self.is_cpu else tensor.to(self.device)

    def _single(self, batch: Batch) -> Any:
        import numpy as np

        if batch.container != "frame":
            return batch.named[0][1]
        if len(batch.named) == 1 and batch.named[0][0] == batch.order:
            return batch.named[0][1].astype("float32")
        columns = _columns(batch.named)
        return np.stack([columns[name].astype("float32") for name in batch.order], axis=1)


class Pyfunc:
    """Any MLflow flavor."""

    def __init__(self, folder: str, threads: int) -> None:
        import mlflow.pyfunc

        with without(TORCH_BRIDGE):
            self.model = mlflow.pyfunc.load_model(folder)
        torch = sys.modules.get("torch")  # Importing it for a model that does without would cost seconds.
        if torch is not None:
            torch.set_num_threads(threads)
        self._linears: PackedLinears | None = None

    def prepare(self, example: Batch) -> None:
        pass

    def use(self, linears: PackedLinears | None) -> None:
        """Have linear layers go by packed weights, or by PyTorch again, under the names that model code knows."""
        if self._linears is not None:
            self._linears.leave()
        self._linears = linears
        if linears is not None:
            linears.use()

    def predict(self, batch: Batch) -> Answer:
        return as_answer(self.model.predict(self._given(batch), params=batch.params or None))

    def _given(self, batch: Batch) -> Any:
        if batch.container == "dict":
            return dict(batch.named)
        if batch.container == "array":
            return batch.named[0][1]
        import pandas as pd

        (names, block), *others = batch.named
        if not others and names == batch.order and block.dtype.kind != "O":
            return pd.DataFrame(block, columns=names)
        columns = _columns(batch.named)
        listed = {name: v.tolist() if v.dtype.kind == "O" else v for name, v in columns.items()}
        return pd.DataFrame({name: listed[name] for name in batch.order})


@dataclass(frozen=True)
class Packed:
    """A weight laid out for the product.

    Attributes:
        edition: PyTorch's count of changes, which `weight.data` evades.
        some: values all over the weight, in its own memory.
        known: those values as they were packed.
    """

    content: Any
    edition: int
    some: Any
    known: bytes

    def is_outdated(self, weight: Any) -> bool:
        """Tell whether the weight was changed since."""
        return bool(weight._version != self.edition or self.some.tobytes() != self.known)


class PackedLinears:
    """Linear layers computed by oneDNN, whose weights are laid out for the product once.

    PyTorch lays them out anew in each call, which for few rows takes about as long as the product. Answers are the same
    but for rounding. Taken are parameters of `float32` on a CPU, and only where no gradient is asked for.

    Attributes:
        is_on: False while PyTorch is to do it.
    """

    def __init__(self, torch: Any, room: int) -> None:
        """Get ready; packed weights take `room` bytes at most."""
        self.is_on = True
        self._torch, self._room = torch, room
        self._plain, self._plain_layer = torch.nn.functional.linear, torch._transformer_encoder_layer_fwd
        self._product = torch.ops.mkldnn._linear_pointwise.default
        self._pack = torch.ops.mkldnn._reorder_linear_weight
        #: By the weight's id: the weight, so that the id stays its own, and it packed, with what tells of changes.
        self._known: dict[int, tuple[Any, Packed | None]] = {}

    @staticmethod
    def here() -> PackedLinears | None:
        """Return them, or None where there is no PyTorch in this process, or none with oneDNN."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.backends.mkldnn.is_available():
            return None
        with contextlib.suppress(AttributeError, TypeError):  # An old PyTorch has other names, or takes no device.
            torch.is_autocast_enabled("cpu")
            return PackedLinears(torch, min(PACK_ROOM, memory_left() // 4))
        return None

    def use(self) -> None:
        """Stand in for PyTorch's functions wherever modules call them."""
        self._torch.nn.functional.linear = self.linear
        self._torch._transformer_encoder_layer_fwd = self.encoder_layer

    def leave(self) -> None:
        """Put PyTorch's functions back."""
        self._torch.nn.functional.linear = self._plain
        self._torch._transformer_encoder_layer_fwd = self._plain_layer

    def linear(self, given: Any, weight: Any, bias: Any = None) -> Any:
        """`torch.nn.functional.linear`."""
        packed = self._packed(given, weight)
        if packed is None or given.ndim < 2:
            return self._plain(given, weight, bias)
        return self._product(given, packed, bias, "none", [], "")

    def encoder_layer(self, given: Any, width: int, heads: int, *rest: Any) -> Any:
        """The fused layer behind `torch.nn.TransformerEncoderLayer`, with PyTorch's arguments."""
        (
            qkv, qkv_bias, out, out_bias, gelu, norm_first, eps, norm1, norm1_bias, norm2, norm2_bias,
            up, up_bias, down, down_bias, mask, mask_type,
        ) = rest  # fmt: skip
        packed = [self._packed(given, weight) for weight in (qkv, out, up, down)]
        if any(one is None for one in packed) or mask_type == 0:
            return self._plain_layer(given, width, heads, *rest)
        nn, product = self._torch.nn.functional, self._product
        rows, length, _ = given.shape
        kept = None
        if mask is not None:
            kept = ~mask.bool()
            kept = kept[:, None, None] if mask_type == 1 else kept

        def attended(tensor: Any) -> Any:
            parts = product(tensor, packed[0], qkv_bias, "none", [], "").view(rows, length, 3, heads, width // heads)
            found = nn.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4), attn_mask=kept)
            return product(found.transpose(1, 2).reshape(rows, length, width), packed[1], out_bias, "none", [], "")

        def fed_forward(tensor: Any) -> Any:
            wide = product(tensor, packed[2], up_bias, "gelu" if gelu else "relu", [], "none")
            return product(wide, packed[3], down_bias, "none", [], "")

        def normed(tensor: Any, weight: Any, bias: Any) -> Any:
            return nn.layer_norm(tensor, (width,), weight, bias, eps)

        if norm_first:
            given = given + attended(normed(given, norm1, norm1_bias))
            return given + fed_forward(normed(given, norm2, norm2_bias))
        given = normed(given + attended(given), norm1, norm1_bias)
        return normed(given + fed_forward(given), norm2, norm2_bias)

    def _packed(self, given: Any, weight: Any) -> Any:
        """Return a weight packed, or None where PyTorch must do this product."""
        torch = self._torch
        _, packed = self._known.get(id(weight)) or self._first(weight)
        if (
            packed is None or not self.is_on or packed.is_outdated(weight) or torch.is_grad_enabled()
            or type(given) is not torch.Tensor or given.is_nested or given.dtype != torch.float32 or not given.numel()
            or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        ):  # fmt: skip
            return None
        return packed.content

    def _first(self, weight: Any) -> tuple[Any, Packed | None]:
        """Return what is known of a weight that is met for the first time. What is no parameter is gone tomorrow."""
        torch = self._torch
        if type(weight) is not torch.nn.Parameter:
            return weight, None
        packed = None
        size = 4 * weight.numel()
        is_plain = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()
        if is_plain and weight.ndim == 2 and 0 < size <= self._room:
            with contextlib.suppress(RuntimeError):  # No memory, or made where editions are not counted.
                some = weight.detach().view(-1)[:: max(weight.numel() // 64, 1)].numpy()
                packed = Packed(self._pack(weight.detach(), None), weight._version, some, some.tobytes())
                self._room -= size
        self._known[id(weight)] = weight, packed
        return self._known[id(weight)]


@contextlib.contextmanager
def without(module: str) -> Iterator[None]:
    """Let imports of a module fail for a while, as if it were not installed; one that is loaded stays."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # That is how Python is told.
    try:
        yield
    finally:
        sys.modules.pop(module, None)


def _columns(named: Named) -> dict[str, Any]:
    return {name: block[:, place] for names, block in named for place, name in enumerate(names)}


def as_answer(given: Any) -> Answer:
    """Return whatever a pyfunc gives as named arrays."""
    import numpy as np

    kind = type(given).__name__
    if kind == "DataFrame":
        return Answer("frame", [(str(name), _series(given[name])) for name in given.columns])
    if kind == "Series":
        return Answer("frame", [("0" if given.name is None else str(given.name), _series(given))])
    if isinstance(given, dict) and all(isinstance(value, np.ndarray) and value.ndim for value in given.values()):
        return Answer("dict", [(str(name), value) for name, value in given.items()])
    array = _array(given)
    if array is not None and array.ndim:
        return Answer("array", [("", array)])
    return Answer("value", [("", np.asarray([_json(given).decode()], object))])


def _array(given: Any) -> Any:
    """Return a tensor, a sparse matrix or a list as an array; None for what is not one answer per row."""
    import numpy as np

    if isinstance(given, np.ndarray):
        return given
    if hasattr(given, "detach"):
        return given.detach().cpu().numpy()
    if hasattr(given, "toarray"):
        return given.toarray()
    if not isinstance(given, list | tuple):
        return None
    with contextlib.suppress(ValueError):  # Ragged lists stay lists.
        array = np.asarray(given)
        if array.dtype.kind in "biuf":
            return array
    listed = np.empty(len(given), object)
    listed[:] = list(given)
    return listed


def _series(series: Any) -> Any:
    if series.dtype.kind in "biufM":
        values = series.to_numpy()
        if values.dtype.kind != "O":  # As where pandas' own types have missing values.
            return values
    return series.astype(object).where(series.notna(), None).to_numpy()


def _stretch(values: Any, size: int) -> Any:
    import numpy as np

    missing = size - len(values)
    return values if missing <= 0 else np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])


def _same(answer: Answer, expected: Answer) -> bool:
    """Tell whether two answers to the same rows differ by no more than the order in which products were added."""
    pairs = zip(answer.named, expected.named, strict=True)
    return all(name == known and _agree(values, given, 1e-4) for (name, values), (known, given) in pairs)


def _agree(values: Any, expected: Any, within: float = 1e-3) -> bool:
    """Tell whether two arrays hold the same, numbers with a fraction but for rounding."""
    import numpy as np

    if values.dtype.kind in "fc":
        return values.shape == expected.shape and bool(np.allclose(values, expected, within, within, equal_nan=True))
    if values.dtype.kind != "O":
        return bool(np.array_equal(values, expected))
    return _alike(values.ravel().tolist(), expected.ravel().tolist())


def _alike(one: Any, other: Any) -> bool:
    if hasattr(one, "tolist") and hasattr(other, "tolist"):
        one, other = one.tolist(), other.tolist()
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


class Model:
    """A loaded model that takes batches of any size, whatever sizes its graph takes.

    Attributes:
        least: smaller batches are filled up to this.
        only: the one size that the graph takes; 0 where it takes any.
        threads: how many PyTorch uses beside busy workers, and alone; None where it keeps those that it has.
    """

    def __init__(self, inner: Pt2 | Pyfunc) -> None:
        self.inner = inner
        self.least = 1
        self.only = 0
        self.threads: tuple[int, int] | None = None
        self._in_use = 1

    def spread(self, *, alone: bool) -> None:
        """Use as many threads as a batch may have that is alone on the machine, or beside others."""
        if self.threads is not None:
            self._use_threads(self.threads[alone])

    def _use_threads(self, number: int) -> None:
        if self._in_use != number:
            self._in_use = number
            sys.modules["torch"].set_num_threads(number)

    def predict(self, batch: Batch) -> Answer:
        size = self.only or max(batch.rows, self.least)
        if batch.rows == size:
            return self.inner.predict(batch)
        import numpy as np

        pieces = [self.inner.predict(batch.cut(start, size)) for start in range(0, batch.rows, size)]
        columns = zip(*([values for _, values in piece.named] for piece in pieces), strict=True)
        named = [
            (name, np.concatenate(column)[: batch.rows])
            for (name, _), column in zip(pieces[0].named, columns, strict=True)
        ]
        return Answer(pieces[0].container, named)

    def warm(self, batch: Batch, told: dict[str, Any] | None = None) -> dict[str, Any]:
        """Find out what sizes the model takes, whether it answers row by row, and how long a forward takes.

        What makes it quicker is tried, or `told` by what another worker of the version kept.
        """
        self.inner.prepare(batch)
        whole = self.predict(batch)
        by_row = whole.container != "value" and all(v.ndim and len(v) == batch.rows for _, v in whole.named)
        sizes = {1, batch.rows}
        if by_row and batch.rows > 1:
            size, fit = 1, self._fit(1, batch, whole)
            if fit == REFUSED:
                size, fit = 2, self._fit(2, batch, whole)
            # Rows that depend on their neighbours are neither filled up nor joined: both would change the answers.
            by_row = fit != DIFFERENT
            if fit == REFUSED:
                self.only = batch.rows
            elif by_row:
                self.least = size
            elif size > 1:
                sizes = {batch.rows}
        batches = {rows: batch.cut(0, rows) for rows in sorted(sizes)}
        is_packed = told is not None and self._take_over(told, batch)
        forward_ms = self._forward_ms(batches)
        if told is None:
            least_ms = min(forward_ms.values())
            # An example is often smaller than what will come; where rows are slow, one has to do.
            is_quick = by_row and least_ms * TRIED_ROWS <= 1000 * TRY_S / 4
            tried = batch.cut(0, max(batch.rows, TRIED_ROWS)) if is_quick else batches[min(sizes)]
            is_packed = least_ms >= PACK_MS and self._pack(tried)
            if is_packed:
                forward_ms = self._forward_ms(batches)
            if least_ms >= SPREAD_MS and "torch" in sys.modules:
                self._choose_threads(tried)
        return {
            "by_row": by_row,
            "fixed_rows": self.only,
            "forward_ms": {str(rows): ms for rows, ms in forward_ms.items()},
            "peak_mb": peak_mb(),
            "kept": {"packed": is_packed, "threads": self.threads},
        }

    def _take_over(self, told: dict[str, Any], batch: Batch) -> bool:
        """Do as another worker of the version does, as far as that goes here; tell whether linear layers are packed."""
        is_packed = told["packed"] and self._pack(batch, is_told=True)
        if told["threads"]:
            shared, alone = (min(number, cores()) for number in told["threads"])
            self.threads = shared, alone
        how = "packed" if is_packed else "PyTorch's own"
        shared, alone = self.threads or (1, 1)
        print(f"Taken over: linear layers are {how}; threads: {shared} beside others, {alone} alone.", file=sys.stderr)
        return is_packed

    def _forward_ms(self, batches: dict[int, Batch]) -> dict[int, float]:
        return _best_ms(batches, lambda rows: self.predict(batches[rows]), FORWARD_S * len(batches))

    def _pack(self, batch: Batch, *, is_told: bool = False) -> bool:
        """Pack linear layers where the answers are the same and, unless that `is_told`, the forward is faster."""
        linears = PackedLinears.here()
        if linears is None:
            return False
        expected = self.predict(batch)
        self.inner.use(linears)

        def ask(is_on: bool) -> None:
            linears.is_on = is_on
            self.predict(batch)

        try:
            if _same(self.predict(batch), expected):
                if is_told:
                    return True
                ms = _best_ms((False, True), ask, TRY_S)
                if ms[True] <= (1 - PACK_GAIN) * ms[False]:
                    print(f"Linear layers are packed: {ms[True]:.1f} ms, not {ms[False]:.1f}.", file=sys.stderr)
                    return True
        except Exception:  # noqa: BLE001 - whatever it is: PyTorch's own way stays
            traceback.print_exc()
        self.inner.use(None)
        return False

    def _choose_threads(self, batch: Batch) -> None:
        """Keep what this process may use of the machine's cores where it makes the forward that much faster."""
        shared, alone = (min(int(number), cores()) for number in os.environ.get(HEAVY_THREADS, "1,1").split(","))
        # All that a lone batch may have is more than pays on many machines: halves, down to one.
        halves = [alone >> times for times in range(alone.bit_length())]
        numbers = sorted({shared, *halves})
        if len(numbers) == 1:
            return

        def ask(number: int) -> None:
            self._use_threads(number)
            self.predict(batch)

        ms = _best_ms(numbers, ask, TRY_S)
        best = min(halves, key=ms.__getitem__)
        shared, alone = (number if ms[number] <= (1 - SPREAD_GAIN) * ms[1] else 1 for number in (shared, best))
        self.threads = shared, alone
        tried = ", ".join(f"{number}: {ms[number]:.1f} ms" for number in numbers)
        print(f"Threads: {shared} beside others, {alone} alone ({batch.rows} rows on {tried}).", file=sys.stderr)

    def _fit(self, size: int, batch: Batch, whole: Answer) -> str:
        """Tell whether a batch of `size` gives what its rows gave in the whole batch."""
        try:
            answer = self.inner.predict(batch.cut(0, size))
        except Exception:  # noqa: BLE001 - whatever it is: this size is not one that the graph takes
            return REFUSED
        if [name for name, _ in answer.named] != [name for name, _ in whole.named]:
            return DIFFERENT
        pairs = [
            (values, expected[:size]) for (_, values), (_, expected) in zip(answer.named, whole.named, strict=True)
        ]
        if any(values.shape != expected.shape for values, expected in pairs):
            # A graph with a size of its own may spread fewer rows over it instead of failing.
            return REFUSED if isinstance(self.inner, Pt2) else DIFFERENT
        return SAME if all(_agree(values, expected) for values, expected in pairs) else DIFFERENT


def _best_ms(ways: Iterable[Any], ask: Callable[[Any], object], seconds: float) -> dict[Any, float]:
    """Return the best of up to ten forwards in each of several ways, tried in turn: noise hits them alike."""
    best = dict.fromkeys(ways, float("inf"))
    end = time.perf_counter() + seconds
    for _ in range(10):
        for way, ms in best.items():
            start = time.perf_counter()
            ask(way)
            best[way] = min(ms, round(1000 * (time.perf_counter() - start), 4))
        if time.perf_counter() > end:
            break
    return best


def load(options: argparse.Namespace) -> Model:
    """Check the seal, then load the model."""
    if options.seal:
        found = folder_digest(options.model)
        if found != options.seal:
            raise SealBroken(f"the model folder's digest is {found[:12]}, the sealed one is {options.seal[:12]}")
    if options.pt2:
        return Model(Pt2(os.path.join(options.model, options.pt2), options.threads))
    return Model(Pyfunc(options.model, options.threads))


# The process


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def memory_left() -> int:
    """Return how many bytes this process may still take, as far as the system says: machine, control group, limit."""
    left = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/meminfo") as file:
            left += [1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable")]
        with open("/sys/fs/cgroup/memory.max") as most, open("/sys/fs/cgroup/memory.current") as now:
            left.append(int(most.read()) - int(now.read()))
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY:
        left.append(limit - int(peak_mb() * (1 << 20)))
    return max(min(left, default=PACK_ROOM), 0)


def failure(error: BaseException, stage: str) -> dict[str, Any]:
    """Return what the parent needs to tell the cause: the first exception of the chain."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    return {
        "stage": stage,
        "type": type(root).__name__,
        "message": str(root)[:2000].encode(errors="replace").decode(),
        "name": str(getattr(root, "name", None) or ""),
        "trace": traceback.format_exc()[-4000:],
        "python": sys.version.split()[0],
        "peak_mb": peak_mb(),
    }


class Told:
    """Writes tracebacks of failed requests to the log, so many a minute: clients must not be able to fill the disk."""

    def __init__(self) -> None:
        self.since, self.written, self.kept_back = 0.0, 0, 0

    def tell(self) -> None:
        """Write the traceback of the exception at hand, or count it."""
        now = time.monotonic()
        if now - self.since >= 60.0:
            if self.kept_back:
                print(f"{self.kept_back} more requests failed and are not shown.", file=sys.stderr)
            self.since, self.written, self.kept_back = now, 0, 0
        if self.written < TRACEBACKS:
            self.written += 1
            traceback.print_exc()
        else:
            self.kept_back += 1


told = Told()


def answer_one(connection: socket.socket, model: Model) -> bool:
    """Read one frame and answer it; False where the peer has gone."""
    frame = receive(connection)
    if frame is None:
        return False
    header, view = frame
    if header["kind"] == "listen":
        raise Listen(header["id"])
    reply: dict[str, Any] = {"id": header["id"]}
    buffers: list[bytes] = []
    outputs = ""
    start = time.perf_counter()
    try:
        named = unpack(header["blocks"], view)
        batch = Batch(header["rows"], header["container"], named, header.get("order") or [], header.get("params") or {})
        if header["kind"] == "warm":
            reply["warm"] = model.warm(batch, header.get("kept"))
        else:
            model.spread(alone=header.get("alone", False))
            answer = model.predict(batch)
            blocks, buffers = pack(answer.named)
            outputs = described(answer.container, blocks)
    except Exception as error:  # noqa: BLE001 - the model's own failure is an answer; the process goes on
        told.tell()
        reply["error"] = failure(error, header["kind"])
    ms = reply["ms"] = round((time.perf_counter() - start) * 1000, 3)
    send(connection, f'{{"id":{header["id"]},"ms":{ms},{outputs}}}' if outputs else reply, buffers)
    return True


def serve(control: socket.socket, address: str, model: Model) -> None:
    """Answer the frames of all connections in turn, until the parent closes `control`."""
    poll = select.poll()
    connections: dict[int, socket.socket] = {}
    listener: socket.socket | None = None

    def watch(connection: socket.socket) -> None:
        connections[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)

    watch(control)
    while True:
        for file, _ in poll.poll():
            connection = connections[file]
            if connection is listener:
                # The greeting tells a front that a living process took it in, not the socket of one that just died.
                accepted, _ = connection.accept()
                with contextlib.suppress(ConnectionError):
                    send(accepted, {"ready": True})
                    watch(accepted)
                continue
            try:
                is_there = answer_one(connection, model)
            except Listen as asked:
                listener, is_there = listen(address), True
                watch(listener)
                send(control, {"id": asked.args[0]})
            except ConnectionError:
                is_there = False
            if not is_there:
                poll.unregister(connection)
                del connections[file]
                connection.close()
                if connection is control:
                    return


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent dies; elsewhere the closed socket does it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # It was gone before.
        os._exit(0)


def limit(memory: int, cores: str) -> None:
    """Hold this process to so many bytes and to these cores.

    What the kernel counts as data (of torch and mlflow: about what is resident) fails to be allocated beyond the limit,
    so that one request fails with the cause where a killed worker would fail all. macOS knows neither limit.
    """
    if memory:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, most))
    if cores and sys.platform == "linux":
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def listen(path: str) -> socket.socket:
    """Return a listening Unix socket; `path` is relative to the run folder, so its length never matters."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    return listener


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve one model over sockets that the parent knows.")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--listen", default="")
    parser.add_argument("--model", required=True)
    parser.add_argument("--pt2", default="")
    parser.add_argument("--seal", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--cores", default="")
    options = parser.parse_args()
    faulthandler.enable()  # A crash in native code, or SIGABRT from a parent that waited too long, says where it was.
    die_with_parent(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=options.control_fd)
    start = time.perf_counter()
    try:
        limit(options.memory, options.cores)
        model = load(options)
    except BaseException as error:  # noqa: BLE001 - SystemExit included: the parent must hear of it
        traceback.print_exc()
        send(control, {"error": failure(error, "seal" if isinstance(error, SealBroken) else "load")})
        sys.exit(3)
    # What is loaded stays: the collector need not look at it again and again while requests wait.
    gc.collect()
    gc.freeze()
    send(control, {"ready": True, "load_s": round(time.perf_counter() - start, 3), "peak_mb": peak_mb()})
    with contextlib.suppress(ConnectionError):
        serve(control, options.listen, model)
    os._exit(0)


if __name__ == "__main__":
    main()
