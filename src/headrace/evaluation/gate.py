"""The gate: bounds, the paired comparison with the champion, slices, and recent production rows, in plain sentences."""

import difflib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from headrace.config.component import AgainstChampion, Bound, Gate
from headrace.errors import InvalidConfig
from headrace.evaluation.base import Finding, Judgement, Rows
from headrace.evaluation.metrics import MetricKind, measure_all, metric
from headrace.evaluation.paired import Comparison, compare, differing, pair, take
from headrace.evaluation.slices import FEWEST, compare_slices, cut
from headrace.types import Task, Verdict

_WORST = (Verdict.FAIL, Verdict.NOT_ENOUGH_EVIDENCE)


def judge(
    gate: Gate,
    candidate: Rows,
    champion: Rows | None,
    *,
    task: Task,
    recent: tuple[Rows, Rows] | None = None,
) -> Judgement:
    """Return the gate's verdict on a candidate.

    An answer that is no finite number fails. A bound is held against the value that was measured. Against the champion,
    the candidate must be *shown* to be no worse than the margin, at the asked confidence; a slice fails only where it
    is shown to be worse by more than it.

    Args:
        candidate: answers on the holdout; `champion` the champion's on the same rows, None where there is none.
        recent: candidate's and champion's answers on recent labelled production rows that neither was trained on.

    Raises:
        InvalidConfig: the gate names a metric or a slice that is not known; the nearest is named.
    """
    check_names(gate, task, candidate.slices)
    kinds = {name: metric(name, task) for name in gate.metrics}
    against = _against(gate, task)
    versus = metric(against.metric, task) if against is not None else None
    findings = [_enough(gate, candidate), *_answers("holdout", candidate, task)]
    findings += [_bound(kinds[name], bound, candidate) for name, bound in gate.metrics.items()]
    if versus is not None and against is not None:
        findings += _champion(versus, against, gate, candidate, champion)
        if recent is not None:
            findings += _answers("recent", recent[0], task)
            findings.append(_no_worse("recent", "recent labelled production rows", versus, gate, against, *recent))
    verdict = next((one for one in _WORST if any(finding.verdict is one for finding in findings)), Verdict.PASS)
    return Judgement(verdict, findings, measure_all(candidate, task))


def _against(gate: Gate, task: Task) -> AgainstChampion | None:
    against = gate.against_champion
    if against is None or task is Task.CLASSIFICATION or "metric" in against.model_fields_set:
        return against
    # Of the regression metrics, only r2 has a scale on which one default margin makes sense.
    return against.model_copy(update={"metric": "r2"})


def check_names(gate: Gate, task: Task, columns: Collection[str]) -> None:
    """Look for the gate's metrics and slices before anything is computed, also where there is no champion yet.

    Args:
        columns: the holdout's, without its label.

    Raises:
        InvalidConfig: one is not known; the nearest is named.
    """
    for name in gate.metrics:
        metric(name, task)
    against = _against(gate, task)
    if against is not None:
        metric(against.metric, task)
    for name in gate.slices:
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f"Did you mean `{close[0]}`? " if close else ""
            raise InvalidConfig(
                f"The gate names the slice `{name}`, which the holdout does not have.",
                f"{hint}The holdout has: {', '.join(columns) or 'no further columns'}.",
            )


def _enough(gate: Gate, candidate: Rows) -> Finding:
    rows = len(candidate)
    numbers = {"rows": float(rows), "min_rows": float(gate.min_rows)}
    if rows >= gate.min_rows:
        return Finding("rows", Verdict.PASS, f"{rows} holdout rows were answered.", numbers)
    sentence = f"Only {rows} holdout rows were answered; `gate.min_rows` asks for {gate.min_rows}."
    return Finding("rows", Verdict.NOT_ENOUGH_EVIDENCE, sentence, numbers)


