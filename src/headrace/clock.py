"""Time, passed in rather than read: `SystemClock` in production, `ManualClock` in tests."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where a room gets the time from."""

    def now(self) -> datetime:
        """Return the present, in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never step back; only differences mean anything."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to."""

    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    elapsed_s: float = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; a negative number is a clock that steps back (monotonic time stands still)."""
        self.at += timedelta(seconds=seconds)
        self.elapsed_s += max(seconds, 0.0)
