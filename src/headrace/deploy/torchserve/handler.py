"""TorchServe's side of a headrace archive: the very worker code that the endpoint runs, behind TorchServe's `handle`.

Lies in the archive with `worker_child.py` (as `headrace_worker.py`), the model folder and `headrace.json`. It needs
what the model needs and nothing else. Requests are MLflow's scoring JSON; a bare JSON list is taken for `inputs`.
Those that TorchServe hands over together are predicted together, where the model answers row by row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import itertools
import json
import os
import sys
import types
from typing import Any

import headrace_worker as worker  # type: ignore[import-not-found]
import numpy as np

COLUMN_DTYPES = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64",
    "datetime": "datetime64[ns]",
}  # fmt: skip
OUTER_KEYS = ("inputs", "instances", "dataframe_split", "dataframe_records")


class WrongInput(Exception):
    """A request that cannot be right; its text goes to the client and holds nothing of the client's values."""


class StateDict:
    """Weights for a network that is written in a file of the archive; loaded with `weights_only`."""

    def __init__(self, folder: str, archive: dict[str, Any]) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(archive["threads"])
        module = importlib.import_module(archive["code"].removesuffix(".py"))
        networks = [
            found for _, found in inspect.getmembers(module, inspect.isclass)
            if issubclass(found, torch.nn.Module) and found.__module__ == module.__name__
        ]  # fmt: skip
        wanted = [found for found in networks if found.__name__ == archive["class"]] if archive["class"] else networks
        if len(wanted) != 1:
            names = ", ".join(found.__name__ for found in networks) or "none"
            raise ValueError(f"{archive['code']} must define one torch.nn.Module to load, or name it (it has: {names})")
        network: Any = wanted[0]()
        self.module = network
        weights = torch.load(os.path.join(folder, archive["weights"]), map_location="cpu", weights_only=True)
        self.module.load_state_dict(weights)
        self.module.eval()

    def prepare(self, example: Any) -> None:
        pass

    def predict(self, batch: Any) -> Any:
        with self.torch.inference_mode():
            answer = self.module(self.torch.from_numpy(np.ascontiguousarray(batch.named[0][1])))
        return worker.as_answer(answer)


