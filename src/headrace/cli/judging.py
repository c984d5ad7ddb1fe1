"""The work behind `headrace monitor run`: by the control process where one runs, in this process where none does."""

from collections.abc import Iterator

from headrace import wiring
from headrace.cli import client as control
from headrace.config.settings import read_settings
from headrace.ledger.base import no_component
from headrace.lifecycle.durable import Undurable
from headrace.lifecycle.events import Mark
from headrace.lifecycle.flows import FLOWS
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.watching import due
from headrace.types import Json


class Judging:
    """Judges every window of a component that is due.

    Attributes:
        waits_for: once all are judged, what the next one waits for.
    """

    def __init__(self, component: str) -> None:
        self._component = component
        self.waits_for = ""

    def outcomes(self) -> Iterator[dict[str, Json]]:
        """Yield the outcome of each window, oldest first; one that could not be judged is the last.

        Raises:
            NotFound: there is no such component.
        """
        settings = read_settings()
        client = control.find(settings)
        found = self._asked(client) if client else self._here(wiring.rooms(settings.prepare()))
        for outcome in found:
            yield outcome
            if outcome["exit_code"]:
                self.waits_for = str(outcome["fact"])
                return

    def _asked(self, client: control.Client) -> Iterator[dict[str, Json]]:
        while True:
            answer = client.ask("POST", "/api/watch", component=self._component)
            if not answer["flow"]:
                self.waits_for = answer["sentence"]
                return
            yield from (dict(event.numbers) for event in client.events(answer["flow"]) if event.mark is Mark.ENDED)

    def _here(self, rooms: Rooms) -> Iterator[dict[str, Json]]:
        if self._component not in rooms.ledger.components():
            raise no_component(rooms.ledger, self._component)
        while True:
            found = due.standing(rooms, self._component, is_asked=True)
            if found.request is None:
                self.waits_for = found.sentence
                return
            # Each step may be repeated: what it writes is named by the window.
            yield FLOWS[found.request.flow](Undurable({}), rooms, found.request).as_json()
