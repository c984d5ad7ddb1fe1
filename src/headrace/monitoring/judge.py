"""The judge: one verdict per window from all signals, under one declared budget of false alarms.

What leads where: drift of inputs or outputs alone warns. A labelled loss retrains, and so does an estimated one
together with output drift in consecutive windows. Right after a change of version, a labelled loss that the version
before did not have, a schema break or service errors roll back. A change of meaning stops retraining, and one that
lasts asks a person for a rebuild.

A full window whose labels are awaited is looked at early, without them. The same tests on the same rows say the same
later, so that look costs no budget; what it remembers is kept apart, so that no window counts twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from headrace.config.component import Monitor
from headrace.errors import InvalidInput
from headrace.monitoring.base import Alarm, Consequence, Detector, Signal, Window
from headrace.monitoring.columns import expand
from headrace.monitoring.frame import Frame, frame_of
from headrace.monitoring.memory import Losses, Memory
from headrace.monitoring.reference_profile import Reference, losses
from headrace.monitoring.seasons import Seasons
from headrace.monitoring.signals import estimated, inputs, output, quality, schema, sequential, service, sliced
from headrace.monitoring.signals.estimated import EstimatedQuality
from headrace.monitoring.signals.inputs import InputDrift
from headrace.monitoring.signals.output import OutputDrift
from headrace.monitoring.signals.quality import LabelledQuality
from headrace.monitoring.signals.schema import Schema
from headrace.monitoring.signals.service import Service, ServiceHealth
from headrace.monitoring.signals.sliced import SlicedQuality
from headrace.predictions.ids import time_of

#: How the budget is shared; the shares add up to 1, so the chance of any false alarm in a window stays within it.
SHARES = {
    output.NAME: 0.25,
    quality.NAME: 0.25,
    sequential.NAME: 0.1,
    inputs.NAME: 0.15,
    schema.BREAK: 0.1,
    estimated.NAME: 0.1,
    service.ERRORS: 0.05,
}
#: The share of the labelled quality's budget that goes to single groups of rows, where there are any.
BY_SLICE = 0.4
#: The signals that rest on labels.
LABELLED = frozenset({quality.NAME, sequential.NAME, sliced.NAME})
#: How many windows in a row make a change a lasting one.
LASTING = 2
#: How many windows after a change of version count as right after it.
NEW_WINDOWS = 3


@dataclass(frozen=True, slots=True)
class Watched:
    """A window's alarm, and what to remember for the next."""

    alarm: Alarm
    memory: Memory


def judge(window: Window, known: Seasons, monitor: Monitor) -> Alarm:
    """Return what one window by itself means. `consequence` is NONE where all is quiet."""
    return watch(window, known, monitor, Memory()).alarm


def watch(window: Window, known: Seasons, monitor: Monitor, memory: Memory, *, facts: Service | None = None) -> Watched:
    """Return what a window means after all that came before it."""
    frame, season = _seen(window, known)
    return watch_frame(frame, known.overall, monitor, memory, version=window.version, facts=facts, season=season)


def look_early(
    window: Window, known: Seasons, monitor: Monitor, memory: Memory, *, facts: Service | None = None
) -> Watched:
    """Return what a window means as far as no label is needed; those that are in are not looked at.

    It never asks for retraining, which can wait for the labels that it needs.

    Args:
        memory: of the early looks before. It is not `watch`'s, which starts from its own for the same window.
    """
    frame, season = _seen(window, known)
    unlabelled = np.zeros(len(frame), bool)
    frame = replace(frame, watched=expand(frame.inputs, season.fields), labelled=unlabelled, useless=0)
    past = _of_version(memory, window.version)
    looking = [one for one in detectors(season, monitor, facts) if one.name not in LABELLED]
    signals = [signal for one in looking for signal in one.look(frame)]
    after = _remember(past, signals, frame)
    return _say_early(verdict(signals, memory=after, rows=len(frame)), past, after)


def _seen(window: Window, known: Seasons) -> tuple[Frame, Reference]:
    usual = known.overall
    classes = np.array(usual.classes) if usual.classes else None
    frame = frame_of(window, usual.task, classes=classes, embedding=usual.embedding)
    return frame, known.at([row.prediction.at for row in window.rows])


def judge_frame(frame: Frame, reference: Reference, monitor: Monitor) -> Alarm:
    """Return what one window by columns means by itself."""
    return watch_frame(frame, reference, monitor, Memory()).alarm