class Loaded:
    """One worker's model with its signature.

    Attributes:
        by_row: warming up found that a row's answer is the same whatever its neighbours; only then are requests joined.
        most_rows: up to how many rows they are joined.
    """

    by_row = False

    def __init__(self, context: Any) -> None:
        self.most_rows: int = context.system_properties["batch_size"] or 1
        folder = context.system_properties["model_dir"]
        with open(os.path.join(folder, "headrace.json")) as file:
            self.archive = json.load(file)
        self.fields = self.archive["inputs"]
        if self.archive["kind"] == "state_dict":
            self.model = worker.Model(StateDict(folder, self.archive))
            return
        options = types.SimpleNamespace(
            model=os.path.join(folder, "model"), seal=self.archive["seal"], pt2=self.archive["pt2"],
            threads=self.archive["threads"],
        )  # fmt: skip
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true" if self.archive["allow_pickle"] else "false"
        self.model = worker.load(options)
        self._warm(folder)

    def _warm(self, folder: str) -> None:
        """Find out, with the model's own input example, which batch sizes its graph takes and if it answers by row."""
        if self.archive["example"]:
            with open(os.path.join(folder, "model", self.archive["example"]), "rb") as file:
                example = self._several(decode(file.read(), self.fields))
            self.by_row = self.model.warm(example)["by_row"] and example.rows > 1

    def _several(self, example: Any) -> Any:
        """Return an example of one row twice, unless the model takes no more: one alone tells nothing of neighbours."""
        if example.rows == 1:
            with contextlib.suppress(Exception):
                twice = example.cut(0, 2)
                if row_count(self.model.predict(twice)) == {2}:
                    return twice
        return example

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer every request of a batch; one that is wrong or fails does not touch the others."""
        answers: list[Any] = [None] * len(requests)
        batches: dict[int, Any] = {}
        for place, request in enumerate(requests):
            context.set_response_header(place, "X-Headrace-Version", str(self.archive["version"]))
            decoded = self._decoded(request, place, context)
            if isinstance(decoded, worker.Batch):
                batches[place] = decoded
            else:
                answers[place] = decoded
        is_joined = self.by_row and len(batches) > 1
        for places in joinable(batches, self.most_rows) if is_joined else [[place] for place in batches]:
            together = self._together([batches[place] for place in places]) if len(places) > 1 else []
            for place, answer in zip(places, together or [None] * len(places), strict=True):
                answers[place] = answer or self._answer(batches[place], place, context)
        return answers

    def _together(self, batches: list[Any]) -> list[Any]:
        """Answer several by one prediction; return nothing where it fails, as one of them alone may be to blame."""
        joined = join(batches)
        try:
            answer = self.model.predict(joined)
        except Exception:  # noqa: BLE001 - each goes again by itself, and who fails then is told
            return []
        if row_count(answer) != {joined.rows}:
            return []
        return [{"predictions": as_json(part)} for part in split(answer, [batch.rows for batch in batches])]

    def _answer(self, batch: Any, place: int, context: Any) -> Any:
        try:
            answer = self.model.predict(batch)
        except Exception as error:  # noqa: BLE001 - the model's own failure is an answer; the worker goes on
            print(f"predict failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            context.set_response_status(500, "Prediction failed", place)
            return {"error": f"the model failed on this request: {type(error).__name__}"}
        counts = row_count(answer)
        if self.by_row and counts != {batch.rows}:
            context.set_response_status(500, "Prediction failed", place)
            given = " and ".join(map(str, sorted(counts))) or "no"
            return {"error": f"the model gave {given} answers for {batch.rows} rows"}
        return {"predictions": as_json(answer)}

    def _decoded(self, request: dict[str, Any], place: int, context: Any) -> Any:
        try:
            return decode(request.get("body", request.get("data")), self.fields)
        except WrongInput as error:
            context.set_response_status(400, "Bad input", place)
            return {"error": str(error)}


_loaded: list[Loaded] = []


def handle(requests: list[dict[str, Any]] | None, context: Any) -> list[Any] | None:
    """What TorchServe calls: first with None, to load the model, then with batches of requests."""
    if requests is None:
        _loaded[:] = [Loaded(context)]
        return None
    return _loaded[0].handle(requests, context)


def decode(body: Any, fields: list[dict[str, Any]]) -> Any:
    """Return a request's rows as the worker takes them. Raises WrongInput."""
    document = parsed(body)
    params = document.pop("params", None) or {}
    keys = [key for key in OUTER_KEYS if key in document]
    if len(keys) != 1:
        raise WrongInput(f"the body must hold one of {', '.join(OUTER_KEYS)}")
    given = document[keys[0]]
    try:
        if fields and fields[0]["kind"] == "column":
            return frame(keys[0], given, fields, params)
        return tensors(given, fields, params)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        if isinstance(error, KeyError):
            raise WrongInput(f"the input `{error.args[0]}` is missing") from error
        raise WrongInput(f"`{keys[0]}` does not fit the model's signature") from error


def parsed(body: Any) -> dict[str, Any]:
    if isinstance(body, bytes | bytearray):
        try:
            body = json.loads(body)
        except ValueError as error:
            raise WrongInput("the body is no JSON") from error
        except RecursionError as error:
            raise WrongInput("the body is nested too deeply") from error
    if isinstance(body, list):
        body = {"inputs": body}
    if not isinstance(body, dict):
        raise WrongInput("the body must be a JSON object")
    return dict(body)


def tensors(given: Any, fields: list[dict[str, Any]], params: dict[str, Any]) -> Any:
    if not isinstance(given, dict):
        given = {(fields[0]["name"] if fields else ""): given}
    fields = fields or [{"name": "", "dtype": "float64", "shape": []}]
    named = []
    for field in fields:
        values = np.asarray(given[field["name"]], dtype=field["dtype"])
        shape = field["shape"]
        if shape and not fits(shape, values.shape):
            raise WrongInput(f"input `{field['name']}` has shape {list(values.shape)}, the model takes {shape}")
        named.append((field["name"], values))
    rows = len(named[0][1])
    if not rows or any(len(values) != rows for _, values in named):
        raise WrongInput("the inputs must have the same number of rows, at least one")
    single = len(fields) == 1 and fields[0]["name"] == ""
    return worker.Batch(rows, "array" if single else "dict", named, [], params)


