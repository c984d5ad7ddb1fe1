"""Runs' files from a home's folder into an object store, each read back and compared."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from headrace.bucket import Bucket
from headrace.errors import NotFound, Unavailable
from headrace.files import sha256_file
from headrace.lifecycle.migration.home import Tree, copy_file, files_of

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Moved:
    """How places of artifacts are called before and after.

    Attributes:
        old: the folder that they lie in.
        new: what replaces it; the server's own word where it hands them out.
    """

    old: Path
    new: str

    def __call__(self, value: str) -> str:
        """Return a text with the new place where it begins with the old one, in either way of writing it."""
        for prefix in (str(self.old), f"file://{self.old}"):
            if value == prefix or value.startswith(f"{prefix}/"):
                return f"{self.new}{value[len(prefix) :]}"
        return value


def put_artifacts(old: Path, store: Bucket, told: Callable[[int], None]) -> Tree:
    """Put every file below `old` into the store; what is there already and equal stays. Raises Unavailable."""
    tree = Tree()
    paths = list(files_of(old))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        try:
            for path, digest in zip(paths, threads.map(lambda one: _put(one, old, store), paths), strict=True):
                tree.add(path.relative_to(old).as_posix(), path.stat().st_size, digest)
                told(tree.files)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return tree


def copy_artifacts(old: Path, new: Path, told: Callable[[int], None]) -> Tree:
    """Copy every file below `old` into another folder."""
    tree = Tree()
    for path in files_of(old):
        relative = path.relative_to(old)
        tree.add(relative.as_posix(), path.stat().st_size, copy_file(path, new / relative))
        told(tree.files)
    return tree


def _put(path: Path, old: Path, store: Bucket) -> str:
    name, digest = path.relative_to(old).as_posix(), sha256_file(path)
    if _digest(store, name) == digest:
        return digest
    store.put_file(name, path)
    if _digest(store, name) != digest:
        raise Unavailable(f"{store.url}/{name} is not what was written there.", "Repeat the command.")
    return digest


def _digest(store: Bucket, name: str) -> str:
    found = hashlib.sha256()
    try:
        for piece in store.pieces(name):
            found.update(piece)
    except NotFound:
        return ""
    return found.hexdigest()
