"""The local target: one supervisor process per component and stage, found again by its run folder."""

import contextlib
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headrace import processes
from headrace.config.settings import Settings
from headrace.deploy import channel
from headrace.deploy.base import Route, Status
from headrace.deploy.channel import NoSupervisor
from headrace.deploy.golden import check_golden
from headrace.errors import Unavailable
from headrace.files import write_atomically
from headrace.processes import ProcessName
from headrace.types import Endpoint, Json, ServedVersion, Stage

HOST = "127.0.0.1"
#: One that ends is told at once; a busy machine takes its time.
START_S = 180.0
#: Loading a large model and importing its libraries for the first time can take minutes.
PREPARE_S = 600.0
ANSWER_S = 60.0


class ProcessTarget:
    """Endpoints as processes of this machine. Several headrace processes may use it at the same time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def apply(self, route: Route) -> Status:
        folder = self._folder(route.component, route.stage)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(folder):
            started = self._ensure(folder, route)
            try:
                return self._apply(folder, route)
            except BaseException:
                if started:  # Nothing served before, so nothing is left behind.
                    self._stop(folder)
                raise

    def status(self, component: str, stage: Stage) -> Status | None:
        folder = self._folder(component, stage)
        try:
            return _status(component, stage, channel.ask(folder, {"do": "status"}, timeout_s=ANSWER_S))
        except NoSupervisor:
            return None

    def remove(self, component: str, stage: Stage) -> None:
        folder = self._folder(component, stage)
        if folder.is_dir():
            with _alone(folder):
                self._stop(folder)
                for name in ("route.json", "given.json"):
                    (folder / name).unlink(missing_ok=True)
                shutil.rmtree(folder / "predictions", ignore_errors=True)  # Those of dev; production's lie elsewhere.

    def endpoints(self) -> Sequence[Endpoint]:
        found = []
        for stage in Stage:
            for folder in sorted(self._settings.run.glob(f"*-{stage.value}")):
                status = self.status(folder.name.removesuffix(f"-{stage.value}"), stage)
                if status is not None:
                    found.append(status.endpoint)
        return found

    # The route

    def _apply(self, folder: Path, route: Route) -> Status:
        asked: dict[str, Json] = {"do": "prepare", "route": _document(route), "secrets": self._secrets(route)}
        prepared = channel.ask(folder, asked, timeout_s=PREPARE_S)
        if not prepared["unchanged"]:
            try:
                self._check_golden(folder, route, prepared)
            except BaseException:
                with contextlib.suppress(Unavailable):
                    channel.ask(folder, {"do": "discard"}, timeout_s=ANSWER_S)
                raise
        commit: dict[str, Json] = {
            "do": "commit",
            "generation": prepared["generation"],
            "golden": prepared["unchecked"],
        }
        answer = channel.ask(folder, commit, timeout_s=ANSWER_S)
        return _status(route.component, route.stage, answer)

    def _check_golden(self, folder: Path, route: Route, prepared: dict[str, Any]) -> None:
        """Send golden inputs through the real endpoint to each version that has not shown its answers yet."""
        url = str(channel.ask(folder, {"do": "status"}, timeout_s=ANSWER_S)["url"])
        # A probe needs no key of the endpoint.
        headers = {"x-headrace-probe": str(prepared["token"])}
        for version in route.versions:
            if version.version in prepared["unchecked"]:
                pinned = {**headers, "x-headrace-version": str(version.version)}
                check_golden(version, f"{url}/invocations", headers=pinned, timeout_s=ANSWER_S)

    def _secrets(self, route: Route) -> Json:
        names = {name for version in route.versions for name in version.secrets}
        names |= {*route.serve.predict_keys, *route.serve.feedback_keys}
        return {name: self._settings.variables[name] for name in sorted(names) if name in self._settings.variables}

    # The process

    def _ensure(self, folder: Path, route: Route) -> bool:
        """Have a supervisor listen, and tell whether it was started just now."""
        try:
            channel.ask(folder, {"do": "status"}, timeout_s=ANSWER_S)
        except NoSupervisor:
            self._start(folder, route)
            return True
        return False

    def _start(self, folder: Path, route: Route) -> None:
        self._stop(folder)  # One that hangs, or whose children are left.
        wanted = route.serve.port or _read_port(folder)
        try:
            self._start_at(folder, route, wanted)
        except Unavailable:
            if route.serve.port or not wanted or not _is_taken(wanted):
                raise
            # The port of last time went to somebody else, and nobody asked for it by number.
            self._start_at(folder, route, 0)

    def _start_at(self, folder: Path, route: Route, port: int) -> None:
        command: list[str | Path] = [sys.executable, "-m", "headrace.serving.supervisor", "--port", str(port)]
        command += ["--predictions", self._predictions(route.component, route.stage)]
        environment = self._settings.child_environment(
            {"HEADRACE_STATE": str(self._settings.state), "HEADRACE_HOME": str(self._settings.home)}
        )
        (folder / "failed.json").unlink(missing_ok=True)
        log = folder / "supervisor.log"
        name = processes.start_detached(command, env=environment, cwd=folder, log=log)
        write_atomically(folder / "supervisor.json", json.dumps(name.as_json()))
        status = self._wait(folder, name, log)
        write_atomically(folder / "port", str(status["url"]).rpartition(":")[2])

    def _wait(self, folder: Path, name: ProcessName, log: Path) -> dict[str, Any]:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(NoSupervisor):
                return channel.ask(folder, {"do": "status"}, timeout_s=ANSWER_S)
            if not processes.is_alive(name):
                raise _why(folder, log)
            time.sleep(0.02)
        processes.stop(name)
        raise Unavailable(f"The supervisor in {folder} did not come up within {START_S:g} s.", f"See {log}.")

    def _stop(self, folder: Path) -> None:
        name = _read_name(folder)
        if name is not None:
            # It answers what it has accepted before it goes.
            processes.stop(name, grace_s=_stops_within_s(folder))
        (folder / "supervisor.json").unlink(missing_ok=True)

    def _folder(self, component: str, stage: Stage) -> Path:
        return self._settings.run / f"{component}-{stage.value}"

    def _predictions(self, component: str, stage: Stage) -> Path:
        # What dev answers is no evidence about production.
        return (
            self._settings.predictions if stage is Stage.PRODUCTION else self._folder(component, stage) / "predictions"
        )


def _document(route: Route) -> Json:
    versions: list[Json] = [_version(version) for version in route.versions]
    return {
        "component": route.component,
        "stage": route.stage.value,
        "versions": versions,
        "shares": {str(number): share for number, share in route.shares.items()},
        "serve": route.serve.model_dump(mode="json"),
        "shadow": list(route.shadow),
        "shadow_share": route.shadow_share,
    }


def _version(version: ServedVersion) -> Json:
    document = asdict(version)
    return {
        **document,
        "model": str(version.model),
        "python": str(version.python),
        "golden": str(version.golden) if version.golden else None,
        "environment_variables": dict(version.environment_variables),
        "secrets": list(version.secrets),
    }


def _status(component: str, stage: Stage, answer: dict[str, Any]) -> Status:
    return Status(
        endpoint=Endpoint(component, stage, answer["url"], answer["pid"]),
        generation=answer["generation"],
        shares={int(number): share for number, share in answer["shares"].items()},
        warm=answer["warm"],
        restarts=answer["restarts"],
        problem=answer["problem"],
        predict_keys=answer.get("predict_keys", ()),
        feedback_keys=answer.get("feedback_keys", ()),
        measured={int(number): numbers for number, numbers in answer.get("measured", {}).items()},
    )


def _why(folder: Path, log: Path) -> Unavailable:
    with contextlib.suppress(OSError, ValueError):
        document = json.loads((folder / "failed.json").read_text())
        return Unavailable(document["fact"], document["remedy"])
    last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    return Unavailable(f"The supervisor in {folder} ended at once: {''.join(last)}", f"See {log}.")


def _stops_within_s(folder: Path) -> float:
    """Return how long a supervisor may take: as long as what was accepted may take to be answered, and some more."""
    try:
        deadline_ms = float(json.loads((folder / "route.json").read_text())["route"]["serve"]["deadline_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        deadline_ms = 0.0
    return max(30.0, min(deadline_ms / 1000, 120.0) + 10.0)


def _read_name(folder: Path) -> ProcessName | None:
    try:
        document = json.loads((folder / "supervisor.json").read_text())
        return ProcessName(int(document["pid"]), float(document["started"]))
    except (OSError, ValueError, KeyError):
        return None


def _read_port(folder: Path) -> int:
    try:
        return int((folder / "port").read_text())
    except (OSError, ValueError):
        return 0


def _is_taken(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold an endpoint's lock, so that two deployers take turns."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
