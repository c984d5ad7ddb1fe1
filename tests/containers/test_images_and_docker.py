"""Images of a component and the `docker` target, on a real engine."""

import io
import json
import os
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.conftest import ROOT
from tests.containers.asking import asking, wait_for
from tests.containers.conftest import Docker

from headrace.config.component import Serve
from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.docker.target import DockerTarget
from headrace.deploy.images.build import write_templates
from headrace.errors import ModelRefused, Unavailable
from headrace.processes import free_port
from headrace.types import Resources, ServedVersion, Stage

CANARY = "canary-5f1d9c"
#: What answers late on a busy machine answers all the same.
SERVE = Serve(deadline_ms=60_000)


@pytest.fixture(scope="module")
def served(docker: Docker, sealed: ServedVersion) -> str:
    """The id of the version's serve image."""
    return docker.images.serve(sealed, docker.environment, commit="c" * 40).id


def test_train_and_serve_images_begin_with_the_layers_of_one_base(
    docker: Docker, sealed: ServedVersion, served: str
) -> None:
    base = docker.images.base(docker.environment)
    train = docker.images.train("digits", docker.environment, ROOT / "examples" / "digits").image
    serve = docker.engine.image(served)
    assert len(base.layers) >= 3
    for image in (train, serve):
        assert image.layers[: len(base.layers)] == base.layers
        assert image.user == "10001:10001"
    wanted = {"component": "digits", "version": "1", "baseline": sealed.baseline, "seal": sealed.seal}
    assert {name: serve.labels[f"org.headrace.{name}"] for name in wanted} == wanted
    assert serve.labels["org.opencontainers.image.revision"] == "c" * 40


def test_a_rebuild_with_nothing_changed_gives_the_same_digest(
    docker: Docker, sealed: ServedVersion, served: str
) -> None:
    start = time.monotonic()
    assert docker.images.serve(sealed, docker.environment, commit="c" * 40).id == served
    print(f"\n  rebuilt in {time.monotonic() - start:.1f} s")


def test_the_training_runs_in_the_train_image(docker: Docker, tmp_path: Path) -> None:
    image = docker.images.train("digits", docker.environment, ROOT / "examples" / "digits").image
    said = docker.engine.run(
        "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "ALL", image.id,
        "python", "-c", "import torch, mlflow, os; print(torch.__version__, os.getuid(), os.path.exists('MLproject'))",
    )  # fmt: skip
    assert said.split()[0].startswith("2.13.0")
    assert said.split()[1:] == ["10001", "True"]


def test_changed_code_of_the_same_size_is_in_the_next_image(docker: Docker, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for code in ("rate = 0.1", "rate = 0.2", "rate = 0.1"):
        (project / "train.py").write_text(code)
        image = docker.images.train("digits-changed", docker.environment, project).image
        assert docker.engine.run("run", "--rm", "--network", "none", image.id, "cat", "train.py") == code


def test_a_model_that_is_not_the_sealed_one_gets_no_image(docker: Docker, sealed: ServedVersion) -> None:
    with pytest.raises(ModelRefused, match=r"has the digest .*, the sealed one is 000000000000"):
        docker.images.serve(replace(sealed, version=9, seal="0" * 64), docker.environment)
    assert not docker.engine.has("digits:v9")


def test_no_secret_is_in_any_layer_history_label_or_variable(
    docker: Docker, sealed: ServedVersion, tmp_path: Path
) -> None:
    """Credentials of every kind lie around where the build runs; none of them may be found in what it makes."""
    planted = {
        "AWS_SECRET_ACCESS_KEY": CANARY, "PIP_INDEX_URL": f"https://user:{CANARY}@packages.invalid/simple",
        "MLFLOW_TRACKING_PASSWORD": CANARY, "API_KEY": CANARY,
    }  # fmt: skip
    variables = {**docker.settings.variables, **planted}
    settings = replace(
        docker.settings, variables={**variables, "PIP_INDEX_URL": docker.settings.variables.get("PIP_INDEX_URL", "")}
    )
    images = replace(docker.images, settings=settings)
    version = replace(sealed, version=7, secrets=("API_KEY",), environment_variables={"LOG_LEVEL": "warning"})
    image = images.serve(version, docker.environment)
    inspected = docker.engine.run("image", "inspect", image.id) + docker.engine.run("history", "--no-trunc", image.id)
    assert CANARY not in inspected
    assert "API_KEY" not in " ".join(image.environment)
    archive = tmp_path / "image.tar"
    docker.engine.run("save", "--output", archive, image.id, timeout_s=300)
    base = len(docker.images.base(docker.environment).layers)
    found = _files_with(archive, CANARY.encode(), skip=base)
    assert found == []


def _files_with(archive: Path, needle: bytes, *, skip: int) -> list[str]:
    """Return the files of an image's own layers that hold `needle`; the base's packages are those of the lock."""
    found = []
    with tarfile.open(archive) as image:
        manifest = image.extractfile("manifest.json")
        assert manifest is not None
        layers = json.load(manifest)[0]["Layers"][skip:]
        assert layers
        for layer in layers:
            content = image.extractfile(layer)
            assert content is not None
            with tarfile.open(fileobj=io.BytesIO(content.read())) as files:
                for member in files:
                    held = files.extractfile(member) if member.isfile() else None
                    if held is not None and needle in held.read():
                        found.append(member.name)
    return found


def test_a_serve_image_is_an_endpoint_by_itself(docker: Docker, served: str) -> None:
    port = free_port()
    container = docker.engine.run(
        "run", "--detach", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--publish", f"127.0.0.1:{port}:8080", served,
    ).strip()  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(url), seconds=300)
        answer = httpx.post(f"{url}/invocations", json={"inputs": [[0.5] * 64]}, timeout=120, trust_env=False)
        assert answer.headers["X-Headrace-Version"] == "1"
        assert len(answer.json()["predictions"][0]) == 10
        health = [
            docker.engine.program,
            "exec",
            container,
            "/opt/environment/bin/python",
            "/opt/headrace/enter.py",
            "health",
        ]
        assert subprocess.run(health, env=dict(docker.engine.variables), check=False).returncode == 0
    finally:
        docker.engine.remove(container)


