"""Webhooks: who sends one proves it with a signature over the body; what it says is looked up, not believed.

GitHub's way is spoken by Gitea and Forgejo too; MLflow's own webhooks only say that it is time to look.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from headrace.errors import InvalidInput, NotAllowed, NotFound
from headrace.lifecycle.request import Cause
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Watched
from headrace.lifecycle.triggers.book import Became, Book, Line
from headrace.lifecycle.triggers.commits import pushed
from headrace.lifecycle.triggers.door import Door

#: MLflow signs the time of sending; an older message is somebody's recording.
OLDEST_S = 300.0
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
Headers = Mapping[str, str]


def receive(rooms: Rooms, door: Door, component: str, headers: Headers, body: bytes) -> Line:
    """Act on a webhook, and return what became of it.

    Raises:
        NotFound: nobody watches such a component, or it takes no webhooks.
        NotAllowed: the signature is missing or wrong; that is written down.
        InvalidInput: the signed body is no JSON object.
    """
    book = Book(rooms, component)
    # The name comes from an address that anybody can write.
    watched = book.watched() if NAME.fullmatch(component) and book.folder.is_dir() else None
    secret = _secret(rooms, watched)
    if watched is None or not secret:
        raise NotFound(f"No webhook is taken for `{component}`.", "Set `triggers.webhook_secret` in headrace.yaml.")
    delivery = headers.get("x-github-delivery", "") or headers.get("x-mlflow-delivery-id", "")
    if not _is_signed(headers, body, secret, rooms.clock.now()):
        book.tell("webhook", Became.REFUSED, "A webhook's signature is missing, wrong or too old.", key=delivery[:64])
        raise NotAllowed("The signature is missing, wrong or too old.", "Sign the body with the shared secret.")
    if "x-mlflow-signature" in headers:
        book.hint.touch()
        return book.tell("webhook", Became.IGNORED, "MLflow says that something changed; it is being looked at.")
    kind = headers.get("x-github-event", "push")
    if kind != "push":
        return book.tell(
            "webhook", Became.IGNORED, f"A webhook of the kind `{kind[:40]}` starts nothing.", key=delivery
        )
    return _push(rooms, door, watched, _document(body), delivery)


def _push(rooms: Rooms, door: Door, watched: Watched, document: dict[str, Any], delivery: str) -> Line:
    book = Book(rooms, watched.component)
    ref, commit = str(document.get("ref", "")), str(document.get("after", ""))
    if not ref.startswith("refs/heads/"):
        book.hint.touch()  # A tag, say: the next look at the repository will see it.
        return book.tell(
            "webhook", Became.IGNORED, f"`{ref[:80]}` is no branch; tags are being looked at.", key=delivery
        )
    found = pushed(rooms, watched, ref.removeprefix("refs/heads/"), commit)
    if isinstance(found, str):
        return book.tell("webhook", Became.IGNORED, found, key=commit[:40])
    line = door.knock(found)
    return line or Line(
        rooms.clock.now().isoformat(), Cause.COMMIT.value, found.trigger.key, found.trigger.actor, Became.WAITING,
        f"{found.trigger.reason}: waits its turn.", found.flow_id,
    )  # fmt: skip


def _secret(rooms: Rooms, watched: Watched | None) -> str:
    name = watched.settings.triggers.webhook_secret if watched else None
    return rooms.settings.variables.get(name, "") if name else ""


def _is_signed(headers: Headers, body: bytes, secret: str, now: datetime) -> bool:
    github = headers.get("x-hub-signature-256", "")
    if github:
        wanted = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(github.encode(), f"sha256={wanted}".encode())
    given = headers.get("x-mlflow-signature", "")
    sent = headers.get("x-mlflow-timestamp", "")
    if not given or not sent.isdigit() or abs(now.timestamp() - int(sent)) > OLDEST_S:
        return False
    signed = f"{headers.get('x-mlflow-delivery-id', '')}.{sent}.".encode() + body
    digest = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(given.encode(), f"v1,{digest}".encode())


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise InvalidInput("The webhook's body is no JSON.", "Choose the content type application/json.") from error
    if not isinstance(document, dict):
        raise InvalidInput("The webhook's body is no JSON object.")
    return document
