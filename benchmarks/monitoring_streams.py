"""The streams that the monitoring benchmark runs on: 30 mixed features, answers and truths; drift-free or shifted."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.evaluation.answers import Answers, probabilities
from headrace.monitoring.frame import Frame
from headrace.monitoring.reference import Reference, build
from headrace.types import Task

NUMBERS, NAMES = 20, 10
_NAMES = np.array(list("abcdefgh"))
_ODDS = np.cumsum([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])


@dataclass(frozen=True, slots=True)
class Shift:
    """What happens to a stream; the rows of the power tables are these, fixed before the first run."""

    name: str
    columns: int = 0
    move: float = 0.0
    stretch: float = 1.0
    names: float = 0.0


SHIFTS = (
    Shift("one column moves by 0.25 sd", columns=1, move=0.25),
    Shift("one column moves by 0.5 sd", columns=1, move=0.5),
    Shift("five columns move by 0.2 sd", columns=5, move=0.2),
    Shift("all columns move by 0.1 sd", columns=20, move=0.1),
    Shift("one column spreads by 1.4", columns=1, stretch=1.4),
    Shift("five columns spread by 1.25", columns=5, stretch=1.25),
    Shift("one column of names changes its mix", names=0.15),
)


def latent(chance: np.random.Generator, rows: int, memory: float) -> np.ndarray:
    """Return shape (rows, columns + 1), standard normal, each row repeating `memory` of the one before."""
    found = chance.standard_normal((rows, NUMBERS + NAMES + 1))
    if memory:
        from scipy.signal import lfilter

        found[1:] *= np.sqrt(1 - memory**2)
        found = lfilter([1.0], [1.0, -memory], found, axis=0)
    return found


def stream(chance: np.random.Generator, rows: int, *, memory: float = 0.0, shift: Shift | None = None) -> Frame:
    """Return a window: half of the numbers normal, half lognormal, names, and a classifier that is right in 86 %."""
    shift = shift or Shift("")
    raw = latent(chance, rows, memory)
    raw[:, : shift.columns] = raw[:, : shift.columns] * shift.stretch + shift.move
    return mixed(chance, raw, names=shift.names)


def mixed(chance: np.random.Generator, raw: np.ndarray, *, names: float = 0.0) -> Frame:
    """Return the window that some latent rows stand for; `names` is the share of a column of names that moves."""
    from scipy.special import ndtr

    rows = len(raw)
    inputs: dict[str, Any] = {f"n{at}": raw[:, at] if at % 2 == 0 else np.exp(raw[:, at]) for at in range(NUMBERS)}
    for at in range(NAMES):
        level = ndtr(raw[:, NUMBERS + at])
        codes = np.minimum(np.searchsorted(_ODDS, level), 7)
        if at == 0 and names:
            codes = np.where(chance.random(rows) < names, 3, codes)
        inputs[f"c{at}"] = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), pa.array(_NAMES)).cast(
            pa.string()
        )
    truth = chance.integers(0, 2, rows)
    margin = raw[:, -1] + 2.2
    scores = probabilities(np.stack([np.where(truth == 0, margin, 0.0), np.where(truth == 1, margin, 0.0)], axis=1))
    return Frame(inputs, Answers(scores.argmax(axis=1), scores, np.arange(2)), truth, np.ones(rows, bool))


def blocks(chance: np.random.Generator, rows: int, wanted: int, length: int) -> np.ndarray:
    """Return the places of `wanted` rows in blocks that follow each other in the stream (Kuensch 1989)."""
    starts = chance.integers(0, rows - length + 1, -(-wanted // length))
    return (starts[:, None] + np.arange(length)).ravel()[:wanted]


def reference_of(frame: Frame, *, in_time_order: bool = False) -> Reference:
    """Return the profile of a drift-free stream."""
    return build(frame.rows(), task=Task.CLASSIFICATION, inputs=frame.inputs, in_time_order=in_time_order)


@dataclass(frozen=True, slots=True)
class Real:
    """Real rows: electricity prices after their columns had switched on, in random order."""

    inputs: dict[str, Any]
    truth: np.ndarray
    scores: np.ndarray

    def window(self, rows: np.ndarray) -> Frame:
        """Return the named rows."""
        answers = Answers(self.scores[rows].argmax(axis=1), self.scores[rows], np.arange(2))
        given = {name: values.take(pa.array(rows)) if isinstance(values, pa.Array) else values[rows]
                 for name, values in self.inputs.items()}  # fmt: skip
        return Frame(given, answers, self.truth[rows], np.ones(len(rows), bool))


def real(path: Path) -> Real:
    """Return real rows with the answers of a logistic regression that was fitted to a third of them.

    30 features of each: six columns, each also half an hour and a day before, two differences, and ten names made of
    them (weekday, time of day, quarters of the market's levels, what the price did).
    """
    table = pq.read_table(path).slice(17_424)
    columns = {name: table[name].to_numpy() for name in table.column_names if name not in ("class", "date")}
    truth = table["class"].to_numpy().astype(int)
    features = _features(columns, truth)
    order = np.random.default_rng(0).permutation(np.arange(_DAY, len(truth)))
    matrix = np.stack([columns[name] for name in columns], axis=1)[order]
    fitted = len(order) // 3
    weights = logistic(matrix[:fitted], truth[order][:fitted])
    rest = order[fitted:]
    scores = probabilities((np.c_[matrix[fitted:], np.ones(len(rest))] @ weights)[:, None])
    taken = {
        name: pa.array(values[rest]) if values.dtype.kind == "U" else values[rest] for name, values in features.items()
    }
    return Real(taken, truth[rest], scores)


_DAY = 48


def _features(columns: dict[str, np.ndarray], truth: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for name, values in columns.items():
        found |= {name: values, f"{name} before": np.roll(values, 1), f"{name} yesterday": np.roll(values, _DAY)}
    for name in ("nswprice", "nswdemand"):
        found[f"{name} rise"] = columns[name] - np.roll(columns[name], 1)
    for name in ("nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"):
        quarters = np.searchsorted(np.quantile(columns[name], [0.25, 0.5, 0.75]), columns[name])
        found[f"{name} quarter"] = np.array(["low", "lower", "higher", "high"])[quarters]
    day = np.arange(len(truth)) // _DAY % 7
    up = np.array(["down", "up"])
    return found | {
        "weekday": day.astype(str), "weekend": up[(day >= 5).astype(int)],
        "time of day": (columns["period"] * 6).astype(int).astype(str),
        "moved": up[np.roll(truth, 1)], "moved yesterday": up[np.roll(truth, _DAY)],
    }  # fmt: skip


def without_answers(frame: Frame) -> Frame:
    """Return the frame with its inputs only counted."""
    return replace(frame, labelled=np.zeros(len(frame), bool))


def logistic(matrix: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the weights of a logistic regression, the constant last, by Newton's method with a little ridge."""
    given, weights = np.c_[matrix, np.ones(len(matrix))], np.zeros(matrix.shape[1] + 1)
    for _ in range(25):
        chance = 1 / (1 + np.exp(-np.clip(given @ weights, -500, 500)))
        curve = given.T @ (given * (chance * (1 - chance))[:, None]) + 1e-3 * np.eye(len(weights))
        weights += np.linalg.solve(curve, given.T @ (truth - chance) - 1e-3 * weights)
    return weights
