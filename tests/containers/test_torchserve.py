"""The `torchserve` target against a real TorchServe."""

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from tests.conftest import SmallModels
from tests.containers.asking import asking, wait_for
from tests.containers.torchserve_cases import cases, write

from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.torchserve.log import answer_cause, first_cause
from headrace.deploy.torchserve.process import ProcessLauncher, start
from headrace.deploy.torchserve.server import Server, write_workers
from headrace.deploy.torchserve.target import TorchServeTarget
from headrace.errors import InvalidInput, ModelRefused
from headrace.processes import free_port
from headrace.provenance import golden
from headrace.serving.offline import answers
from headrace.types import UNNAMED, Golden, Resources, ServedVersion, Stage

pytestmark = pytest.mark.usefixtures("java")


@pytest.fixture
def version(sealed: ServedVersion) -> ServedVersion:
    return sealed


@pytest.fixture
def target(settings: Settings) -> Iterator[TorchServeTarget]:
    made = TorchServeTarget(settings, ProcessLauncher(settings))
    yield made
    made.remove("digits", Stage.DEV)


def route(*versions: ServedVersion, serving: int) -> Route:
    return Route("digits", Stage.DEV, versions, {serving: 1.0})


def test_a_version_serves_moves_without_a_failed_request_and_leaves_nothing(
    target: TorchServeTarget, version: ServedVersion
) -> None:
    status = target.apply(route(version, serving=1))
    assert (status.generation, status.shares, status.warm, status.problem) == (1, {1: 1.0}, [1], "")
    assert target.apply(route(version, serving=1)) == status  # a repeat changes nothing
    second = replace(
        version, version=2, environment_variables={"GREETING": "hello"}, limits=Resources(memory="1500m", cpus=0.5)
    )
    with asking(f"{status.endpoint.url}/predictions/digits") as codes:
        moved = target.apply(route(version, second, serving=2))
        wait_for(lambda: (200, "2") in codes)
        processes = psutil.Process(status.endpoint.pid).children(recursive=True)
        held = {(one.rlimit(psutil.RLIMIT_DATA)[0], len(one.cpu_affinity())) for one in processes}
        assert held == {(resource.RLIM_INFINITY, len(psutil.Process().cpu_affinity())), (1500 * 1024**2, 1)}, (
            "of version 2 alone"
        )
        back = target.apply(route(version, serving=1))
        wait_for(lambda: codes[-1] == (200, "1"))
    assert (moved.generation, moved.shares, list(moved.warm)) == (2, {2: 1.0}, [1, 2])
    assert (back.generation, back.shares, list(back.warm)) == (3, {1: 1.0}, [1])
    assert {code for code, _ in codes} == {200}
    assert [one.url for one in target.endpoints()] == [status.endpoint.url]
    children = psutil.Process(status.endpoint.pid).children(recursive=True)
    elsewhere = [link.readlink() for link in target.settings.run.rglob("elsewhere-*")]
    target.remove("digits", Stage.DEV)
    assert not any(folder.exists() for folder in elsewhere)
    assert target.status("digits", Stage.DEV) is None
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_what_cannot_be_served_is_refused_with_its_cause_and_the_old_version_goes_on(
    target: TorchServeTarget, version: ServedVersion, small_models: SmallModels, tmp_path: Path
) -> None:
    status = target.apply(route(version, serving=1))
    broken = replace(version, version=2, seal="0" * 64)
    with pytest.raises(ModelRefused, match=r"version 2 cannot be served by TorchServe: .*not the one that was sealed"):
        target.apply(route(version, broken, serving=2))
    wrong = golden.load(version.golden or tmp_path)
    golden.save(Golden(wrong.inputs, {UNNAMED: wrong.outputs[UNNAMED] + 1}), tmp_path / "golden")
    other = replace(version, version=3, golden=tmp_path / "golden")
    with pytest.raises(ModelRefused, match=r"version 3 does not give its golden answers .* differs in 5 of 5"):
        target.apply(route(version, other, serving=3))
    with pytest.raises(InvalidInput, match="TorchServe serves one version"):
        target.apply(Route("digits", Stage.DEV, [version, other], {1: 0.5, 3: 0.5}))
    assert target.status("digits", Stage.DEV) == status
    listed = httpx.get(f"{status.endpoint.url}/predictions/digits/2").status_code
    assert listed == 404


