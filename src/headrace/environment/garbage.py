"""Environments that nothing needs any more are removed, with the byte code that was kept for them."""

import contextlib
import fcntl
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from headrace.clock import Clock
from headrace.config.settings import Settings
from headrace.environment.byte_code import byte_code_folder
from headrace.environment.uv import READY

DIGEST = re.compile(r"[0-9a-f]{64}")
WEEK_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed: digests, and the bytes of each that no other environment or cache shares."""

    environments: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The bytes of all of them."""
        return sum(self.sizes)


def collect_garbage(
    settings: Settings,
    *,
    keep: Collection[str],
    clock: Clock,
    unused_for_s: float = WEEK_S,
    is_rehearsal: bool = False,
) -> Collected:
    """Remove environments that are not to be kept, were not used for a while, and that no process runs in.

    Args:
        keep: digests of the locks of versions that may still be served or trained again.
        unused_for_s: since the last `build` that asked for them.
        is_rehearsal: say what would be removed, and remove nothing.
    """
    removed, freed = list[str](), list[int]()
    busy = _programs()
    for folder in sorted(settings.environments.glob("*")):
        if not DIGEST.fullmatch(folder.name) or folder.name in keep or not folder.is_dir():
            continue
        if any(program.startswith(f"{folder}/") for program in busy):
            continue
        mark = folder / READY
        with _alone(folder) as is_ours:
            if not is_ours or clock.now().timestamp() - _last_used(folder) < unused_for_s:
                continue
            if not is_rehearsal:
                mark.unlink(missing_ok=True)  # From here on it counts as half-made, also if this is interrupted.
            freed.append(_bytes(folder))
            removed.append(folder.name)
            if not is_rehearsal:
                for place in (folder, byte_code_folder(settings, folder)):
                    shutil.rmtree(place, ignore_errors=True)
    return Collected(tuple(removed), tuple(freed))


def _last_used(folder: Path) -> float:
    mark = folder / READY
    return (mark if mark.exists() else folder).stat().st_mtime


def _bytes(folder: Path) -> int:
    """Return the bytes of the files that are linked nowhere else."""
    found = (path.lstat() for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sum(one.st_size for one in found if one.st_nlink == 1)


def _programs() -> list[str]:
    programs = list[str]()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            programs += process.cmdline()[:1]
    return programs


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the environment's build lock, or say that somebody else does."""
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
