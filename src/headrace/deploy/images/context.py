"""Build contexts: folders with everything that an image will hold, laid out so that equal content gives equal layers.

Packages are installed here, on the host, from uv's cache, checked against the lock's hashes. So a build needs no
network, no compiler, no package settings and no credentials, and none of these can end up in a layer.
"""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path

import headrace
from headrace.config.settings import Settings
from headrace.environment.base import Environment
from headrace.environment.packages import read_package_sources
from headrace.environment.uv_command import Uv, find_uv, first_conflict
from headrace.errors import EnvironmentFailed, ModelRefused, Unavailable
from headrace.files import DISK_REMEDIES, sha256_file, sha256_json
from headrace.provenance.digest import digest_folder
from headrace.types import ServedVersion

#: 1 January 1980, which zip files can say too; equal content must have equal times for equal layers.
EPOCH_S = 315532800
#: Times that say what a file holds lie within 34 years of that.
MARKS_S = 2**30
ENTER = Path(__file__).with_name("enter.py")
RELAY = Path(__file__).with_name("relay.py")
WORKER = Path(headrace.__file__).parent / "serving" / "worker_child.py"
#: What headrace's server imports; the versions are those that run here.
SERVER_PACKAGES = (
    "annotated-types", "anyio", "certifi", "h11", "httpcore", "httptools", "httpx", "idna", "msgspec", "numpy",
    "psutil", "pydantic", "pydantic-core", "pyyaml", "typing-extensions", "typing-inspection", "uvloop",
)  # fmt: skip
DISK_REMEDY = "Make room, or put headrace's images on another disk with HEADRACE_STATE."
NEVER_COPIED = shutil.ignore_patterns("__pycache__", ".git", ".venv", "*.pyc")


@dataclass(frozen=True, slots=True)
class Contexts:
    """Build contexts below the state folder, kept from one build to the next."""

    settings: Settings
    progress: Callable[[str], None]

    @property
    def folder(self) -> Path:
        return self.settings.state / "images"

    def environment(self, environment: Environment) -> Path:
        """Return the context of a base image: the packages of a lock and the lock itself. Kept, and made once."""
        folder = self.folder / f"environment-{environment.digest}"
        self._once(folder, partial(self._environment, environment, folder))
        return folder / "context"

    def _environment(self, environment: Environment, folder: Path) -> None:
        inside = folder / "context" / "environment"
        packages = inside / "lib" / f"python{minor(environment.lock.python)}" / "site-packages"
        packages.mkdir(parents=True)
        lock = inside / "requirements.lock"
        lock.write_text(environment.lock.text)
        self.progress(f"laying out {environment.lock.text.count('==')} packages for images")
        self._install(environment.python, packages, ["--requirement", str(lock)], inside / "bin")
        _finish(folder / "context", environment.python)

    def server(self, python: Path) -> Path:
        """Return a folder with headrace's own server and what it needs, `headrace/`.

        Kept for each headrace, Python and set of packages.
        """
        wanted = [f"{name}=={installed_version(name)}" for name in SERVER_PACKAGES]
        own, version = digest_folder(Path(headrace.__file__).parent).digest, _minor_of(python)
        folder = self.folder / f"server-{sha256_json([own, version, *wanted])[:16]}"
        self._once(folder, partial(self._server, python, version, wanted, folder))
        return folder

    def _server(self, python: Path, version: str, wanted: list[str], folder: Path) -> None:
        inside = folder / "headrace"
        packages = inside / "lib" / f"python{version}" / "site-packages"
        packages.mkdir(parents=True)
        self._install(python, packages, wanted, inside / "bin")
        shutil.rmtree(inside / "bin", ignore_errors=True)
        shutil.copytree(Path(headrace.__file__).parent, packages / "headrace", ignore=NEVER_COPIED)
        known = packages / f"headrace-{installed_version('headrace')}.dist-info"
        known.mkdir()  # The server tells its own version.
        (known / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: headrace\nVersion: {installed_version('headrace')}\n"
        )
        for script in (ENTER, RELAY, WORKER):
            shutil.copy(script, inside / script.name)
        _finish(inside, python)

    def torchserve(self, python: Path, home: Path, launch: Path) -> Path:
        """Return the context of a TorchServe image: an installed TorchServe and what starts its workers. Made once.

        Args:
            python: an interpreter of the image's Python, which the byte code is for.
        """
        folder = self.folder / f"{home.name}-{sha256_json([str(python), sha256_file(launch)])[:16]}"
        self._once(folder, partial(self._torchserve, python, home, launch, folder))
        return folder / "context"

    def _torchserve(self, python: Path, home: Path, launch: Path, folder: Path) -> None:
        shutil.copytree(home, folder / "context" / "torchserve", ignore=NEVER_COPIED)
        shutil.copy(launch, folder / "context" / "torchserve" / launch.name)
        _finish(folder / "context", python)

    def _once(self, folder: Path, make: Callable[[], None]) -> None:
        """Make a context where there is none that was finished; of several at a time, one does."""
        if (folder / ".ready").exists():
            return
        with _room(self.folder), _alone(folder):
            if not (folder / ".ready").exists():
                shutil.rmtree(folder, ignore_errors=True)
                make()
                (folder / ".ready").touch()

    @contextlib.contextmanager
    def serve(self, version: ServedVersion) -> Iterator[Path]:
        """Give the context of a serve image, whose `version/` is this one's for as long as it is used.

        It always has the same place: BuildKit then takes only what has changed since the last build.

        Raises:
            ModelRefused: the model folder is not the sealed one.
        """
        folder = self.server(version.python)
        inside = folder / "version"
        with _alone(folder):
            with _room(self.folder):
                shutil.rmtree(inside, ignore_errors=True)
                self._version(version, inside)
            yield folder

    def _version(self, version: ServedVersion, inside: Path) -> None:
        shutil.copytree(version.model, inside / "model", ignore=NEVER_COPIED, copy_function=shutil.copyfile)
        seal = digest_folder(inside / "model").digest
        if version.seal and seal != version.seal:
            raise ModelRefused(
                f"The model of {version.component} version {version.version} has the digest {seal[:12]}, the sealed "
                f"one is {version.seal[:12]}.",
                f"Run `headrace baseline verify {version.component}/{version.version}` to see which file differs.",
            )
        if version.golden is not None:
            shutil.copytree(version.golden, inside / "golden", copy_function=shutil.copyfile)
        about = {
            "component": version.component,
            "version": str(version.version),
            "baseline": version.baseline,
            "seal": seal,
            "allow_pickle": "true" if version.allow_pickle else "false",
            "variables": sorted({*version.environment_variables, *version.secrets}),
        }
        (inside / "version.json").write_text(json.dumps(about, indent=1, sort_keys=True))
        _normalise(inside)
        _mark_contents(inside)

    @contextlib.contextmanager
    def train(self, component: str, project: Path) -> Iterator[Path]:
        """Give the context of a train image: the project's code as it is, at a place of the component's own."""
        folder = self.folder / f"train-{component}"
        with _alone(folder):
            with _room(self.folder):
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(project, folder / "project", ignore=NEVER_COPIED, copy_function=shutil.copyfile)
                _normalise(folder)
                _mark_contents(folder)
            yield folder

    def _install(self, python: Path, packages: Path, what: list[str], programs: Path) -> None:
        uv: Uv = find_uv(self.settings)
        options = read_package_sources(self.settings.variables).uv_options()
        hashes = ["--require-hashes"] if "--requirement" in what else []
        done = uv.run(
            "pip", "install", "--python", python, "--target", packages, "--no-deps", "--link-mode", "copy", *hashes,
            *options, *what, cwd=packages.parent,
        )  # fmt: skip
        if "No space left" in done.stderr:
            raise Unavailable(f"The packages of the image do not fit into {packages}.", DISK_REMEDY)
        if done.returncode != 0:
            raise EnvironmentFailed(
                f"The packages of the image cannot be laid out: {first_conflict(done.stderr)}.",
                "Check the network and pip's settings (`pip config list`), then repeat the command.",
            )
        if (packages / "bin").is_dir():
            shutil.move(packages / "bin", programs)
            _point(programs, f"/opt/{programs.parent.name}/bin/python")
        (packages / ".lock").unlink(missing_ok=True)


