"""API keys: apart for predicting and for feedback, because labels start a retraining."""

import hashlib
import hmac
from collections.abc import Sequence

from headrace.serving.rejection import UNAUTHENTICATED, Rejected


def digest_of(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def check_key(digests: Sequence[str], authorization: str, what: str) -> None:
    """Let a request in if no key is asked for, or if it brings one of them as a bearer token. Raises Rejected."""
    if not digests:
        return
    scheme, _, key = authorization.partition(" ")
    given = _digests_of(key.strip(" \t"))
    # All are compared, so that time tells nothing.
    found = sum(hmac.compare_digest(one, digest) for one in given for digest in digests)
    if scheme.lower() != "bearer" or not found:
        raise Rejected(
            UNAUTHENTICATED, f"A key for {what} is missing or wrong.", "Send it as `Authorization: Bearer KEY`."
        )


def _digests_of(key: str) -> list[str]:
    """Return the digests of a header's key, whose bytes were read as Latin-1: most clients send UTF-8, some Latin-1."""
    return [hashlib.sha256(key.encode("latin-1", "backslashreplace")).hexdigest(), digest_of(key)]
