"""The bare HTTP engine, answering every request with a body of fixed size: the floor that the front stands on.

Its event loop and its threads are set up as a front's are.
"""

import asyncio
import socket
import sys
from typing import Any

import uvloop

from headrace.serving.engine_threads import pace
from headrace.serving.front import SharedListener

ANSWER = b'{"predictions":[[0.1234567890123,0.1234567890123,0.1234567890123]]}'
HEADERS = [("content-type", "application/json")]


class Echo:
    """Reads the body and answers."""

    def __init__(self) -> None:
        self.active = self.peak = 0

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        self.active += 1
        self.peak = max(self.peak, self.active)
        await proto()
        proto.response_bytes(200, HEADERS, ANSWER)
        self.active -= 1


async def serve(listener: socket.socket) -> None:
    echo = Echo()
    pacing = asyncio.ensure_future(pace(echo))
    await SharedListener(echo, listener).serve()  # type: ignore[arg-type]
    pacing.cancel()


def main() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(1024)
    listener.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(listener))


if __name__ == "__main__":
    main()
