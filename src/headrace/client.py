"""Scoring over HTTP as any client could: arrays in, arrays out. For deploying, accepting, and the command line.

Not a part of serving: it knows the public protocol only.
"""

import base64
import math
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

    def score(
        self,
        signature: Signature | None,
        inputs: Arrays,
        *,
        path: str = "/invocations",
        like: "Arrays | None" = None,
        headers: Mapping[str, str] | None = None,
    ) -> Scored:
        """Return the answers for rows given as arrays by field name, in the dtypes of `like` where they fit."""
        answer = self.post(path, document_of(signature, inputs), headers=headers)
        try:
            document = answer.json()
            predictions = document["predictions"]
        except (ValueError, KeyError, TypeError) as cause:
            raise Unavailable(f"{self.url}{path} answered something else than predictions.") from cause
        version = answer.headers.get("x-headrace-version", "0")
        return Scored(outputs_of(predictions, like), document.get("prediction_ids", ()), int(version))

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


def bearer(names: Sequence[str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that let a request in, with the first key that is set.

    Args:
        names: the variables that hold the endpoint's keys; none where it asks for no key.

    Raises:
        InvalidInput: it asks for a key, and none is set.
    """
    if not names:
        return {}
    key = next((variables[name] for name in names if variables.get(name)), "")
    if not key:
        raise InvalidInput(
            f"The endpoint asks for a key, and {' or '.join(names)} is not set.", f"export {names[0]}=<the key>"
        )
    return {"authorization": f"Bearer {key}"}


def document_of(signature: Signature | None, inputs: Arrays) -> Json:
    """Return arrays as a scoring document: `dataframe_split` for columns, `inputs` for tensors.

    A missing value (NaN, NaT, None) is a null, which only optional columns may hold.

    Raises:
        InvalidInput: a value is missing where there must be one, or is infinite.
    """
    if signature is None or not signature.is_tabular:
        if len(inputs) == 1 and UNNAMED in inputs:
            return {"inputs": listed(inputs[UNNAMED])}
        return {"inputs": {name: listed(values, name) for name, values in inputs.items()}}
    optional = {field.name for field in signature.inputs if not field.required}
    columns = [listed(values, name, may_lack=name in optional) for name, values in inputs.items()]
    rows: list[Json] = [list(row) for row in zip(*columns, strict=True)]
    return {"dataframe_split": {"columns": list(inputs), "data": rows}}


def listed(values: "np.ndarray[Any, Any]", name: str = UNNAMED, *, may_lack: bool = False) -> list[Json]:
    """Return an array as JSON can say it: moments in ISO 8601, bytes as base64, what is missing as null.

    Raises:
        InvalidInput: a value is missing and may not, or is infinite.
    """
    import numpy as np

    if values.dtype.kind in "biuU":
        known: list[Json] = values.tolist()
        return known
    plain = np.empty(values.size, object)
    if values.dtype.kind == "M":
        plain[:] = np.datetime_as_string(values.astype("datetime64[us]")).ravel()
        plain[np.isnat(values).ravel()] = None
    else:
        for place, value in enumerate(values.ravel().tolist()):
            plain[place] = plain_value(value)
    lacking = next((place for place, value in enumerate(plain) if value is None), None)
    if lacking is not None and not may_lack:
        where = f"`{name}`" if name else "the input"
        raise InvalidInput(
            f"Row {lacking * len(values) // values.size} of {where} has no value, and the model requires one.",
            "Fill it in, leave the row out, or train with such rows so that the signature says that it may be missing.",
        )
    found: list[Json] = plain.reshape(values.shape).tolist()
    return found


def plain_value(value: Any) -> Json:
    """Return one value as JSON can say it; None where it is missing. Raises InvalidInput for an infinite number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and math.isinf(value):
        raise InvalidInput("A number is infinite, which JSON cannot say.", "Leave the row out.")
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(name): plain_value(one) for name, one in value.items()}
    return _plain_object(value)


def _plain_object(value: Any) -> Json:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain_value(one) for one in value]
    text = str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
    return None if text == "NaT" else text


def outputs_of(predictions: Any, like: "Arrays | None" = None) -> Arrays:
    """Return what stands under `predictions` as arrays: records by column, a table by name, lists unnamed.

    Args:
        like: what is expected; moments and numbers with a fraction come in its dtypes, a null being NaN or NaT.
    """
    expected = like or {}
    if isinstance(predictions, dict):
        found = predictions
    elif isinstance(predictions, list) and predictions and isinstance(predictions[0], dict):
        names = list(predictions[0])
        found = {name: [row.get(name) if isinstance(row, dict) else None for row in predictions] for name in names}
    else:
        # Some servers leave the name of the only output out.
        name = next(iter(expected)) if len(expected) == 1 else UNNAMED
        found = {name: predictions if isinstance(predictions, list) else [predictions]}
    return {name: _typed(values, expected.get(name)) for name, values in found.items()}


def _typed(values: Any, like: "np.ndarray[Any, Any] | None") -> "np.ndarray[Any, Any]":
    import numpy as np

    try:
        # Whole numbers stay as they come: a fraction that was not expected must be seen.
        return np.array(values, dtype=like.dtype if like is not None and like.dtype.kind in "fM" else None)
    except (TypeError, ValueError):  # Text among the numbers, or lists of several lengths.
        ragged = np.empty(len(values), object)
        for place, value in enumerate(values):
            ragged[place] = value
        return ragged


def _message(answer: httpx.Response) -> str:
    try:
        document = answer.json()
        return str(document.get("message") or document.get("error") or answer.text)[:300]
    except ValueError:
        return answer.text[:300]
