"""Frames between headrace and its worker children; the child's own half is in `worker_child`, with the format."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from headrace.serving.layout import Block, Rows
from headrace.types import Arrays, Json

PREFIX = struct.Struct("<II")
ALIGN = 64
_encode = msgspec.json.Encoder().encode


class Failure(msgspec.Struct):
    """What a child says of an exception: the first of its chain."""

    stage: str
    type: str
    message: str
    name: str = ""
    trace: str = ""
    python: str = ""
    peak_mb: float = 0.0


class Kept(msgspec.Struct):
    """What a worker found to be quicker; the version's others do the same.

    Attributes:
        packed: linear layers go by packed weights.
        threads: how many a batch has beside busy workers, and alone; None where PyTorch keeps those that it began with.
    """

    packed: bool
    threads: tuple[int, int] | None


class Warmth(msgspec.Struct):
    """What a warm-up found out.

    Attributes:
        by_row: one answer for each row; otherwise requests are never joined.
        fixed_rows: the only batch size that the graph takes; 0 where it takes any.
        forward_ms: the best of a few, by number of rows.
        kept: None from a worker of an older image.
    """

    by_row: bool
    fixed_rows: int
    forward_ms: dict[str, float]
    peak_mb: float
    kept: Kept | None = None


class Reply(msgspec.Struct):
    """The header of a child's frame."""

    id: int = 0
    ready: bool = False
    load_s: float = 0.0
    peak_mb: float = 0.0
    ms: float = 0.0
    container: str = "array"
    blocks: list[tuple[str, str, list[int], int]] = []
    warm: Warmth | None = None
    error: Failure | None = None


decode_reply = msgspec.json.Decoder(Reply).decode


@dataclass(slots=True)
class Outputs:
    """A model's answers for a batch, the first axis being rows.

    Attributes:
        container: `array`, `dict` or `frame`; `value` for one JSON text about the whole batch.
    """

    container: str
    named: list[tuple[str, "np.ndarray[Any, Any]"]]

    def as_arrays(self) -> Arrays:
        """Return the answers by name; texts get a text dtype, so that they can be kept without pickle."""
        return {name: _plain(values) for name, values in self.named}


def request(
    sequence: int,
    kind: str,
    batch: Sequence[Rows],
    params: Mapping[str, Json] | None = None,
    *,
    alone: bool = False,
    kept: Kept | None = None,
) -> bytes:
    """Return the frame that asks for the rows of `batch`, which have one layout and equal shapes.

    `alone` says that no other worker of the version is busy, so that this one may use their cores; `kept` spares a
    worker that is warmed up its own trials.
    """
    layout = batch[0].layout
    count = sum([rows.count for rows in batch])
    blocks: list[Any] = []
    body: list[bytes] = []
    for place, block in enumerate(layout.blocks):
        content = _joined(block, [rows.parts[place] for rows in batch])
        shape = (count, *batch[0].shapes[place])
        blocks.append((block.columns or block.name, block.dtype, shape, len(content)))
        body += (content, bytes(-len(content) % 8))
    header: dict[str, Any] = {
        "id": sequence,
        "kind": kind,
        "rows": count,
        "container": layout.container,
        "blocks": blocks,
    }
    if layout.order:
        header["order"] = layout.order
    if params:
        header["params"] = params
    if alone:
        header["alone"] = True
    if kept:
        header["kept"] = kept
    return _frame(header, body)


def command(sequence: int, kind: str) -> bytes:
    """Return a frame without rows."""
    return _frame({"id": sequence, "kind": kind}, ())


def _frame(header: Mapping[str, Any], body: Sequence[bytes]) -> bytes:
    text = _encode(header)
    text += b" " * (-(PREFIX.size + len(text)) % ALIGN)
    length = 4 + len(text) + sum(map(len, body))
    return b"".join((PREFIX.pack(length, len(text)), text, *body))


def outputs(reply: Reply, view: memoryview) -> Outputs:
    """Return the arrays of a child's answer; they share memory with `view`."""
    named: list[tuple[str, np.ndarray[Any, Any]]] = []
    at = 0
    for name, dtype, shape, size in reply.blocks:
        piece = view[at : at + size]
        at += size + (-size % 8)
        if dtype == "json":
            listed = msgspec.json.decode(piece)
            values = np.empty(len(listed), object)
            values[:] = listed
        else:
            values = np.frombuffer(piece, dtype)
        named.append((name, values.reshape(shape)))
    return Outputs(reply.container, named)


def _joined(block: Block, parts: Sequence[Any]) -> bytes:
    if not block.is_listed:
        return b"".join(parts) if len(parts) > 1 else parts[0]
    values = list(chain.from_iterable(parts)) if len(parts) > 1 else parts[0]
    if block.dtype == "base64":
        values = [base64.b64encode(value).decode() if isinstance(value, bytes) else value for value in values]
    return _encode(values)


def _plain(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    if values.dtype != object:
        return values
    listed = values.tolist()
    if values.ndim == 1 and all(isinstance(value, str) for value in listed):
        return np.array(listed, dtype=str)
    if values.ndim == 1 and listed and all(isinstance(value, list) for value in listed):
        try:
            return np.array(listed)
        except ValueError:  # Ragged: it stays an array of lists.
            return values
    return values
