"""The Open Inference Protocol (v2): metadata, readiness, and inference in JSON and in the binary extension."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.serving import tensors
from headrace.serving.answer import VERSION, named
from headrace.serving.batch import Part
from headrace.serving.generation import Served, is_number
from headrace.serving.layout import ANY_TENSOR, rows_of
from headrace.serving.rejection import UNFIT, Rejected, too_many_rows
from headrace.serving.scoring import Asked, decode_json
from headrace.types import UNNAMED, Field, FieldKind, Json

HEADER = "inference-header-content-length"
INPUT, OUTPUT = "input", "output"
encode = msgspec.json.Encoder().encode


class Tensor(msgspec.Struct):
    """One input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class Infer(msgspec.Struct):
    """A request."""

    inputs: list[Tensor]
    id: str = ""
    outputs: list[Wanted] = []
    parameters: dict[str, Any] = {}


decode_infer = msgspec.json.Decoder(Infer).decode


@dataclass(slots=True)
class Request:
    """A request, checked: what is asked, and how the answer should look."""

    asked: Asked
    id: str
    outputs: Mapping[str, bool]
    all_binary: bool


def server_metadata() -> Json:
    return {"name": "headrace", "version": VERSION, "extensions": ["binary_tensor_data"]}


def model_metadata(component: str, served: Served, versions: list[int]) -> Json:
    """Return what the model takes and gives."""
    signature = served.signature or ANY_TENSOR
    return {
        "name": component,
        "versions": [str(version) for version in versions],
        "platform": "mlflow",
        "inputs": [_described(field, INPUT) for field in signature.inputs],
        "outputs": [_described(field, OUTPUT) for field in signature.outputs],
    }


def _described(field: Field, default: str) -> Json:
    shape: list[Json] = list(tensors.shape_of(field))
    return {"name": field.name or default, "datatype": tensors.datatype_of(field), "shape": shape}


def read(served: Served, body: bytes, header_length: str) -> Request:
    """Return what a request asks for. Raises Rejected."""
    head, binary = body, b""
    if header_length:
        if not is_number(header_length) or int(header_length) > len(body):
            raise Rejected(UNFIT, f"The header `{HEADER}` is no length within the body.")
        head, binary = body[: int(header_length)], body[int(header_length) :]
    document = decode_json(decode_infer, head)
    signature = served.signature or ANY_TENSOR
    arrays = _arrays(document.inputs, signature.inputs, binary, served.scoring.most_rows)
    missing = [field.name or INPUT for field in signature.inputs if field.required and field.name not in arrays]
    if missing:
        raise Rejected(UNFIT, f"`$.inputs` lacks `{missing[0]}`, which the model requires.")
    lengths = {len(values) for values in arrays.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise Rejected(UNFIT, f"The inputs have {sorted(lengths)} rows; all need the same number, at least one.")
    wanted = {one.name: bool(one.parameters.get("binary_data")) for one in document.outputs}
    all_binary = bool(document.parameters.get("binary_data_output"))
    return Request(Asked(rows_of(signature, arrays)), document.id, wanted, all_binary)


def _arrays(given: list[Tensor], fields: tuple[Field, ...], binary: bytes, most_rows: int) -> dict[str, Any]:
    known = {field.name or INPUT: field for field in fields}
    is_only = len(fields) == 1 and len(given) == 1 and fields[0].kind is FieldKind.TENSOR
    arrays = {}
    at = 0
    for place, one in enumerate(given):
        # A single unnamed tensor answers to any name.
        field = fields[0] if is_only and fields[0].name == UNNAMED else known.get(one.name)
        where = f"$.inputs[{place}]"
        if field is None:
            raise Rejected(UNFIT, f"The model has no input like `{where}` (it has: {', '.join(list(known)[:20])}).")
        if field.name in arrays:
            raise Rejected(UNFIT, f"`{where}` repeats an input.")
        if one.datatype not in tensors.DATATYPES or not one.shape or any(size < 0 for size in one.shape):
            raise Rejected(UNFIT, f"`{where}` has a datatype or a shape that there is not.")
        tensors.check_shape(one.shape, field, where)
        if one.shape[0] > most_rows:
            raise too_many_rows(one.shape[0], most_rows)
        size = one.parameters.get("binary_data_size")
        if isinstance(size, int) and not isinstance(size, bool):
            if size < 0:
                raise Rejected(UNFIT, f"`{where}` has a negative `binary_data_size`.")
            values = tensors.from_bytes(binary[at : at + size], one.datatype, one.shape, where)
            at += size
        elif one.data is not msgspec.UNSET:
            values = tensors.from_json(bytes(one.data), one.datatype, one.shape, where)
        else:
            raise Rejected(UNFIT, f"`{where}` has neither `data` nor `binary_data_size`.")
        arrays[field.name] = tensors.fit(values, field, where)
    return arrays


def write(component: str, served: Served, request: Request, part: Part) -> tuple[str, bytes]:
    """Return headers and body of an answer. Raises Rejected for an output that the model does not have."""
    found = dict(named(part))
    unknown = [name for name in request.outputs if name not in found]
    if unknown:
        raise Rejected(
            UNFIT, f"`$.outputs` asks for an output that the model does not have (it has: {', '.join(found)})."
        )
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for name, values in found.items():
        if request.outputs and name not in request.outputs:
            continue
        one: dict[str, Any] = {"name": name, "shape": list(values.shape)}
        one["datatype"] = tensors.NAMES.get(str(values.dtype), "BYTES")
        if request.outputs.get(name, request.all_binary):
            binary.append(tensors.to_bytes(values))
            one["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            one["data"] = tensors.to_json(values)
        outputs.append(one)
    document: dict[str, Any] = {"model_name": component, "model_version": str(served.version), "outputs": outputs}
    document["parameters"] = {"prediction_ids": ",".join(part.ids)}
    if request.id:
        document["id"] = request.id
    head = encode(document)
    if not binary:
        return served.headers(part.ids), head
    kind = f"content-type: application/octet-stream\r\n{HEADER}: {len(head)}\r\n"
    return served.headers(part.ids, kind), b"".join((head, *binary))
