"""Objects in a store, S3 or a folder: put whole, never seen half. The one door to object storage."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

import httpx

from headrace.config.s3 import S3Access
from headrace.errors import HeadraceError, NotFound, Unavailable
from headrace.sigv4 import signed

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

PIECE_BYTES = 8 * 1024 * 1024
CONNECT_S, REQUEST_S = 5.0, 60.0
#: What the store's answers mean, by a word in them; the first that is found counts.
REMEDIES = {
    "SIGNATURE_DOES_NOT_MATCH": "The secret key is not the access key's; correct AWS_SECRET_ACCESS_KEY or the file.",
    "SignatureDoesNotMatch": "The secret key is not the access key's; correct AWS_SECRET_ACCESS_KEY or the file.",
    "INVALID_ACCESS_KEY_ID": "The store does not know the access key; correct AWS_ACCESS_KEY_ID or the file.",
    "InvalidAccessKeyId": "The store does not know the access key; correct AWS_ACCESS_KEY_ID or the file.",
    "ACCESS_DENIED": "Let this key list, read, write and delete there, or correct it.",
    "NO_SUCH_BUCKET": "Create the bucket, or correct the address.",
    "NETWORK_CONNECTION": "See that the store runs and that HEADRACE_S3_ENDPOINT_URL names it.",
}


@dataclass(frozen=True)
class Bucket:
    """All objects below one address.

    A put is durable when it returns; a repeat with the same content changes nothing. No operation relies on conditional
    writes, which some stores ignore: whoever writes here gives each object one writer and each content a new name.

    Attributes:
        url: `s3://BUCKET[/PREFIX]` or `file:///FOLDER`.
    """

    url: str
    access: S3Access = field(default_factory=S3Access)

    def below(self, name: str) -> Self:
        """Return the objects below a prefix of these."""
        return replace(self, url=f"{self.url}/{name}")

    def put(self, name: str, content: bytes) -> None:
        """Keep an object whole. Raises Unavailable."""
        with self._told("writing", name):
            self._put(name, iter([content]))

    def put_file(self, name: str, path: Path) -> None:
        """Keep a file's content as an object. Raises Unavailable, and OSError where the file cannot be read."""
        with path.open("rb") as file, self._told("writing", name):
            self._put(name, iter(lambda: file.read(PIECE_BYTES), b""))

    def get(self, name: str) -> bytes:
        """Return an object's content. Raises NotFound, Unavailable."""
        with self._told("reading", name), self._system.open_input_stream(self._path(name)) as stream:
            return bytes(stream.read())

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield an object's content a piece at a time. Raises NotFound, Unavailable."""
        with self._told("reading", name), self._system.open_input_stream(self._path(name)) as stream:
            while piece := stream.read(PIECE_BYTES):
                yield bytes(piece)

    def fetch(self, name: str, to: Path) -> Path:
        """Copy an object to a file that is there whole or not at all, and return its path."""
        to.parent.mkdir(parents=True, exist_ok=True)
        temporary = to.with_name(f".{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                for piece in self.pieces(name):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(to)
        finally:
            temporary.unlink(missing_ok=True)
        return to

    def size(self, name: str) -> int | None:
        """Return an object's bytes; None where there is none."""
        with self._told("looking at", name):
            found = self._system.get_file_info(self._path(name))
        return int(found.size) if found.is_file else None

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the names of all objects below a prefix (a whole part of a path) with their bytes."""
        from pyarrow.fs import FileSelector

        with self._told("listing", prefix):
            place = self._path(prefix)
            found = self._system.get_file_info(FileSelector(place, recursive=True, allow_not_found=True))
        start = len(self._root) + 1
        return {one.path[start:]: int(one.size) for one in found if one.is_file and "/.putting-" not in one.path}

    def folders(self) -> list[str]:
        """Return the first parts of all names that have several."""
        from pyarrow.fs import FileSelector, FileType

        with self._told("listing", ""):
            found = self._system.get_file_info(FileSelector(self._path(""), allow_not_found=True))
        return sorted(one.base_name for one in found if one.type == FileType.Directory)

    def remove(self, name: str) -> None:
        """Remove an object; no error where there is none."""
        with contextlib.suppress(NotFound), self._told("removing", name):
            if self._is_s3 and self.access.key:
                self._delete(name)
            else:
                self._system.delete_file(self._path(name))

    def check(self) -> None:
        """Write, list, read and remove a small object. Raises Unavailable with what is not allowed."""
        name, content = f"headrace-check-{uuid.uuid4().hex}", os.urandom(16)
        self.put(name, content)
        try:
            if self.get(name) != content or name not in self.sizes():
                raise Unavailable(f"{self.url} does not give back what was written there.", "Use another store.")
        finally:
            self.remove(name)

    def _delete(self, name: str) -> None:
        # Arrow's own way leaves an empty object in place of the folder, which some stores then take for a file.
        bucket, _, key = self._path(name).partition("/")
        request = signed(self.access, "DELETE", bucket, key)
        verify = self.access.authority or True
        try:
            answer = httpx.request("DELETE", request.url, headers=request.headers, timeout=REQUEST_S, verify=verify)
        except httpx.HTTPError as error:
            raise OSError(f"NETWORK_CONNECTION: {error or type(error).__name__}") from error
        if answer.status_code not in (200, 204, 404):
            raise OSError(f"HTTP {answer.status_code} during DeleteObject: {answer.text[:300]}")

    def _put(self, name: str, pieces: Iterator[bytes]) -> None:
        path = self._path(name)
        if not self._is_s3:
            self._put_locally(Path(path), pieces)
            return
        with self._system.open_output_stream(path) as stream:
            for piece in pieces:
                stream.write(piece)

    def _put_locally(self, path: Path, pieces: Iterator[bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".putting-{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @cached_property
    def _is_s3(self) -> bool:
        return self.url.startswith("s3:")

    @cached_property
    def _root(self) -> str:
        parts = urlsplit(self.url)
        return (parts.netloc + parts.path if self._is_s3 else unquote(parts.path)).rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    @property
    def _system(self) -> "FileSystem":
        return _system(self.access if self._is_s3 else None)

    @contextlib.contextmanager
    def _told(self, doing: str, name: str) -> Iterator[None]:
        """Turn the store's errors into those that headrace's callers know; none of them shows a key."""
        try:
            yield
        except HeadraceError:
            raise
        except FileNotFoundError as error:
            raise NotFound(f"There is no {self.url}/{name}.") from error
        except OSError as error:
            cause = " ".join(str(error).split())[:400]
            for hidden in filter(None, (self.access.secret, self.access.token, self.access.key)):
                cause = cause.replace(hidden, "***")
            remedy = next((text for word, text in REMEDIES.items() if word in cause), "See that it can be reached.")
            # The library's text would show what was just taken out.
            raise Unavailable(f"{self.url} fails at {doing} {name or 'objects'}: {cause}", remedy) from None


_systems: dict[S3Access | None, "FileSystem"] = {}


def _system(access: S3Access | None) -> "FileSystem":
    """Return the connection of an access; all buckets of a process share it."""
    if access not in _systems:
        _systems[access] = _opened(access)
    return _systems[access]


def _opened(access: S3Access | None) -> "FileSystem":
    from pyarrow import fs

    if access is None:
        return fs.LocalFileSystem()
    options: dict[str, Any] = {"region": access.region, "connect_timeout": CONNECT_S, "request_timeout": REQUEST_S}
    if access.endpoint:
        scheme, _, host = access.endpoint.partition("://")
        options |= {"scheme": scheme, "endpoint_override": host}
    if access.key:
        options |= {"access_key": access.key, "secret_key": access.secret, "session_token": access.token or None}
    if access.authority:
        options["tls_ca_file_path"] = access.authority
    # Checksums in trailers, the library's default, need bodies without a length, which not every store takes.
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
        os.environ.setdefault(name, "when_required")
    # Small objects go in one request instead of three.
    return fs.S3FileSystem(allow_delayed_open=True, background_writes=False, **options)
