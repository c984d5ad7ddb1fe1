"""Webhooks: who sends one proves it with a signature over the body; all that it says is that it is time to look.

Deliveries come late, twice and in any order, so the patrol alone decides, by the repository. GitHub's way is spoken by
Gitea and Forgejo too, and MLflow's own webhooks are taken.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.errors import InvalidInput, NotAllowed, NotFound
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Watched
from headrace.lifecycle.triggers.book import Became, Book, Line

#: MLflow signs the time of sending; an older message is somebody's recording.
OLDEST_S = 300.0
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SIGNATURES = ("x-hub-signature-256", "x-mlflow-signature")
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Expected:
    """A component that takes webhooks, and what they are signed with."""

    watched: Watched
    secret: str


def expected(rooms: Rooms, component: str, headers: Headers) -> Expected:
    """Return what is known before a body is read.

    Raises:
        NotFound: nobody watches such a component, or it takes no webhooks.
        NotAllowed: there is no signature; that is written down.
    """
    book = Book(rooms, component)
    # The name comes from an address that anybody can write.
    watched = book.watched() if NAME.fullmatch(component) and book.folder.is_dir() else None
    secret = _secret(rooms, watched)
    if watched is None or not secret:
        raise NotFound(f"No webhook is taken for `{component}`.", "Set `triggers.webhook_secret` in headrace.yaml.")
    if not any(headers.get(name) for name in SIGNATURES):
        raise _refused(book, headers)
    return Expected(watched, secret)


def receive(rooms: Rooms, component: str, headers: Headers, body: bytes) -> Line:
    """Take a webhook as a hint to look, and return what became of it.

    Raises:
        NotFound: nobody watches such a component, or it takes no webhooks.
        NotAllowed: the signature is missing or wrong; that is written down.
        InvalidInput: the signed body is no JSON object.
    """
    found = expected(rooms, component, headers)
    book = Book(rooms, component)
    if not _is_signed(headers, body, found.secret, rooms.clock.now()):
        raise _refused(book, headers)
    if "x-mlflow-signature" in headers:
        book.hint.touch()
        return book.tell(
            "webhook",
            Became.NOTED,
            "MLflow says that something changed; it is being looked at.",
            key=_delivery(headers),
        )
    kind = headers.get("x-github-event", "push")
    if kind != "push":
        fact = f"A webhook of the kind `{kind[:40]}` starts nothing."
        return book.tell("webhook", Became.IGNORED, fact, key=_delivery(headers))
    return _push(book, found.watched, str(_document(body).get("ref", ""))[:200], _delivery(headers))


def _push(book: Book, watched: Watched, ref: str, delivery: str) -> Line:
    wanted = watched.settings.triggers.commit
    branch = ref.removeprefix("refs/heads/")
    if not ref.startswith("refs/heads/"):
        fact = f"`{ref}` was pushed; tags are being looked at."
    elif wanted is None:
        return book.tell("webhook", Became.IGNORED, f"{watched.component} watches no branch.", key=delivery)
    elif branch != wanted.branch:
        fact = f"The push was to `{branch}`, and {watched.component} watches `{wanted.branch}`."
        return book.tell("webhook", Became.IGNORED, fact, key=delivery)
    else:
        fact = f"`{branch}` was pushed to; it is being looked at."
    book.hint.touch()
    return book.tell("webhook", Became.NOTED, fact, key=delivery)


def _refused(book: Book, headers: Headers) -> NotAllowed:
    book.tell("webhook", Became.REFUSED, "A webhook's signature is missing, wrong or too old.", key=_delivery(headers))
    return NotAllowed("The signature is missing, wrong or too old.", "Sign the body with the shared secret.")


def _delivery(headers: Headers) -> str:
    return (headers.get("x-github-delivery", "") or headers.get("x-mlflow-delivery-id", ""))[:64]


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
    if not given or not re.fullmatch("[0-9]{1,12}", sent) or abs(now.timestamp() - int(sent)) > OLDEST_S:
        return False
    signed = f"{headers.get('x-mlflow-delivery-id', '')}.{sent}.".encode() + body
    digest = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(given.encode(), f"v1,{digest}".encode())


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The webhook's body is no JSON.", "Choose the content type application/json.") from error
    if not isinstance(document, dict):
        raise InvalidInput("The webhook's body is no JSON object.")
    return document
