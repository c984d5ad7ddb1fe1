"""Training a version again from its baseline, and saying how alike the result is.

    reproduce(original, workshop) -> Reproduction      # identical | equivalent | different, and what differs

First every input is compared with the baseline; only if all are as they were, training is worth its time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from headrace.config.component import Component
from headrace.config.settings import Settings
from headrace.data.tables import describe
from headrace.environment.base import Environments, Lock
from headrace.errors import HeadraceError
from headrace.lifecycle.candidates.inputs import copy_of
from headrace.provenance import golden
from headrace.provenance.baseline import GOLDEN, Baseline, DataFacts, packages, this_platform
from headrace.provenance.code import checkout
from headrace.provenance.compare import compare_packages
from headrace.provenance.tensors import tensor_digest
from headrace.registry.base import Registry
from headrace.serving.offline import answers
from headrace.training.project import read_project
from headrace.training.train import TrainedModel, Workplace, train
from headrace.types import Json, ServedVersion

#: How far a metric may be off for two trainings to count as equivalent.
METRIC_TOLERANCE = 0.01


class Likeness(StrEnum):
    """How alike a version and its reproduction are."""

    IDENTICAL = "identical"
    EQUIVALENT = "equivalent"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Original:
    """The version that is to be reproduced.

    Attributes:
        folder: the component's own folder, for its repository and its data.
        kept: the verified baseline folder (golden predictions).
        metrics: of its training run.
    """

    version: int
    baseline: Baseline
    kept: Path
    folder: Path
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a training needs; `folder` is empty and stays behind with logs and the new model."""

    settings: Settings
    environments: Environments
    registry: Registry
    folder: Path
    tell: Callable[[str], None] = print


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of it; `sentences` say what differs, or on what evidence nothing does."""

    likeness: Likeness
    sentences: Sequence[str]
    run_id: str = ""
    numbers: Mapping[str, Json] = field(default_factory=dict)


def reproduce(original: Original, workshop: Workshop, *, here: bool = False) -> Reproduction:
    """Train a version again in a clean checkout and environment, and compare.

    Args:
        here: from the project as it lies there now, not from the commit of its training; says what has changed since.

    Raises:
        NotFound: the commit is gone.
        EnvironmentFailed, TrainingFailed: as in any training.
    """
    baseline = original.baseline
    copy = checkout(original.folder, workshop.folder / "checkout", None if here else _commit(baseline))
    component = Component.model_validate({**baseline.settings, "folder": copy.folder})
    lock = workshop.environments.lock(component.project_folder, for_gpus=component.wants_gpus)
    sources = {use: _source(workshop.settings, facts, here=here) for use, facts in baseline.data.items()}
    gaps = [
        *_code_gaps(baseline, copy.code.diff, copy.code.commit),
        *_data_gaps(baseline, sources),
        *_environment_gaps(baseline, lock),
    ]
    if gaps:
        return Reproduction(Likeness.DIFFERENT, gaps)
    replaced = _replaced(baseline, sources)
    for sentence in replaced:
        workshop.tell(sentence)
    workshop.tell(f"all inputs are as they were; training version {original.version} again")
    environment = workshop.environments.build(lock, progress=workshop.tell)
    run = workshop.registry.start_run(
        f"{baseline.component}-reproduced",
        key=f"reproduce/{baseline.component}/{original.version}/{workshop.folder.name}",
        tags={"headrace.reproduces": f"{baseline.component}/{original.version}"},
    )
    point = read_project(component.project_folder).entry_point(component.entry_point)
    wanted = {name: value for name, value in baseline.parameters.items() if name in point.parameters}
    data = component.data.train
    if data is not None and data.parameter and "train" in sources:
        wanted[data.parameter] = str(sources["train"])
    trained = train(
        Workplace(workshop.settings, environment, component.project_folder),
        workshop.registry,
        run,
        entry_point=component.entry_point,
        parameters=wanted,
        folder=workshop.folder / "train",
    )
    found = _compare(original, trained, environment.python)
    return replace(found, sentences=[*found.sentences, *replaced])


def _commit(baseline: Baseline) -> str | None:
    """Return the commit to check out; None takes the tree as it lies there, for what no commit holds."""
    return baseline.code.commit if baseline.code.commit and not baseline.code.diff else None


def _code_gaps(baseline: Baseline, diff: str, commit: str) -> list[str]:
    code = baseline.code
    if commit != code.commit:
        return [f"code: commit {commit[:12] or 'none'} here, {code.commit[:12] or 'none'} at training"]
    if diff == code.diff:
        return []
    if not code.diff:
        return [f"code: uncommitted changes here (diff {diff[:12]}), none at training"]
    named = ", ".join(code.changed_files[:5]) if code.has_git else f"{len(code.changed_files)} files without git"
    return [f"code: the version was trained from uncommitted changes ({named}) that are not the ones here"]


def _source(settings: Settings, facts: DataFacts, *, here: bool) -> Path:
    """Return where a data input is read from: its copy where one was kept, unless it is asked for what lies there."""
    copy = copy_of(settings, facts)
    return copy if facts.kept == "copy" and not here and copy.exists() else Path(facts.uri)


def _data_gaps(baseline: Baseline, sources: Mapping[str, Path]) -> list[str]:
    found = []
    for use, facts in baseline.data.items():
        path = sources[use]
        try:
            now = describe(path)
        except HeadraceError as error:
            found.append(f"data: {use} cannot be read: {error.fact}")
            continue
        if now.sha256 != facts.sha256:
            rows = f", {now.rows} rows here, {facts.rows} at training" if now.rows != facts.rows else ""
            found.append(
                f"data: {use} ({path}) is another file than at training "
                f"(sha256 {now.sha256[:12]}… here, {facts.sha256[:12]}… at training{rows})"
            )
    return found


def _replaced(baseline: Baseline, sources: Mapping[str, Path]) -> list[str]:
    """Return a sentence for each data input whose file is another by now, and whose copy was taken instead."""
    found = []
    for use, facts in baseline.data.items():
        if sources[use] == Path(facts.uri):
            continue
        with suppress(HeadraceError):
            if describe(Path(facts.uri)).sha256 == facts.sha256:
                continue
        found.append(f"data: {use} ({facts.uri}) was replaced since; the copy that was kept was taken")
    return found


def _environment_gaps(baseline: Baseline, lock: Lock) -> list[str]:
    environment = baseline.environment
    found = compare_packages(environment.packages, packages(lock.text))
    if lock.python != environment.python:
        found.insert(0, f"Python {environment.python} at training, {lock.python} here")
    if this_platform() != environment.platform:
        found.insert(0, f"platform {environment.platform} at training, {this_platform()} here")
    if lock.digest != environment.digest and not found:
        found.append("the same versions from other files (the lock's hashes differ)")
    return [f"environment: {sentence}" for sentence in found]


def _compare(original: Original, trained: TrainedModel, python: Path) -> Reproduction:
    baseline = original.baseline
    numbers: dict[str, Json] = {"seconds": round(trained.seconds, 2), **trained.run.metrics}
    tensors = tensor_digest(trained.folder)
    if tensors and tensors == baseline.model.tensors:
        sentence = f"all tensors are equal, bit by bit (digest {tensors[:12]})"
        return Reproduction(Likeness.IDENTICAL, [sentence], trained.run.id, numbers)
    gaps = [*_golden_gaps(original, trained, python), *_metric_gaps(original.metrics, trained.run.metrics)]
    if gaps:
        return Reproduction(
            Likeness.DIFFERENT, ["all inputs are as they were, and yet:", *gaps], trained.run.id, numbers
        )
    sentence = "the tensors differ, but golden answers and metrics agree within their tolerances"
    return Reproduction(Likeness.EQUIVALENT, [sentence], trained.run.id, numbers)


def _golden_gaps(original: Original, trained: TrainedModel, python: Path) -> list[str]:
    if original.baseline.golden is None:
        return []
    expected = golden.load(original.kept / GOLDEN)
    version = ServedVersion(
        original.baseline.component, 0, trained.folder, python, allow_pickle=bool(original.baseline.model.pickled)
    )
    sentence = golden.compare(expected, answers(version, expected.inputs))
    return [f"golden answers: {sentence}"] if sentence else []


def _metric_gaps(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    gone = [f"metric {name}: missing now, {before[name]:.4g} at training" for name in sorted(before.keys() - after)]
    return gone + [
        f"metric {name}: {after[name]:.4g} now, {before[name]:.4g} at training"
        for name in sorted(before.keys() & after.keys())
        if not _alike(before[name], after[name])
    ]


def _alike(before: float, after: float) -> bool:
    if not (math.isfinite(before) and math.isfinite(after)):
        return before == after or (math.isnan(before) and math.isnan(after))
    return abs(after - before) <= METRIC_TOLERANCE * max(1.0, abs(before))
