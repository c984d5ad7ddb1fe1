"""One request for answers to rows, from its headers to its answer, without a task.

Most requests come this way. Each step is a call that the connection or the batch makes when what it needs is there; a
task with its futures costs about as much as all that is done here.
"""

import time
from typing import TYPE_CHECKING

import msgspec

from headrace.serving.answer import scored
from headrace.serving.batch import Part
from headrace.serving.exchange import Exchange
from headrace.serving.generation import Served
from headrace.serving.plain import read_csv
from headrace.serving.rejection import MODEL_FAILED, Rejected

if TYPE_CHECKING:
    from headrace.serving.app import App

#: Longer bodies come in pieces, which a task reads.
SHORT_BYTES = 65_536


class Invocation(msgspec.Struct, eq=False):
    """A request to `/invocations` whose body is short. It stands in its job for the future of its answer."""

    _app: "App"
    _exchange: Exchange
    _is_csv: bool
    _is_done: bool = False
    _served: Served | None = None
    _rows: int = 0

    def start(self) -> None:
        """Read the body, then go on."""
        if self._exchange.is_whole:
            self._read()
        else:
            self._exchange.when_more(self._read)

    def _read(self) -> None:
        exchange = self._exchange
        if self._is_done or not (exchange.is_whole or exchange.problem):
            return
        try:
            if exchange.problem is not None:
                raise exchange.problem
            app, body = self._app, exchange.take()
            generation, served = app.find(exchange)
            asked = read_csv(served, body) if self._is_csv else served.scoring.read(body)
            self._served, self._rows = served, asked.rows.count
            app.submit(exchange, generation, served, asked, done=self)
        except Exception as error:  # noqa: BLE001 - the request's boundary: it is answered, the front goes on
            self.set_exception(error)

    # What a job wants of a future

    def done(self) -> bool:
        return self._is_done

    def set_result(self, part: Part, /) -> None:
        """Send the answer."""
        served = self._served
        assert served is not None
        try:
            self._exchange.answer(200, served.headers(part.ids), scored(part))
        except Exception as error:  # noqa: BLE001 - a strange output is this request's trouble alone
            self.set_exception(error)
            return
        served.pool.counts.answered(time.monotonic() - self._exchange.start, self._rows)
        self._is_done = True

    def set_exception(self, error: Exception, /) -> None:
        """Send what went wrong."""
        if self._served is not None and isinstance(error, Rejected) and error.status >= MODEL_FAILED:
            self._served.pool.counts.errors += 1
        self._is_done = True
        self._app.refuse(self._exchange, error)
