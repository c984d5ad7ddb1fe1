"""Which parts the environment asks for."""

from dataclasses import replace
from pathlib import Path

import pytest

from headrace import wiring
from headrace.config.component import Serve
from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.docker.engine import Engine
from headrace.deploy.images.of_version import environment_of
from headrace.deploy.torchserve.container import ContainerLauncher
from headrace.errors import InvalidConfig, Unavailable
from headrace.types import Resources, ServedVersion, Stage


def settings(tmp_path: Path, **variables: str) -> Settings:
    return Settings(tmp_path, tmp_path / "home", variables=variables)


def test_a_database_is_named_by_its_url_or_by_a_file_that_holds_it(tmp_path: Path) -> None:
    url = "postgresql+psycopg://ada:secret@db/headrace?sslmode=verify-full"
    (tmp_path / "url").write_text("postgresql://ada:secret@db/headrace?sslmode=verify-full\n")
    named = settings(tmp_path, HEADRACE_DATABASE_URL="postgres://ada:secret@db/headrace?sslmode=verify-full")
    filed = settings(tmp_path, HEADRACE_DATABASE_URL_FILE=str(tmp_path / "url"))
    for one in (named, filed):
        assert (one.ledger_url, one.flows_url) == (url, url)
        assert "secret" not in repr(one)
    assert settings(tmp_path).ledger_url.startswith("sqlite:///")


@pytest.mark.parametrize(("content", "why"), [("\n", "is empty"), (None, "cannot be read: No such file")])
def test_a_file_that_holds_no_database_begins_no_other_ledger(tmp_path: Path, content: str | None, why: str) -> None:
    if content is not None:
        (tmp_path / "url").write_text(content)
    with pytest.raises(InvalidConfig, match=rf"url \(HEADRACE_DATABASE_URL_FILE\) {why}"):
        _ = settings(tmp_path, HEADRACE_DATABASE_URL_FILE=str(tmp_path / "url")).ledger_url


def test_the_target_is_the_one_that_is_named(tmp_path: Path) -> None:
    assert type(wiring.target(settings(tmp_path))).__name__ == "ProcessTarget"
    assert type(wiring.target(settings(tmp_path, HEADRACE_TARGET="torchserve"))).__name__ == "TorchServeTarget"
    with pytest.raises(Unavailable, match="no `docker` on PATH"):
        wiring.target(settings(tmp_path, HEADRACE_TARGET="torchserve-docker", PATH=str(tmp_path)))
    with pytest.raises(InvalidConfig, match="`dokcer`, which is no target"):
        wiring.target(settings(tmp_path, HEADRACE_TARGET="dokcer"))


def test_a_torchserve_container_holds_one_environment_and_one_set_of_limits(tmp_path: Path) -> None:
    launcher = ContainerLauncher(settings(tmp_path), Engine("docker", {}))
    first = ServedVersion("digits", 1, tmp_path, tmp_path / "first" / "bin" / "python")
    other = replace(first, version=2, python=tmp_path / "other" / "bin" / "python")
    limited = replace(first, version=3, limits=Resources(memory="1g", cpus=0.5))
    route = Route("digits", Stage.DEV, [first, other, limited], {1: 1.0}, Serve(workers=2))
    assert len({launcher.fit(route, one) for one in route.versions}) == 3
    assert launcher.fit(route, replace(first, version=4)) == launcher.fit(route, first)


def test_an_image_needs_a_locked_environment(tmp_path: Path) -> None:
    made = tmp_path / ("e" * 64)
    (made / "bin").mkdir(parents=True)
    version = ServedVersion("digits", 1, tmp_path, made / "bin" / "python")
    with pytest.raises(InvalidConfig, match="has no locked environment"):
        environment_of(version)
    (made / "requirements.lock").write_text("numpy==2.4.6\n")
    (made / ".ready").write_text('{"python": "3.11.7", "packages": 1}')
    environment = environment_of(version)
    assert (environment.digest, environment.lock.python) == ("e" * 64, "3.11.7")
