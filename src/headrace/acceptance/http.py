"""Acceptance: the real dev deployment, asked over HTTP as its users will ask it.

Golden answers first, then a load of single rows from several clients, then input that must be refused with a 4xx.
"""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from headrace.config.component import Acceptance
from headrace.provenance import golden as golden_answers
from headrace.types import Arrays, Golden, Json, Signature, Verdict

TIMEOUT_S = 30.0
BAD_BODIES = (b"{", b"[]", b'{"inputs": "\xff"}', b'{"no such form": 1}')


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried, and how it went, in one plain sentence."""

    check: str
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What acceptance found; it passes where every finding does."""

    findings: Sequence[Finding]

    @property
    def verdict(self) -> Verdict:
        return Verdict.PASS if all(one.verdict is Verdict.PASS for one in self.findings) else Verdict.FAIL


def accept(url: str, golden: Golden, wanted: Acceptance, signature: Signature) -> Accepted:
    """Return what an endpoint does with golden rows, with load, and with bad input.

    Args:
        url: of the endpoint, without a path.
        golden: inputs of shape (rows, …) with the answers that were recorded at training time.
        wanted: how many requests, from how many clients, how fast.
        signature: says whether rows travel as columns of a table or as tensors.
    """
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        answered = check_golden(client, golden, signature)
        if answered.verdict is not Verdict.PASS:
            return Accepted([answered])
        return Accepted([answered, check_load(url, golden, wanted, signature), check_refusals(client)])


def body_of(inputs: Arrays, signature: Signature, rows: slice) -> bytes:
    """Return a scoring request with some rows of `inputs`."""
    if signature.is_tabular:
        columns = {name: plain(values[rows]) for name, values in inputs.items()}
        data = [list(row) for row in zip(*columns.values(), strict=True)]
        return json.dumps({"dataframe_split": {"columns": list(columns), "data": data}}).encode()
    tensors = {name: plain(values[rows]) for name, values in inputs.items()}
    return json.dumps({"inputs": next(iter(tensors.values())) if len(tensors) == 1 else tensors}).encode()


def plain(values: "np.ndarray[Any, Any]") -> list[Any]:
    """Return an array as JSON can say it."""
    as_text = values.astype(str) if values.dtype.kind == "M" else values
    listed: list[Any] = as_text.tolist()
    return listed


def check_golden(client: httpx.Client, golden: Golden, signature: Signature) -> Finding:
    """Ask for all golden rows at once, and for the first one alone."""
    total = len(next(iter(golden.inputs.values())))
    for rows in (slice(0, total), slice(0, 1)):
        answer = post(client, body_of(golden.inputs, signature, rows))
        if answer.status_code != httpx.codes.OK:
            return Finding(
                "golden", Verdict.FAIL, f"Golden rows were answered with {answer.status_code}: {answer.text[:300]}"
            )
        part = Golden({}, {name: values[rows] for name, values in golden.outputs.items()}, golden.tolerance)
        difference = golden_answers.compare(part, outputs_of(answer.json().get("predictions"), part.outputs))
        if difference:
            return Finding("golden", Verdict.FAIL, f"Golden answers differ over HTTP: {difference}.")
    return Finding("golden", Verdict.PASS, f"{total} golden answers match, together and alone")


def outputs_of(predictions: Json, like: Arrays) -> Arrays:
    """Return a scoring answer's predictions as arrays named and typed as the golden ones."""
    if isinstance(predictions, list) and predictions and isinstance(predictions[0], dict):
        names = list(predictions[0])
        found = {name: [row.get(name) if isinstance(row, dict) else None for row in predictions] for name in names}
    elif isinstance(predictions, dict):
        found = {name: values for name, values in predictions.items() if isinstance(values, list)}
    else:
        found = {next(iter(like), ""): predictions if isinstance(predictions, list) else [predictions]}
    return {name: typed(values, like.get(name)) for name, values in found.items()}


def typed(values: "list[Any]", like: "np.ndarray[Any, Any] | None") -> "np.ndarray[Any, Any]":
    """Return values in the dtype of the golden ones, where they fit."""
    if like is None or like.dtype == object:
        return np.array(values, dtype=object)
    try:
        return np.array(values, dtype=like.dtype)
    except (TypeError, ValueError):
        return np.array(values, dtype=object)


def check_load(url: str, golden: Golden, wanted: Acceptance, signature: Signature) -> Finding:
    """Send single rows from several clients at once and look at errors and at the slowest answers."""
    total = len(next(iter(golden.inputs.values())))
    bodies = [body_of(golden.inputs, signature, slice(row, row + 1)) for row in range(total)]
    clients = min(wanted.clients, wanted.requests)
    connected = threading.Barrier(clients)

    def one_client(number: int) -> list[tuple[int, float]]:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            post(client, bodies[0])
            connected.wait(TIMEOUT_S)
            return [timed(client, bodies[at % total]) for at in range(number, wanted.requests, clients)]

    with ThreadPoolExecutor(clients) as pool:
        results = [result for part in pool.map(one_client, range(clients)) for result in part]
    failed = [status for status, _ in results if status != httpx.codes.OK]
    p99_ms = float(np.percentile([seconds for _, seconds in results], 99)) * 1000
    if failed:
        return Finding(
            "load", Verdict.FAIL, f"{len(failed)} of {len(results)} requests failed, the first with {failed[0]}"
        )
    if wanted.p99_ms is not None and p99_ms > wanted.p99_ms:
        return Finding(
            "load", Verdict.FAIL,
            f"99 of 100 requests took up to {p99_ms:.0f} ms, and `acceptance.p99_ms` is {wanted.p99_ms:.0f}",
        )  # fmt: skip
    return Finding("load", Verdict.PASS, f"{len(results)} requests, none failed, p99 {p99_ms:.0f} ms")


def timed(client: httpx.Client, body: bytes) -> tuple[int, float]:
    """Return the status of a request (0 where there was no answer) and the seconds that it took."""
    began = time.perf_counter()
    try:
        status = post(client, body).status_code
    except httpx.HTTPError:
        status = 0
    return status, time.perf_counter() - began


def check_refusals(client: httpx.Client) -> Finding:
    """Send what nobody can answer; each must be refused by a 4xx."""
    for body in BAD_BODIES:
        status = post(client, body).status_code
        if not httpx.codes.is_client_error(status):
            return Finding(
                "bad input", Verdict.FAIL, f"Bad input ({body!r}) was answered with {status}, not with a 4xx"
            )
    return Finding("bad input", Verdict.PASS, f"{len(BAD_BODIES)} bad inputs refused with a 4xx")


def post(client: httpx.Client, body: bytes) -> httpx.Response:
    """Return the endpoint's answer to a scoring request."""
    return client.post("/invocations", content=body, headers={"content-type": "application/json"})
