"""Rows for people to label, in the shapes that labelling tools take: JSON lines, or a sheet whose last column is empty.

A filled-in sheet goes straight back with `headrace feedback NAME --file`.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from headrace.predictions.base import Joined, PredictionLog
from headrace.predictions.lots import is_to_be_labelled
from headrace.types import Json

_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Task:
    """One row with why it is here, and what else there is to say about it."""

    row: Joined
    reason: str
    more: Mapping[str, Json] = field(default_factory=dict)


def sampled(log: PredictionLog, component: str, rates: Mapping[int, float]) -> Iterator[Task]:
    """Yield the marked rows that have no label yet, oldest first.

    Args:
        rates: version to the share of its rows that is marked; versions that are not named have none.
    """
    after = ""
    while page := log.joined(component, after=after, limit=_PAGE):
        for row in page:
            rate = rates.get(row.prediction.version, 0.0)
            if not row.is_labelled and is_to_be_labelled(row.prediction.id, rate):
                yield Task(row, f"in the uniform sample of {rate:g}")
        after = page[-1].prediction.id


def as_lines(tasks: Iterable[Task]) -> str:
    """Return rows as JSON lines, the shape that labelling tools import: `data`, `predictions`, `meta`."""
    return "".join(json.dumps(_document(one), ensure_ascii=False) + "\n" for one in tasks)


def as_sheet(tasks: Iterable[Task]) -> str:
    """Return rows as CSV: id, inputs, the model's answer, why, and an empty `actual`."""
    listed = list(tasks)
    names = list(dict.fromkeys(name for one in listed for name in one.row.prediction.inputs))
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    sheet.writerow(["prediction_id", *(f"in_{name}" for name in names), "answer", "reason", "actual"])
    for one in listed:
        prediction = one.row.prediction
        inputs = [_cell(prediction.inputs.get(name)) for name in names]
        sheet.writerow([prediction.id, *inputs, _cell(prediction.output), one.reason, ""])
    return text.getvalue()


def _document(one: Task) -> dict[str, Json]:
    prediction = one.row.prediction
    return {
        "data": {"prediction_id": prediction.id, **dict(prediction.inputs)},
        "predictions": [
            {"model_version": f"{prediction.component} v{prediction.version}", "result": prediction.output}
        ],
        "meta": {"reason": one.reason, **one.more, "actual": one.row.actual},
    }


def _cell(value: Json) -> Json:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
