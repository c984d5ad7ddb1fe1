"""The local target: real supervisors, fronts and workers on loopback, and nothing left behind."""

import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.conftest import SmallModels

from headrace import processes
from headrace.client import Scorer
from headrace.config.component import Serve
from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.errors import ModelRefused, Unavailable
from headrace.predictions.segments import SegmentLog
from headrace.processes import ProcessName
from headrace.provenance import golden
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving.offline import answers
from headrace.serving.worker_child import cores, folder_digest
from headrace.types import UNNAMED, Golden, ServedVersion, Stage

pytestmark = pytest.mark.slow
ROWS = np.random.default_rng(1).random((20, 64), dtype="float32")
#: It takes 16 ms a row, half of it with packed linear layers, and the less the more threads it has.
HASTY = """\
import time
import mlflow
import torch

class Hasty(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        is_packed = getattr(getattr(torch.nn.functional.linear, "__self__", None), "is_on", False)
        time.sleep(0.016 * len(model_input) / torch.get_num_threads() / (2 if is_packed else 1))
        return model_input["x"].to_numpy()

mlflow.models.set_model(Hasty())
"""


@pytest.fixture(scope="module")
def first(small_models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> ServedVersion:
    """Version 1 of `small`, sealed and with golden predictions."""
    folder = tmp_path_factory.mktemp("golden")
    seal = folder_digest(str(small_models.mlp))
    version = ServedVersion("small", 1, small_models.mlp, small_models.python, seal=seal)
    golden.save(Golden({UNNAMED: ROWS}, answers(version, {UNNAMED: ROWS})), folder)
    return replace(version, golden=folder)


@pytest.fixture
def target(settings: Settings) -> Iterator[ProcessTarget]:
    made = ProcessTarget(settings)
    yield made
    running = [status.pid for status in made.endpoints()]
    for stage in Stage:
        made.remove("small", stage)
    assert not [pid for pid in running if psutil.pid_exists(pid)]


def route(*versions: ServedVersion, serving: int, stage: Stage = Stage.PRODUCTION, serve: Serve | None = None) -> Route:
    return Route("small", stage, versions, {serving: 1.0}, serve or Serve(deadline_ms=60_000))


def ask(url: str, version: ServedVersion) -> int:
    with Scorer(url) as scorer:
        return scorer.score(read_mlmodel(version.model).signature, {UNNAMED: ROWS[:2]}).version


def family(pid: int) -> list[psutil.Process]:
    return processes.family(ProcessName(pid, psutil.Process(pid).create_time()))


def test_release_rollback_and_restart_keep_one_address(target: ProcessTarget, first: ServedVersion) -> None:
    second = replace(first, version=2)
    started = target.apply(route(first, serving=1))
    url = started.endpoint.url
    assert ask(url, first) == 1
    moved = target.apply(route(first, second, serving=2))
    assert (moved.endpoint.url, ask(url, first), sorted(moved.warm)) == (url, 2, [1, 2])
    workers = {process.pid for process in family(moved.endpoint.pid)}
    back = target.apply(route(first, second, serving=1))
    assert (back.generation, ask(url, first)) == (3, 1)
    assert {process.pid for process in family(back.endpoint.pid)} == workers, "a rollback starts nothing"
    assert target.apply(route(first, second, serving=1)).generation == 3, "the same route again changes nothing"

    everything = family(back.endpoint.pid)
    os.kill(back.endpoint.pid, signal.SIGKILL)
    psutil.wait_procs(everything, timeout=120)
    assert target.status("small", Stage.PRODUCTION) is None
    again = target.apply(route(first, serving=1))
    assert (again.endpoint.url, ask(url, first)) == (url, 1)


def test_predictions_are_logged_and_joined_with_feedback(
    target: ProcessTarget, first: ServedVersion, settings: Settings
) -> None:
    url = target.apply(route(first, serving=1)).endpoint.url
    with Scorer(url) as scorer:
        scored = scorer.score(read_mlmodel(first.model).signature, {UNNAMED: ROWS[:3]})
        assert scorer.feedback([(scored.ids[0], 7)]) == 1
    target.remove("small", Stage.PRODUCTION)
    joined = SegmentLog(settings.predictions).joined("small")
    assert [row.prediction.id for row in joined] == list(scored.ids), "golden probes are not logged"
    assert [row.actual for row in joined] == [7, None, None]
    np.testing.assert_allclose(joined[2].prediction.output, scored.outputs[UNNAMED][2], rtol=1e-6)


def test_what_dev_was_asked_goes_with_it(target: ProcessTarget, first: ServedVersion, settings: Settings) -> None:
    url = target.apply(route(first, serving=1, stage=Stage.DEV)).endpoint.url
    assert ask(url, first) == 1
    kept = settings.run / "small-dev" / "predictions"
    deadline = time.monotonic() + 60
    while not kept.is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kept.is_dir()
    target.remove("small", Stage.DEV)
    assert not kept.exists()


def test_wrong_golden_answers_are_refused_and_production_goes_on(
    target: ProcessTarget, first: ServedVersion, tmp_path: Path
) -> None:
    url = target.apply(route(first, serving=1)).endpoint.url
    kept = golden.load(first.golden or Path())
    golden.save(Golden(kept.inputs, {UNNAMED: kept.outputs[UNNAMED] + 1}), tmp_path / "other")
    second = replace(first, version=2, golden=tmp_path / "other")
    with pytest.raises(ModelRefused, match="version 2 does not give its golden answers"):
        target.apply(route(first, second, serving=2))
    status = target.status("small", Stage.PRODUCTION)
    assert status is not None
    assert (status.generation, list(status.warm), ask(url, first)) == (1, [1], 1)


def test_broken_seal_leaves_no_process(target: ProcessTarget, first: ServedVersion) -> None:
    with pytest.raises(ModelRefused, match="sealed"):
        target.apply(route(replace(first, seal="0" * 64), serving=1, stage=Stage.DEV))
    assert target.status("small", Stage.DEV) is None


def test_taken_port_is_named_with_a_remedy(target: ProcessTarget, first: ServedVersion) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=str(port)) as raised:
            target.apply(route(first, serving=1, serve=Serve(port=port)))
    assert "serve.port" in raised.value.remedy


