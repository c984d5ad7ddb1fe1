"""A home's files in another place: copied, read back, compared. Records then name the new place."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headrace.errors import Unavailable
from headrace.files import sha256_file, write_atomically
from headrace.lifecycle.versions import RECORD
from headrace.types import Json

#: What is moved by other means, and what belongs to this machine's processes alone.
LEFT_OUT = frozenset(
    {"ledger.db", "flows.db", "mlflow.db", "mlflow.lock", "artifacts", "predictions", "run", "logs", "reserve",
     "installation"}
)  # fmt: skip
_ENDINGS = ("-wal", "-shm", "-journal")
_PIECE_BYTES = 1 << 20


@dataclass(slots=True)
class Tree:
    """Files that are on both sides, and the digest over all their digests."""

    files: int = 0
    bytes: int = 0
    _digests: list[str] = field(default_factory=list)

    def add(self, relative: str, size: int, digest: str) -> None:
        self.files += 1
        self.bytes += size
        self._digests.append(f"{digest}  {relative}\n")

    def as_json(self) -> dict[str, Json]:
        digest = hashlib.sha256("".join(sorted(self._digests)).encode()).hexdigest()
        return {"files": self.files, "bytes": self.bytes, "digest": digest}


def files_of(folder: Path, left_out: Collection[str] = ()) -> Iterator[Path]:
    """Yield a folder's files, links not followed, without some of its first names."""
    for place, folders, files in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in left_out]
        for name in sorted(files):
            path = Path(place, name)
            is_left_out = path.parent == folder and (name in left_out or _is_of_database(name, left_out))
            if path.is_file() and not is_left_out:
                yield path


def copy_home(old: Path, new: Path) -> Tree:
    """Copy all that is moved as files; a repeat copies what is missing or other. Raises Unavailable."""
    tree = Tree()
    try:
        new.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in files_of(old, LEFT_OUT):
            relative = path.relative_to(old)
            if path.name == RECORD and relative.parts[0] == "versions":
                _move_record(path, new / relative, old, new)
                tree.add(relative.as_posix(), path.stat().st_size, sha256_file(path))
            elif path.is_symlink():
                _copy_link(path, new / relative, old, new)
            else:
                tree.add(relative.as_posix(), path.stat().st_size, copy_file(path, new / relative))
        _close_folders(old, new)
    except OSError as error:
        raise Unavailable(
            f"{error.filename or new} cannot be written: {error.strerror}.",
            "Make room, or name another HEADRACE_HOME; the old home is as it was.",
        ) from error
    return tree


def copy_file(source: Path, to: Path) -> str:
    """Copy a file, read the copy back, and return the digest that both have. Raises Unavailable."""
    digest = sha256_file(source)
    if to.exists() and to.stat().st_size == source.stat().st_size and sha256_file(to) == digest:
        return digest
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    to.parent.chmod(0o700)
    temporary = to.with_name(f".moving-{to.name}")
    temporary.unlink(missing_ok=True)
    with source.open("rb") as reading, temporary.open("xb") as writing:
        while piece := reading.read(_PIECE_BYTES):
            writing.write(piece)
        writing.flush()
        os.fsync(writing.fileno())
    if sha256_file(temporary) != digest:
        raise Unavailable(f"The copy of {source} is not what was read.", "Repeat the command; look at the disk.")
    about = source.stat()
    temporary.chmod(about.st_mode & 0o777)
    os.utime(temporary, ns=(about.st_atime_ns, about.st_mtime_ns))
    temporary.replace(to)
    return digest


def _move_record(source: Path, to: Path, old: Path, new: Path) -> None:
    """Write a version's record with the new places of what lies in the home."""
    document: dict[str, Json] = json.loads(source.read_text())
    for name, value in document.items():
        if isinstance(value, str) and value.startswith(f"{old}/"):
            document[name] = f"{new}{value[len(str(old)) :]}"
    write_atomically(to, json.dumps(document, indent=2))


def _copy_link(source: Path, to: Path, old: Path, new: Path) -> None:
    target = os.readlink(source)
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    to.unlink(missing_ok=True)
    to.symlink_to(f"{new}{target[len(str(old)) :]}" if target.startswith(f"{old}/") else target)


def _close_folders(old: Path, new: Path) -> None:
    """Give folders the rights of the old ones (those of model copies are read-only), the innermost first."""
    for place, _, _ in os.walk(new, topdown=False):
        was = old / Path(place).relative_to(new)
        if was.is_dir():
            os.chmod(place, was.stat().st_mode & 0o777)


def _is_of_database(name: str, left_out: Collection[str]) -> bool:
    return any(name.endswith(ending) and name.removesuffix(ending) in left_out for ending in _ENDINGS)
