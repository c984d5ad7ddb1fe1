"""How soon a change is seen, beside KS, Evidently's default tests, ADWIN and PageHinkley at equal false alarms."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.monitoring_parts import Found, Sizes
from benchmarks.monitoring_rivals import adwin, evidently_default, known, page_hinkley, plain_ks
from benchmarks.monitoring_streams import SHIFTS, Shift, stream, without_answers
from benchmarks.report import Claim
from headrace.monitoring.columns import expand
from headrace.monitoring.frame import Frame
from headrace.monitoring.reference import Reference, build
from headrace.monitoring.signals.inputs import InputDrift
from headrace.monitoring.statistics.sequential import EDetector
from headrace.types import Task

#: Fewer windows than this order detectors by chance.
_FEWEST_TRIALS = 100


def power(sizes: Sizes) -> Found:
    """Rows needed to see each shift in 80 % of windows, at 1 % false alarms for each detector."""
    found, chance = Found(), np.random.default_rng(7)
    reference = stream(chance, 5000)
    profile = build(reference.rows(), task=Task.CLASSIFICATION, inputs=reference.inputs)
    grid, counted = [100, 200, 400, 800, 1600, 3200], known(reference)
    detectors: dict[str, Callable[[Frame], float]] = {
        "headrace": lambda window: _drift_score(profile, window),
        "plain KS": lambda window: plain_ks(counted, window),
        "Evidently's default tests": lambda window: evidently_default(counted, window),
    }
    limits: dict[tuple[str, int], float] = {}
    for rows in grid:
        # The same drift-free windows for every detector, so that none is lucky in its threshold alone.
        scores: dict[str, list[float]] = {name: [] for name in detectors}
        for _ in range(sizes.nulls):
            window = stream(chance, rows)
            for name, score in detectors.items():
                scores[name].append(score(window))
        limits |= {(name, rows): float(np.quantile(values, 0.01)) for name, values in scores.items()}
    for shift in SHIFTS:
        shares = _found(detectors, limits, grid, shift, sizes.trials)
        needed = {name: _rows_needed(found_in, grid) for name, found_in in shares.items()}
        found.rows.append({"part": "power", "shift": shift.name, "rows for 80 %": needed})
    found.claims += _power_claims(found.rows, "rows for 80 %", "inputs", sizes.trials)
    return found


def _drift_score(profile: Reference, window: Frame) -> float:
    seen = without_answers(window)
    columns = expand(seen.inputs, profile.fields)
    drifts = InputDrift(profile, level=0.01).drifts(Frame(seen.inputs, seen.answers, seen.truth, seen.labelled,
                                                          watched=columns))  # fmt: skip
    return min(one.p_value for one in drifts)


def _found(
    detectors: dict[str, Callable[[Frame], float]], limits: dict[tuple[str, int], float], grid: list[int], shift: Shift,
    trials: int,
) -> dict[str, list[float]]:  # fmt: skip
    """Return in which share of shifted windows of each size a detector fires; the same windows for every detector."""
    shares: dict[str, list[float]] = {name: [] for name in detectors}
    for rows in grid:
        chance, hits = np.random.default_rng(rows), dict.fromkeys(detectors, 0)
        asked = [name for name in detectors if not shares[name] or shares[name][-1] < 0.95]
        for _ in range(trials if asked else 0):
            window = stream(chance, rows, shift=shift)
            for name in asked:
                hits[name] += detectors[name](window) <= limits[name, rows]
        for name in asked:
            shares[name].append(hits[name] / trials)
    return shares


def _rows_needed(shares: list[float], grid: list[int]) -> float:
    reached = np.flatnonzero(np.array(shares) >= 0.8)
    if not len(reached):
        return float("inf")
    at = int(reached[0])
    if at == 0:
        return float(grid[0])
    part = (0.8 - shares[at - 1]) / max(shares[at] - shares[at - 1], 1e-9)
    return round(float(np.exp(np.log(grid[at - 1]) * (1 - part) + np.log(grid[at]) * part)))


def loss(sizes: Sizes) -> Found:
    """Rows from a rise of the error rate to its alarm, where each detector fires on 5 % of 4,000 drift-free rows."""
    found, before, length = Found(), 500, 4000
    steady = [_losses(seed, length, 0.1, 0.1, 0) for seed in range(sizes.loss_trials)]
    made: dict[str, Callable[[np.ndarray, float], int]] = {
        "headrace": lambda losses, limit: EDetector(0.1, 1 / limit).watch(losses).fired_at,
        "PageHinkley": page_hinkley,
        "ADWIN": lambda losses, limit: adwin(losses, 1 / limit),
    }
    limits = {name: _equal(detect, steady) for name, detect in made.items()}
    for worse in (0.13, 0.15, 0.2, 0.3, 0.5):
        streams = [_losses(10_000 + seed, length, 0.1, worse, before) for seed in range(sizes.loss_trials)]
        delays = {
            name: round(float(np.mean([_delay(detect(one, limits[name]), before, length) for one in streams])))
            for name, detect in made.items()
        }
        found.rows.append({"part": "loss", "error": f"0.10 to {worse:.2f}", "rows to the alarm": delays})
    found.claims += _power_claims(found.rows, "rows to the alarm", "losses", sizes.loss_trials)
    return found


def _losses(seed: int, length: int, before: float, after: float, change: int) -> np.ndarray:
    rates = np.where(np.arange(length) < change, before, after)
    return (np.random.default_rng(seed).random(length) < rates).astype(float)


def _delay(fired: int, before: int, length: int) -> int:
    # An alarm before the change is a false one; what follows is then counted from the change, as for a late one.
    return fired - before if fired > before else length - before


def _equal(detect: Callable[[np.ndarray, float], int], steady: list[np.ndarray]) -> float:
    low, high = 0.0, 14.0
    for _ in range(18):
        middle = (low + high) / 2
        rate = np.mean([detect(one, float(np.exp(middle))) > 0 for one in steady])
        low, high = (middle, high) if rate > 0.05 else (low, middle)
    return float(np.exp(high))


def _power_claims(rows: list[dict[str, Any]], key: str, what: str, trials: int) -> list[Claim]:
    first, late = 0, []
    for row in rows:
        best = min(value for name, value in row[key].items() if name != "headrace")
        ours = row[key]["headrace"]
        first += ours <= best
        late.append(ours / best if best < float("inf") else 0.0)
    evidence, few = "; ".join(f"{ratio:.2f}" for ratio in late), f"; {trials} trials tell nothing"
    is_told, end = trials >= _FEWEST_TRIALS, "" if trials >= _FEWEST_TRIALS else few
    return [
        Claim(f"power_{what}_first_or_equal", round(first / len(rows), 2), ">= 0.8",
              first / len(rows) >= 0.8 if is_told else None,
              f"against the best rival of each of {len(rows)} rows{end}"),
        Claim(f"power_{what}_worst_delay", round(max(late), 2), "<= 1.2", max(late) <= 1.2 if is_told else None,
              f"ours over the best rival's, by row: {evidence}{end}"),
    ]  # fmt: skip
