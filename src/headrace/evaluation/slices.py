"""Slices: parts of the rows on which a candidate must not be shown to be worse."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headrace.evaluation.base import Rows
from headrace.evaluation.metrics import MetricKind
from headrace.evaluation.paired import Comparison, compare, take

#: Slices smaller than this are named and not judged.
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Slice:
    """One value of one slicing column."""

    name: str
    value: str
    candidate: Rows
    champion: Rows | None


@dataclass(frozen=True, slots=True)
class SliceResult:
    """A slice with its comparison."""

    slice: Slice
    comparison: Comparison


def cut(name: str, candidate: Rows, champion: Rows | None) -> Iterator[Slice]:
    """Yield the slices of one column; `champion`, if given, is paired with `candidate` row by row."""
    values = np.array([str(value) for value in candidate.slices[name]])
    for value in np.unique(values):
        chosen = values == value
        yield Slice(name, str(value), take(candidate, chosen), None if champion is None else take(champion, chosen))


def compare_slices(
    kind: MetricKind, name: str, candidate: Rows, champion: Rows, *, margin: float, confidence: float
) -> list[SliceResult]:
    """Return the comparison of each slice that is large enough, worst first.

    The confidence is shared between the slices (Bonferroni), so that many slices do not fail a candidate by chance.
    """
    parts = [part for part in cut(name, candidate, champion) if len(part.candidate) >= FEWEST]
    strict = 1 - (1 - confidence) / max(len(parts), 1)
    found = []
    for part in parts:
        assert part.champion is not None
        found.append(SliceResult(part, compare(kind, part.candidate, part.champion, margin=margin, confidence=strict)))
    return sorted(found, key=lambda result: result.comparison.difference)