def test_two_fronts_answer_as_one(target: ProcessTarget, first: ServedVersion) -> None:
    url = target.apply(route(first, serving=1, serve=Serve(fronts=2, workers=2, deadline_ms=60_000))).endpoint.url
    for _ in range(8):
        assert ask(url, first) == 1
    with Scorer(url) as scorer:
        text = scorer._client.get(f"{url}/metrics").text
        assert json.loads(scorer._client.get(f"{url}/version").text)["shares"] == {"1": 1.0}
    assert "headrace_fronts{" in text
    counted = [line for line in text.splitlines() if line.startswith("headrace_requests_total")]
    # One more is the golden probe.
    assert counted[0].endswith(" 9")


def test_the_second_worker_and_one_that_was_killed_take_over_what_the_first_kept(
    target: ProcessTarget, small_models: SmallModels, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_models.sleepy, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (code,) = folder.glob("*.py")
    code.write_text(HASTY)
    version = ServedVersion("small", 1, folder, small_models.python)
    pid = target.apply(route(version, serving=1, serve=Serve(workers=2, deadline_ms=60_000))).endpoint.pid
    log = settings.run / "small-production" / "worker-1.log"
    first = log.read_text().partition("Taken over")[0]
    how = "packed" if "Linear layers are packed" in first else "PyTorch's own"
    numbers = re.findall(r"Threads: (\d+ beside others, \d+ alone)", first)
    assert len(numbers) == (cores() > 1)
    expected = f"Taken over: linear layers are {how}; threads: {numbers[0] if numbers else '1 beside others, 1 alone'}."
    assert [line for line in log.read_text().splitlines() if "Taken over" in line] == [expected]

    worker = next(one for one in family(pid) if "worker_child.py" in " ".join(one.cmdline()))
    worker.kill()
    deadline = time.monotonic() + 60
    while log.read_text().count("Taken over") < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    found = log.read_text()
    assert found.count(expected) == 2
    assert found.count("Threads: ") == len(numbers), "nothing is tried again"
