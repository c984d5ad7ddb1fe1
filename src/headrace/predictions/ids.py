"""Prediction ids: UUIDv7 (RFC 9562), whose first 48 bits are the moment of the request in milliseconds."""

import os
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from headrace.clock import Clock, SystemClock
from headrace.errors import InvalidInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TAIL_BITS = 74
_TAIL_MASK = (1 << _TAIL_BITS) - 1
_LOW_MASK = (1 << 62) - 1
_LAST_BITS = 48
_LAST_MASK = (1 << _LAST_BITS) - 1
#: Above the last group, so that `hex` writes its leading zeros, behind `0x1`.
_LAST_TOP = 1 << _LAST_BITS


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
        """Return the next `rows` ids, rising; some hundreds of nanoseconds each."""
        if rows <= 0:
            return []
        now = (self._clock.now() - _EPOCH) // _MILLISECOND
        # One call for all strides: asking the system for each costs more than all the rest.
        random = os.urandom(10 + 4 * (rows - 1))
        strides = memoryview(random)[10:].cast("I")
        with self._lock:
            if now > self._milliseconds:
                # The top bit starts at 0, which leaves room to count upwards within one millisecond.
                self._milliseconds, self._tail = now, int.from_bytes(random[:10]) & (_TAIL_MASK >> 1)
            else:
                self.steps_back += now < self._milliseconds
                self._advance(int.from_bytes(random[:4]))
            start, tail = self._milliseconds, self._tail
            end = tail + sum(strides) + len(strides)
            if end >> _LAST_BITS == tail >> _LAST_BITS:  # Only the last group changes.
                self._tail = end
                return _rising(_text(start, tail), tail & _LAST_MASK, strides)
            found = [_text(start, tail)]
            for stride in strides:
                self._advance(stride)
                found.append(_text(self._milliseconds, self._tail))
        return found

    def _advance(self, stride: int) -> None:
        # A random stride keeps the next id unguessable; rising keeps the order.
        self._tail += 1 + stride
        if self._tail > _TAIL_MASK:
            self._milliseconds += 1
            self._tail &= _TAIL_MASK >> 1


def _rising(first: str, last: int, strides: Sequence[int]) -> list[str]:
    """Return `first` and its followers, which differ in the last group alone."""
    head = first[:24]
    sums = accumulate(strides, initial=_LAST_TOP | last)
    return [head + hex(number + place)[3:] for place, number in enumerate(sums)]


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
