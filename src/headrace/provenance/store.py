"""Read-only, content-addressed copies of model folders: what was checked is what is read.

    ModelStore(folder).admit(source, expected) -> Path      # <folder>/<digest>, files 0444, folders 0555
    refuse_broken_seal(copy, seal)                          # names the files that differ

Beside each copy lies `<digest>.sha256`, the listing that `sha256sum -c` reads. The digest is that listing's own, so
that it vouches for itself.

Files are hashed while they are copied, so that nobody can change one between the check and the copy.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ModelRefused, Unavailable
from headrace.files import sync_folder, write_atomically
from headrace.provenance.digest import Difference, FolderDigest, differences, digest_folder, open_plain, plain_files

READ_ONLY_FILE = 0o444
READ_ONLY_FOLDER = 0o555
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelStore:
    """The copies below `folder`, one per digest."""

    folder: Path

    def admit(self, source: Path, expected: FolderDigest | None = None) -> Path:
        """Return a verified, read-only copy of `source`; a repeat checks the copy that is there and returns it.

        Args:
            source: a model folder that may change at any time.
            expected: what the baseline says; None takes the folder as it is.

        Raises:
            ModelRefused: a file is missing, extra or other than expected, or is a link; or the copy was changed.
            Unavailable: the copy cannot be written.
        """
        if expected and (self.folder / expected.digest).is_dir():
            return self.check(expected)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".admitting-"))
        try:
            found = _copy(source, temporary, expected)
            return self._settle(temporary, found)
        except OSError as error:
            raise Unavailable(
                f"The copy of {source} in {self.folder} cannot be written: {error.strerror}",
                "Free some space or give yourself the right to write there, then repeat the command",
            ) from error
        finally:
            _remove(temporary)

    def check(self, expected: FolderDigest) -> Path:
        """Return the copy of a digest after recomputing all of it. Raises ModelRefused where it was changed."""
        copy = self.folder / expected.digest
        refuse(differences(expected, digest_folder(copy, strict=True)), copy, _remedy(copy))
        return copy

    def copies(self) -> dict[str, int]:
        """Return the digest of every copy with its bytes."""
        found = sorted(path for path in self.folder.glob("*") if path.is_dir() and not path.name.startswith("."))
        return {path.name: _bytes(path) for path in found}

    def set_aside(self, digest: str) -> Path:
        """Take a copy out of the way that is not what it should be, and return where it lies; it is a leftover then."""
        place = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".damaged-{digest[:12]}-"))
        os.rename(self.folder / digest, place)
        return place

    def leftovers(self) -> dict[Path, int]:
        """Return what a crash left half copied or half removed, with its bytes."""
        return {path: _bytes(path) for path in sorted(self.folder.glob(".*-*")) if path.is_dir()}

    def remove(self, digest: str) -> None:
        """Remove a copy; a crash leaves the copy, or a leftover."""
        gone = Path(tempfile.mkdtemp(dir=self.folder, prefix=".removing-"))
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.folder / digest, gone)
        (self.folder / f"{digest}.sha256").unlink(missing_ok=True)
        _remove(gone)

    def remove_leftover(self, path: Path) -> None:
        """Remove what `leftovers` named; nobody may be copying."""
        _remove(path)

    def _settle(self, temporary: Path, found: FolderDigest) -> Path:
        final = self.folder / found.digest
        _seal(temporary)
        try:
            os.rename(temporary, final)
        except OSError:  # Somebody else was faster; theirs must be as good.
            if not final.is_dir():
                raise
            return self.check(found)
        write_atomically(self.folder / f"{found.digest}.sha256", found.listing, mode=READ_ONLY_FILE)
        return final


def refuse_broken_seal(copy: Path, seal: str, remedy: str = "") -> None:
    """Raise ModelRefused, naming the files and the remedy, where a copy in a store is not what its seal says."""
    listing = copy.parent / f"{seal}.sha256"
    text = listing.read_text() if listing.is_file() else ""
    if hashlib.sha256(text.encode()).hexdigest() != seal:
        return  # Whoever asks still has the seal, and only loses the names.
    files = {path: sha256 for sha256, _, path in (line.partition("  ") for line in text.splitlines())}
    refuse(differences(FolderDigest(files), digest_folder(copy, strict=True)), copy, remedy or _remedy(copy))


def _remedy(copy: Path) -> str:
    return f"Put a good one in the place of {copy}: headrace restore NAME/VERSION"


def refuse(found: list[Difference], folder: Path, remedy: str) -> None:
    """Raise ModelRefused where there are differences; the message names each file."""
    if not found:
        return
    shown = "; ".join(str(difference) for difference in found[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    raise ModelRefused(f"{folder} is not what its baseline says: {shown}{more}", remedy)


def _copy(source: Path, to: Path, expected: FolderDigest | None) -> FolderDigest:
    digests = {}
    paths = plain_files(source)
    if expected:  # Names first: nothing is copied where a file is missing or extra.
        known = FolderDigest({path: expected.files.get(path, "unknown") for path in paths})
        unfit = [gap for gap in differences(expected, known) if not gap.found or not gap.expected]
        refuse(unfit, source, "Fetch the version's files again from the registry")
    for relative in paths:
        digests[relative] = _copy_file(source, relative, to / relative)
    found = FolderDigest(digests)
    if expected:
        refuse(differences(expected, found), source, "Fetch the version's files again from the registry")
    return found


def _copy_file(source: Path, relative: str, target: Path) -> str:
    """Copy and return the digest of the bytes that were written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open_plain(source, relative) as reading, target.open("xb") as writing:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        while count := reading.readinto(buffer):
            digest.update(buffer[:count])
            writing.write(buffer[:count])
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest()


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _seal(folder: Path) -> None:
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            os.chmod(Path(place, name), READ_ONLY_FILE)
        sync_folder(Path(place))
        os.chmod(place, READ_ONLY_FOLDER)


def _remove(folder: Path) -> None:
    if not folder.is_dir():
        return
    for place, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(place, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)
