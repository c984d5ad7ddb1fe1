"""The bare HTTP engine, answering every request with a body of fixed size: the floor that the front stands on."""

import asyncio
import gc
import socket
import sys

import uvloop

from headrace.serving.exchange import Exchange
from headrace.serving.front import GARBAGE
from headrace.serving.http1 import Listener

ANSWER = b'{"predictions":[[0.1234567890123,0.1234567890123,0.1234567890123]]}'
HEADERS = "content-type: application/json\r\n"


class Echo:
    """Reads the body and answers."""

    def take(self, exchange: Exchange) -> None:
        def look() -> None:
            if exchange.is_whole:
                exchange.take()
                exchange.answer(200, HEADERS, ANSWER)

        if exchange.is_whole:
            look()
        else:
            exchange.when_more(look)


async def echo(port: int) -> None:
    """Answer until somebody ends the process."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(1024)
    listening.setblocking(False)
    Listener(Echo(), listening).start()
    await asyncio.Event().wait()


def main() -> None:
    gc.set_threshold(GARBAGE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(echo(int(sys.argv[1])))


if __name__ == "__main__":
    main()
