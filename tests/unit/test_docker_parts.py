"""What can be said of images and containers without an engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.config.settings import Settings
from headrace.deploy.docker import launch
from headrace.deploy.docker.engine import Engine, find_engine, last_words
from headrace.deploy.docker.target import DockerTarget, limit_options
from headrace.deploy.images import context
from headrace.deploy.images.build import TEMPLATES, write_templates
from headrace.errors import Unavailable
from headrace.types import Resources, Stage


def test_the_failing_step_of_a_build_is_told() -> None:
    output = (
        "#1 [internal] load build definition\n#8 [2/4] RUN python3 -c …\n"
        "#8 0.312 BASE_IMAGE has Python 3.12, the environment is locked for 3.11\n"
        "------\nexecutor failed running [/bin/sh -c python3 …]: exit code: 1\n"
    )
    assert last_words(output).startswith(
        "BASE_IMAGE has Python 3.12, the environment is locked for 3.11 | executor failed"
    )
    assert last_words("") == "it said nothing"


def test_a_machine_without_docker_is_told_what_to_do(tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path, variables={"PATH": str(tmp_path)})
    with pytest.raises(Unavailable, match="There is no `docker` on PATH") as caught:
        find_engine(settings)
    assert "apt-get install docker.io" in caught.value.remedy


def test_the_launcher_keeps_what_is_the_hosts_and_passes_on_what_is_the_workers() -> None:
    said = "-I -u -X pycache_prefix=/c /src/worker_child.py --model /host/model --seal 5e --threads 2 --control-fd 7"
    said += " --parent 41 --listen w1.sock --memory 536870912 --cores 0,1 --pt2 data/model.pt2"
    options, worker = launch.parsed(said.split())
    assert (options.control_fd, options.parent, options.listen) == (7, 41, "w1.sock")
    assert worker == ["--seal", "5e", "--threads", "2", "--pt2", "data/model.pt2"]


#: An engine that knows the containers in a file.
ENGINE = r"""#!{python}
import json, pathlib, sys
kept = pathlib.Path({kept!r})
known = json.loads(kept.read_text())
words = sys.argv[1:]
if words[0] == "ps":
    [label] = [word.removeprefix("label=") for word in words if word.startswith("label=")]
    print("\n".join(name for name, one in known.items() if one["label"] == label))
elif words[:2] == ["container", "inspect"]:
    print(known[words[-1]]["told"])
elif words[0] == "rm":
    del known[words[-1]]
    kept.write_text(json.dumps(known))