def _answers(where: str, candidate: Rows, task: Task) -> list[Finding]:
    rows, bad = len(candidate), int((~_finite(candidate, task)).sum())
    if not bad:
        return []
    sentence = f"{bad} of {rows} {where} rows were answered with NaN or infinity."
    return [Finding("answers", Verdict.FAIL, sentence, {"rows": float(rows), "not_finite": float(bad)})]


def _finite(rows: Rows, task: Task) -> "np.ndarray[Any, Any]":
    answer = np.asarray(rows.answer, float) if task is Task.REGRESSION else np.asarray(rows.answer)
    finite = np.isfinite(answer) if answer.dtype.kind == "f" else np.ones(len(rows), bool)
    return finite if rows.scores is None else finite & np.isfinite(np.asarray(rows.scores, float)).all(axis=1)


def _bound(kind: MetricKind, bound: Bound, candidate: Rows) -> Finding:
    value = kind.measure(candidate) if len(candidate) else float("nan")
    numbers = {"value": value}
    limits = []
    if bound.min is not None:
        numbers["min"] = bound.min
        limits.append(f"at least {bound.min:g}")
    if bound.max is not None:
        numbers["max"] = bound.max
        limits.append(f"at most {bound.max:g}")
    asked = " and ".join(limits)
    if not np.isfinite(value):
        sentence = f"`{kind.name}` cannot be computed from these {len(candidate)} rows; {asked} was asked."
        return Finding(kind.name, Verdict.NOT_ENOUGH_EVIDENCE, sentence, {})
    low, high = bound.min if bound.min is not None else -np.inf, bound.max if bound.max is not None else np.inf
    holds = low <= value <= high
    sentence = f"`{kind.name}` is {value:.4g} on {len(candidate)} rows; {asked} was asked."
    return Finding(kind.name, Verdict.PASS if holds else Verdict.FAIL, sentence, numbers)


def _champion(
    kind: MetricKind, against: AgainstChampion, gate: Gate, candidate: Rows, champion: Rows | None
) -> list[Finding]:
    if champion is None:
        found = [Finding("champion", Verdict.PASS, "There is no champion yet to compare with.")]
        return found + [_slice_values(kind, name, candidate) for name in gate.slices]
    found = [_no_worse("champion", "the holdout", kind, gate, against, candidate, champion)]
    ours, theirs = _comparable(kind, candidate, champion)
    if len(ours) >= _needed(gate) and not differing(ours, theirs):
        found += [_slices(kind, against, name, ours, theirs) for name in gate.slices]
    return found


def _comparable(kind: MetricKind, candidate: Rows, champion: Rows) -> tuple[Rows, Rows]:
    """Return the rows that both share, without those that the champion has no finite answer to."""
    ours, theirs = pair(candidate, champion)
    answered = _finite(theirs, kind.task)
    return take(ours, answered), take(theirs, answered)


def _needed(gate: Gate) -> int:
    return max(gate.min_rows, 2)


def _no_worse(
    check: str, where: str, kind: MetricKind, gate: Gate, against: AgainstChampion, candidate: Rows, champion: Rows
) -> Finding:
    candidate, champion = pair(candidate, champion)
    shared, needed = len(candidate), _needed(gate)
    different = differing(candidate, champion)
    if different:
        sentence = (
            f"Candidate and champion were given different truths for {different} of {shared} rows of {where} with "
            f"one id; they cannot be compared."
        )
        return Finding(check, Verdict.NOT_ENOUGH_EVIDENCE, sentence, {"rows": float(shared)})
    if shared < needed:
        sentence = (
            f"Candidate and champion share {shared} rows of {where}, and {needed} are needed (`gate.min_rows`): not "
            f"enough evidence."
        )
        return Finding(check, Verdict.NOT_ENOUGH_EVIDENCE, sentence, {"rows": float(shared)})
    candidate, champion = _comparable(kind, candidate, champion)
    if len(candidate) < needed:
        sentence = (
            f"The champion answers {shared - len(candidate)} of {shared} rows of {where} with NaN or infinity: there "
            f"is nothing to compare with."
        )
        return Finding(check, Verdict.PASS, sentence, {"rows": float(len(candidate))})
    found = compare(kind, candidate, champion, margin=against.no_worse_than, confidence=against.confidence)
    verdict = found.verdict(against.no_worse_than)
    sentence = f"On {where}, {_numbers(kind, found)}; {_meaning(verdict, found, against)}"
    return Finding(check, verdict, sentence, _as_numbers(found, against))


