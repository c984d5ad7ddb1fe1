"""Speaking to a supervisor over its control socket; what is said is written down in `headrace.serving.supervisor`."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace import errors
from headrace.errors import HeadraceError, Unavailable
from headrace.types import Json

NAME = "control.sock"
#: Unix socket addresses are limited to 107 bytes; a longer one is reached through its folder.
LONGEST = 100


class NoSupervisor(Unavailable):
    """Nobody listens on the control socket."""


def ask(folder: Path, document: dict[str, Json], *, timeout_s: float) -> dict[str, Any]:
    """Send one request to the supervisor of a run folder and return its answer.

    Raises:
        NoSupervisor: there is none, or it ended meanwhile.
        Unavailable: it does not answer in time.
        HeadraceError: what the supervisor itself raised.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            with _reachable(folder / NAME) as address:
                connection.connect(address)
        except OSError as cause:
            raise NoSupervisor(f"No supervisor listens in {folder}.") from cause
        try:
            connection.sendall(json.dumps(document).encode() + b"\n")
            line = _line(connection)
        except ConnectionError as cause:
            raise NoSupervisor(
                f"The supervisor in {folder} ended when it was asked to `{document['do']}`.",
                f"See {folder / 'supervisor.log'}.",
            ) from cause
        except OSError as cause:
            raise Unavailable(
                f"The supervisor in {folder} did not answer to `{document['do']}` within {timeout_s:g} s.",
                f"See {folder / 'supervisor.log'}.",
            ) from cause
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise _error(answer["error"])
    return answer


def _line(connection: socket.socket) -> bytes:
    content = b""
    while not content.endswith(b"\n"):
        piece = connection.recv(65_536)
        if not piece:
            raise ConnectionResetError("the supervisor ended")
        content += piece
    return content


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}" if os.path.isdir("/proc/self/fd") else str(path)
    finally:
        os.close(handle)


def _error(document: dict[str, str]) -> HeadraceError:
    kind = getattr(errors, document["kind"], None)
    known = kind if isinstance(kind, type) and issubclass(kind, HeadraceError) else Unavailable
    return known(document["fact"], document["remedy"])
