"""Digests of model folders. What `sha256sum` would print is what is hashed, so that anybody can check without headrace.

digest_folder(path) -> FolderDigest(files, digest)
differences(expected, found) -> list of Difference, each a plain sentence
"""

import hashlib
import io
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.errors import ModelRefused
from headrace.registry.mlmodel import NOT_OF_THE_MODEL


@dataclass(frozen=True, slots=True)
class FolderDigest:
    """The digests of all files below a folder.

    Attributes:
        files: POSIX path relative to the folder, to SHA-256 as hex; sorted by path.
        digest: SHA-256 over the lines `<sha256>  <path>` of all files, in that order.
    """

    files: Mapping[str, str]
    digest: str = field(default="")

    def __post_init__(self) -> None:
        ordered = dict(sorted(self.files.items()))
        object.__setattr__(self, "files", ordered)
        object.__setattr__(self, "digest", hashlib.sha256(self.listing.encode()).hexdigest())

    @property
    def listing(self) -> str:
        """What `sha256sum` prints for the files."""
        return "".join(f"{sha256}  {path}\n" for path, sha256 in self.files.items())


@dataclass(frozen=True, slots=True)
class Difference:
    """One file that is not what it should be; `expected` is empty for an extra file, `found` for a missing one."""

    file: str
    expected: str
    found: str

    def __str__(self) -> str:
        if not self.found:
            return f"`{self.file}` is missing"
        if not self.expected:
            return f"`{self.file}` is not part of the baseline"
        return f"`{self.file}` was changed (expected sha256 {self.expected[:12]}…, found {self.found[:12]}…)"


def differences(expected: FolderDigest, found: FolderDigest) -> list[Difference]:
    """Return every file that differs, sorted by path; empty where the folders are equal."""
    paths = sorted({*expected.files, *found.files})
    pairs = ((path, expected.files.get(path, ""), found.files.get(path, "")) for path in paths)
    return [Difference(path, wanted, got) for path, wanted, got in pairs if wanted != got]


def digest_folder(folder: Path, *, strict: bool = False) -> FolderDigest:
    """Return the digests of all files below a folder, streaming.

    Args:
        strict: count what a working copy gathers (`__pycache__`) too; such files are never copied into the store.

    Raises:
        ModelRefused: there is no such folder, it holds no file, or it holds a link or something that is no plain file.
    """
    digests = {}
    for relative in plain_files(folder, strict=strict):
        with open_plain(folder, relative) as file:
            digests[relative] = hashlib.file_digest(file, "sha256").hexdigest()
    return FolderDigest(digests)


def plain_files(folder: Path, *, strict: bool = False) -> list[str]:
    """Return the POSIX paths of all files below a folder, sorted.

    Args:
        strict: as for `digest_folder`.

    Raises:
        ModelRefused: as for `digest_folder`.
    """
    if not folder.is_dir():
        raise ModelRefused(f"There is no folder {folder}", "Check the path, or fetch the version's files again")
    found = sorted(_walk(folder, "", frozenset() if strict else NOT_OF_THE_MODEL))
    if not found:
        raise ModelRefused(f"{folder} holds no files", "Log the model again")
    return found


def _walk(folder: Path, prefix: str, without: frozenset[str]) -> Iterator[str]:
    with os.scandir(folder / prefix) as items:
        for item in items:
            relative = f"{prefix}{item.name}"
            if item.name in without:
                continue
            if item.is_symlink():
                raise ModelRefused(
                    f"`{relative}` in {folder} is a link to {os.readlink(item.path)}; only plain files can be checked",
                    "Put the file itself there, and log the model again",
                )
            if item.is_dir(follow_symlinks=False):
                yield from _walk(folder, f"{relative}/", without)
            elif not item.is_file(follow_symlinks=False):
                raise ModelRefused(f"`{relative}` in {folder} is no plain file", "Remove it, and log the model again")
            elif not relative.isprintable():
                raise ModelRefused(
                    f"The name {relative!r} in {folder} holds characters that cannot be printed",
                    "Rename the file, and log the model again",
                )
            else:
                yield relative


def open_plain(folder: Path, relative: str) -> io.FileIO:
    """Open a file for reading, never through a link, even where one was put there a moment ago.

    Raises:
        ModelRefused: it is a link or no plain file by now.
    """
    path = folder / relative
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ModelRefused(
            f"`{relative}` in {folder} cannot be read: {error.strerror}", "Fetch the version's files again"
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ModelRefused(f"`{relative}` in {folder} is no plain file", "Remove it, and log the model again")
    return io.FileIO(handle)
