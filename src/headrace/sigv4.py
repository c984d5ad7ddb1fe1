"""Requests to S3 that are signed here: those that the Arrow library cannot make without side effects.

AWS Signature Version 4, as AWS documents it ("Authenticating Requests: Using the Authorization Header").
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from headrace.config.s3 import S3Access

EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """A signed request without a body; the signature holds for some minutes."""

    url: str
    headers: dict[str, str] = field(repr=False)


def signed(access: S3Access, method: str, bucket: str, key: str, *, at: datetime | None = None) -> Request:
    """Return a request about one object, or with an empty key about a bucket."""
    endpoint = access.endpoint or f"https://s3.{access.region}.amazonaws.com"
    moment = at or datetime.now(UTC)
    stamp, day = f"{moment:%Y%m%dT%H%M%SZ}", f"{moment:%Y%m%d}"
    path = quote(f"/{bucket}/{key}", safe="/-_.~")
    headers = {"host": urlsplit(endpoint).netloc, "x-amz-content-sha256": EMPTY, "x-amz-date": stamp}
    if access.token:
        headers["x-amz-security-token"] = access.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join([method, path, "", lines, names, EMPTY])
    scope = f"{day}/{access.region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    secret = f"AWS4{access.secret}".encode()
    for part in (day, access.region, "s3", "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access.key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return Request(f"{endpoint}{path}", headers)
