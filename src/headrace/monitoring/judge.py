"""The judge: one verdict per window from all signals, under one declared budget of false alarms."""

from collections.abc import Sequence

import numpy as np

from headrace.config.component import Monitor
from headrace.monitoring.base import Alarm, Consequence, Detector, Signal, Window
from headrace.monitoring.frame import Frame, frame_of
from headrace.monitoring.reference import Reference
from headrace.monitoring.signals import output, quality
from headrace.monitoring.signals.output import OutputDrift
from headrace.monitoring.signals.quality import LabelledQuality

#: How the budget is shared; the shares add up to 1, so the chance of any false alarm in a window stays within it.
SHARES = {output.NAME: 0.5, quality.NAME: 0.5}


def judge(window: Window, reference: Reference, monitor: Monitor) -> Alarm:
    """Return what a window means. `consequence` is NONE where all is quiet."""
    classes = np.array(reference.classes) if reference.classes else None
    return judge_frame(frame_of(window, reference.task, classes=classes), reference, monitor)


def judge_frame(frame: Frame, reference: Reference, monitor: Monitor) -> Alarm:
    """Return what a window by columns means."""
    signals = [signal for detector in detectors(reference, monitor) for signal in detector.look(frame)]
    return verdict(signals, rows=len(frame))


def detectors(reference: Reference, monitor: Monitor) -> Sequence[Detector]:
    """Return what looks at a window, each with its share of the budget."""
    return [
        OutputDrift(reference, level=monitor.false_alarms * SHARES[output.NAME]),
        LabelledQuality(reference, level=monitor.false_alarms * SHARES[quality.NAME]),
    ]


def verdict(signals: Sequence[Signal], *, rows: int) -> Alarm:
    """Return the consequence of some signals, with the evidence in one sentence."""
    fired = {signal.name: signal for signal in signals if signal.fired}
    if not fired:
        return Alarm(Consequence.NONE, f"Nothing changed over {rows} predictions.", signals)
    if quality.NAME in fired:
        sentence = fired[quality.NAME].sentence
        others = [signal.sentence for name, signal in fired.items() if name != quality.NAME]
        return Alarm(Consequence.RETRAIN, f"{', and '.join([sentence, *others])}.", signals)
    listed = ", and ".join(signal.sentence for signal in fired.values())
    unlabelled = next((signal.sentence for signal in signals if signal.name == quality.NAME), "")
    sentence = f"{listed[:1].upper()}{listed[1:]} over {rows} predictions. {unlabelled}"
    return Alarm(Consequence.WARN, sentence.strip(), signals)
