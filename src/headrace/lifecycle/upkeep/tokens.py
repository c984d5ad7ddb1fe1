"""Who may ask the control process for what: named tokens with a rank and an end, of which only digests are kept."""

import fcntl
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from headrace.clock import Clock
from headrace.errors import Conflict, HeadraceError, InvalidInput, NotFound
from headrace.files import write_atomically
from headrace.types import Json

PREFIX = "hr"
MOST_NAME = 100
#: Who reads this may not make one from where they are: without a token, only that machine's own command line may.
MAKE_ONE = (
    "On the control process's machine, without HEADRACE_URL: `headrace token create {name}`; then show it in "
    "HEADRACE_TOKEN."
)


class Rank(StrEnum):
    """What a token's holder may do; each may what those before may."""

    VIEWER = "viewer"  #: read
    OPERATOR = "operator"  #: run, promote, approve, roll back, stop
    ADMIN = "admin"  #: make and revoke tokens

    def covers(self, other: "Rank") -> bool:
        ranks = list(Rank)
        return ranks.index(self) >= ranks.index(other)


class Unauthorized(HeadraceError):
    """The token is missing, wrong, expired or revoked."""

    exit_code = 11
    http_status = 401


@dataclass(frozen=True, slots=True)
class Token:
    """One token, as it is kept.

    Attributes:
        digest: SHA-256 of the secret. The secret has 256 random bits, so that no slower hash is needed.
        expires, revoked: ISO 8601; empty where it does not end, or was not revoked.
    """

    id: str
    name: str
    rank: Rank
    digest: str
    created: str
    expires: str = ""
    revoked: str = ""

    def problem(self, now: datetime) -> str:
        """Return why the token counts no more; empty where it does."""
        if self.revoked:
            return f"The token `{self.name}` was revoked at {self.revoked[:19]} UTC."
        if self.expires and now >= datetime.fromisoformat(self.expires):
            return f"The token `{self.name}` expired at {self.expires[:19]} UTC."
        return ""

    def as_json(self) -> dict[str, Json]:
        """Return what may be shown: all but the digest."""
        document: dict[str, Json] = asdict(self)
        del document["digest"]
        return document


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one home, in one file."""

    path: Path
    clock: Clock

    def create(self, name: str, rank: Rank, *, lives_s: float | None) -> tuple[Token, str]:
        """Return a new token and its secret, which is told this once.

        Raises:
            Conflict: the name is taken.
            InvalidInput: it would have ended before it began, or the name cannot be shown.
        """
        if not name.isprintable() or not 1 <= len(name) <= MOST_NAME:
            raise InvalidInput(
                f"A token's name has 1 to {MOST_NAME} printable characters.", "headrace token create ada"
            )
        if lives_s is not None and lives_s <= 0:
            raise InvalidInput(f"A token cannot live for {lives_s:.0f} s.", "--expires 90d, or --expires never")
        now = self.clock.now()
        secret = secrets.token_urlsafe(32)
        expires = (now + timedelta(seconds=lives_s)).isoformat() if lives_s is not None else ""
        token = Token(secrets.token_hex(4), name, rank, _digest(secret), now.isoformat(), expires)
        with self._alone():
            known = self._read()
            if any(one.name == name and not one.problem(now) for one in known):
                raise Conflict(f"There is a token `{name}` already.", f"headrace token revoke {name}")
            self._write([*known, token])
        return token, f"{PREFIX}_{token.id}_{secret}"

    def all(self) -> Sequence[Token]:
        """Return all tokens, oldest first, those that count no more among them."""
        return self._read()

    def told(self) -> list[dict[str, Json]]:
        """Return all tokens as they may be shown, each with why it counts no more."""
        now = self.clock.now()
        return [{**token.as_json(), "problem": token.problem(now)} for token in self._read()]

    def usable(self) -> Sequence[Token]:
        """Return the tokens that count."""
        now = self.clock.now()
        return [token for token in self._read() if not token.problem(now)]

    def revoke(self, name: str) -> Token:
        """End a token, by its name or id. Raises NotFound."""
        now = self.clock.now()
        with self._alone():
            known = self._read()
            found = [one for one in known if name in (one.name, one.id) and not one.problem(now)]
            if not found:
                names = ", ".join(one.name for one in known if not one.problem(now)) or "none"
                raise NotFound(f"There is no token `{name}` that counts (there are: {names}).", "headrace token list")
            ended = replace(found[-1], revoked=now.isoformat())
            self._write([ended if one.id == ended.id else one for one in known])
        return ended

    def check(self, given: str) -> Token:
        """Return the token that a client showed. Raises Unauthorized."""
        parts = given.split("_", 2)
        found = next((one for one in self._read() if len(parts) == 3 and one.id == parts[1]), None)
        wanted = found.digest if found else _digest("")
        is_right = hmac.compare_digest(_digest(parts[-1]), wanted)
        if found is None or not is_right:
            raise Unauthorized("The token is missing or wrong.", MAKE_ONE.format(name="NAME"))
        if problem := found.problem(self.clock.now()):
            raise Unauthorized(problem, MAKE_ONE.format(name=found.name))
        return found

    def _read(self) -> list[Token]:
        try:
            documents = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return [Token(**{**document, "rank": Rank(document["rank"])}) for document in documents]

    def _write(self, tokens: Sequence[Token]) -> None:
        write_atomically(self.path, json.dumps([asdict(token) for token in tokens]))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
