"""What a stage's deployment is given reaches its workers, and nobody else."""

import resource
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.conftest import SmallModels
from tests.endpoints import home_settings

from headrace import wiring
from headrace.config.component import Component
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.errors import ModelRefused
from headrace.lifecycle.versions import VersionRecord, remember, served_version
from headrace.types import Resources, ServedVersion, Stage

GIVEN = {
    "DEV_KEY": "canary-dev", "LIVE_KEY": "canary-live", "OTHER_KEY": "canary-other",
    "AWS_SECRET_ACCESS_KEY": "canary-s3", "AWS_ACCESS_KEY_ID": "canary-id",
    "HEADRACE_DATABASE_URL_FILE": "/nowhere/canary-database",
}  # fmt: skip
STAGES = {
    "dev": {"environment_variables": {"LOG_LEVEL": "debug", "ONLY_DEV": "1"}, "secrets": ["DEV_KEY"]},
    "production": {
        "environment_variables": {"LOG_LEVEL": "warning"},
        "secrets": ["LIVE_KEY"],
        "limits": {"memory": "1536m", "cpus": 0.5},
    },
}
CORES = len(psutil.Process().cpu_affinity())
#: Bytes of data, and cores, of each stage's workers.
LIMITS = {Stage.DEV: (resource.RLIM_INFINITY, CORES), Stage.PRODUCTION: (1536 * 1024**2, 1)}
NAMES = {*GIVEN, "LOG_LEVEL", "ONLY_DEV"}


def environments(pid: int) -> list[dict[str, str]]:
    """Return the environments of an endpoint's children, its fronts and its workers."""
    return [one.environ() for one in psutil.Process(pid).children(recursive=True)]


def held(pid: int) -> list[tuple[int, int]]:
    """Return what the kernel holds an endpoint's workers to."""
    workers = [one for one in psutil.Process(pid).children(recursive=True) if "worker_child.py" in str(one.cmdline())]
    return [(one.rlimit(psutil.RLIMIT_DATA)[0], len(one.cpu_affinity())) for one in workers]


def test_each_stage_gets_its_own_variables_secrets_and_limits(small_models: SmallModels, tmp_path: Path) -> None:
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
            assert held(status.endpoint.pid) == [LIMITS[stage]], "limits are this stage's alone"
            assert not NAMES & psutil.Process(status.endpoint.pid).environ().keys()
            folder = settings.run / f"text-{stage.value}"
            kept = [path for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
            assert [(path.name, path.stat().st_mode & 0o777) for path in kept] == [("given.json", 0o600)]
    finally:
        for stage in Stage:
            target.remove("text", stage)


@pytest.mark.parametrize("memory", ["64m", "200m"])
def test_a_model_that_its_stages_memory_does_not_hold_is_told_so(
    small_models: SmallModels, tmp_path: Path, memory: str
) -> None:
    """Refused memory, libraries end in many ways while they are loaded."""
    version = ServedVersion("digits", 1, small_models.mlp, small_models.python, limits=Resources(memory=memory))
    target = ProcessTarget(home_settings(tmp_path / "home"))
    with pytest.raises(ModelRefused) as caught:
        target.apply(Route("digits", Stage.DEV, [version], {1: 1.0}))
    assert f"Its stage gives each worker {memory}: raise `limits.memory` below `stages`" in caught.value.remedy
    assert target.status("digits", Stage.DEV) is None
