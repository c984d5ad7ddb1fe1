"""The bare HTTP engine, answering every request with a body of fixed size: the floor that the front stands on."""

import asyncio
import socket
import sys
from typing import Any

import uvloop

from headrace.serving.front import SharedListener

ANSWER = b'{"predictions":[[0.1234567890123,0.1234567890123,0.1234567890123]]}'
HEADERS = [("content-type", "application/json")]


class Echo:
    """Reads the body and answers."""

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        await proto()
        proto.response_bytes(200, HEADERS, ANSWER)


def main() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(1024)
    listener.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(SharedListener(Echo(), listener).serve())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