def fits(shape: list[int], found: tuple[int, ...]) -> bool:
    """Tell whether an array may be given where the signature has `shape`; the first axis is rows."""
    if len(shape) != len(found):
        return False
    return all(wanted in (-1, size) for wanted, size in zip(shape[1:], found[1:], strict=True))


def frame(key: str, given: Any, fields: list[dict[str, Any]], params: dict[str, Any]) -> Any:
    if key == "dataframe_split":
        columns = given["columns"]
        records = [dict(zip(columns, row, strict=True)) for row in given["data"]]
    elif isinstance(given, dict):
        names = list(given)
        records = [dict(zip(names, row, strict=True)) for row in zip(*given.values(), strict=True)]
    else:
        records = given
    if not records:
        raise WrongInput("there are no rows")
    by_dtype: dict[str, list[str]] = {}
    present = [field for field in fields if field["required"] or field["name"] in records[0]]
    for field in present:
        by_dtype.setdefault(COLUMN_DTYPES.get(field["dtype"], "object"), []).append(field["name"])
    named = []
    for dtype, names in by_dtype.items():
        block = np.empty((len(records), len(names)), dtype)
        for number, record in enumerate(records):
            for place, name in enumerate(names):
                block[number, place] = record[name]
        named.append((names, block))
    return worker.Batch(len(records), "frame", named, [field["name"] for field in present], params)


def joinable(batches: dict[int, Any], most_rows: int) -> list[list[int]]:
    """Return the places of requests that can be joined, up to so many rows; one that has more goes by itself."""
    groups: list[list[int]] = []
    last: dict[tuple[Any, ...], tuple[list[int], int]] = {}
    for place, batch in batches.items():
        key = likeness(batch)
        group, rows = last.get(key, ([], 0))
        if not group or rows + batch.rows > most_rows:
            group, rows = [], 0
            groups.append(group)
        group.append(place)
        last[key] = group, rows + batch.rows
    return groups


def likeness(batch: Any) -> tuple[Any, ...]:
    """Return what is the same for requests that can be joined."""
    blocks = tuple((str(name), values.dtype, values.shape[1:], value_types(values)) for name, values in batch.named)
    try:
        params = json.dumps(batch.params, sort_keys=True) if batch.params else ""
    except RecursionError:  # Nested as deep as JSON is read at all: no reason to fail the others.
        params = str(id(batch))
    return batch.container, tuple(batch.order), blocks, params


def value_types(values: Any) -> tuple[frozenset[type], ...]:
    """Return which types each column of objects holds: pandas chooses a column's dtype by all of its values."""
    if values.dtype.kind != "O":
        return ()
    return tuple(frozenset(map(type, column)) for column in values.reshape(len(values), -1).T)


def join(batches: list[Any]) -> Any:
    """Return the rows of requests that can be joined, as one batch."""
    columns = zip(*([values for _, values in batch.named] for batch in batches), strict=True)
    named = [(name, np.concatenate(column)) for (name, _), column in zip(batches[0].named, columns, strict=True)]
    return dataclasses.replace(batches[0], rows=sum(batch.rows for batch in batches), named=named)


def split(answer: Any, counts: list[int]) -> list[Any]:
    """Return the answers of requests with so many rows each."""
    ends = list(itertools.accumulate(counts))
    return [
        dataclasses.replace(answer, named=[(name, values[end - count : end]) for name, values in answer.named])
        for count, end in zip(counts, ends, strict=True)
    ]


def row_count(answer: Any) -> set[int]:
    """Return how many rows an answer's arrays have: one number, if it answers by row."""
    return {len(values) for _, values in answer.named}


def as_json(answer: Any) -> Any:
    """Return an answer as MLflow's scoring server would write it."""
    if answer.container == "value":
        return json.loads(answer.named[0][1][0])
    columns = {name: plain(values) for name, values in answer.named}
    if answer.container == "frame":
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return columns[""] if answer.container == "array" else columns


def plain(values: Any) -> Any:
    return json.loads(json.dumps(values.tolist(), default=str))
