"""A given stream: what the watch says about rows that were never in the prediction log."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from headrace.config.component import Monitor
from headrace.evaluation.answers import read_outputs
from headrace.monitoring.embeddings import matrix_of
from headrace.monitoring.frame import Frame, is_usable, truths
from headrace.monitoring.judge import watch_frame
from headrace.monitoring.memory import Memory
from headrace.monitoring.replay import Replay, Seen, per_month
from headrace.monitoring.seasons import Seasons
from headrace.types import Arrays, Json

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """Rows in their order, with a model's answers.

    Attributes:
        inputs: by field name, as the model takes them; outputs: by output name, as it gave them.
        truth: one value per row, None where there is no label.
        moments: when each row was asked; empty where nobody knows.
    """

    inputs: Arrays
    outputs: Arrays
    truth: Sequence[Json]
    moments: Sequence[datetime] = field(default=())

    def __len__(self) -> int:
        return len(self.truth)


def replay_given(component: str, version: int, given: Given, known: Seasons, monitor: Monitor) -> Replay:
    """Return what the watch says about each full window of the rows, in turn. Windows are named by their rows."""
    memory, found = Memory(), []
    for start in range(0, len(given) - monitor.window + 1, monitor.window):
        part = slice(start, start + monitor.window)
        frame, moments = _frame(given, part, known), given.moments[part]
        watched = watch_frame(frame, known.overall, monitor, memory, version=version, season=known.at(moments))
        memory = watched.memory
        at = moments[-1].isoformat(timespec="seconds") if moments else frame.ids[-1]
        labelled = int(frame.labelled.sum())
        found.append(Seen(version, frame.ids[0], frame.ids[-1], at, len(frame), labelled, watched.alarm))
    monthly = per_month(found, monitor.false_alarms) if given.moments else 0.0
    return Replay(component, found, monitor.false_alarms, monthly)


def _frame(given: Given, part: slice, known: Seasons) -> Frame:
    usual, truth = known.overall, given.truth[part]
    labelled = np.array([is_usable(value, usual.task) for value in truth], bool)
    outputs = {name: values[part] for name, values in given.outputs.items()}
    classes = np.array(usual.classes) if usual.classes else None
    inputs = {name: _flat(values[part]) for name, values in given.inputs.items()}
    if usual.embedding is not None and usual.embedding in outputs:
        inputs[usual.embedding] = matrix_of(outputs[usual.embedding])
    return Frame(
        inputs,
        read_outputs(outputs, usual.task, classes=classes, ignored=usual.embedding),
        truths(truth, labelled, usual.task),
        labelled,
        seconds=np.array([one.timestamp() for one in given.moments[part]]),
        ids=[f"row {number + 1}" for number in range(part.start, part.start + len(truth))],
        useless=sum(value is not None for value in truth) - int(labelled.sum()),
    )


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1) if values.ndim > 2 else values