def test_versions_move_between_containers_without_a_failed_request(
    docker: Docker, settings: Settings, sealed: ServedVersion, served: str
) -> None:
    mine = replace(
        settings, variables={**settings.variables, **_docker_variables(docker), "API_KEY": CANARY, "OTHER_KEY": "no"}
    )
    target = DockerTarget(mine, docker.engine, lambda version: served)
    second = replace(
        sealed, version=2, environment_variables={"LOG_LEVEL": "warning"}, secrets=("API_KEY",),
        limits=Resources(memory="1500m", cpus=1.5),
    )  # fmt: skip
    try:
        status = target.apply(Route("digits", Stage.DEV, [sealed], {1: 1.0}, SERVE))
        assert (status.shares, status.problem) == ({1: 1.0}, "")
        with asking(f"{status.endpoint.url}/invocations") as codes:
            target.apply(Route("digits", Stage.DEV, [sealed, second], {2: 1.0}, SERVE))
            wait_for(lambda: (200, "2") in codes)
            containers = docker.engine.containers(target.label("digits", Stage.DEV))
            assert len(containers) == 2
            seen = [json.loads(docker.engine.run("inspect", one))[0] for one in containers]
            for one in seen:
                assert CANARY not in json.dumps(one)  # The secret is in no description of a container …
                assert one["HostConfig"]["ReadonlyRootfs"]
                assert one["HostConfig"]["NetworkMode"] == "none"
            held = {
                one["Config"]["Labels"]["org.headrace.version"]: (
                    one["HostConfig"]["Memory"], one["HostConfig"]["MemorySwap"], one["HostConfig"]["NanoCpus"]
                )
                for one in seen
            }  # fmt: skip
            assert held == {"1": (0, 0, 0), "2": (1500 * 1024**2, 1500 * 1024**2, 1_500_000_000)}
            by_version = {one["Config"]["Labels"]["org.headrace.version"]: one["State"]["Pid"] for one in seen}
            assert CANARY in _environment(by_version["2"])  # … but in the worker that it belongs to,
            assert CANARY not in _environment(by_version["1"])  # and in no other.
            assert "OTHER_KEY" not in _environment(by_version["2"])
            # A killed container is started again; the version that is warm answers on.
            victim = next(one["Id"] for one in seen if one["Config"]["Labels"]["org.headrace.version"] == "1")
            docker.engine.run("kill", victim)
            wait_for(
                lambda: (found := target.status("digits", Stage.DEV)) is not None and found.restarts >= 1, seconds=300
            )
            wait_for(lambda: len(docker.engine.containers(target.label("digits", Stage.DEV))) == 2, seconds=300)
        assert {code for code, _ in codes} == {200}
    finally:
        target.remove("digits", Stage.DEV)
    assert docker.engine.containers(target.label("digits", Stage.DEV)) == []
    assert list(Path("/tmp").glob(f"{target._sockets('digits', Stage.DEV)}*")) == []


def test_an_image_with_another_model_is_not_deployed(
    docker: Docker, settings: Settings, sealed: ServedVersion, served: str
) -> None:
    target = DockerTarget(settings, docker.engine, lambda version: served)
    other = replace(sealed, seal="1" * 64)
    with pytest.raises(ModelRefused, match=r"holds the model .*, the baseline says 111111111111"):
        target.apply(Route("digits", Stage.DEV, [other], {1: 1.0}))
    assert target.status("digits", Stage.DEV) is None


def test_an_engine_that_does_not_answer_is_named(settings: Settings) -> None:
    from headrace.deploy.docker.engine import find_engine

    lost = replace(settings, variables={**settings.variables, "DOCKER_HOST": "unix:///nowhere/docker.sock"})
    with pytest.raises(Unavailable, match=r"No Docker engine answers at unix:///nowhere/docker\.sock"):
        find_engine(lost)


def test_a_users_own_dockerfiles_are_used_and_never_overwritten(docker: Docker, tmp_path: Path) -> None:
    written = write_templates(tmp_path)
    assert [path.name for path in written] == [
        f"{kind}.Dockerfile" for kind in ("base", "serve", "torchserve", "train")
    ]
    mine = tmp_path / "train.Dockerfile"
    mine.write_text(mine.read_text() + "LABEL mine=yes\n")
    assert write_templates(tmp_path) == []
    images = replace(docker.images, templates=tmp_path)
    assert images.train("digits-own", docker.environment, ROOT / "examples" / "digits").image.labels["mine"] == "yes"


def _docker_variables(docker: Docker) -> dict[str, str]:
    return {name: value for name, value in docker.engine.variables.items() if name.startswith("DOCKER_")}


def _environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode() if os.getuid() == 0 else ""


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
