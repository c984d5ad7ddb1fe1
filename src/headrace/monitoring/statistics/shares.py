"""Shares of rows: exact intervals and tests."""

from dataclasses import dataclass

from scipy.stats import beta, hypergeom


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends included."""

    low: float
    high: float


def clopper_pearson(hits: int, rows: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a share. Clopper and Pearson (1934), Biometrika 26."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, rows - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, rows - hits)) if hits < rows else 1.0
    return Interval(low, high)


def fell_p(before_hits: int, before_rows: int, hits: int, rows: int) -> float:
    """Return the one-sided p-value of "the share did not fall", by Fisher's exact test."""
    return float(hypergeom.cdf(hits, before_rows + rows, before_hits + hits, rows))


def rose_p(before_hits: int, before_rows: int, hits: int, rows: int) -> float:
    """Return the one-sided p-value of "the share did not rise", by Fisher's exact test."""
    return fell_p(before_rows - before_hits, before_rows, rows - hits, rows)
