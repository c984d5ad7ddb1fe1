"""`UvEnvironments`: locked environments made by uv, named by their content, shared by equal locks.

Layout below `settings.environments`: `DIGEST/` (a virtual environment with a `.ready` mark), `DIGEST.lock` (held by who
builds), `locks/KEY.json` (what a set of sources came to). A virtual environment cannot be moved, so it is built in its
place and counts only when marked.
"""

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.config.settings import Settings
from headrace.environment.base import Download, Environment, Lock
from headrace.environment.byte_code import inherit_byte_code
from headrace.environment.downloads import sizes
from headrace.environment.interpreters import Interpreter, find_interpreter
from headrace.environment.locking import TORCH_BACKEND, refuse_cpu_build, resolve
from headrace.environment.packages import has_gpu, read_package_sources
from headrace.environment.sources import read_sources
from headrace.environment.uv_command import find_uv, first_conflict
from headrace.errors import EnvironmentFailed, Unavailable
from headrace.files import sha256_json, write_atomically

READY = ".ready"
#: Rises when the way in which locks are made changes, so that older answers are not taken for today's.
RECIPE = 1


@dataclass(frozen=True, slots=True)
class UvEnvironments:
    """Locked environments by uv; several processes may use one folder at once."""

    settings: Settings

    def lock(self, project: Path, *, for_gpus: bool = False) -> Lock:
        """Resolve what the project names; the answer to the same sources is kept and given again."""
        project = project.resolve()
        sources = read_sources(project)
        interpreter = find_interpreter(sources.python, self.settings, wanted_by=str(project))
        places = read_package_sources(self.settings.variables)
        key = sha256_json(
            {
                "recipe": RECIPE,
                "requirements": list(sources.requirements),
                "files": dict(sources.files) if sources.uv_lock else {},
                "python": interpreter.version,
                "platform": f"{sys.platform}-{platform.machine()}",
                "options": list(places.uv_options()),
                "gpu": has_gpu(self.settings.variables),
                **({"for_gpus": True} if for_gpus else {}),
                "uv": {k: v for k, v in self.settings.variables.items() if k.startswith("UV_") and k != "UV_CACHE_DIR"},
            }
        )
        kept = self._locks / f"{key}.json"
        with _disk(self.settings.environments):
            document = _read_json(kept)
        if document is None:
            uv = find_uv(self.settings)
            answer = resolve(uv, sources, project, python=interpreter.path, places=places, for_gpus=for_gpus)
            document = {"text": answer.text, "python": interpreter.version}
            with _disk(self.settings.environments):
                write_atomically(kept, json.dumps(document))
                write_atomically(
                    self._addresses(lock_digest(answer.text, interpreter.version)), json.dumps(answer.addresses)
                )
        text, python = str(document["text"]), str(document["python"])
        if for_gpus:
            refuse_cpu_build(text, project)
        return Lock(digest=lock_digest(text, python), text=text, python=python, sources=tuple(sources.files))

    def download(self, lock: Lock) -> Download:
        """Say what `build` would fetch: uv is asked what its cache lacks, the indexes are asked for the sizes."""
        if self._is_ready(lock.digest):
            return Download(0, 0)
        uv, interpreter = find_uv(self.settings), self._interpreter(lock)
        with _scratch_file(lock) as path:
            done = uv.run(
                "pip", "sync", "--dry-run", "--verbose", "--python", interpreter.path, "--target", path.parent / "none",
                *self._options(lock), path, cwd=path.parent,
            )  # fmt: skip
        if done.returncode != 0:
            raise _not_built(lock, done.stderr)
        missing = re.findall(r"Identified uncached distribution: (\S+)", done.stderr)
        by_size = sizes(self._files(lock.digest, missing), self.settings.variables)
        largest = sorted(by_size.items(), key=lambda item: -item[1])[:5]
        return Download(len(missing), sum(by_size.values()), [(name, size) for name, size in largest if size])

    def build(self, lock: Lock, *, progress: Callable[[str], None]) -> Environment:
        """Make the environment, or return at once if it is there."""
        folder = self.settings.environments / lock.digest
        environment = Environment(lock.digest, folder / "bin" / "python", lock)
        if self._is_ready(lock.digest):
            self._touch(folder)
            return environment
        with _disk(self.settings.environments), _held(folder.with_name(f"{lock.digest}.lock"), progress) as handle:
            if not self._is_ready(lock.digest):
                self._make(lock, folder, handle, progress)
        return environment

    def _make(self, lock: Lock, folder: Path, handle: int, progress: Callable[[str], None]) -> None:
        uv, interpreter = find_uv(self.settings), self._interpreter(lock)
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted build left
        progress(f"making environment {lock.digest[:12]} with Python {interpreter.version}")
        # uv inherits the lock, here and below: where headrace is killed, the next build waits until uv is gone.
        made = uv.run(
            "venv", "--no-project", "--python", interpreter.path, folder, cwd=folder.parent, keep_open=(handle,)
        )
        if made.returncode != 0:
            raise _not_built(lock, made.stderr)
        listing = folder / "requirements.lock"
        write_atomically(listing, lock.text)
        progress(f"installing {lock.text.count('==')} packages")
        done = uv.run(
            "pip", "sync", "--python", folder / "bin" / "python", *self._options(lock), listing,
            cwd=folder, keep_open=(handle,),
        )  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise _not_built(lock, done.stderr)
        inherit_byte_code(self.settings, folder, self._used_last())
        write_atomically(folder / READY, json.dumps({"python": interpreter.version, "packages": lock.text.count("==")}))

    def _options(self, lock: Lock) -> list[str]:
        options = read_package_sources(self.settings.variables).uv_options()
        backend = TORCH_BACKEND.search(lock.text)
        options += ["--torch-backend", backend[1]] if backend else []
        # A commit of a repository is its own hash; uv wants all or none to be hashed.
        return options + ([] if "@ git+" in lock.text else ["--require-hashes"])

    def _interpreter(self, lock: Lock) -> Interpreter:
        return find_interpreter(lock.python, self.settings, wanted_by=f"lock {lock.digest[:12]}")

    def _is_ready(self, digest: str) -> bool:
        folder = self.settings.environments / digest
        return (folder / READY).is_file() and (folder / "bin" / "python").exists()

    def _files(self, digest: str, names: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Return the address and size of each package's file, as far as they were kept when the lock was made."""
        known = _read_json(self._addresses(digest)) or {}
        files: dict[str, tuple[str, int]] = {}
        for name in names:
            match known.get(name):
                case [str(address), int(size)]:
                    files[name] = (address, size)
                case _:
                    files[name] = ("", 0)
        return files

    def _used_last(self) -> list[Path]:
        """Return the ready environments, the one that was asked for last first."""
        marks: list[tuple[float, Path]] = []
        for mark in self.settings.environments.glob(f"*/{READY}"):
            with contextlib.suppress(OSError):  # Others may remove it meanwhile.
                marks.append((mark.stat().st_mtime, mark.parent))
        return [folder for _, folder in sorted(marks, reverse=True)]

    def _touch(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # Only the garbage collection looks at it.
            os.utime(folder / READY)

    def _addresses(self, digest: str) -> Path:
        return self._locks / f"addresses-{digest}.json"

    @property
    def _locks(self) -> Path:
        return self.settings.environments / "locks"


def lock_digest(text: str, python: str) -> str:
    """Return the name of the environment that a lock describes."""
    return sha256_json({"text": text, "python": python})


def _read_json(path: Path) -> dict[str, object] | None:
    try:
        document = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return document if isinstance(document, dict) else None


@contextlib.contextmanager
def _held(path: Path, progress: Callable[[str], None]) -> Iterator[int]:
    """Hold a lock file; whoever builds the same environment is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is making this environment; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"{error.filename or folder} cannot be written: {error.strerror}.",
            "Make room or set HEADRACE_STATE to a folder on another disk.",
        ) from error


@contextlib.contextmanager
def _scratch_file(lock: Lock) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="headrace-lock-") as scratch:
        path = Path(scratch) / "requirements.lock"
        path.write_text(lock.text)
        yield path


def _not_built(lock: Lock, stderr: str) -> EnvironmentFailed | Unavailable:
    if "No space left" in stderr or "Read-only file system" in stderr:
        return Unavailable(
            f"Environment {lock.digest[:12]} cannot be written: {first_conflict(stderr)}.",
            "Make room, or set HEADRACE_STATE to a folder on another disk.",
        )
    return EnvironmentFailed(
        f"Environment {lock.digest[:12]} cannot be made: {first_conflict(stderr)}.",
        "Check the network and pip's settings (`pip config list`), then repeat the command.",
    )
