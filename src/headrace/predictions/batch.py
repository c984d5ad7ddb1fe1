"""A batch of answered rows as the writer takes it and the journal keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec
import numpy as np

from headrace.predictions.depth import DEEPEST, first_too_deep
from headrace.types import Json, Prediction

#: One column of a batch: an array whose first axis is rows, or a list with one value per row.
Column: TypeAlias = "np.ndarray[Any, Any] | Sequence[Json]"
_ARRAY = 1
#: Longer than any header of an array.
_HEADER_BYTES = 1024
#: What MessagePack, Arrow and Parquet raise over values that they cannot hold; trouble with the disk is none of these.
UNFIT = (TypeError, ValueError, NotImplementedError, OverflowError)


class Batch(msgspec.Struct, array_like=True, gc=False):
    """Rows that were answered together.

    Attributes:
        ids: UUIDv7 as text, one per row.
        at: when they were asked for, seconds since 1970 in UTC.
        inputs: by field name; the unnamed tensor goes by `types.UNNAMED`.
        outputs: by output name; a single unnamed answer goes by `types.UNNAMED`.
        latency_ms: one for all rows, or one per row.
    """

    ids: Sequence[str]
    at: float
    version: int
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    latency_ms: float | list[float]
    shadow: bool = False


def encode(batches: Sequence[Batch]) -> bytes:
    """Return batches as one journal payload (MessagePack; numeric arrays as their raw bytes)."""
    return _ENCODER.encode(batches)


def encode_piece(batch: Batch) -> bytes:
    """Return one batch as `join` takes it. Raises what tells of values that cannot be kept (`UNFIT`)."""
    name = deep_column(batch)
    if name is not None:
        raise ValueError(f"`{name}` is nested deeper than {DEEPEST} levels")
    return _ENCODER.encode(batch)


def deep_column(batch: Batch) -> str | None:
    """Return the name of a column that is nested too deep to be kept; None where none is."""
    return first_too_deep((*batch.inputs.items(), *batch.outputs.items()))


def join(pieces: Sequence[bytes]) -> bytes:
    """Return encoded batches as one journal payload."""
    return _ENCODER.encode([msgspec.Raw(piece) for piece in pieces])


@dataclass(frozen=True, slots=True)
class Decoded:
    """The batches of some bytes, and how many bytes could not be read."""

    batches: list[Batch]
    damaged_bytes: int = 0


def decode(payload: bytes | memoryview) -> Decoded:
    """Return the batches of a journal payload; one that is none costs no other."""
    try:
        return Decoded(_DECODER.decode(payload))
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        pass
    try:
        raws = _PIECES.decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return Decoded([], len(payload))
    batches, damaged = [], 0
    for raw in raws:
        try:
            batches += _DECODER.decode(b"\x91" + bytes(raw))  # A list of one.
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            damaged += len(bytes(raw))
    return Decoded(batches, damaged)


def batch_of(prediction: Prediction) -> Batch:
    """Return a single answered row as a batch of one."""
    output = prediction.output
    outputs = {name: [value] for name, value in output.items()} if isinstance(output, dict) else {"": [output]}
    return Batch(
        [prediction.id],
        prediction.at.timestamp(),
        prediction.version,
        {name: [value] for name, value in prediction.inputs.items()},
        outputs,
        prediction.latency_ms,
        prediction.shadow,
    )


def moment(seconds: float) -> datetime:
    """Return seconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biufM":
            header = f"{value.dtype.str} {','.join(map(str, value.shape))}\n".encode()
            return msgspec.msgpack.Ext(_ARRAY, header + value.tobytes())
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"a {type(value).__name__} cannot be kept in the prediction log")


def _decode_array(code: int, raw: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension {code} in a prediction journal")
    # The journal's own bytes, which are many: they are not copied.
    head = bytes(raw[:_HEADER_BYTES]).partition(b"\n")[0]
    dtype, _, shape = head.decode().partition(" ")
    return np.frombuffer(raw[len(head) + 1 :], dtype).reshape([int(size) for size in shape.split(",")])


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_DECODER = msgspec.msgpack.Decoder(list[Batch], ext_hook=_decode_array)
_PIECES = msgspec.msgpack.Decoder(list[msgspec.Raw])
