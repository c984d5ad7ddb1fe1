"""Answers as tables: what a served model gives, and what a run says of them (each class, which are confused)."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd


def answer_table(classifier, texts: Iterable[object]) -> pd.DataFrame:
    """Return the label and each class's probability; what is no text counts as an empty one."""
    probabilities = classifier.probabilities([text if isinstance(text, str) else "" for text in texts])
    classes = classifier.classes
    answer = pd.DataFrame({"label": [classes[best] for best in probabilities.argmax(axis=1)]})
    for number, name in enumerate(classes):
        answer[name] = probabilities[:, number].astype("float64")
    return answer


def confusion(truth: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each class (rows) was answered as each (columns), shape (classes, classes)."""
    return np.bincount(truth * classes + answer, minlength=classes**2).reshape(classes, classes)


def class_metrics(matrix: np.ndarray, classes: Sequence[str], *, prefix: str) -> dict[str, float]:
    """Return accuracy, the worst class's recall, and precision, recall and F1 of each class."""
    right = np.diag(matrix).astype(float)
    recall = right / np.maximum(matrix.sum(axis=1), 1)
    precision = right / np.maximum(matrix.sum(axis=0), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    found = {f"{prefix}_accuracy": right.sum() / max(matrix.sum(), 1), f"{prefix}_worst_recall": recall.min()}
    for number, name in enumerate(classes):
        found |= {
            f"{prefix}_{name}_precision": precision[number],
            f"{prefix}_{name}_recall": recall[number],
            f"{prefix}_{name}_f1": f1[number],
        }
    return {name: float(value) for name, value in found.items()}


def as_text(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """Return the matrix as a small table: rows are the truth, columns the answers."""
    wide = max(len(name) for name in classes) + 1
    lines = [" " * wide + "".join(f"{name:>{wide}}" for name in classes)]
    lines += [
        f"{name:<{wide}}" + "".join(f"{count:>{wide}}" for count in row)
        for name, row in zip(classes, matrix.tolist(), strict=True)
    ]
    return "\n".join(lines)
