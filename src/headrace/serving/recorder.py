"""The front's side of the prediction log: which rows and fields are kept, and under which ids."""

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headrace.predictions.batch import Column
from headrace.predictions.ids import Ids
from headrace.predictions.writer import PredictionWriter
from headrace.serving.batch import BatchAnswer, Job
from headrace.serving.layout import Block
from headrace.serving.schema import text_of

log = logging.getLogger(__name__)
#: An answer to a batch as a whole is kept with each of its rows, up to this much of it.
WHOLE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Keeping:
    """Which share of the rows is kept, and without which fields."""

    sample: float = 1.0
    redact: frozenset[str] = frozenset()


class Recorder:
    """Offers answered rows to the log in one piece per batch.

    Attributes:
        ids: gives out the ids of so many rows.
    """

    def __init__(self, folder: Path | None, component: str) -> None:
        """Get ready; None as `folder` keeps nothing."""
        self.ids = Ids().batch
        self._folder, self._component = folder, component
        self._writer: PredictionWriter | None = None
        self._failed = 0

    def open(self) -> None:
        """Start the log's writer, where none runs yet."""
        if self._writer is None and self._folder is not None:
            self._writer = PredictionWriter(self._folder, self._component)

    @property
    def written(self) -> int:
        return self._writer.written if self._writer else 0

    @property
    def dropped(self) -> int:
        return self._failed + (self._writer.dropped if self._writer else 0)

    @property
    def problem(self) -> str:
        """Return why predictions cannot be kept just now; empty where they are."""
        return self._writer.problem if self._writer else ""

    def record(
        self,
        version: int,
        jobs: Sequence[Job],
        answer: BatchAnswer,
        ids: Sequence[str],
        now: float,
        *,
        keeping: Keeping,
        shadow: bool,
    ) -> None:
        """Keep those of a batch's rows that are sampled, under their ids."""
        sample = keeping.sample
        if self._writer is None or sample <= 0:
            return
        rows: list[int] | None = None
        if sample < 1 or not all(job.kept for job in jobs):
            jobs, rows = _chosen(jobs, [n for n, job in enumerate(jobs) if job.kept and _is_sampled(sample)])
            if not rows:
                return
            ids = [ids[row] for row in rows]
        try:
            outputs = [(name, _output(values, answer, rows, len(ids))) for name, values in answer.outputs.named]
            self._offer(version, jobs, outputs, ids, now, keeping.redact, shadow)
        except Exception:  # The loop would tell of it, but not count it.
            self._failed += len(ids)
            log.exception("The prediction log drops %d rows", len(ids))

    def close(self) -> None:
        """Write what was offered; nothing is lost."""
        if self._writer is not None:
            self._writer.close()

    def _offer(
        self,
        version: int,
        jobs: Sequence[Job],
        outputs: Sequence[tuple[str, Any]],
        ids: Sequence[str],
        now: float,
        redact: frozenset[str],
        shadow: bool,
    ) -> None:
        assert self._writer is not None
        oldest = min(job.start for job in jobs)
        inputs: dict[str, Column] = {}
        for place, block in enumerate(jobs[0].rows.layout.blocks):
            inputs.update(_columns(block, [job.rows for job in jobs], place, len(ids)))
        for name in redact & inputs.keys():
            del inputs[name]
        latency = [1000 * (now - job.start) for job in jobs for _ in range(job.rows.count)]
        self._writer.offer(
            ids,
            at=time.time() - (now - oldest),
            version=version,
            inputs=inputs,
            outputs=dict(outputs),
            latency_ms=latency,
            shadow=shadow,
        )


def _is_sampled(sample: float) -> bool:
    return sample >= 1 or random.random() < sample  # noqa: S311 - a sample, not a secret


def _output(values: Any, answer: BatchAnswer, rows: list[int] | None, count: int) -> Column:
    """Return one output of the `count` rows that are kept; what answers for the batch as a whole, with each of them.

    Raises:
        ValueError: it would be kept too many times for its size.
    """
    if values.ndim and len(values) == answer.rows:
        return values if rows is None else values[rows]  # type: ignore[no-any-return]
    whole = values.tolist()
    if answer.outputs.container == "value":  # One text.
        [whole] = whole
    if count * len(msgspec.msgpack.encode(whole)) > WHOLE_BYTES:
        raise ValueError(f"an answer to {count} rows as a whole is too large to be kept with each")
    return [whole] * count


def _columns(block: Block, rows: Sequence[Any], place: int, count: int) -> dict[str, Column]:
    """Return a block's columns over all rows of a batch."""
    if block.is_listed:
        flat = [text_of(value) for one in rows for value in one.parts[place]]
        if not block.columns:
            return {block.name: flat if len(flat) == count else _nested(flat, count)}
        wide = len(block.columns)
        # Tables without names have numbers for them.
        return {str(name): flat[at::wide] for at, name in enumerate(block.columns)}
    joined = rows[0].parts[place] if len(rows) == 1 else b"".join(one.parts[place] for one in rows)
    if block.dtype.startswith("datetime64"):
        values = np.frombuffer(joined, "int64").view(block.dtype)
    else:
        values = np.frombuffer(joined, block.dtype)
    values = values.reshape(count, *rows[0].shapes[place])
    return {name: values[:, at] for at, name in enumerate(block.columns)} if block.columns else {block.name: values}


def _nested(flat: list[Any], count: int) -> list[Any]:
    wide = len(flat) // count
    if not wide:
        return [[] for _ in range(count)]
    return [flat[start : start + wide] for start in range(0, len(flat), wide)]


def _chosen(jobs: Sequence[Job], kept: Sequence[int]) -> tuple[list[Job], list[int]]:
    rows: list[int] = []
    start = 0
    chosen = set(kept)
    for place, job in enumerate(jobs):
        if place in chosen:
            rows += range(start, start + job.rows.count)
        start += job.rows.count
    return [jobs[place] for place in kept], rows
