"""Files that are never seen half-written, and their digests."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from headrace.types import Json


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o600) -> None:
    """Replace `path` by `content`: synced to disk and renamed, so that a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hex, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(document: Json) -> bytes:
    """Return the one JSON text of a document: keys sorted, no spaces, UTF-8, NaN and infinity refused."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_json(document: Json) -> str:
    """Return the SHA-256 of a document's canonical JSON, as hex."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
