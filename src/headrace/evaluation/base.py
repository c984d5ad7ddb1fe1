"""The values that candidates are judged by. This room is pure: arrays in, verdicts out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.types import Verdict

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Rows:
    """One version's answers on rows with a known truth.

    Attributes:
        ids: shape (rows,), what rows are paired by.
        truth: shape (rows,), labels (any comparable dtype) or numbers.
        answer: shape (rows,), in the truth's dtype.
        scores: shape (rows, classes), probabilities where the model gives them.
        classes: shape (classes,), the label that each column of `scores` stands for; where None, the columns are the
            labels 0, 1, 2 … or, if the labels are no such numbers, the truth's labels in sorted order.
        slices: slice name to shape (rows,), the value of each row.
    """

    ids: "np.ndarray[Any, Any]"
    truth: "np.ndarray[Any, Any]"
    answer: "np.ndarray[Any, Any]"
    scores: "np.ndarray[Any, Any] | None" = None
    slices: Mapping[str, "np.ndarray[Any, Any]"] = field(default_factory=dict)
    classes: "np.ndarray[Any, Any] | None" = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of the gate: what was looked at, what was found, and what that means, in one plain sentence."""

    check: str
    verdict: Verdict
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's answer: *fail* if any finding fails, else *not enough evidence* if any lacks it, else *pass*."""

    verdict: Verdict
    findings: Sequence[Finding]
    metrics: Mapping[str, float] = field(default_factory=dict)
