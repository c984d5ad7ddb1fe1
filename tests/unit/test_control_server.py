"""The API's process: it ends though somebody listens, says at once what cannot be had, and cuts its logs."""

import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.clock import ManualClock, SystemClock
from headrace.config.settings import Settings
from headrace.dashboard import worker
from headrace.dashboard.server import ControlServer, listen
from headrace.dashboard.worker import Worker
from headrace.deploy.memory import MemoryTarget
from headrace.errors import InvalidConfig, Unavailable
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.control import Control
from headrace.lifecycle.durable import Role
from headrace.lifecycle.production import notify
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.upkeep.tokens import Tokens
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry

LONG_S = 60.0


def settings_in(folder: Path, **variables: str) -> Settings:
    return Settings(folder / "state", folder / "home", variables=variables).prepare()


def tokens_of(settings: Settings) -> Tokens:
    return Tokens(settings.home / "tokens.json", ManualClock())


def test_a_server_ends_though_somebody_listens(tmp_path: Path) -> None:
    settings, none = settings_in(tmp_path), Any
    rooms = Rooms(settings, SystemClock(), MemoryRegistry(), MemoryLedger(), MemoryTarget(), none, MemoryLog())
    server = ControlServer(Control(rooms, none), listen(settings, tokens_of(settings)), threading.Event())
    server.start()
    where = settings.run / "control.json"
    deadline = time.monotonic() + LONG_S
    while not where.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    document = json.loads(where.read_text())
    asked = {"authorization": f"Bearer {document['token']}"}
    with httpx.stream("GET", f"{document['url']}/api/stream", headers=asked, timeout=LONG_S, trust_env=False) as heard:
        assert next(heard.iter_lines()).startswith(":")
        stopping = threading.Thread(target=server.stop, daemon=True)
        stopping.start()
        stopping.join(LONG_S)
        assert not stopping.is_alive()
    assert server._thread is not None
    assert not server._thread.is_alive()
    assert not where.exists()


def test_a_taken_port_is_told_before_anything_begins(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = settings_in(tmp_path, HEADRACE_CONTROL=place)
        with pytest.raises(Unavailable, match=f"cannot listen at {place}: Address already in use"):
            listen(settings, tokens_of(settings))
        started: list[Settings] = []
        with pytest.raises(Unavailable):
            Worker(settings, list(Role), make_rooms=started.append).play()  # type: ignore[arg-type]
        assert started == []


def test_an_address_for_decisions_without_a_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="HEADRACE_WEBHOOK_SECRET is not"):
        notify.check(settings_in(tmp_path, HEADRACE_WEBHOOK_URL="http://receiver/"))
    notify.check(settings_in(tmp_path, HEADRACE_WEBHOOK_URL="http://receiver/", HEADRACE_WEBHOOK_SECRET="s"))
    notify.check(settings_in(tmp_path))


def test_a_workers_log_is_set_aside_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOG_BYTES", 1000)
    settings = settings_in(tmp_path)
    (*_, kept) = Worker(settings, list(Role))._handlers()
    for number in range(500):
        kept.emit(logging.LogRecord("headrace", logging.INFO, "", 0, "line %d", (number,), None))
    kept.close()
    files = sorted(settings.logs.iterdir())
    assert [file.name for file in files] == [f"{settings.node}.log{end}" for end in ("", ".1", ".2", ".3")]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert "line 499" in files[0].read_text()
