"""The `torchserve` target: a stage of a component on a TorchServe of its own, as a process or in a container.

It serves one version at a time and keeps others registered for an instant rollback. TorchServe has no canaries, no
shadow traffic, no prediction ids and no prediction log: a route that asks for shares of traffic is refused, not
approximated.
"""

import contextlib
import fcntl
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from headrace.config.component import Serve
from headrace.config.settings import Settings
from headrace.deploy.base import Route, Status
from headrace.deploy.golden import check_golden
from headrace.deploy.torchserve import archive, record
from headrace.deploy.torchserve.log import answer_cause, first_cause
from headrace.deploy.torchserve.record import Record
from headrace.deploy.torchserve.server import Launcher, Server, unpacked_name
from headrace.errors import Conflict, HeadraceError, InvalidInput, ModelRefused, Unavailable
from headrace.files import sha256_json
from headrace.processes import free_port
from headrace.types import Endpoint, Json, Resources, ServedVersion, Stage

LOADED_WITHIN_S = 150.0


@dataclass(frozen=True, slots=True)
class TorchServeTarget:
    """Endpoints on TorchServe, one for each component and stage."""

    settings: Settings
    launcher: Launcher

    def apply(self, route: Route) -> Status:
        """Register what is new, check it, then make it the version that answers; see `Target`."""
        default = _only_version(route)
        fit = self.launcher.fit(route, default)
        held = [one for one in route.versions if self.launcher.fit(route, one) == fit]
        others = [one for one in route.versions if one not in held]
        folder = self._folder(route.component, route.stage)
        with _alone(folder):
            before = record.read(folder, self.launcher)
            tried = self._try(route, others, before, folder)
            route = replace(route, versions=held)
            if before is not None and before.server.is_alive():
                if before.fit == fit:
                    return self._move(route, default, before, tried)
                self._rehearse(route, default, folder)
                before.server.stop()
            fresh = self._start(route, default, folder, before)
            try:
                return self._move(route, default, fresh, tried)
            except BaseException:
                fresh.server.stop()
                raise

    def status(self, component: str, stage: Stage) -> Status | None:
        found = record.read(self._folder(component, stage), self.launcher)
        if found is None or not found.server.is_alive():
            return None
        return _status(found)

    def remove(self, component: str, stage: Stage) -> None:
        folder = self._folder(component, stage)
        if not folder.exists():
            return
        with _alone(folder):
            found = record.read(folder, self.launcher)
            if found is not None:
                found.server.stop()
            (folder / record.NAME).unlink(missing_ok=True)
            (folder / "workers.json").unlink(missing_ok=True)
            for path in (folder / "store").glob("*.mar"):
                path.unlink()
            for place in (folder, _next(folder)):
                self.launcher.sweep(place)
            shutil.rmtree(_next(folder), ignore_errors=True)

    def endpoints(self) -> Sequence[Endpoint]:
        found = [record.read(path.parent, self.launcher) for path in sorted(self._root.glob(f"*/{record.NAME}"))]
        return [_endpoint(one) for one in found if one is not None and one.server.is_alive()]

    @property
    def _root(self) -> Path:
        return self.settings.run / self.launcher.name

    def _folder(self, component: str, stage: Stage) -> Path:
        return self._root / f"{component}-{stage}"

    def _start(self, route: Route, default: ServedVersion, folder: Path, before: Record | None) -> Record:
        port = route.serve.port or (before.port if before else 0) or free_port()
        server = self.launcher.start(folder, route, default, port=port)
        generation = before.generation if before else 0
        return Record(route.component, route.stage.value, server, port, self.launcher.fit(route, default), generation)

    def _try(
        self, route: Route, versions: Sequence[ServedVersion], before: Record | None, folder: Path
    ) -> dict[int, str]:
        """See that versions serve which are to be ready and cannot be held beside the one that answers."""
        known = {**before.tried, **before.content} if before else {}
        tried = {version.version: _content(version, route.serve) for version in versions}
        for version in versions:
            if known.get(version.version) != tried[version.version]:
                self._rehearse(replace(route, versions=[version]), version, folder)
        return tried

    def _rehearse(self, route: Route, default: ServedVersion, beside: Path) -> None:
        """See that a TorchServe of another kind serves the route, beside the one that answers.

        Both cannot have the port: what could fail is done before the one that answers is stopped.
        """
        folder = _next(beside)
        self.launcher.sweep(folder)
        shutil.rmtree(folder, ignore_errors=True)
        server = self.launcher.start(folder, route, default, port=free_port())
        try:
            self.launcher.write_workers(folder, self._workers(route))
            for version in route.versions:
                _register(server, version, route.serve)
        finally:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)

    def _move(self, route: Route, default: ServedVersion, before: Record, tried: Mapping[int, str]) -> Status:
        wanted = {version.version: _content(version, route.serve) for version in route.versions}
        if wanted == before.content and default.version == before.default:
            if tried != before.tried:
                record.write(replace(before, tried=tried))
            return _status(before)
        server = before.server
        self._check_unchanged(route, wanted, before)
        new = [version for version in route.versions if before.content.get(version.version) != wanted[version.version]]
        self.launcher.write_workers(server.folder, self._workers(route))
        registered: list[ServedVersion] = []
        try:
            for version in new:
                if version.version in before.content:
                    _unregister(server, version.component, version.version)
                registered.append(version)
                _register(server, version, route.serve)
        except HeadraceError:
            for version in registered:
                _unregister(server, version.component, version.version)
            raise
        _expect(server, "PUT", f"/models/{route.component}/{default.version}/set-default")
        for number in before.content.keys() - wanted.keys():
            _unregister(server, route.component, number)
        after = replace(before, generation=before.generation + 1, default=default.version, content=wanted, tried=tried)
        record.write(after)
        return _status(after)

    def _check_unchanged(self, route: Route, wanted: Mapping[int, str], before: Record) -> None:
        """Refuse what TorchServe could only do with a gap: the version that answers cannot be registered anew."""
        number = before.default
        if number is not None and number in wanted and wanted[number] != before.content[number]:
            raise Conflict(
                f"Version {number} of {route.component} answers with other settings than now asked for; TorchServe "
                "cannot change them while it serves.",
                f"Release another version, or `headrace down {route.component}` and up again.",
            )

    def _workers(self, route: Route) -> dict[str, Json]:
        """Return the interpreter and the variables of each version's workers."""
        workers: dict[str, Json] = {}
        for version in route.versions:
            threads = str(archive.threads_of(route.serve))
            variables: dict[str, Json] = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
            variables |= dict(version.environment_variables)
            variables |= {name: self._secret(name, version) for name in version.secrets}
            workers[f"{version.component}/{version.version}"] = {
                "python": self.launcher.python(version), "variables": variables, "memory": version.limits.memory_bytes,
                "cores": math.ceil(version.limits.cpus),
            }  # fmt: skip
        return workers

    def _secret(self, name: str, version: ServedVersion) -> str:
        if name not in self.settings.variables:
            raise InvalidInput(
                f"{version.component} version {version.version} needs the secret `{name}`, which is not set.",
                f"Set it in the environment that headrace runs in: export {name}=…",
            )
        return self.settings.variables[name]


