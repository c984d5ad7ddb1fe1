"""Ask an endpoint for the classes of texts, once for each form of request that can carry a string.

An asker takes texts and gives a row for each: its label, and a probability for each class.
"""

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import httpx

Row = dict[str, Any]
Ask = Callable[[httpx.Client, Sequence[str]], list[Row]]
MODEL = "news-classifier"
JSON = "application/json"
#: Where a binary tensor begins, in requests and answers.
HEADER = "inference-header-content-length"
LENGTH = struct.Struct("<I")


def dataframe_split(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    return _invoke(client, {"dataframe_split": {"columns": ["text"], "data": [[text] for text in texts]}})


def dataframe_records(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    return _invoke(client, {"dataframe_records": [{"text": text} for text in texts]})


def inputs(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    return _invoke(client, {"inputs": {"text": list(texts)}})


def instances(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    return _invoke(client, {"instances": [{"text": text} for text in texts]})


def csv(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    return _rows(_post(client, "/invocations", "\n".join(["text", *quoted]).encode(), {"content-type": "text/csv"}))


def v2_json(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}
    answer = _post(client, f"/v2/models/{MODEL}/infer", _encode({"inputs": [tensor]}), {"content-type": JSON})
    return _transposed({output["name"]: output["data"] for output in answer.json()["outputs"]})


def v2_binary(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    """The binary extension in both directions: each string is its length in four bytes, then itself."""
    parts = [text.encode() for text in texts]
    raw = b"".join(LENGTH.pack(len(part)) + part for part in parts)
    tensor = {
        "name": "text", "datatype": "BYTES", "shape": [len(texts)], "parameters": {"binary_data_size": len(raw)}
    }  # fmt: skip
    head = _encode({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = {"content-type": "application/octet-stream", HEADER: str(len(head))}
    answer = _post(client, f"/v2/models/{MODEL}/infer", head + raw, headers)
    at = int(answer.headers[HEADER])
    columns = {}
    for output in json.loads(answer.content[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        columns[output["name"]] = _unpacked(answer.content[at : at + size], output["datatype"])
        at += size
    return _transposed(columns)


def torchserve_json(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    rows = [{"text": text} for text in texts]
    return _rows(_post(client, f"/predictions/{MODEL}", _encode(rows), {"content-type": JSON}))


def torchserve_text(client: httpx.Client, texts: Sequence[str]) -> list[Row]:
    """A plain text is one row: there is no form for many."""
    plain = {"content-type": "text/plain; charset=utf-8"}
    return [_post(client, f"/predictions/{MODEL}", text.encode(), plain).json() for text in texts]


ASKERS: tuple[Ask, ...] = (
    dataframe_split, dataframe_records, inputs, instances, csv, v2_json, v2_binary, torchserve_json, torchserve_text,
)  # fmt: skip


def _invoke(client: httpx.Client, document: Any) -> list[Row]:
    return _rows(_post(client, "/invocations", _encode(document), {"content-type": JSON}))


def _post(client: httpx.Client, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    answer = client.post(path, content=body, headers=headers)
    if answer.status_code != 200:
        raise ValueError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
    return answer


def _encode(document: Any) -> bytes:
    return json.dumps(document).encode()


def _rows(answer: httpx.Response) -> list[Row]:
    document = answer.json()
    return list(document["predictions"] if isinstance(document, dict) else document)


def _transposed(columns: dict[str, list[Any]]) -> list[Row]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _unpacked(raw: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        return [value for (value,) in struct.iter_unpack({"FP64": "<d", "FP32": "<f"}[datatype], raw)]
    found, at = [], 0
    while at < len(raw):
        (size,) = LENGTH.unpack_from(raw, at)
        found.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return found
