"""`MlflowRegistry`: runs, models, versions and aliases in MLflow, a store of headrace's own or the user's server."""

import contextlib
import fcntl
import functools
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlparse

import httpx

from headrace.config.settings import Settings
from headrace.errors import Conflict, InvalidInput, NotFound, Unavailable
from headrace.files import use_wal
from headrace.registry.base import Run, RunState, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

Item = TypeVar("Item")
KEY_TAG = "headrace.key"
#: MLflow keeps the place of a version's files, but not the name of the logged model that they are.
MODEL_TAG = "headrace.model"
OLDEST = 3
ANSWER_TIMEOUT_S = 4.0
#: Nothing phones home, and a server that is gone is noticed in seconds, not in minutes.
MLFLOW_VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}
#: What MLflow takes in one request.
METRICS_AT_ONCE, OTHERS_AT_ONCE = 1000, 100
VALUE_LENGTH = 6000


class MlflowRegistry:
    """The store that the settings name; nothing is opened before it is needed.

    Durable: all writes. A repeat of `start_run` and `register` finds what it made by the tag `headrace.key`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start_run(self, experiment: str, *, key: str, tags: Mapping[str, str]) -> Run:
        with told("starting a run"):
            found = self.find_run(experiment, key=key)
            if found is not None:
                return found
            run = self._client.create_run(
                self._experiment(experiment), tags={**tags, KEY_TAG: key}, run_name=tags.get("mlflow.runName")
            )
            return self._read(run, experiment)

    def find_run(self, experiment: str, *, key: str) -> Run | None:
        with told("looking for a run"):
            query = f"tags.`{KEY_TAG}` = '{_quotable(key)}'"
            found = self._client.search_runs([self._experiment(experiment)], query, max_results=1)
            return self._read(found[0], experiment) if found else None

    def run(self, run_id: str) -> Run:
        with told(f"run {run_id}", remedy="List the runs with `headrace history`."):
            found = self._client.get_run(run_id)
            return self._read(found, self._client.get_experiment(found.info.experiment_id).name)

    def end_run(self, run_id: str, state: RunState) -> None:
        with told(f"run {run_id}"):
            may_become = {RunState.FAILED: ("RUNNING", "SCHEDULED", "FINISHED")}.get(state, ("RUNNING", "SCHEDULED"))
            if self._client.get_run(run_id).info.status in may_become:
                self._client.set_terminated(run_id, state.value)

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        params = [Param(name, str(value)[:VALUE_LENGTH]) for name, value in (parameters or {}).items()]
        values = [Metric(name, float(value), now, 0) for name, value in (metrics or {}).items()]
        labels = [RunTag(name, str(value)) for name, value in (tags or {}).items()]
        with told(f"run {run_id}"):
            for some in _pieces(params, OTHERS_AT_ONCE):
                self._client.log_batch(run_id, params=some)
            for some in _pieces(values, METRICS_AT_ONCE):
                self._client.log_batch(run_id, metrics=some)
            for some in _pieces(labels, OTHERS_AT_ONCE):
                self._client.log_batch(run_id, tags=some)

    def upload(self, run_id: str, path: Path, folder: str) -> None:
        with told(f"uploading {path.name} to run {run_id}"):
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), folder)
            else:
                self._client.log_artifact(run_id, str(path), folder)

    def download(self, uri: str, to: Path) -> Path:
        to.mkdir(parents=True, exist_ok=True)
        is_path = ":" not in uri.partition("/")[0]  # `mlflow-artifacts:/…` has one slash
        if is_path:
            return _copied(Path(uri), to)
        with told(f"the files behind {uri}"):
            place = self._place(uri)
            import mlflow.artifacts

            there = mlflow.artifacts.download_artifacts(
                artifact_uri=place, dst_path=str(to), tracking_uri=self._uri, registry_uri=self._registry_uri
            )
        return Path(there)

    def _place(self, uri: str) -> str:
        """Return where the files behind a model's URI lie.

        MLflow's own way through `models:/NAME/3` looks into another store when one process has two, and adds a file of
        its own to the model's folder, whose digest then is another.
        """
        name = uri.removeprefix("models:/")
        if name == uri:
            return uri
        if "@" in name:
            component, _, alias = name.partition("@")
            return str(self._client.get_model_version_by_alias(component, alias).source)
        if "/" in name:
            component, _, number = name.partition("/")
            return str(self._client.get_model_version(component, number).source)
        return str(self._client.get_logged_model(name).artifact_location)

    def register(self, component: str, *, run_id: str, model: str, key: str, tags: Mapping[str, str]) -> Version:
        with told(f"registering {model} as `{component}`"):
            with contextlib.suppress(Conflict), told(component):
                self._client.create_registered_model(component)
            query = f"name='{_quotable(component)}' and tags.`{KEY_TAG}` = '{_quotable(key)}'"
            found = list(self._client.search_model_versions(query, max_results=1))
            if found:
                return self.version(component, int(found[0].version))
            model_id = model.removeprefix("models:/") if model.startswith("models:/m-") else None
            source = self._client.get_logged_model(model_id).artifact_location if model_id else model
            made = self._client.create_model_version(
                component, source, run_id=run_id, tags={**tags, KEY_TAG: key, MODEL_TAG: model}, model_id=model_id
            )
            # Somebody who was stopped between the search and here may come second; the first one stays.
            first = min(int(one.version) for one in self._client.search_model_versions(query))
            if first != int(made.version):
                self._client.delete_model_version(component, str(made.version))
            return self.version(component, first)

    def version(self, component: str, number: int) -> Version:
        with told(f"version {number} of `{component}`", remedy=f"See `headrace history {component}`."):
            found = self._client.get_model_version(component, str(number))
            return _version(found, self._aliases(component))

    def versions(self, component: str) -> Sequence[Version]:
        try:
            aliases = self._aliases(component)
        except NotFound:
            return []
        with told(f"versions of `{component}`"):
            found, token = list[Any](), None
            while True:
                page = self._client.search_model_versions(
                    f"name='{_quotable(component)}'", max_results=1000, page_token=token
                )
                found += page
                token = page.token
                if not token:
                    break
        return sorted((_version(one, aliases) for one in found), key=lambda version: -version.number)

    def tag_version(self, component: str, number: int, tags: Mapping[str, str]) -> None:
        with told(f"version {number} of `{component}`"):
            for name, value in tags.items():
                self._client.set_model_version_tag(component, str(number), name, str(value))

    def set_alias(self, component: str, alias: str, number: int | None) -> None:
        with told(f"alias `{alias}` of `{component}`"):
            if number is None:
                self._client.delete_registered_model_alias(component, alias)
            else:
                self._client.set_registered_model_alias(component, alias, str(number))

    def alias(self, component: str, alias: str) -> int | None:
        try:
            return self._aliases(component).get(alias)
        except NotFound:
            return None

    def _aliases(self, component: str) -> dict[str, int]:
        with told(f"registered model `{component}`"):
            found = self._client.get_registered_model(component)
        return {name: int(number) for name, number in found.aliases.items()}

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            # Without a server nobody else says where; MLflow would take a folder below wherever one happens to be.
            has_server = not self._uri.startswith("sqlite:")
            location = None if has_server else str(artifact_folder(self._settings, name))
            with contextlib.suppress(Conflict), told(f"experiment `{name}`"):
                return str(self._client.create_experiment(name, artifact_location=location))
            found = self._client.get_experiment_by_name(name)
        if found.lifecycle_stage != "active":
            raise Conflict(
                f"The experiment `{name}` was deleted in MLflow.",
                f"Run `mlflow experiments restore -x {found.experiment_id}`.",
            )
        return str(found.experiment_id)

    def _read(self, run: Any, experiment: str) -> Run:
        logged = run.outputs.model_outputs if run.outputs else []
        models = [(self._client.get_logged_model(one.model_id).creation_timestamp, one.model_id) for one in logged]
        return Run(
            id=run.info.run_id,
            experiment=experiment,
            state=RunState.RUNNING if run.info.status == "SCHEDULED" else RunState(run.info.status),
            parameters=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=dict(run.data.tags),
            models=[f"models:/{model_id}" for _, model_id in sorted(models)],
        )

    @property
    def _uri(self) -> str:
        return self._settings.mlflow_uri

    @property
    def _registry_uri(self) -> str:
        own = self._settings.tracking_uri is None
        return self._uri if own else self._settings.variables.get("MLFLOW_REGISTRY_URI") or self._uri

    @property
    def _client(self) -> "MlflowClient":
        return self._ready()

    def _ready(self) -> "MlflowClient":
        return _client(
            self._settings.mlflow_uri, self._registry_uri, self._settings.home, self._settings.tracking_uri is None
        )


@functools.cache
def _client(uri: str, registry_uri: str, home: Path, is_own: bool) -> "MlflowClient":
    """Return a client whose store is known to answer; made once per process and store."""
    os.environ.update({name: os.environ.get(name, value) for name, value in MLFLOW_VARIABLES.items()})
    if not is_own:
        check_server(uri)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=registry_uri)
    from mlflow import MlflowClient

    with _store(home):
        # Making the client makes the tables, and the first access those of the registry; two at it at once would both
        # try.
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return client


@contextlib.contextmanager
def _store(home: Path) -> Iterator[None]:
    """Hold the store's making, its journal set to WAL: readers then never wait for a writer."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (home / "mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.closing(sqlite3.connect(home / "mlflow.db", timeout=20)) as database:
                use_wal(database)
            with told(f"the store {home / 'mlflow.db'}"):
                yield
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(
            f"{home / 'mlflow.db'} cannot be written: {getattr(error, 'strerror', None) or error}.",
            "Make room or set HEADRACE_HOME to a folder on another disk.",
        ) from error


