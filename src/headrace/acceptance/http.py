"""Acceptance: the real dev deployment, asked over HTTP as its users will ask it.

Golden answers first, then a load of single rows from several clients, then input that must be refused with a 4xx.
"""

import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np

from headrace.client import Scorer, document_of
from headrace.config.component import Acceptance
from headrace.errors import HeadraceError
from headrace.provenance import golden as golden_answers
from headrace.types import Arrays, Golden, Signature, Verdict

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


def accept(
    url: str, golden: Golden, wanted: Acceptance, signature: Signature, *, headers: Mapping[str, str] | None = None
) -> Accepted:
    """Return what an endpoint does with golden rows, with load, and with bad input.

    Args:
        url: of the endpoint, without a path.
        golden: inputs of shape (rows, …) with the answers that were recorded at training time.
        wanted: how many requests, from how many clients, how fast.
        signature: says whether rows travel as columns of a table or as tensors.
        headers: go with every request, such as an endpoint's key.
    """
    answered = check_golden(url, golden, signature, headers)
    if answered.verdict is not Verdict.PASS:
        return Accepted([answered])
    return Accepted([answered, check_load(url, golden, wanted, signature, headers), check_refusals(url, headers)])


def check_golden(url: str, golden: Golden, signature: Signature, headers: Mapping[str, str] | None = None) -> Finding:
    """Ask for all golden rows, and for the first one alone."""
    total = len(next(iter(golden.inputs.values())))
    with Scorer(url, timeout_s=TIMEOUT_S, headers=headers) as scorer:

        def ask(inputs: Arrays) -> Arrays:
            return scorer.score(signature, inputs, like=golden.outputs).outputs

        for part in (golden, golden_answers.first_rows(golden, 1)):
            try:
                difference = golden_answers.difference(part, ask)
            except HeadraceError as error:
                return Finding("golden", Verdict.FAIL, f"Golden rows were not answered: {error.fact}")
            if difference:
                return Finding("golden", Verdict.FAIL, f"Golden answers differ over HTTP: {difference}.")
    return Finding("golden", Verdict.PASS, f"{total} golden answers match, together and alone")


def check_load(
    url: str, golden: Golden, wanted: Acceptance, signature: Signature, headers: Mapping[str, str] | None = None
) -> Finding:
    """Send single rows from several clients at once and look at errors and at the slowest answers."""
    total = len(next(iter(golden.inputs.values())))
    rows = [{name: values[row : row + 1] for name, values in golden.inputs.items()} for row in range(total)]
    bodies = [json.dumps(document_of(signature, one)).encode() for one in rows]
    clients = min(wanted.clients, wanted.requests)
    connected = threading.Barrier(clients)

    def one_client(number: int) -> list[tuple[int, float]]:
        found: list[tuple[int, float]] = []
        with connect(url, headers) as client:
            timed(client, bodies[0])
            # One that stands still must not hold up the others for ever.
            with contextlib.suppress(threading.BrokenBarrierError):
                connected.wait(TIMEOUT_S)
            for at in range(number, wanted.requests, clients):
                found.append(timed(client, bodies[at % total]))
                if not found[-1][0]:
                    break
        return found

    with ThreadPoolExecutor(clients) as pool:
        results = [result for part in pool.map(one_client, range(clients)) for result in part]
    failed = [status for status, _ in results if status != httpx.codes.OK]
    p99_ms = float(np.percentile([seconds for _, seconds in results], 99)) * 1000
    if failed:
        how = f"with {failed[0]}" if failed[0] else "without an answer"
        return Finding("load", Verdict.FAIL, f"{len(failed)} of {len(results)} requests failed, the first {how}")
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
        status = client.post("/invocations", content=body).status_code
    except httpx.HTTPError:
        status = 0
    return status, time.perf_counter() - began


def check_refusals(url: str, headers: Mapping[str, str] | None = None) -> Finding:
    """Send what nobody can answer; each must be refused by a 4xx."""
    with connect(url, headers) as client:
        for body in BAD_BODIES:
            status, _ = timed(client, body)
            if not httpx.codes.is_client_error(status):
                how = f"answered with {status}, not with a 4xx" if status else "not answered"
                return Finding("bad input", Verdict.FAIL, f"Bad input ({body!r}) was {how}")
    return Finding("bad input", Verdict.PASS, f"{len(BAD_BODIES)} bad inputs refused with a 4xx")


def connect(url: str, headers: Mapping[str, str] | None) -> httpx.Client:
    """Return a client for scoring requests."""
    return httpx.Client(
        base_url=url,
        timeout=TIMEOUT_S,
        trust_env=False,
        headers={"content-type": "application/json", **(headers or {})},
    )