def minor(python: str) -> str:
    """Return `3.11` of `3.11.7`."""
    return ".".join(python.split(".")[:2])


def _minor_of(python: Path) -> str:
    """Return `3.11` of an interpreter."""
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def _point(programs: Path, python: str) -> None:
    """Have the installed programs run by the image's interpreter."""
    for program in programs.iterdir():
        content = program.read_bytes()
        first, _, rest = content.partition(b"\n")
        if first.startswith(b"#!") and b"python" in first:
            program.write_bytes(f"#!{python}\n".encode() + rest)
        elif content.startswith(b"#!/bin/sh\n'''exec'"):  # What uv writes where the path is too long for one line.
            program.write_bytes(f"#!{python}\n".encode() + content.split(b"' '''\n", 1)[-1])


def _finish(folder: Path, python: Path) -> None:
    """Compile byte code, without times in it, and set all modes and times."""
    jobs = str(min(os.cpu_count() or 1, 4))
    # `-I`: where the caller keeps byte code elsewhere, none would come to lie beside the packages.
    command: list[str | Path] = [python, "-I", "-m", "compileall", "-q", "-j", jobs]
    # Nobody runs the packages' own tests, a fifth of all code.
    command += ["--invalidation-mode", "unchecked-hash", "-x", r"/tests?/"]
    # Some packages carry files for other Pythons, which do not compile here; nothing imports them.
    # Their paths are those in the image, for tracebacks and for equal bytes wherever they are made.
    command += ["-s", folder, "-p", "/opt"]
    subprocess.run([*command, folder], capture_output=True, check=False)
    _normalise(folder)


def _normalise(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)
    _times(folder)


def _times(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (EPOCH_S, EPOCH_S), follow_symlinks=False)


def _mark_contents(folder: Path) -> None:
    """Give each file a time that its content tells: other content has another time, equal content equal layers.

    BuildKit takes a file of the same size and time for the one that it was sent before. Of two versions of one network
    all files have equal sizes: the image of the second would hold the first.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            moment = EPOCH_S + int(sha256_file(path)[:8], 16) % MARKS_S
            os.utime(path, (moment, moment))


@contextlib.contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Say where a disk takes nothing more. Raises Unavailable."""
    try:
        yield
    except OSError as error:  # shutil's own error has the system's words and no number.
        words = next((os.strerror(number) for number in DISK_REMEDIES if os.strerror(number) in str(error)), "")
        if not words:
            raise
        raise Unavailable(f"The build of an image cannot write to {folder}: {words}.", DISK_REMEDY) from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock beside a context that several builds use in turn."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
