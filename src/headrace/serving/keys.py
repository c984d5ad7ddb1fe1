"""API keys: apart for predicting and for feedback, because labels start a retraining."""

import hashlib
import hmac
from collections.abc import Sequence

from headrace.serving.rejection import UNAUTHENTICATED, Rejected


def digest_of(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_key(digests: Sequence[str], authorization: str, what: str) -> None:
    """Let a request in if no key is asked for, or if it brings one of them as a bearer token. Raises Rejected."""
    if not digests:
        return
    scheme, _, key = authorization.partition(" ")
    given = digest_of(key.strip())
    # All are compared, so that time tells nothing.
    if scheme.lower() != "bearer" or not sum(hmac.compare_digest(given, digest) for digest in digests):
        raise Rejected(
            UNAUTHENTICATED, f"A key for {what} is missing or wrong.", "Send it as `Authorization: Bearer KEY`."
        )
