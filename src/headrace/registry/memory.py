"""`MemoryRegistry`: a registry that lives as long as its process; for tests and trials."""

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from headrace.errors import NotFound
from headrace.registry.base import Run, RunState, Version

KEY_TAG = "headrace.key"


def _folder_of_this_process() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="headrace-registry-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@dataclass(slots=True)
class MemoryRegistry:
    """Runs and versions in dictionaries, artifacts in a temporary folder."""

    artifacts: Path = field(default_factory=_folder_of_this_process)
    _runs: dict[str, Run] = field(default_factory=dict)
    _versions: dict[str, dict[int, Version]] = field(default_factory=dict)
    _aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def start_run(self, experiment: str, *, key: str, tags: Mapping[str, str]) -> Run:
        found = self.find_run(experiment, key=key)
        if found is not None:
            return found
        run = Run(f"run{next(self._ids)}", experiment, RunState.RUNNING, tags={**tags, KEY_TAG: key})
        self._runs[run.id] = run
        return run

    def find_run(self, experiment: str, *, key: str) -> Run | None:
        of_experiment = (run for run in self._runs.values() if run.experiment == experiment)
        return next((run for run in of_experiment if run.tags.get(KEY_TAG) == key), None)

    def run(self, run_id: str) -> Run:
        if run_id not in self._runs:
            raise NotFound(f"There is no run {run_id}.")
        return self._runs[run_id]

    def end_run(self, run_id: str, state: RunState) -> None:
        run = self.run(run_id)
        if run.state is RunState.RUNNING or (run.state is RunState.FINISHED and state is RunState.FAILED):
            self._runs[run_id] = replace(run, state=state)

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        run = self.run(run_id)
        self._runs[run_id] = replace(
            run,
            parameters={**run.parameters, **{name: str(value) for name, value in (parameters or {}).items()}},
            metrics={**run.metrics, **(metrics or {})},
            tags={**run.tags, **(tags or {})},
        )

    def upload(self, run_id: str, path: Path, folder: str) -> None:
        there = self.artifacts / self.run(run_id).id / folder
        there.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, there, dirs_exist_ok=True)
        else:
            shutil.copy2(path, there)

    def download(self, uri: str, to: Path) -> Path:
        source = self._source(uri)
        if not source.exists():
            raise NotFound(f"There is nothing behind {uri}.")
        to.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            return Path(shutil.copy2(source, to))
        shutil.copytree(source, to / source.name if uri.startswith("runs:") else to, dirs_exist_ok=True)
        return to / source.name if uri.startswith("runs:") else to

    def add_model(self, run_id: str, folder: Path) -> str:
        """Do what a training does that logs a model: keep a copy and name it in the run. Returns its URI."""
        uri = f"models:/m-{next(self._ids)}"
        shutil.copytree(folder, self.artifacts / "models" / uri.removeprefix("models:/"))
        run = self.run(run_id)
        self._runs[run_id] = replace(run, models=[*run.models, uri])
        return uri

    def register(self, component: str, *, run_id: str, model: str, key: str, tags: Mapping[str, str]) -> Version:
        known = self._versions.setdefault(component, {})
        for number, version in known.items():
            if version.tags.get(KEY_TAG) == key:
                return self.version(component, number)
        number = len(known) + 1
        known[number] = Version(component, number, run_id, model, tags={**tags, KEY_TAG: key})
        return known[number]

    def version(self, component: str, number: int) -> Version:
        try:
            found = self._versions[component][number]
        except KeyError as error:
            raise NotFound(f"There is no version {number} of `{component}`.") from error
        aliases = self._aliases.get(component, {}).items()
        return replace(found, aliases=sorted(name for name, points_at in aliases if points_at == number))

    def versions(self, component: str) -> Sequence[Version]:
        return [self.version(component, number) for number in sorted(self._versions.get(component, {}), reverse=True)]

    def tag_version(self, component: str, number: int, tags: Mapping[str, str]) -> None:
        found = self.version(component, number)
        self._versions[component][number] = replace(found, tags={**found.tags, **tags})

    def set_alias(self, component: str, alias: str, number: int | None) -> None:
        if number is None:
            self._aliases.get(component, {}).pop(alias, None)
        else:
            self.version(component, number)
            self._aliases.setdefault(component, {})[alias] = number

    def alias(self, component: str, alias: str) -> int | None:
        return self._aliases.get(component, {}).get(alias)

    def _source(self, uri: str) -> Path:
        kind, _, rest = uri.partition(":/")
        if kind == "runs":
            return self.artifacts / rest
        if kind == "models" and "/" in rest:
            component, _, number = rest.partition("/")
            return self._source(self.version(component, int(number)).source)
        if kind == "models":
            return self.artifacts / "models" / rest
        return Path(uri)
