"""Outgoing webhooks: every decision of the ledger is sent to one address, signed, again and again until it is taken.

The ledger itself is the outbox: only how far each component was sent is remembered, so nothing is lost in a crash. The
receiver tells repeats by `X-Headrace-Delivery`, which is component and number.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from headrace.config.settings import Settings
from headrace.errors import InvalidConfig
from headrace.files import canonical_json, write_atomically
from headrace.ledger.base import Entry
from headrace.lifecycle.rooms import Rooms

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
AT_ONCE = 50
TIMEOUT_S = 10.0


@dataclass(slots=True)
class Notifier:
    """Sends what is new. One for each home; call `send` regularly."""

    rooms: Rooms
    url: str
    secret: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=TIMEOUT_S))
    _wait_s: float = FIRST_WAIT_S
    _not_before_s: float = 0.0

    def send(self) -> str:
        """Send what was not taken yet, oldest first; return why it stopped, or an empty text.

        What was decided before the first look is not sent.
        """
        if self.rooms.clock.monotonic_s() < self._not_before_s:
            return ""
        sent = self._sent()
        for component in self.rooms.ledger.components():
            for entry in self._new(component, sent.get(component, 0)):
                problem = self._post(entry)
                if problem:
                    self._not_before_s = self.rooms.clock.monotonic_s() + self._wait_s
                    self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
                    return problem
                self._wait_s = FIRST_WAIT_S
                sent[component] = entry.sequence
                write_atomically(self._path, json.dumps(sent))
        return ""

    def _new(self, component: str, after: int) -> Sequence[Entry]:
        (head,) = self.rooms.ledger.history(component, limit=1)
        missing = head.sequence - after
        found = self.rooms.ledger.history(component, limit=missing) if missing > 0 else []
        return [*reversed(found)][:AT_ONCE]

    def _post(self, entry: Entry) -> str:
        body = canonical_json({"event": entry.action.value, "entry": entry.as_json()})
        headers = {
            "content-type": "application/json",
            "x-headrace-delivery": f"{entry.component}/{entry.sequence}",
            "x-headrace-signature-256": signature(self.secret, body),
        }
        try:
            # What the receiver says beside its status is not read, however much that is.
            with self.client.stream("POST", self.url, content=body, headers=headers) as answer:
                pass
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"the webhook's address does not answer: {type(error).__name__}"
        return "" if answer.is_success else f"the webhook's address answered {answer.status_code}"

    @property
    def _path(self) -> Path:
        return self.rooms.settings.home / "notified.json"

    def _sent(self) -> dict[str, int]:
        if not self._path.exists():
            heads = {name: self.rooms.ledger.history(name, limit=1) for name in self.rooms.ledger.components()}
            write_atomically(self._path, json.dumps({name: found[0].sequence for name, found in heads.items()}))
        sent: dict[str, int] = json.loads(self._path.read_text())
        return sent


def signature(secret: str, body: bytes) -> str:
    """Return what proves that a body comes from here; the receiver computes it over the raw body."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def check(settings: Settings) -> None:
    """Raise InvalidConfig where decisions are to be sent and nothing is there to sign them with."""
    if settings.webhook_url and not settings.variables.get("HEADRACE_WEBHOOK_SECRET"):
        raise InvalidConfig(
            "HEADRACE_WEBHOOK_URL is set and HEADRACE_WEBHOOK_SECRET is not, so that no decision could be signed.",
            "Set both: HEADRACE_WEBHOOK_SECRET=…",
        )


def notifier(rooms: Rooms) -> Notifier | None:
    """Return what sends, where the settings name an address and a secret."""
    settings: Settings = rooms.settings
    url, secret = settings.webhook_url, settings.variables.get("HEADRACE_WEBHOOK_SECRET", "")
    return Notifier(rooms, url, secret) if url and secret else None