def _numbers(kind: MetricKind, found: Comparison) -> str:
    return (
        f"`{kind.name}` is {found.candidate:.4g} for the candidate and {found.champion:.4g} for the champion "
        f"({found.rows} rows, p = {found.p_value:.2g})"
    )


def _meaning(verdict: Verdict, found: Comparison, against: AgainstChampion) -> str:
    level, margin = f"{against.confidence:.0%}", f"{against.no_worse_than:g}"
    if verdict is Verdict.PASS:
        better = " It is better." if found.low > 0 else ""
        return f"with {level} confidence it is no worse than the allowed {margin}.{better}"
    if verdict is Verdict.FAIL and not np.isfinite(found.difference):
        return "its answers are beyond what the metric can tell."
    if verdict is Verdict.FAIL:
        return f"with {level} confidence it is worse by more than the allowed {margin}."
    if not np.isfinite(found.low):
        return "that cannot be compared: not enough evidence."
    worse = max(-found.low, 0)
    needed = f" About {found.rows_needed} rows would tell." if found.rows_needed > found.rows else ""
    return f"it could be worse by {worse:.3g}, and only {margin} is allowed: not enough evidence.{needed}"


def _slices(kind: MetricKind, against: AgainstChampion, name: str, candidate: Rows, champion: Rows) -> Finding:
    results = compare_slices(
        kind, name, candidate, champion, margin=against.no_worse_than, confidence=against.confidence
    )
    failing = [one for one in results if one.comparison.verdict(against.no_worse_than) is Verdict.FAIL]
    numbers = {one.slice.value: one.comparison.difference for one in results}
    if failing:
        named = "; ".join(
            f"`{name}` = {one.slice.value}: {one.comparison.candidate:.4g} against {one.comparison.champion:.4g} "
            f"({one.comparison.rows} rows)"
            for one in failing
        )
        return Finding(f"slice {name}", Verdict.FAIL, f"The candidate is worse where {named}.", numbers)
    if not results:
        sentence = f"No value of `{name}` has {FEWEST} rows; its slices were not compared."
        return Finding(f"slice {name}", Verdict.PASS, sentence, numbers)
    worst = results[0]
    sentence = (
        f"In none of {len(results)} slices by `{name}` is the candidate shown to be worse; the least good is "
        f"{worst.slice.value} with {worst.comparison.candidate:.4g} against {worst.comparison.champion:.4g}."
    )
    return Finding(f"slice {name}", Verdict.PASS, sentence, numbers)


def _slice_values(kind: MetricKind, name: str, candidate: Rows) -> Finding:
    values = {part.value: kind.measure(part.candidate) for part in cut(name, candidate, None)}
    listed: Sequence[str] = sorted(values, key=lambda value: values[value], reverse=not kind.higher_is_better)
    worst = f"; the least good is {listed[0]} with {values[listed[0]]:.4g}" if listed else ""
    return Finding(f"slice {name}", Verdict.PASS, f"`{kind.name}` by `{name}` was measured{worst}.", values)


def _as_numbers(found: Comparison, against: AgainstChampion) -> dict[str, float]:
    return {
        "rows": float(found.rows),
        "candidate": found.candidate,
        "champion": found.champion,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "margin": against.no_worse_than,
        "confidence": against.confidence,
        "rows_needed": float(found.rows_needed),
    }
