"""The commented headrace.yaml that `headrace init` writes. Pure text; what it renders, `parse` reads back."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.types import Json, Task

#: A data path's parameter, by the names that people give it; the first match wins.
DATA_WORDS = ("train_data", "training_data", "train", "data_path", "data", "dataset", "input", "path", "file", "csv")
PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
RESERVED = {"true", "false", "null", "True", "False", "Null", "None"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known when a headrace.yaml is written: facts of the MLproject, and what the user said.

    Attributes:
        component: the endpoint's and registered model's name (`component_name` makes one from a project's).
        project: the MLproject's folder, relative to where the file will lie.
        parameters: of the entry point, with their defaults (None where the MLproject gives none).
        data_parameter: the one that takes the training data's path; see `likely_data_parameter`.
        train: the training data's path or URL; only useful with a `data_parameter`.
        holdout: a Parquet or CSV file or a folder of images by class that training never sees.
        evaluate: an entry point that returns rows, in place of a holdout.
        tests: the command of the component's own tests.
    """

    component: str
    project: str = "."
    entry_point: str = "main"
    parameters: Mapping[str, Json] = field(default_factory=dict)
    data_parameter: str | None = None
    train: str | None = None
    holdout: str | None = None
    label: str | None = None
    task: Task | None = None
    evaluate: str | None = None
    tests: str | None = None


def component_name(project: str) -> str:
    """Return a valid component name that looks like a project's: `My Project_2` gives `my-project_2`."""
    name = re.sub(r"[^a-z0-9._-]+", "-", project.lower()).strip("-._")
    return name[:63].rstrip("-._") or "component"


def likely_data_parameter(parameters: Mapping[str, str]) -> str | None:
    """Return the parameter that most likely takes the training data, from names and MLproject types; None if none does.

    Args:
        parameters: name to MLproject type (`path`, `uri`, `string`, `float`).
    """
    texts = [name for name, kind in parameters.items() if kind in {"path", "uri", "string"}]
    for word in DATA_WORDS:
        found = next((name for name in texts if re.search(rf"(^|[_-]){word}([_-]|$)", name.lower())), None)
        if found is not None:
            return found
    return next((name for name, kind in parameters.items() if kind in {"path", "uri"}), None)


def render(answers: Answers) -> str:
    """Return the text of a headrace.yaml that says what is known, and shows as comments what else could be said."""
    blocks = [
        _head(answers),
        _data(answers),
        _environment(answers),
        _gate(answers),
        _SERVING,
        _RELEASE,
        _WATCH,
    ]
    return "\n".join(block.strip("\n") + "\n" for block in blocks)


def _head(answers: Answers) -> str:
    lines = [
        "# How headrace takes this component to production. Every key: docs/configuration.md",
        f"component: {scalar(answers.component)}",
        f"project: {scalar(answers.project)}  # the folder with the MLproject",
        f"entry_point: {scalar(answers.entry_point)}",
    ]
    free = {name: default for name, default in answers.parameters.items() if name != answers.data_parameter}
    if not free:
        return "\n".join(lines)
    lines.append("# parameters:  # what differs from the MLproject's defaults")
    lines += [f"#   {scalar(name)}: {scalar('…' if value is None else value)}" for name, value in free.items()]
    return "\n".join(lines)


def _data(answers: Answers) -> str:
    lines = ["data:"]
    if answers.train and answers.data_parameter:
        lines += ["  train:", f"    uri: {scalar(answers.train)}", f"    parameter: {scalar(answers.data_parameter)}"]
        lines += [f"    label: {scalar(answers.label)}"] if answers.label else []
    else:
        place = scalar(answers.data_parameter) if answers.data_parameter else "<name>"
        lines += [
            "  # What training reads; the entry point's parameter gets the path, and retraining a newer version of it.",
            f"  # train: {{uri: data/train.parquet, parameter: {place}, label: label}}",
        ]
    if answers.holdout:
        lines += ["  # Rows that training never sees; candidates are judged on them.", "  holdout:"]
        lines += [f"    uri: {scalar(answers.holdout)}"]
        lines += [f"    label: {scalar(answers.label)}"] if answers.label else []
    else:
        lines += [
            "  # Rows that training never sees (Parquet, CSV, or a folder of images by class); a gate needs them.",
            "  # holdout: {uri: data/holdout.parquet, label: label}",
        ]
    return "\n".join(lines)


def _environment(answers: Answers) -> str:
    tests = f"tests: {scalar(answers.tests)}" if answers.tests else "# tests: pytest -q"
    return f"""\
environment: uv  # a locked environment from what the MLproject names; `inherit` (dev only) or `docker`
# runs_on: gpu  # only workers with this label train it (headrace worker --label gpu)
# training: {{target: docker, memory: 4g, cpus: 2}}  # train in a container; docs/howto-containers.md
{tests}  # run before each training, in the project's folder
# code: allow  # or refuse, or allow-dev: what becomes of uncommitted changes
# allow_pickle: false  # models that run code when they are loaded are refused
"""


def _gate(answers: Answers) -> str:
    is_regression = answers.task is Task.REGRESSION
    metric, bound = ("r2", "{min: 0.3}") if is_regression else ("accuracy", "{min: 0.85}")
    # Unless a metric is named, the comparison takes the one that fits the task.
    named = f"metric: {metric}, " if answers.task else ""
    task = answers.task.value if answers.task else "classification"
    evaluate = f"evaluate: {scalar(answers.evaluate)}" if answers.evaluate else "# evaluate: evaluate"
    return f"""\
{"" if answers.task else "# "}task: {task}  # classification or regression
{evaluate}  # an entry point that writes truth and answer of each row, in place of a holdout; see docs/configuration.md
gate:
  # metrics: {{{metric}: {bound}}}
  against_champion: {{{named}no_worse_than: 0.02, confidence: 0.95}}
  # slices: [category]  # columns of the holdout: no group may be worse
  # min_rows: 30
"""


_SERVING = """\
# serve:
#   workers: 1  # processes for each version, or auto
#   max_batch: 64
#   deadline_ms: 1000
#   port: 0  # 0 takes a free one and keeps it
# acceptance: {p99_ms: 200, requests: 200, clients: 4}
"""

_RELEASE = """\
release:
  approval: automatic  # or required: a person types `headrace approve`
  # strategy: canary
  # steps: [5, 25, 100]
  # step_s: 2s
"""

_WATCH = """\
# monitor: {window: 500 predictions, false_alarms: 0.001 per window, label: {rate: 0.01}}
# retrain:
#   on: [data, quality, "cron: 0 3 * * 1"]
#   cooldown: 6h
# triggers: {commit: {branch: main}, tags: request}  # docs/howto-triggers.md
# stages:
#   production:
#     environment_variables: {LOG_LEVEL: warning}
#     secrets: [API_KEY]
#     limits: {memory: 2g, cpus: 2}  # of each worker; gpus: all (in containers)
"""


def scalar(value: Json) -> str:
    """Return a value as YAML on one line: plain where that is safe, else in double quotes."""
    if isinstance(value, str) and (value in RESERVED or not PLAIN.fullmatch(value)):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value)
