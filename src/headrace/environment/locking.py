"""From what a project asks for to an exact list with hashes, by `uv pip compile`.

The list is plain pip requirements with hashes and no addresses, so that it says the same on every machine.
"""

import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.environment.packages import PackageSources, has_gpu
from headrace.environment.sources import Sources
from headrace.environment.uv_command import Uv, first_conflict
from headrace.errors import EnvironmentFailed, InvalidConfig

TORCH_BACKEND = re.compile(r"^# torch-backend: (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Resolution:
    """An answer of the resolver.

    Attributes:
        text: requirements with hashes, one package after the other, sorted.
        addresses: `name==version` to the address of the file that will be fetched, and its bytes (0 if unknown).
    """

    text: str
    packages: Mapping[str, str]
    addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def is_cuda(self) -> bool:
        """True where torch comes with its CUDA libraries."""
        return "torch" in self.packages and any(name.startswith("nvidia-") for name in self.packages)


def resolve(
    uv: Uv, sources: Sources, project: Path, *, python: Path, places: PackageSources, for_gpus: bool
) -> Resolution:
    """Return what the sources come to on this machine.

    Without a GPU a CPU build of torch is looked for: first in what pip is configured with, then in the public
    PyTorch index for CPUs (`uv --torch-backend cpu`). A CUDA build is taken only where neither has one.
    Where GPUs are asked for, a CPU build, which wins over others of its version, is left out if there is another.

    Raises:
        EnvironmentFailed: there is no solution; the message names the first conflict.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-lock-") as scratch:
        asked = Path(scratch) / "requirements.in"
        asked.write_text(_requirements(uv, sources, project))
        ask: list[str | Path] = [asked, "--python", python, *places.uv_options()]
        answer = _compile(uv, ask, project)
        is_right = answer.is_cuda if for_gpus else not answer.is_cuda or has_gpu(uv.variables)
        if is_right or "torch" not in answer.packages:
            return answer
        attempts = _cuda_attempts(answer, Path(scratch)) if for_gpus else _cpu_attempts(places, Path(scratch))
        for attempt, header in attempts:
            try:
                found = _compile(uv, [*ask, *attempt], project, header=header)
            except EnvironmentFailed:
                continue  # That place has none that fits the other requirements; the next may.
            if found.is_cuda is for_gpus:
                return found
        return answer


def refuse_cpu_build(text: str, project: Path) -> None:
    """Raise EnvironmentFailed where a lock that is for GPUs has a torch that is not."""
    found = re.search(r"^torch==(\S+\+cpu)", text, re.MULTILINE)
    if found is not None:
        raise EnvironmentFailed(
            f"headrace.yaml of {project} asks for GPUs, and of torch only the CPU build {found[1]} can be had.",
            "Name an index that has one for GPUs (`PIP_EXTRA_INDEX_URL`), or take `gpus` out of headrace.yaml.",
        )


def _cuda_attempts(answer: Resolution, scratch: Path) -> Iterator[tuple[list[str | Path], str]]:
    if answer.packages["torch"].endswith("+cpu"):
        constraint = scratch / "gpus.txt"
        constraint.write_text(f"torch!={answer.packages['torch']}\n")
        yield ["--constraint", constraint], ""


def _cpu_attempts(places: PackageSources, scratch: Path) -> Iterator[tuple[list[str | Path], str]]:
    builds = {
        found[1]
        for place in places.find_links
        if "://" not in place or place.startswith("file://")
        for wheel in Path(place.removeprefix("file://")).glob("torch-*.whl")
        if (found := re.match(r"torch-([^-]+\+cpu)-", wheel.name))
    }
    for number, build in enumerate(sorted(builds, reverse=True)):
        constraint = scratch / f"cpu-{number}.txt"
        constraint.write_text(f"torch=={build}\n")
        yield ["--constraint", constraint], ""
    if not places.is_offline:
        yield ["--torch-backend", "cpu"], "# torch-backend: cpu\n"


def _requirements(uv: Uv, sources: Sources, project: Path) -> str:
    if not sources.uv_lock:
        return "\n".join(_with_no_folder(line, project) for line in sources.requirements) + "\n"
    done = uv.run(
        "export",
        "--frozen",
        "--no-dev",
        "--no-emit-project",
        "--no-header",
        "--no-annotate",
        "--no-hashes",
        cwd=project,
    )
    if done.returncode != 0:
        raise EnvironmentFailed(
            f"{project}/uv.lock cannot be read: {first_conflict(done.stderr)}.", "Run `uv lock` there."
        )
    return done.stdout


def _with_no_folder(line: str, project: Path) -> str:
    """Refuse what has no hash: folders on this machine."""
    bare = re.sub(r"^(-e|--editable)[= ]\s*", "", line)
    if bare != line or re.match(r"^\.{0,2}/", bare) or "file:" in bare or (project / bare).is_dir():
        raise InvalidConfig(
            f"The requirement `{line}` is a folder of this machine; it has no hash, and no other machine has it.",
            "Publish it, or put the code into the project.",
        )
    return line


def _compile(uv: Uv, ask: Sequence[str | Path], project: Path, *, header: str = "") -> Resolution:
    done = uv.run(
        "pip", "compile", "--format", "pylock.toml", "--no-header", "--no-annotate", *ask, cwd=ask_folder(ask)
    )
    if done.returncode != 0:
        raise EnvironmentFailed(
            f"The environment of {project} cannot be solved: {first_conflict(done.stderr)}.",
            "Change the named requirement in the project's python_env.yaml or requirements.txt.",
        )
    return _read_pylock(done.stdout, header)


def ask_folder(ask: Sequence[str | Path]) -> Path:
    """Return the scratch folder: uv reads settings from the folder that it runs in, and none should lie there."""
    return Path(ask[0]).parent


def _read_pylock(text: str, header: str) -> Resolution:
    packages: dict[str, str] = {}
    addresses: dict[str, tuple[str, int]] = {}
    lines: list[str] = []
    for package in sorted(tomllib.loads(text).get("packages", []), key=lambda found: str(found["name"])):
        name, version = str(package["name"]), str(package.get("version", ""))
        packages[name] = version
        if "vcs" in package:
            lines.append(f"{name} @ git+{package['vcs']['url']}@{package['vcs']['commit-id']}")
            continue
        files = _files(package)
        if not files:
            raise InvalidConfig(
                f"The requirement `{name}` is a folder of this machine; it has no hash.",
                "Publish it, or put it into the project.",
            )
        if "archive" in package:
            lines.append(f"{name} @ {package['archive']['url']} --hash=sha256:{files[0]['hashes']['sha256']}")
        else:
            hashes = sorted({file["hashes"]["sha256"] for file in files if "sha256" in file.get("hashes", {})})
            lines.append(f"{name}=={version}" + "".join(f" \\\n    --hash=sha256:{digest}" for digest in hashes))
        best = files[0]
        addresses[f"{name}=={version}"] = (str(best.get("url", best.get("path", ""))), int(best.get("size", 0)))
    return Resolution(header + "\n".join(lines) + "\n", packages, addresses)


def _files(package: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a package's files, what will be installed first."""
    if "archive" in package:
        return [package["archive"]]
    return [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