def check_server(uri: str) -> None:
    """Raise Unavailable where the MLflow server at `uri` does not answer or is older than 3.0."""
    if urlparse(uri).scheme not in ("http", "https"):
        return
    remedy = "Start it, correct MLFLOW_TRACKING_URI, or unset it: headrace then keeps a store of its own."
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    try:
        answer = httpx.get(
            f"{uri.rstrip('/')}/version",
            timeout=ANSWER_TIMEOUT_S,
            auth=(user, password or "") if user else None,
            follow_redirects=True,
        )
    except httpx.HTTPError as error:
        cause = str(error) or type(error).__name__
        raise Unavailable(
            f"The MLflow server that MLFLOW_TRACKING_URI names, {uri}, does not answer: {cause}.", remedy
        ) from error
    text = answer.text.strip()
    if answer.status_code in (401, 403):
        if user or os.environ.get("MLFLOW_TRACKING_TOKEN"):
            return  # Some servers guard this page with a token of their own; the first real call will tell.
        raise Unavailable(
            f"The MLflow server {uri} asks for a login.", "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    major = text.partition(".")[0]
    if answer.status_code != httpx.codes.OK or not major.isdigit():
        raise Unavailable(f"What answers at {uri} is no MLflow server (GET /version: {answer.status_code}).", remedy)
    if int(major) < OLDEST:
        raise Unavailable(
            f"The MLflow server {uri} is version {text}; headrace needs {OLDEST}.0 or newer (logged models).",
            "Upgrade the server, or unset MLFLOW_TRACKING_URI.",
        )


@contextlib.contextmanager
def told(what: str, *, remedy: str = "") -> Iterator[None]:
    """Turn MLflow's errors into those that headrace's callers know."""
    try:
        yield
    except Exception as error:
        # MLflow's class is looked up by name: importing it costs two seconds where nothing else did.
        code = getattr(error, "error_code", None)
        if code is None and not isinstance(error, OSError):
            raise
        raise _translated(str(code), what, str(error), remedy) from error


def _translated(code: str, what: str, cause: str, remedy: str) -> Exception:
    first = cause.strip().partition("\n")[0][:300]
    if code == "RESOURCE_DOES_NOT_EXIST":
        return NotFound(f"There is no {what} ({first}).", remedy)
    if code == "RESOURCE_ALREADY_EXISTS":
        return Conflict(f"{what} is there already.", remedy)
    if code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
        return InvalidInput(f"MLflow refuses {what}: {first}", remedy)
    return Unavailable(f"MLflow failed at {what}: {first}", remedy or "See that its store can be reached and written.")


def _version(found: Any, aliases: Mapping[str, int]) -> Version:
    number = int(found.version)
    return Version(
        component=found.name,
        number=number,
        run_id=found.run_id or "",
        source=found.tags.get(MODEL_TAG) or found.source,
        tags=dict(found.tags),
        aliases=sorted(name for name, points_at in aliases.items() if points_at == number),
    )


def _copied(source: Path, to: Path) -> Path:
    if not source.exists():
        raise NotFound(f"There is no file or folder {source}.")
    if source.is_dir():
        shutil.copytree(source, to, dirs_exist_ok=True)
        return to
    return Path(shutil.copy2(source, to))


def _pieces(items: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _quotable(value: str) -> str:
    """Refuse what MLflow's search language cannot quote."""
    if "'" in value or "`" in value:
        raise InvalidInput(f"The key `{value}` holds a quote, which MLflow cannot search for.")
    return value


def artifact_folder(settings: Settings, experiment: str) -> Path:
    """Return where an experiment's runs keep their files in headrace's own store."""
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in experiment)
    return settings.artifacts / name
