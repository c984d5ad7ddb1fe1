"""What differs between two versions, in plain words.

compare(before, after, metrics=…, commits=…) -> Changes     # .sentences() for people, .as_json() for scripts
compare_packages(a, b, names=("at training", "here")) -> list[str]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.provenance.baseline import Baseline, CodeFacts, DataFacts, EnvironmentFacts, ModelFacts
from headrace.types import Json

#: Packages that change what a model answers, named first.
_FIRST = ("torch", "numpy", "scikit-learn", "mlflow", "pandas", "xgboost", "lightgbm")
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs, by section; a section without differences is absent."""

    component: str
    sections: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """Return one line for each difference."""
        return [f"{name}: {sentence}" for name, found in self.sections.items() for sentence in found]

    def as_json(self) -> dict[str, Json]:
        return {name: list(found) for name, found in self.sections.items()}


def compare(
    before: Baseline,
    after: Baseline,
    *,
    metrics: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
    commits: Sequence[str] = (),
) -> Changes:
    """Return what differs between two baselines.

    Args:
        metrics: of both versions, where they are known.
        commits: subjects of the commits between the two, oldest first, where they are known.
    """
    found = {
        "code": _code(before.code, after.code, commits),
        "data": _data(before.data, after.data),
        "parameters": _values(before.parameters, after.parameters),
        "environment": _environment(before.environment, after.environment),
        "model": _model(before.model, after.model),
        "settings": _values(_flat(before.settings), _flat(after.settings)),
        "metrics": _metrics(*metrics),
    }
    return Changes(after.component, {name: sentences for name, sentences in found.items() if sentences})


def _code(before: CodeFacts, after: CodeFacts, commits: Sequence[str]) -> list[str]:
    found = []
    if before.repository != after.repository:
        found.append(f"repository {before.repository} before, {after.repository} now")
    if before.commit != after.commit:
        counted = f" ({len(commits)} commit{'s' if len(commits) > 1 else ''})" if commits else ""
        found.append(f"commit {before.commit[:12] or 'none'} before, {after.commit[:12] or 'none'} now{counted}")
        found += [f"commit “{subject}”" for subject in commits[-_SHOWN:]]
    if before.diff != after.diff:
        found.append(f"{_dirt(before)} before, {_dirt(after)} now")
    return found


def _dirt(code: CodeFacts) -> str:
    if not code.diff:
        return "nothing uncommitted"
    shown = ", ".join(code.changed_files[:3]) + ("…" if len(code.changed_files) > 3 else "")
    return f"uncommitted changes in {shown} (digest {code.diff[:12]})"


def _data(before: Mapping[str, DataFacts], after: Mapping[str, DataFacts]) -> list[str]:
    found = [f"{use} is new ({after[use].uri})" for use in sorted(after.keys() - before.keys())]
    found += [f"{use} is gone ({before[use].uri})" for use in sorted(before.keys() - after.keys())]
    for use in sorted(before.keys() & after.keys()):
        one, other = before[use], after[use]
        if one.sha256 == other.sha256:
            continue
        rows = (
            f", {one.rows} rows before, {other.rows} now" if one.rows != other.rows else f", {one.rows} rows as before"
        )
        found.append(f"{use} has other content (sha256 {one.sha256[:12]}… before, {other.sha256[:12]}… now{rows})")
        found += [f"{use}: column {sentence}" for sentence in _values(one.columns, other.columns)]
    return found


def _environment(before: EnvironmentFacts, after: EnvironmentFacts) -> list[str]:
    found = []
    if before.python != after.python:
        found.append(f"Python {before.python} before, {after.python} now")
    if before.platform != after.platform:
        found.append(f"platform {before.platform} before, {after.platform} now")
    if before.kind != after.kind:
        found.append(f"environment {before.kind} before, {after.kind} now")
    packages = compare_packages(before.packages, after.packages, names=("before", "now"))
    if before.digest != after.digest and not (packages or found):
        found.append("the same versions from other files (the lock's hashes differ)")
    return [*found, *packages]


def compare_packages(
    one: Mapping[str, str], other: Mapping[str, str], *, names: tuple[str, str] = ("at training", "here")
) -> list[str]:
    """Return how two sets of distributions differ, those that change answers first.

    For example `torch 2.13.0 at training, 2.12.1 here` and `numpy 2.4.6 only at training`.
    """
    changed = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    found = []
    for name in sorted(changed, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)):
        if name not in other:
            found.append(f"{name} {one[name]} only {names[0]}")
        elif name not in one:
            found.append(f"{name} {other[name]} only {names[1]}")
        else:
            found.append(f"{name} {one[name]} {names[0]}, {other[name]} {names[1]}")
    return found


def _model(before: ModelFacts, after: ModelFacts) -> list[str]:
    found = []
    if before.formats != after.formats:
        found.append(f"format {', '.join(before.formats)} before, {', '.join(after.formats)} now")
    if before.signature != after.signature:
        found.append("the signature differs")
    if before.pickled != after.pickled:
        found.append(f"pickled files {before.pickled or 'none'} before, {after.pickled or 'none'} now")
    if before.tensors and after.tensors:
        same = "the same tensors, bit by bit" if before.tensors == after.tensors else "other tensors"
        return [*found, same] if before.digest != after.digest else found
    files = [
        name for name in before.files.keys() | after.files.keys() if before.files.get(name) != after.files.get(name)
    ]
    return [*found, f"other content in {', '.join(sorted(files)[:4])}"] if files else found


def _values(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    found = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            found.append(f"{name} was {before[name]}, is gone")
        elif name not in before:
            found.append(f"{name} is new: {after[name]}")
        elif before[name] != after[name]:
            found.append(f"{name} {before[name]} before, {after[name]} now")
    return found


def _flat(settings: Mapping[str, Json], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)
    return found


def _metrics(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    return _values(
        {name: f"{value:.4g}" for name, value in before.items()},
        {name: f"{value:.4g}" for name, value in after.items()},
    )