def test_tables_are_served_by_their_own_flavor(settings: Settings, small_models: SmallModels) -> None:
    target = TorchServeTarget(settings, ProcessLauncher(settings))
    table = ServedVersion("table", 1, small_models.table, small_models.python)
    try:
        status = target.apply(Route("table", Stage.DEV, [table], {1: 1.0}))
        url = f"{status.endpoint.url}/predictions/table"
        rows = {"columns": ["age", "rooms", "town"], "data": [[1.5, 3, "Bern"], [2.0, 4, "Ulm"]]}
        assert httpx.post(url, timeout=120, json={"dataframe_split": rows}).json() == {"predictions": [16.0, 8.0]}
        bad = httpx.post(url, timeout=120, json={"dataframe_records": [{"age": 1, "rooms": 2}]})
        assert (bad.status_code, bad.json()) == (400, {"error": "the input `town` is missing"})
    finally:
        target.remove("table", Stage.DEV)


def test_texts_get_the_offline_answers_alone_and_together(settings: Settings, small_models: SmallModels) -> None:
    texts = ["", "Goalkeeper saves two penalties", "東京で会議", "\U0001f600", "<b>goal</b>", "a\x00b", "x" * 100_000]
    version = ServedVersion("text", 1, small_models.text, small_models.python)
    offline = answers(version, {"text": np.array(texts, dtype=object)})
    expected = [
        {"label": label, "length": length} for label, length in zip(offline["label"], offline["length"], strict=True)
    ]
    target = TorchServeTarget(settings, ProcessLauncher(settings))
    try:
        status = target.apply(Route("text", Stage.DEV, [version], {1: 1.0}))
        url = f"{status.endpoint.url}/predictions/text"
        together = httpx.post(url, timeout=120, json={"dataframe_records": [{"text": text} for text in texts]}).json()
        assert together == {"predictions": expected}
        for text, row in zip(texts, expected, strict=True):
            assert httpx.post(url, timeout=120, json={"inputs": {"text": [text]}}).json() == {"predictions": [row]}
        bodies = [{"inputs": {"text": [text]}} for text in texts] * 4 + [{"inputs": {"headline": ["x"]}}] * 4
        with ThreadPoolExecutor(len(bodies)) as pool:
            at_once = list(pool.map(lambda body: httpx.post(url, timeout=120, json=body).json(), bodies))
        assert (
            at_once == [{"predictions": [row]} for row in expected] * 4 + [{"error": "the input `text` is missing"}] * 4
        )
        assert httpx.post(url, timeout=120, json={"dataframe_records": [{"headline": "x"}]}).status_code == 400
    finally:
        target.remove("text", Stage.DEV)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, component_python: Path) -> Iterator[Server]:
    """A TorchServe for archives that are not headrace's."""
    from headrace.config.settings import read_settings

    folder = tmp_path_factory.mktemp("plain")
    server = start(read_settings(), folder, port=free_port(), max_body=10**6, queue=10)
    write_workers(folder, {"*": {"python": str(component_python), "variables": {}}})
    yield server
    server.stop()


def test_the_first_cause_of_every_failure_is_found(
    plain: Server, component_python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    for case in cases(component_python, tmp_path):
        mark = plain.log_size()
        write(case, plain.folder / "store" / f"{case.name}.mar")
        answer = plain.call(
            "POST", "/models", params={"url": f"{case.name}.mar", "initial_workers": "1", "synchronous": "true"},
            timeout_s=600,
        )  # fmt: skip
        said = " ".join(answer.text.split())
        assert "Failed to start workers" in said
        assert answer_cause(answer.status_code, answer.text) is None
        cause = first_cause(plain.model_log_since(mark), case.name)
        assert cause is not None, case.name
        assert re.search(case.fact, cause.fact), (case.name, cause)
        assert re.search(case.remedy, cause.remedy), (case.name, cause)
        with capsys.disabled():
            print(f"\n  {case.name}\n    TorchServe: {said}\n    headrace:   {cause.fact} {cause.remedy}")
        plain.call("DELETE", f"/models/{case.name}")