def watch_frame(
    frame: Frame,
    reference: Reference,
    monitor: Monitor,
    memory: Memory,
    *,
    version: int = 0,
    facts: Service | None = None,
    season: Reference | None = None,
) -> Watched:
    """Return what a window by columns means after all that came before it.

    Args:
        season: what the window is compared with; the evidence that adds up over windows stays with `reference`.
    """
    usual = season or reference
    frame = replace(frame, watched=expand(frame.inputs, usual.fields))
    past = _of_version(memory, version)
    labelled_at = _labelled_at(frame, past)
    facts = _with_labels(facts or Service(), frame, labelled_at, monitor)
    signals = [signal for one in detectors(usual, monitor, facts) for signal in one.look(frame)]
    # Per row, so that the expected false alarms in one window are the budget's share.
    level = monitor.false_alarms * SHARES[sequential.NAME] / max(len(frame), 1)
    detector = past.detector or sequential.start(reference, level_per_row=level)
    detector, added_up = sequential.look(detector, reference, frame)
    signals.append(added_up)
    lost = _losses(frame, reference)
    kept = replace(past, detector=detector, losses=lost or past.losses, labelled_at=labelled_at)
    after = _remember(kept, signals, frame)
    alarm = verdict(signals, memory=after, rows=len(frame), lost=lost)
    return _say(alarm, after)


def detectors(reference: Reference, monitor: Monitor, facts: Service | None = None) -> Sequence[Detector]:
    """Return what looks at a window, each with its share of the budget."""
    level = {name: monitor.false_alarms * share for name, share in SHARES.items()}
    by_slice = BY_SLICE * level[quality.NAME] if reference.slices else 0.0
    return [
        Schema(reference, level=level[schema.BREAK]),
        InputDrift(reference, level=level[inputs.NAME]),
        OutputDrift(reference, level=level[output.NAME]),
        EstimatedQuality(reference, level=level[estimated.NAME]),
        LabelledQuality(reference, level=level[quality.NAME] - by_slice),
        SlicedQuality(reference, level=by_slice),
        ServiceHealth(facts or Service(), level=level[service.ERRORS]),
    ]


def verdict(signals: Sequence[Signal], *, memory: Memory, rows: int, lost: Losses | None = None) -> Alarm:
    """Return the consequence of some signals, with the evidence in plain words, the gravest first."""
    fired: dict[str, list[Signal]] = {}
    for signal in signals:
        if signal.fired:
            fired.setdefault(signal.name, []).append(signal)
    if not fired:
        return Alarm(Consequence.NONE, f"Nothing changed over {rows} predictions.", signals)
    consequence = _consequence(fired, memory, lost)
    return Alarm(consequence, _sentence(fired, signals, consequence, rows), signals)


def _consequence(fired: Mapping[str, list[Signal]], memory: Memory, lost: Losses | None) -> Consequence:
    is_new = bool(memory.before or memory.previous.rows) and memory.windows <= NEW_WINDOWS
    lost_quality = bool(LABELLED & fired.keys())
    if is_new and (schema.BREAK in fired or service.ERRORS in fired or (lost_quality and _is_worse(lost, memory))):
        return Consequence.ROLL_BACK
    odd = _odd_meaning(fired)
    if odd:
        # Until it is known whether it lasts, nothing is learned from rows that may mean something else.
        is_lasting = any(memory.streaks.get(name, 0) >= LASTING for name in odd)
        return Consequence.REBUILD if is_lasting else Consequence.WARN
    together = min(memory.streaks.get(name, 0) for name in (estimated.NAME, output.NAME))
    if lost_quality or together >= LASTING:
        return Consequence.RETRAIN
    return Consequence.WARN


def _odd_meaning(fired: Mapping[str, list[Signal]]) -> set[str]:
    """Return the signals that say that columns or classes are no longer what they were."""
    odd = [signal for name in (schema.BREAK, schema.MEANING) for signal in fired.get(name, [])]
    return {one.name for one in odd if one.name == schema.BREAK or bool(one.details.get("asks_for_rebuild"))}


def _is_worse(lost: Losses | None, memory: Memory) -> bool:
    """Tell whether this version loses more than the one before did in its last window."""
    before = memory.previous
    if lost is None or lost.rows < quality.FEWEST or before.rows < quality.FEWEST:
        return False
    error = np.sqrt(lost.variance / lost.rows + before.variance / before.rows)
    return bool(error > 0 and norm.sf((lost.mean - before.mean) / error) < 0.001)


_ORDER = (
    schema.BREAK, schema.MEANING, quality.NAME, sliced.NAME, sequential.NAME, estimated.NAME, service.ERRORS,
    service.LATENCY, service.STALENESS, output.NAME, inputs.NAME,
)  # fmt: skip