"""


def test_one_home_does_not_remove_the_containers_of_another(tmp_path: Path) -> None:
    kept, program = tmp_path / "containers.json", tmp_path / "docker"
    program.write_text(ENGINE.format(python=sys.executable, kept=str(kept)))
    program.chmod(0o755)
    engine = Engine(str(program), {})
    homes = {name: Settings(tmp_path, tmp_path / name).prepare() for name in "ab"}
    targets = {name: DockerTarget(home, engine, lambda _: "") for name, home in homes.items()}
    known = {}
    for name, target in targets.items():
        sockets, old = target._sockets("digits", Stage.PRODUCTION), "org.headrace.endpoint=digits-production"
        known[f"{name}-new"] = {"label": target.label("digits", Stage.PRODUCTION), "told": f"/x /tmp/{sockets}1"}
        known[f"{name}-old"] = {"label": old, "told": f"/brave_bell /tmp/{sockets}2"}
        known[f"{name}-old-far"] = {"label": old, "told": f"/{sockets}7-1f2e3d"}
    kept.write_text(json.dumps(known))
    targets["a"].remove("digits", Stage.PRODUCTION)
    assert set(json.loads(kept.read_text())) == {"b-new", "b-old", "b-old-far"}


def test_limits_are_said_only_where_they_are_set() -> None:
    assert limit_options(Resources()) == []
    assert limit_options(Resources("512m", 1.5)) == ["--memory", "512m", "--memory-swap", "512m", "--cpus", "1.5"]


def test_installed_programs_run_in_the_images_interpreter(tmp_path: Path) -> None:
    programs = tmp_path / "environment" / "bin"
    programs.mkdir(parents=True)
    (programs / "mlflow").write_text("#!/home/ada/.venv/bin/python3\nimport mlflow\n")
    (programs / "tool").write_bytes(b"\x7fELF")
    context._point(programs, "/opt/environment/bin/python")
    assert (programs / "mlflow").read_text() == "#!/opt/environment/bin/python\nimport mlflow\n"
    assert (programs / "tool").read_bytes() == b"\x7fELF"


def test_equal_content_is_laid_out_with_equal_times_and_modes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir(mode=0o700)
    (tmp_path / "in" / "secretive.txt").write_text("x")
    (tmp_path / "in" / "secretive.txt").chmod(0o400)
    context._normalise(tmp_path / "in")
    found = {path.name: (path.stat().st_mode & 0o777, path.stat().st_mtime) for path in (tmp_path / "in").rglob("*")}
    assert found == {"secretive.txt": (0o644, context.EPOCH_S)}
    os.utime(tmp_path / "in" / "secretive.txt")


def test_other_content_of_the_same_size_has_another_time_and_equal_content_the_same(
    tmp_path: Path,
) -> None:
    """A build takes a file whose size and time are known for the one that it has."""
    settings = Settings(tmp_path / "state", tmp_path / "home")
    contexts, project = context.Contexts(settings, lambda _: None), tmp_path / "project"
    project.mkdir()
    times = []
    for code in ("rate = 0.1", "rate = 0.2", "rate = 0.1"):
        (project / "train.py").write_text(code)
        with contexts.train("digits", project) as folder:
            times.append((folder / "project" / "train.py").stat().st_mtime)
    assert times[0] == times[2] != times[1]
    assert times[0].is_integer()


def test_each_python_and_set_of_packages_has_a_server_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lay_out(_: context.Contexts, _python: Path, packages: Path, _what: list[str], programs: Path) -> None:
        programs.mkdir()
        (packages / "there").touch()

    monkeypatch.setattr(context.Contexts, "_install", lay_out)
    monkeypatch.setattr(context, "_finish", lambda *_: None)
    contexts = context.Contexts(Settings(tmp_path / "state", tmp_path / "home"), lambda _: None)
    folders = {}
    for minor in ("3.11", "3.12"):
        python = tmp_path / f"python{minor}"
        python.write_text(f"#!/bin/sh\necho {minor}\n")
        python.chmod(0o755)
        folders[minor] = contexts.server(python)
        assert (folders[minor] / "headrace" / "lib" / f"python{minor}" / "site-packages" / "there").exists()
        assert contexts.server(python) == folders[minor]
    monkeypatch.setattr(context, "SERVER_PACKAGES", ("numpy",))
    assert len({*folders.values(), contexts.server(tmp_path / "python3.11")}) == 3


def test_templates_download_nothing_and_name_no_secret(tmp_path: Path) -> None:
    for path in write_templates(tmp_path):
        assert path.read_text() == (TEMPLATES / path.name).read_text()
        steps = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert not any(word in line for line in steps for word in ("pip install", "apt-get", "curl", "secret", "ADD "))
    assert "ARG BASE_IMAGE=python:3.11-slim" in (tmp_path / "base.Dockerfile").read_text()


ONLY_WHAT_IS_THERE = """
import importlib.metadata, sys
there = {*sys.argv[1:], "headrace"}
class Absent:
    owners = {name: {one.lower().replace("_", "-") for one in found}
              for name, found in importlib.metadata.packages_distributions().items()}
    def find_spec(self, name, path=None, target=None):
        if path is None and name in self.owners and not self.owners[name] & there:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import headrace.deploy.images.standalone, headrace.serving.app, headrace.serving.front, headrace.serving.supervisor
"""


def test_all_that_the_server_needs_is_in_a_serve_image() -> None:
    """What an image starts is imported here, without the packages that are not laid out there."""
    command = [sys.executable, "-c", ONLY_WHAT_IS_THERE]
    done = subprocess.run([*command, *context.SERVER_PACKAGES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
