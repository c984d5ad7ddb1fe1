"""Prediction ids: UUIDv7 (RFC 9562), whose first 48 bits are the moment of the request in milliseconds."""

import os
import threading
import uuid
from datetime import UTC, datetime, timedelta

from headrace.clock import Clock, SystemClock
from headrace.errors import InvalidInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TAIL_BITS = 74
_TAIL_MASK = (1 << _TAIL_BITS) - 1
_LOW_MASK = (1 << 62) - 1


class Ids:
    """Gives out ids that rise within this process, also where the clock steps back. Safe to share between threads.

    Attributes:
        steps_back: how often the clock was found behind the last id.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._milliseconds = -1
        self._tail = 0
        self.steps_back = 0

    def new(self) -> str:
        """Return the next id."""
        return self.batch(1)[0]

    def batch(self, rows: int) -> list[str]:
        """Return the next `rows` ids, rising; about a microsecond each."""
        now = (self._clock.now() - _EPOCH) // timedelta(milliseconds=1)
        with self._lock:
            if now > self._milliseconds:
                # The top bit starts at 0, which leaves room to count upwards within one millisecond.
                self._milliseconds, self._tail = now, int.from_bytes(os.urandom(10)) & (_TAIL_MASK >> 1)
            else:
                self.steps_back += now < self._milliseconds
                self._advance()
            found = [_text(self._milliseconds, self._tail)]
            for _ in range(rows - 1):
                self._advance()
                found.append(_text(self._milliseconds, self._tail))
        return found if rows > 0 else []

    def _advance(self) -> None:
        # A random stride keeps the next id unguessable; rising keeps the order.
        self._tail += 1 + int.from_bytes(os.urandom(4))
        if self._tail > _TAIL_MASK:
            self._milliseconds += 1
            self._tail &= _TAIL_MASK >> 1


def time_of(prediction_id: str) -> datetime:
    """Return the moment that an id carries, to the millisecond, in UTC.

    Raises:
        InvalidInput: it is no UUIDv7.
    """
    try:
        parsed = uuid.UUID(prediction_id)
    except ValueError as cause:
        raise InvalidInput(f"`{prediction_id[:64]}` is no prediction id.", _REMEDY) from cause
    if parsed.version != 7:
        raise InvalidInput(f"`{prediction_id}` is no prediction id: its version is {parsed.version}, not 7.", _REMEDY)
    return _EPOCH + timedelta(milliseconds=parsed.int >> 80)


def lowest(at: datetime) -> str:
    """Return the lowest id of a moment: all ids from then on are at or above it."""
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)
    return _text(max(milliseconds, 0), 0)


def _text(milliseconds: int, tail: int) -> str:
    number = milliseconds << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & _LOW_MASK
    raw = f"{number:032x}"
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


_REMEDY = "Send the id from the response's `prediction_ids` or its header X-Headrace-Prediction-Id."
