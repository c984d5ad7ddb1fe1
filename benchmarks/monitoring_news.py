"""Streams of AG News that change in known ways, and electricity prices in time order: the right verdict for each."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.monitoring_elec2 import SWITCHED, retrained, switched
from benchmarks.monitoring_parts import AG_NEWS, BUDGET, ELEC2, Found, Sizes
from benchmarks.report import ROOT, Claim
from headrace.config.component import Monitor
from headrace.config.settings import read_settings
from headrace.environment.uv import UvEnvironments
from headrace.evaluation.answers import Answers
from headrace.monitoring.base import Consequence
from headrace.monitoring.frame import Frame
from headrace.monitoring.judge import watch_frame
from headrace.monitoring.memory import Memory
from headrace.monitoring.reference import Reference, build
from headrace.types import Task


def elec2(sizes: Sizes) -> Found:
    """Electricity prices in time order: what switches on is named; retraining helps where the gate lets it through."""
    if not ELEC2.exists():
        return Found(claims=[Claim("elec2", None, "named, and better", None, f"{ELEC2.name} is absent")])
    named, stories = switched(ELEC2), {"by_alarms": retrained(ELEC2), "each_window": retrained(ELEC2, by_cron=True)}
    after, before = named["named in the two windows after it"], named["named before the switch"]
    claims = [
        Claim("elec2_columns_named", ", ".join(after), ", ".join(sorted(SWITCHED)) + ", and none before",
              after == sorted(SWITCHED) and not before, "windows of 500 rows"),
    ]  # fmt: skip
    for name, story in stories.items():
        gain, lost = story["gain of the accepted"], story["gain the refused would have had"]
        accepted, refused = story["accepted"], story["refused"]
        claims += [
            Claim(f"elec2_{name}_gain_of_accepted", gain, "> 0", gain > 0 if accepted else None,
                  f"{accepted} accepted, accuracy on the next 1,000 rows; {story['accepted and worse by 0.02']} worse"),
            Claim(f"elec2_{name}_gain_of_refused", lost, "<= 0", lost <= 0 if refused else None,
                  f"{refused} refused; {story['refused though better by 0.02']} of them better by 0.02"),
        ]  # fmt: skip
    return Found([named, *stories.values()], claims)


#: What a stream of news must lead to, decided before the first run: in its last window, and never beyond it before.
VERDICTS = {
    "control": Consequence.NONE, "class mix": Consequence.WARN, "two classes swapped": Consequence.RETRAIN,
    "html double-escaped": Consequence.WARN, "five words only": Consequence.RETRAIN, "lower-cased": Consequence.WARN,
    "a new topic": Consequence.REBUILD,
}  # fmt: skip


def news(sizes: Sizes) -> Found:
    """Streams of AG News that change in known ways, two windows of 500 labelled predictions each."""
    if not AG_NEWS.exists():
        return Found(claims=[Claim("news_streams", None, "the right verdicts", None, f"{AG_NEWS.name} is absent")])
    environments, example = UvEnvironments(read_settings()), ROOT / "examples" / "news_classifier"
    python = environments.build(environments.lock(example), progress=lambda text: print(text, file=sys.stderr)).python
    found = Found()
    with tempfile.TemporaryDirectory() as temporary:
        command = [python, ROOT / "benchmarks" / "news_streams.py", example, AG_NEWS, temporary]
        subprocess.run(command, check=True, env=read_settings().child_environment())
        holdout = _news_frame(Path(temporary) / "holdout.parquet")
        reference = build(holdout.rows(), task=Task.CLASSIFICATION, inputs=holdout.inputs)
        for name, expected in VERDICTS.items():
            row = _verdicts(_news_frame(Path(temporary) / f"{name}.parquet"), reference)
            found.rows.append({"part": "news", "stream": name, **row})
            said = row["verdicts"]
            holds = said[-1] == expected.value and (expected is Consequence.RETRAIN or "retrain" not in said)
            evidence = f"accuracy {row['accuracy']:.3f} where the holdout has {reference.metrics['accuracy']:.3f}"
            found.claims.append(
                Claim(f"news_{name.replace(' ', '_')}", ", ".join(said), expected.value, holds, evidence)
            )
    return found


def _news_frame(path: Path) -> Frame:
    table = pq.read_table(path)
    classes = np.array([name for name in table.column_names if name not in ("text", "truth")])
    scores = np.stack([table[name].to_numpy() for name in classes], axis=1)
    texts, truth = (np.array(table[name].to_pylist(), object) for name in ("text", "truth"))
    answers = Answers(classes[scores.argmax(axis=1)], scores, classes)
    return Frame({"text": texts}, answers, truth, np.ones(len(texts), bool))


def _verdicts(frame: Frame, reference: Reference, rows: int = 500) -> dict[str, Any]:
    memory, said, sentences = Memory(), [], []
    for start in range(0, len(frame) - rows + 1, rows):
        part = slice(start, start + rows)
        scores = frame.answers.scores
        assert scores is not None
        window = Frame(
            {name: values[part] for name, values in frame.inputs.items()},
            Answers(frame.answers.answer[part], scores[part], frame.answers.classes),
            frame.truth[part], frame.labelled[part],
        )  # fmt: skip
        watched = watch_frame(window, reference, Monitor(window=rows, false_alarms=BUDGET), memory, version=1)
        memory = watched.memory
        said.append(watched.alarm.consequence.value)
        sentences.append(watched.alarm.sentence)
    accuracy = float(np.mean(frame.answers.answer == frame.truth))
    return {"verdicts": said, "accuracy": round(accuracy, 4), "sentences": sentences}
