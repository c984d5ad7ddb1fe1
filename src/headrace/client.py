"""Scoring over HTTP as any client could: arrays in, arrays out. For deploying, accepting, and the command line.

Not a part of serving: it knows the public protocol only.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from headrace.errors import InvalidInput, Unavailable
from headrace.types import UNNAMED, Arrays, Json, Signature

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer of an endpoint.

    Attributes:
        outputs: by output name; columns of a table by theirs.
        ids: the prediction id of each row.
        version: the version that answered; 0 where the endpoint does not say.
    """

    outputs: Arrays
    ids: Sequence[str]
    version: int


class Scorer:
    """A connection to one endpoint. Safe to use from one thread; close it or use it in a `with`.

    Raises from its methods:
        Unavailable: the endpoint does not answer, or answers with a 5xx.
        InvalidInput: it refuses the rows.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, headers: Mapping[str, str] | None = None) -> None:
        self.url = url.rstrip("/")
        # Proxies are for other machines; an endpoint on loopback is reached directly.
        self._client = httpx.Client(timeout=timeout_s, trust_env=False, headers=dict(headers or {}))

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def score(self, signature: Signature | None, inputs: Arrays, *, headers: Mapping[str, str] | None = None) -> Scored:
        """Return the answers for rows given as arrays by field name."""
        answer = self.post("/invocations", document_of(signature, inputs), headers=headers)
        document = answer.json()
        version = answer.headers.get("x-headrace-version", "0")
        return Scored(outputs_of(document["predictions"]), document.get("prediction_ids", ()), int(version))

    def feedback(self, actuals: Sequence[tuple[str, Json]]) -> int:
        """Send truths as (prediction id, value), and return how many were accepted."""
        listed: list[Json] = [{"prediction_id": one, "actual": value} for one, value in actuals]
        return int(self.post("/feedback", {"actuals": listed}).json()["accepted"])

    def is_ready(self) -> bool:
        """Tell whether the endpoint says that it is well."""
        try:
            return self._client.get(f"{self.url}/ping").status_code == 200
        except httpx.HTTPError:
            return False

    def post(self, path: str, document: Json, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Post a JSON document, and return a good answer."""
        try:
            answer = self._client.post(f"{self.url}{path}", json=document, headers=dict(headers or {}))
        except httpx.HTTPError as cause:
            raise Unavailable(
                f"{self.url} does not answer: {type(cause).__name__}.", "See `headrace status` and the endpoint's log."
            ) from cause
        if answer.status_code >= 500:
            raise Unavailable(f"{self.url}{path} answered {answer.status_code}: {_message(answer)}")
        if answer.status_code >= 400:
            raise InvalidInput(f"{self.url}{path} refused the rows ({answer.status_code}): {_message(answer)}")
        return answer


def document_of(signature: Signature | None, inputs: Arrays) -> Json:
    """Return arrays as a scoring document: `dataframe_split` for columns, `inputs` for tensors."""
    if signature is None or not signature.is_tabular:
        if len(inputs) == 1 and UNNAMED in inputs:
            return {"inputs": listed(inputs[UNNAMED])}
        return {"inputs": {name: listed(values) for name, values in inputs.items()}}
    columns = [listed(values) for values in inputs.values()]
    rows: list[Json] = [list(row) for row in zip(*columns, strict=True)]
    return {"dataframe_split": {"columns": list(inputs), "data": rows}}


def listed(values: "np.ndarray[Any, Any]") -> list[Json]:
    """Return an array as JSON can say it: moments in ISO 8601, bytes as base64."""
    import numpy as np

    if values.dtype.kind == "M":
        texts: list[Json] = np.datetime_as_string(values.astype("datetime64[us]")).tolist()
        return texts
    found: list[Json] = [_plain(value) for value in values.tolist()] if values.dtype == object else values.tolist()
    return found


def outputs_of(predictions: Any) -> Arrays:
    """Return what stands under `predictions` as arrays: records by column, a table by name, lists unnamed."""
    import numpy as np

    if isinstance(predictions, dict):
        return {name: np.asarray(values) for name, values in predictions.items()}
    if isinstance(predictions, list) and predictions and isinstance(predictions[0], dict):
        return {name: np.asarray([row[name] for row in predictions]) for name in predictions[0]}
    return {UNNAMED: np.asarray(predictions)}


def _plain(value: Any) -> Json:
    plain: Json = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return plain


def _message(answer: httpx.Response) -> str:
    try:
        document = answer.json()
        return str(document.get("message") or document.get("error") or answer.text)[:300]
    except ValueError:
        return answer.text[:300]
