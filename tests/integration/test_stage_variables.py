"""What a stage's deployment is given reaches its workers, and nobody else."""

from dataclasses import replace
from pathlib import Path

import psutil
from tests.conftest import SmallModels
from tests.endpoints import home_settings

from headrace import wiring
from headrace.config.component import Component
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.lifecycle.versions import VersionRecord, remember, served_version
from headrace.types import Stage

GIVEN = {
    "DEV_KEY": "canary-dev", "LIVE_KEY": "canary-live", "OTHER_KEY": "canary-other",
    "AWS_SECRET_ACCESS_KEY": "canary-s3", "AWS_ACCESS_KEY_ID": "canary-id",
    "HEADRACE_DATABASE_URL_FILE": "/nowhere/canary-database",
}  # fmt: skip
STAGES = {
    "dev": {"environment_variables": {"LOG_LEVEL": "debug", "ONLY_DEV": "1"}, "secrets": ["DEV_KEY"]},
    "production": {"environment_variables": {"LOG_LEVEL": "warning"}, "secrets": ["LIVE_KEY"]},
}
NAMES = {*GIVEN, "LOG_LEVEL", "ONLY_DEV"}


def environments(pid: int) -> list[dict[str, str]]:
    """Return the environments of an endpoint's children, its fronts and its workers."""
    return [one.environ() for one in psutil.Process(pid).children(recursive=True)]


def test_each_stage_gets_its_own_variables_and_secrets(small_models: SmallModels, tmp_path: Path) -> None:
    settings = home_settings(tmp_path / "home", GIVEN)
    rooms = wiring.rooms(replace(settings, variables={**settings.variables, "HEADRACE_DATABASE_URL_FILE": ""}))
    target = ProcessTarget(settings)
    config = Component.model_validate({"component": "text", "stages": STAGES, "folder": tmp_path})
    remember(
        rooms,
        VersionRecord(
            "text", 1, "r", "m", str(small_models.text), "", str(small_models.python), "b" * 64, str(tmp_path),
            config.as_json(),
        ),
    )  # fmt: skip
    expected = {
        Stage.DEV: {"LOG_LEVEL": "debug", "ONLY_DEV": "1", "DEV_KEY": "canary-dev"},
        Stage.PRODUCTION: {"LOG_LEVEL": "warning", "LIVE_KEY": "canary-live"},
    }
    try:
        for stage in Stage:
            version = served_version(rooms, "text", 1, stage)
            status = target.apply(Route("text", stage, [version], {1: 1.0}))
            own = [{name: one[name] for name in NAMES & one.keys()} for one in environments(status.endpoint.pid)]
            assert expected[stage] in own, "the worker has what the stage gives it"
            assert [one for one in own if one and one != expected[stage]] == [], "and no other process has any of it"
            assert not NAMES & psutil.Process(status.endpoint.pid).environ().keys()
            folder = settings.run / f"text-{stage.value}"
            kept = [path for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
            assert [(path.name, path.stat().st_mode & 0o777) for path in kept] == [("given.json", 0o600)]
    finally:
        for stage in Stage:
            target.remove("text", stage)