def _only_version(route: Route) -> ServedVersion:
    serving = [number for number, share in route.shares.items() if share > 0]
    if len(serving) != 1 or route.shadow:
        raise InvalidInput(
            f"The route of {route.component} asks for {len(serving)} versions with traffic and {len(route.shadow)} in "
            "shadow; TorchServe serves one version and has neither.",
            "Use `release.strategy: direct`, or serve with the `process` or `docker` target.",
        )
    found = [version for version in route.versions if version.version == serving[0]]
    if not found:
        raise InvalidInput(f"Version {serving[0]} has traffic but is not among the versions of the route.")
    return found[0]


def _next(folder: Path) -> Path:
    """Return the folder of the TorchServe that is tried beside the one of `folder`."""
    return folder.with_name(f"{folder.name}.next")


def _content(version: ServedVersion, serve: Serve) -> str:
    return sha256_json(
        {
            "seal": version.seal, "model": str(version.model), "python": str(version.python),
            "variables": dict(version.environment_variables), "secrets": list(version.secrets),
            "workers": serve.workers, "threads": serve.threads, "max_batch": serve.max_batch,
            # Not where there are none: what was deployed before limits were known is unchanged.
            **({"limits": asdict(version.limits)} if version.limits != Resources() else {}),
        }
    )  # fmt: skip


