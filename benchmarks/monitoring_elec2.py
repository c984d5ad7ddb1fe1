"""Elec2 in time order: three columns that were constant switch on, and the price of electricity changes all the time.

A logistic regression serves; each retraining adds the labelled rows since, but for the share that is kept out for the
gate. What the gate let through or refused is then compared on the 1,000 rows that came next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.monitoring_streams import logistic
from headrace.config.component import AgainstChampion, Gate, Monitor
from headrace.evaluation.answers import Answers, probabilities
from headrace.evaluation.base import Rows
from headrace.evaluation.gate import judge
from headrace.monitoring.base import Consequence
from headrace.monitoring.frame import Frame
from headrace.monitoring.judge import watch_frame
from headrace.monitoring.memory import Memory
from headrace.monitoring.reference import Reference, build
from headrace.types import Task, Verdict

SWITCHED_AT, SWITCHED = 17_424, ("vicprice", "vicdemand", "transfer")
FITTED, HOLDOUT, WINDOW, NEXT = 6000, 3000, 500, 1000
KEPT_OUT = 0.3
GATE = Gate(against_champion=AgainstChampion(no_worse_than=0.02))


@dataclass(frozen=True)
class Stream:
    """All rows in time order; columns scaled by the first rows, as a fitted pipeline would."""

    names: tuple[str, ...]
    raw: np.ndarray
    matrix: np.ndarray
    truth: np.ndarray

    def answers(self, weights: np.ndarray, rows: np.ndarray) -> Answers:
        scores = probabilities((np.c_[self.matrix[rows], np.ones(len(rows))] @ weights)[:, None])
        return Answers(scores.argmax(axis=1), scores, np.arange(2))

    def judged(self, weights: np.ndarray, rows: np.ndarray) -> Rows:
        found = self.answers(weights, rows)
        return Rows(rows, self.truth[rows], found.answer, found.scores, {}, found.classes)

    def accuracy(self, weights: np.ndarray, rows: np.ndarray) -> float:
        return float(np.mean(self.answers(weights, rows).answer == self.truth[rows]))

    def inputs(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: self.raw[rows, at] for at, name in enumerate(self.names)}

    def frame(self, weights: np.ndarray, rows: np.ndarray) -> Frame:
        return Frame(self.inputs(rows), self.answers(weights, rows), self.truth[rows], np.ones(len(rows), bool))


def read(path: Path) -> Stream:
    table = pq.read_table(path)
    # The date only grows: a window's dates are never those of the holdout.
    names = tuple(name for name in table.column_names if name not in ("class", "date"))
    raw = np.stack([table[name].to_numpy() for name in names], axis=1).astype(float)
    first = raw[:FITTED]
    scale = np.where(first.std(axis=0) > 0, first.std(axis=0), 1.0)
    return Stream(names, raw, (raw - first.mean(axis=0)) / scale, table["class"].to_numpy().astype(int))


def switched(path: Path) -> dict[str, Any]:
    """Return which columns the watch names in the windows around the switch, against a reference from before it."""
    stream = read(path)
    weights = logistic(stream.matrix[:FITTED], stream.truth[:FITTED])
    reference = _reference(stream, weights, np.arange(FITTED, SWITCHED_AT - 4 * WINDOW))
    memory, named = Memory(), {}
    for start in range(SWITCHED_AT - 4 * WINDOW, SWITCHED_AT + 2 * WINDOW, WINDOW):
        frame = stream.frame(weights, np.arange(start, start + WINDOW))
        watched = watch_frame(frame, reference, Monitor(window=WINDOW), memory, version=1)
        memory = watched.memory
        told = {
            str(one.details.get("column"))
            for one in watched.alarm.signals
            if one.fired and "was always" in one.sentence
        }
        named[start] = sorted(told)
    before = sorted({name for start, names in named.items() if start < SWITCHED_AT for name in names})
    after = sorted({name for start, names in named.items() if start >= SWITCHED_AT for name in names})
    return {"part": "elec2", "named before the switch": before, "named in the two windows after it": after}


def retrained(path: Path, *, by_cron: bool = False) -> dict[str, Any]:
    """Return how each candidate would have done on the rows after its gate, by the gate's word.

    Args:
        by_cron: whether every window brings a candidate, not the alarms that ask for one.
    """
    stream = read(path)
    chance = np.random.default_rng(0)
    kept = chance.random(len(stream.truth)) < KEPT_OUT
    holdout = np.arange(FITTED, FITTED + HOLDOUT)
    champion = logistic(stream.matrix[:FITTED], stream.truth[:FITTED])
    reference, memory, version = _reference(stream, champion, holdout), Memory(), 1
    accepted: list[float] = []
    refused: list[float] = []
    alarms = 0
    begin = FITTED + HOLDOUT
    for start in range(begin, len(stream.truth) - WINDOW - NEXT, WINDOW):
        now = start + WINDOW
        watched = watch_frame(
            stream.frame(champion, np.arange(start, now)), reference, Monitor(window=WINDOW), memory, version=version
        )
        memory = watched.memory
        alarms += watched.alarm.consequence is Consequence.RETRAIN
        if not by_cron and watched.alarm.consequence is not Consequence.RETRAIN:
            continue
        seen = np.arange(begin, now)
        taught = np.concatenate([np.arange(FITTED), seen[~kept[seen]]])
        recent = seen[kept[seen]][-600:]
        candidate = logistic(stream.matrix[taught], stream.truth[taught])
        verdict = judge(
            GATE, stream.judged(candidate, holdout), stream.judged(champion, holdout), task=Task.CLASSIFICATION,
            recent=(stream.judged(candidate, recent), stream.judged(champion, recent)),
        ).verdict  # fmt: skip
        later = np.arange(now, now + NEXT)
        gain = stream.accuracy(candidate, later) - stream.accuracy(champion, later)
        (accepted if verdict is Verdict.PASS else refused).append(gain)
        if verdict is Verdict.PASS:
            champion, version = candidate, version + 1
            reference = _reference(stream, champion, holdout)
    return {
        "part": "elec2", "candidates": "every window" if by_cron else "by alarms", "retrain alarms": alarms,
        "accepted": len(accepted), "refused": len(refused),
        "gain of the accepted": _mean(accepted), "gain the refused would have had": _mean(refused),
        "accepted and worse by 0.02": sum(one < -0.02 for one in accepted),
        "refused though better by 0.02": sum(one > 0.02 for one in refused),
    }  # fmt: skip


def _mean(gains: Sequence[float]) -> float | None:
    return round(float(np.mean(gains)), 4) if gains else None


def _reference(stream: Stream, weights: np.ndarray, rows: np.ndarray) -> Reference:
    return build(stream.judged(weights, rows), task=Task.CLASSIFICATION, inputs=stream.inputs(rows), in_time_order=True)
