"""One request for answers to rows, from its headers to its answer, without a task.

Most requests come this way. Each step is a call that the connection or the batch makes when what it needs is there; a
task with its futures costs about as much as all that is done here.
"""

from typing import TYPE_CHECKING

import msgspec

from headrace.serving.answer import scored
from headrace.serving.batch import Part
from headrace.serving.exchange import Exchange
from headrace.serving.generation import Served
from headrace.serving.plain import read_csv

if TYPE_CHECKING:
    from headrace.serving.app import App

#: Longer bodies come in pieces, which a task reads.
SHORT_BYTES = 65_536


class Invocation(msgspec.Struct, eq=False):
    """A request to `/invocations` that was read. It stands in its job for the future of its answer."""

    app: "App"
    exchange: Exchange
    served: Served

    def set_result(self, part: Part, /) -> None:
        """Send the answer."""
        self.exchange.answer(200, self.served.headers(part.ids), scored(part))

    def set_exception(self, error: Exception, /) -> None:
        """Send what went wrong."""
        self.app.refuse(self.exchange, error)


def invoke(app: "App", exchange: Exchange, *, is_csv: bool) -> None:
    """Read a request with a short body and have its rows answered; until that is whole, wait for the next call."""
    if not exchange.is_whole and exchange.problem is None:
        return
    try:
        if exchange.problem is not None:
            raise exchange.problem
        generation, served = app.find(exchange)
        body = exchange.take()
        asked = read_csv(served, body, generation.plan.serve.queue) if is_csv else served.scoring.read(body)
        app.submit(exchange, generation, served, asked, Invocation(app, exchange, served))
    except Exception as error:  # noqa: BLE001 - the request's boundary: it is answered, the front goes on
        app.refuse(exchange, error)