def _register(server: Server, version: ServedVersion, serve: Serve) -> None:
    """Register a version, and make sure of its workers and of its golden answers."""
    built = archive.build(version, server.folder / "store", serve=serve)
    # TorchServe unpacks by file name: an archive that it has seen before would be served as it was then.
    path = built.path.rename(built.path.with_name(unpacked_name(built.path)))
    path.chmod(0o644)  # Its folder is private; in a container somebody else reads it.
    mark = server.log_size()
    name = f"{version.component}/{version.version}"
    try:
        workers = archive.workers_of(serve)
        answer = server.call(
            "POST",
            "/models",
            params={
                "url": path.name, "model_name": version.component, "initial_workers": str(workers),
                "synchronous": "true", "batch_size": str(serve.max_batch), "max_batch_delay": "1",
                "response_timeout": str(max(1, round(serve.deadline_ms / 1000) + 1)), "startup_timeout": "120",
            },
            timeout_s=LOADED_WITHIN_S,
        )  # fmt: skip
        if answer.status_code != 200 or _ready_workers(server, name) < workers:
            raise _refused(server, version, answer.status_code, answer.text, mark)
    finally:
        path.unlink(missing_ok=True)  # It is unpacked by now, or will not be.
    check_golden(version, f"{server.inference}/predictions/{name}")


def _ready_workers(server: Server, name: str) -> int:
    answer = server.call("GET", f"/models/{name}")
    if answer.status_code != 200:
        return 0
    return sum(worker["status"] == "READY" for one in answer.json() for worker in one["workers"])


def _refused(server: Server, version: ServedVersion, status: int, answer: str, mark: int) -> ModelRefused:
    cause = answer_cause(status, answer) if status != 200 else None
    cause = cause or first_cause(server.model_log_since(mark), version.component, version=str(version.version))
    subject = f"{version.component} version {version.version} cannot be served by TorchServe"
    if cause is None:
        return ModelRefused(f"{subject}: {' '.join(answer.split())[:200]}", f"See {server.model_log}.")
    return ModelRefused(f"{subject}: {cause.fact}", cause.remedy or f"See {server.model_log}.")


def _unregister(server: Server, component: str, number: int) -> None:
    """Take a version out; one that never came in, or that TorchServe threw out by itself, is no error."""
    with contextlib.suppress(Unavailable):
        server.call("DELETE", f"/models/{component}/{number}", timeout_s=LOADED_WITHIN_S)


def _expect(server: Server, method: str, path: str) -> None:
    answer = server.call(method, path)
    if answer.status_code != 200:
        raise Unavailable(
            f"TorchServe answered {answer.status_code} to {method} {path}: {' '.join(answer.text.split())[:200]}",
            f"See {server.server_log}.",
        )


def _status(found: Record) -> Status:
    warm, problem = [], ""
    for number in sorted(found.content):
        if _ready_workers(found.server, f"{found.component}/{number}"):
            warm.append(number)
        elif number == found.default:
            cause = first_cause(_text(found.server.model_log), found.component, version=str(number))
            problem = cause.fact if cause else f"version {number} has no worker that is ready"
    shares = {} if found.default is None else {found.default: 1.0}
    return Status(_endpoint(found), found.generation, shares, warm, problem=problem)


def _endpoint(found: Record) -> Endpoint:
    return Endpoint(found.component, Stage(found.stage), found.server.inference, found.server.running.pid)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the endpoint's lock, against another command at the same time."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
