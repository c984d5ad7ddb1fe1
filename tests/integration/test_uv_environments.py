"""Environments by the real uv, from wheels made on the spot: no network, and seconds for all of it."""

import base64
import hashlib
import multiprocessing
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.config.settings import Settings
from headrace.environment import uv as uv_environments
from headrace.environment.uv import UvEnvironments
from headrace.errors import EnvironmentFailed, InvalidConfig, Unavailable


def make_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    """Write the smallest wheel there is: one module and its metadata."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(folder, "alpha", "1.0", "beta<2")
    make_wheel(folder, "beta", "1.0")
    make_wheel(folder, "beta", "2.0")
    return folder


@pytest.fixture
def environments(tmp_path: Path, wheels: Path) -> UvEnvironments:
    variables = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    return UvEnvironments(Settings(tmp_path / "state", tmp_path / "home", variables=variables).prepare())


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def project(*requirements: str, name: str = "project") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "MLproject").write_text("name: p\n")
        (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
        return folder

    return project


def quiet(_: str) -> None:
    """Progress that nobody reads."""


def imported(python: Path, module: str) -> str:
    probe = f"import {module}; print({module}.VERSION)"
    return subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True).stdout.strip()


def test_a_project_is_locked_with_hashes_and_built(
    environments: UvEnvironments, write: Callable[..., Path], wheels: Path
) -> None:
    lock = environments.lock(write("alpha"))
    digest = hashlib.sha256((wheels / "beta-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert f"beta==1.0 \\\n    --hash=sha256:{digest}" in lock.text
    assert lock.sources == ("requirements.txt",)
    built = environments.build(lock, progress=quiet)
    assert imported(built.python, "beta") == "1.0"
    assert environments.download(lock).packages == 0


def test_the_second_time_uv_is_not_asked(
    environments: UvEnvironments, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = environments.build(environments.lock(write("alpha")), progress=quiet)
    monkeypatch.setattr(uv_environments, "find_uv", lambda _: pytest.fail("uv was asked"))
    assert environments.build(environments.lock(write("alpha")), progress=quiet) == first


def test_a_lock_stays_when_newer_packages_appear(
    environments: UvEnvironments, write: Callable[..., Path], wheels: Path
) -> None:
    lock = environments.lock(write("beta"))
    make_wheel(wheels, "beta", "3.0")
    assert environments.lock(write("beta")) == lock
    assert "beta==3.0" in environments.lock(write("beta>=2")).text


def test_equal_locks_share_one_environment(environments: UvEnvironments, write: Callable[..., Path]) -> None:
    one = environments.build(environments.lock(write("beta==1.0", name="one")), progress=quiet)
    two = environments.build(environments.lock(write("beta<2", "beta>=1", name="two")), progress=quiet)
    assert one.python == two.python


def test_what_cannot_be_solved_names_the_first_conflict(
    environments: UvEnvironments, write: Callable[..., Path]
) -> None:
    with pytest.raises(EnvironmentFailed, match=r"alpha depend on beta<2 and .* and you require beta>=2"):
        environments.lock(write("alpha==1.0", "beta>=2"))
    with pytest.raises(EnvironmentFailed, match="gamma was not found"):
        environments.lock(write("gamma"))
    assert list((environments.settings.environments).glob("**/*.json")) == []


def test_a_python_that_is_not_here_is_said_so(environments: UvEnvironments, tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text("name: p\n")
    (tmp_path / "python_env.yaml").write_text('python: "3.2"\ndependencies: [beta]\n')
    with pytest.raises(EnvironmentFailed, match=r"asks for Python 3\.2; this machine has 3\.") as refused:
        environments.lock(tmp_path)
    assert "python_env.yaml" in refused.value.remedy


def test_a_folder_as_requirement_is_refused(environments: UvEnvironments, write: Callable[..., Path]) -> None:
    for line in ("-e .", "./lib", "mylib @ file:///tmp/mylib"):
        with pytest.raises(InvalidConfig, match="folder of this machine"):
            environments.lock(write(line))


def test_a_changed_wheel_is_not_installed(
    environments: UvEnvironments, write: Callable[..., Path], wheels: Path
) -> None:
    lock = environments.lock(write("beta==1.0"))
    make_wheel(wheels, "beta", "1.0", "alpha")
    elsewhere = {**environments.settings.variables, "UV_CACHE_DIR": str(wheels.with_name("fresh-cache"))}
    environments = UvEnvironments(replace(environments.settings, variables=elsewhere))
    with pytest.raises(EnvironmentFailed, match="Hash mismatch"):
        environments.build(lock, progress=quiet)
    assert not (environments.settings.environments / lock.digest).exists()


def test_an_interrupted_build_is_begun_again(environments: UvEnvironments, write: Callable[..., Path]) -> None:
    lock = environments.lock(write("alpha"))
    half = environments.settings.environments / lock.digest
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").write_text("half")
    assert imported(environments.build(lock, progress=quiet).python, "alpha") == "1.0"


def test_processes_at_once_build_it_once(environments: UvEnvironments, write: Callable[..., Path]) -> None:
    project = write("alpha")
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        told = pool.map(_build_and_tell, [(environments.settings, project)] * 3)
    assert sum("making environment" in line for lines in told for line in lines) == 1


def _build_and_tell(arguments: tuple[Settings, Path]) -> list[str]:
    lines: list[str] = []
    environments = UvEnvironments(arguments[0])
    environments.build(environments.lock(arguments[1]), progress=lines.append)
    return lines


def test_without_a_gpu_a_cpu_build_is_taken_where_one_is_offered(
    environments: UvEnvironments, write: Callable[..., Path], wheels: Path
) -> None:
    make_wheel(wheels, "torch", "2.13.1", "nvidia-cublas")
    make_wheel(wheels, "torch", "2.13.0+cpu")
    make_wheel(wheels, "nvidia-cublas", "12.0")
    assert "torch==2.13.0+cpu" in environments.lock(write("torch")).text
    assert "nvidia" not in environments.lock(write("torch")).text
    # Nobody offers a CPU build of this one.
    assert "nvidia-cublas==12.0" in environments.lock(write("torch==2.13.1")).text


def test_where_gpus_are_asked_for_their_build_is_taken_without_one_here(
    environments: UvEnvironments, write: Callable[..., Path], wheels: Path
) -> None:
    make_wheel(wheels, "torch", "2.13.0+cpu")
    with pytest.raises(EnvironmentFailed, match=r"asks for GPUs, and of torch only the CPU build 2\.13\.0\+cpu"):
        environments.lock(write("torch"), for_gpus=True)
    make_wheel(wheels, "torch", "2.13.0", "nvidia-cublas")
    make_wheel(wheels, "nvidia-cublas", "12.0")
    project = write("torch==2.13.0")
    lock = environments.lock(project, for_gpus=True)
    assert "nvidia-cublas==12.0" in lock.text
    assert "\ntorch==2.13.0 " in lock.text
    assert "torch==2.13.0+cpu" in environments.lock(project).text
    assert environments.lock(project, for_gpus=True) == lock
    assert environments.lock(write("alpha", name="without"), for_gpus=True) == environments.lock(
        write("alpha", name="without")
    )


def test_a_uv_lock_is_taken_as_it_is(environments: UvEnvironments, tmp_path: Path, wheels: Path) -> None:
    project = tmp_path / "locked"
    project.mkdir()
    (project / "MLproject").write_text("name: p\n")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["beta==1.0"]\n'
    )
    uv = uv_environments.find_uv(environments.settings)
    done = uv.run("lock", "--no-index", "--find-links", wheels, cwd=project)
    assert done.returncode == 0, done.stderr
    make_wheel(wheels, "beta", "1.0.1")
    lock = environments.lock(project)
    assert lock.text.startswith("beta==1.0 ")
    assert sorted(lock.sources) == ["pyproject.toml", "uv.lock"]


def test_a_disk_that_cannot_be_written_is_said_so(environments: UvEnvironments, write: Callable[..., Path]) -> None:
    state = environments.settings.state
    state.rename(state.with_name("elsewhere"))
    state.write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot be written"):
        environments.lock(write("beta"))


def test_a_killed_build_leaves_no_lock_and_no_half_environment(
    environments: UvEnvironments, write: Callable[..., Path]
) -> None:
    """kill -9 in the middle: whoever comes next waits for uv's end or starts over, and gets a whole environment."""
    project = write("alpha")
    lock = environments.lock(project)
    process = multiprocessing.get_context("fork").Process(
        target=_build_and_tell, args=((environments.settings, project),)
    )
    process.start()
    folder = environments.settings.environments / lock.digest
    while not folder.exists() and process.is_alive():
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert imported(environments.build(lock, progress=quiet).python, "alpha") == "1.0"