def _sentence(fired: Mapping[str, list[Signal]], signals: Sequence[Signal], consequence: Consequence, rows: int) -> str:
    order = (quality.NAME, *_ORDER) if consequence is Consequence.RETRAIN else _ORDER
    told = [one.sentence for name in dict.fromkeys(order) for one in fired.get(name, [])]
    body = _joined(told)
    if quality.NAME in fired:
        return f"{body}."
    unlabelled = next((one.sentence for one in signals if one.name == quality.NAME), "")
    return f"{body} over {rows} predictions. {unlabelled}".strip()


def _joined(told: Sequence[str]) -> str:
    shown = [*told[:4], f"{len(told) - 4} more things changed"] if len(told) > 5 else list(told)
    body = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])}, and {shown[-1]}"
    return f"{body[:1].upper()}{body[1:]}"


def _of_version(memory: Memory, version: int) -> Memory:
    if memory.version == version:
        return memory
    return Memory(
        version=version, previous=memory.losses, after=memory.after, labelled_at=memory.labelled_at,
        before=memory.version,
    )  # fmt: skip


def _labelled_at(frame: Frame, memory: Memory) -> float:
    if not len(frame.seconds):
        return memory.labelled_at
    newest = frame.seconds[np.asarray(frame.labelled, bool)]
    return max(memory.labelled_at or float(frame.seconds[0]), float(newest.max()) if len(newest) else 0.0)


def _with_labels(facts: Service, frame: Frame, labelled_at: float, monitor: Monitor) -> Service:
    if not len(frame.seconds):
        return facts
    age = max(float(frame.seconds.max()) - labelled_at, 0.0)
    return replace(facts, label_age_s=age, oldest_label_s=monitor.label.stale_after)


def _losses(frame: Frame, reference: Reference) -> Losses | None:
    if not frame.labelled.any():
        return None
    lost = losses(frame.rows(), reference.task)
    lost = lost[np.isfinite(lost)]
    return Losses(len(lost), float(lost.mean()), float(lost.var())) if len(lost) else None


def _remember(memory: Memory, signals: Sequence[Signal], frame: Frame) -> Memory:
    first, last = (frame.ids[0], frame.ids[-1]) if frame.ids else ("", "")
    fired = {signal.name for signal in signals if signal.fired}
    return replace(
        memory,
        windows=memory.windows + 1,
        streaks={name: memory.streaks.get(name, 0) + 1 for name in fired},
        since={name: memory.since.get(name, first) for name in fired},
        after=last or memory.after,
    )


def _say(alarm: Alarm, memory: Memory) -> Watched:
    if alarm.consequence is Consequence.NONE:
        return Watched(alarm, replace(memory, said="", repeats=0))
    names = sorted({signal.name for signal in alarm.signals if signal.fired})
    said = f"{alarm.consequence.value}: {', '.join(names)}"
    repeats = memory.repeats + 1 if said == memory.said else 0
    return Watched(_dated(alarm, memory, repeats), replace(memory, said=said, repeats=repeats))


def _say_early(alarm: Alarm, past: Memory, after: Memory) -> Watched:
    """Tell it as something new unless all of it fired in the window before, whatever else fired there."""
    if alarm.consequence is Consequence.NONE:
        return Watched(replace(alarm, sentence=f"{alarm.sentence[:-1]} as far as is seen without labels."), after)
    consequence, awaited = alarm.consequence, "Its labels are awaited."
    if consequence is Consequence.RETRAIN:
        consequence, awaited = Consequence.WARN, "Whether to retrain is decided once its labels are in."
    repeats = min(past.streaks.get(signal.name, 0) for signal in alarm.signals if signal.fired)
    if consequence is Consequence.REBUILD:  # The windows before it warned.
        repeats = max(0, repeats - LASTING + 1)
    told = replace(alarm, consequence=consequence, sentence=f"{alarm.sentence} {awaited}")
    return Watched(_dated(told, after, repeats), after)


def _dated(alarm: Alarm, memory: Memory, repeats: int) -> Alarm:
    since = min((memory.since[signal.name] for signal in alarm.signals if signal.fired), default="")
    sentence = alarm.sentence
    if repeats:
        before = "the window" if repeats == 1 else f"{repeats} windows"
        sentence += f" This began at {_moment(since)}; {before} before said the same."
    return replace(alarm, sentence=sentence, since=since, repeats=repeats)


def _moment(prediction_id: str) -> str:
    try:
        return f"{time_of(prediction_id):%F %T} UTC"
    except InvalidInput:  # Rows of a file are named by their number.
        return prediction_id
