"""The `docker` target on an engine that is reached over SSH, with a real SSH server."""

import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.containers.asking import asking, wait_for
from tests.containers.conftest import Docker
from tests.containers.parts import installed

from headrace.config.component import Serve
from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.docker.engine import Engine, find_engine
from headrace.deploy.docker.target import DockerTarget
from headrace.errors import Unavailable
from headrace.processes import free_port
from headrace.types import ServedVersion, Stage

#: What answers late on a busy machine answers all the same.
SERVE = Serve(workers=2, deadline_ms=60_000)


@pytest.fixture
def far(docker: Docker, settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings whose engine is the session's, behind an SSH server on loopback."""
    sshd, keygen = installed("sshd", "openssh-server"), installed("ssh-keygen", "openssh-client")
    if not Path("/usr/bin/docker").exists():
        pytest.skip("what SSH logs in to finds `docker` in /usr/bin alone")
    for key in ("host", "mine"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    port = free_port()
    host = docker.engine.variables.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/mine.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        f"SetEnv DOCKER_HOST={host}\n"
    )
    (tmp_path / "ssh_config").write_text(
        f"IdentityFile {tmp_path}/mine\nUserKnownHostsFile {tmp_path}/known\nStrictHostKeyChecking accept-new\n"
    )
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {tmp_path}/ssh_config "$@"\n')
    (bin_folder / "ssh").chmod(0o755)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (tmp_path / "sshd.log").open("wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", tmp_path / "sshd_config"], stdout=log, stderr=log)
    user = pwd.getpwuid(os.getuid()).pw_name
    mine = replace(
        settings,
        variables={
            **settings.variables, "HEADRACE_DOCKER": docker.engine.program,
            "DOCKER_HOST": f"ssh://{user}@127.0.0.1:{port}", "PATH": f"{bin_folder}:{settings.variables['PATH']}",
        },
    )  # fmt: skip
    try:
        wait_for(lambda: _answers(mine), seconds=300)
        yield mine
    finally:
        server.terminate()
        server.wait(60)


def _answers(settings: Settings) -> bool:
    try:
        return bool(find_engine(settings))
    except Unavailable:
        return False


def test_versions_move_on_an_engine_elsewhere_without_a_failed_request(
    docker: Docker, far: Settings, sealed: ServedVersion
) -> None:
    served = docker.images.serve(sealed, docker.environment, commit="c" * 40).id
    engine: Engine = find_engine(far)
    assert engine.far.startswith("ssh://")
    target = DockerTarget(far, engine, lambda _: served)
    second = replace(sealed, version=2)
    try:
        status = target.apply(Route("digits", Stage.DEV, [sealed], {1: 1.0}, SERVE))
        with asking(f"{status.endpoint.url}/invocations") as codes:
            [victim, *_] = docker.engine.containers(target.label("digits", Stage.DEV))
            docker.engine.run("kill", victim)
            wait_for(
                lambda: len({*docker.engine.containers(target.label("digits", Stage.DEV))} - {victim}) == 2, seconds=300
            )
            target.apply(Route("digits", Stage.DEV, [second], {2: 1.0}, SERVE))
            wait_for(lambda: (200, "2") in codes, seconds=300)
            mean_s = _seconds_of(status.endpoint.url)
        assert {code for code, _ in codes} == {200}
        print(f"\n  over SSH: {len(codes)} answers, {mean_s * 1000:.1f} ms each")
    finally:
        target.remove("digits", Stage.DEV)
    wait_for(lambda: docker.engine.containers(target.label("digits", Stage.DEV)) == [], seconds=300)


def _seconds_of(url: str) -> float:
    """Return how long an answer takes, of 50."""
    import httpx

    with httpx.Client(timeout=120, trust_env=False) as client:
        began = time.monotonic()
        for _ in range(50):
            assert client.post(f"{url}/invocations", json={"inputs": [[0.5] * 64]}).status_code == 200
        return (time.monotonic() - began) / 50
