"""The demo's users and its scanner: real images over HTTP, and the truth about them later."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq

from headrace.types import Json

SIDE = 8


@dataclass(frozen=True, slots=True)
class Images:
    """Images with their truth: pixels of shape (rows, 64), labels of shape (rows,)."""

    pixels: "np.ndarray[tuple[int, int], np.dtype[np.float32]]"
    labels: "np.ndarray[tuple[int], np.dtype[np.int64]]"

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int | None = None) -> "Images":
        return Images(self.pixels[start:stop], self.labels[start:stop])

    def shifted(self, every: int) -> "Images":
        """Return the images with each `every`-th one moved by a pixel to the right, as a misaligned scanner would."""
        moved = self.pixels.copy().reshape(-1, SIDE, SIDE)
        moved[::every, :, 1:] = moved[::every, :, :-1].copy()
        moved[::every, :, 0] = 0
        return Images(moved.reshape(-1, SIDE * SIDE), self.labels)


def read_images(path: Path) -> Images:
    """Return a Parquet file's images."""
    table = pq.read_table(path)
    pixels = np.array(table.column("pixels").to_pylist(), dtype=np.float32)
    return Images(pixels, table.column("label").to_numpy().astype(np.int64))


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered image."""

    prediction_id: str
    version: int
    digit: int
    label: int


@dataclass(slots=True)
class Users:
    """Sends images one request each, counts what fails, keeps what was answered."""

    url: str
    sent: int = 0
    failed: int = 0
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def send(self, images: Images) -> list[Answer]:
        """Send images one after another and return the answers."""
        with httpx.Client(trust_env=False, timeout=10) as client:
            answers = [self._one(client, images.pixels[i], int(images.labels[i])) for i in range(len(images))]
        return [answer for answer in answers if answer is not None]

    def _one(
        self, client: httpx.Client, pixels: "np.ndarray[tuple[int], np.dtype[np.float32]]", label: int
    ) -> Answer | None:
        self.sent += 1
        try:
            response = client.post(f"{self.url}/invocations", json={"inputs": [pixels.tolist()]})
            response.raise_for_status()
        except httpx.HTTPError as error:
            self.failed += 1
            self.failures.append(repr(error))
            return None
        scores = response.json()["predictions"][0]
        answer = Answer(
            response.headers["x-headrace-prediction-id"],
            int(response.headers["x-headrace-version"]),
            int(np.argmax(scores)),
            label,
        )
        self.answers.append(answer)
        return answer

    def tell_truth(self, answers: Sequence[Answer]) -> int:
        """Send the truth about answered images and return how many were kept."""
        actuals: list[Json] = [{"prediction_id": a.prediction_id, "actual": a.label} for a in answers]
        response = httpx.post(
            f"{self.url}/feedback", content=json.dumps({"actuals": actuals}), timeout=30, trust_env=False,
            headers={"content-type": "application/json"},
        )  # fmt: skip
        response.raise_for_status()
        return len(actuals)

    def keep_sending(self, images: Images, pace: "Pace") -> threading.Thread:
        """Send images at a pace in the background, from the first again when they are used up, until told to stop."""

        def work() -> None:
            with httpx.Client(trust_env=False, timeout=10) as client:
                for index in endless(len(images)):
                    if pace.is_over:
                        return
                    self._one(client, images.pixels[index], int(images.labels[index]))
                    time.sleep(pace.seconds)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


@dataclass(slots=True)
class Pace:
    """How fast the background traffic goes."""

    seconds: float
    is_over: bool = False


def endless(count: int) -> Iterator[int]:
    """Yield 0 … count-1, again and again."""
    while True:
        yield from range(count)


def accuracy(answers: Sequence[Answer]) -> float:
    """Return the share of right answers; 0 where there are none."""
    return sum(a.digit == a.label for a in answers) / len(answers) if answers else 0.0
