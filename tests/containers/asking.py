"""Asking an endpoint all the while, to see what its clients notice, and waiting for what should happen."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

#: Status and version of each.
Answers = list[tuple[int, str]]


@contextmanager
def asking(url: str, *, pause_s: float = 0.02) -> Iterator[Answers]:
    """Ask for predictions of digits all the while, and give what is answered.

    Args:
        url: with the protocol's path.
    """
    answers: Answers = []
    stopped = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=120, trust_env=False) as client:
            while not stopped.is_set():
                answer = client.post(url, json={"inputs": [[0.5] * 64]})
                answers.append((answer.status_code, answer.headers.get("X-Headrace-Version", "")))
                stopped.wait(pause_s)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stopped.set()
        thread.join()


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
