"""The news component by itself: its own tests, a training on its own headlines, and the answers of the served model."""

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from benchmarks.news_protocols import ASKERS, MODEL, Ask, dataframe_split, torchserve_text

from headrace.config.component import DataInput, Serve
from headrace.config.settings import Settings, read_settings
from headrace.data.tables import arrays, read_table
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.environment.uv import UvEnvironments
from headrace.evaluation.answers import read_outputs
from headrace.provenance.formats import check_formats
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving.offline import answers
from headrace.serving.worker_child import folder_digest
from headrace.types import Arrays, ServedVersion, Stage, Task

pytestmark = pytest.mark.timeout(1800)
FOLDER = Path(__file__).parents[2] / "examples" / "news_classifier"
CLASSES = ("world", "sports", "business", "science")


@pytest.fixture(scope="module")
def python() -> Path:
    environments = UvEnvironments(read_settings())
    return environments.build(environments.lock(FOLDER), progress=print).python


def run(python: Path, *command: str | Path, cwd: Path = FOLDER, **variables: str) -> str:
    env: Mapping[str, str] = read_settings().child_environment() | variables
    done = subprocess.run(
        [python, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedVersion, Path]:
    folder = tmp_path_factory.mktemp("news")
    run(python, "prepare.py", "--output", folder)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    data = ("--data", folder / "train.parquet")
    run(python, FOLDER / "train.py", *data, cwd=folder, MLFLOW_TRACKING_URI=store, PYTHONPATH=str(FOLDER))
    (model,) = (path.parent for path in folder.rglob("MLmodel"))
    return ServedVersion("news-classifier", 1, model, python), folder / "holdout.parquet"


def test_the_components_own_tests_pass(python: Path) -> None:
    out = run(python, "-m", "pytest")
    assert " passed" in out


def test_the_logged_model_is_code_and_safetensors(trained: tuple[ServedVersion, Path]) -> None:
    version, _ = trained
    assert check_formats(version.model).pickled == ()
    model = read_mlmodel(version.model)
    assert model.signature is not None
    assert [field.name for field in model.signature.inputs] == ["text"]
    assert [field.name for field in model.signature.outputs] == ["label", *CLASSES]
    assert "artifacts/classifier/weights.safetensors" in model.files


@dataclass(frozen=True)
class Answered:
    """The holdout's texts and truths, with the worker's own answers to them."""

    texts: list[str]
    labels: list[str]
    answers: Arrays


@pytest.fixture(scope="module")
def offline(trained: tuple[ServedVersion, Path]) -> Answered:
    version, holdout = trained
    table = read_table(DataInput(uri=str(holdout), label="label", id="id"), holdout.parent)
    found = read_mlmodel(version.model).signature
    assert found is not None
    inputs = arrays(table.table, found)
    return Answered([str(text) for text in inputs["text"]], list(table.labels), answers(version, inputs))


def test_answers_are_right(offline: Answered) -> None:
    found = read_outputs(offline.answers, Task.CLASSIFICATION)
    assert np.mean(found.answer == np.array(offline.labels)) > 0.7


@pytest.fixture(scope="module")
def url(trained: tuple[ServedVersion, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shared, version = read_settings(), trained[0]
    home = tmp_path_factory.mktemp("home")
    target = ProcessTarget(Settings(shared.state, home, None, "person:test", shared.variables).prepare())
    sealed = replace(version, seal=folder_digest(str(version.model)))
    try:
        status = target.apply(Route(sealed.component, Stage.PRODUCTION, [sealed], {1: 1.0}, Serve(deadline_ms=60_000)))
        yield status.endpoint.url
    finally:
        target.remove(sealed.component, Stage.PRODUCTION)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as made:
        yield made


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("ask", ASKERS, ids=lambda ask: ask.__name__)
def test_every_protocol_gives_the_offline_answers_row_by_row(
    offline: Answered, client: httpx.Client, ask: Ask, batch: int
) -> None:
    texts = offline.texts * 3
    served = [row for start in range(0, len(texts), batch) for row in ask(client, texts[start : start + batch])]
    assert [row["label"] for row in served] == list(offline.answers["label"]) * 3
    for name in CLASSES:
        expected = np.tile(offline.answers[name], 3)
        assert np.allclose([row[name] for row in served], expected, rtol=0, atol=1e-5)


ODD = {
    "empty": "",
    "blank": " \n\t ",
    "megabyte": "x" * 1_000_000,
    "megabyte of words": "word " * 200_000,
    "emoji": "\U0001f600\U0001f389",
    "cyrillic": "Привет, мир",
    "arabic": "مرحبا بالعالم",
    "japanese": "東京で会議",
    "html": "<b>goal</b><script>x</script>",
    "null byte": "a\x00b",
}


@pytest.mark.parametrize("ask", ASKERS, ids=lambda ask: ask.__name__)
def test_odd_texts_get_the_same_prediction_by_every_protocol(
    trained: tuple[ServedVersion, Path], client: httpx.Client, ask: Ask
) -> None:
    texts = [text for text in ODD.values() if text or ask is not torchserve_text]
    expected = answers(trained[0], {"text": np.array(texts, dtype=object)})
    assert [row["label"] for row in ask(client, texts)] == list(expected["label"])
    assert np.allclose(sum(expected[name] for name in CLASSES), 1, atol=1e-5)


def test_a_torchserve_body_without_anything_is_answered_or_refused(client: httpx.Client) -> None:
    answer = client.post("/predictions/news-classifier", content=b"", headers={"content-type": "text/plain"})
    assert answer.status_code in {200, 400, 422}


@pytest.mark.parametrize(
    "body",
    [
        b'{"dataframe_split": {"columns": ["text"], "data": [["\\ud800"]]}}',
        b'{"dataframe_split": {"columns": ["text"], "data": [["\xff\xfe"]]}}',
        b'{"dataframe_split": {"columns": ["text"], "data": [[5]]}}',
        b'{"dataframe_split": {"columns": ["text"], "data": [[null]]}}',
        b'{"dataframe_split": {"columns": ["headline"], "data": [["x"]]}}',
        b'{"instances": [{"text": ["a", "b"]}]}',
        b"",
    ],
    ids=["surrogate", "not-utf8", "number", "null", "column", "list", "nothing"],
)
def test_what_is_no_text_is_refused_and_the_endpoint_goes_on(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/invocations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 415, 422}, answer.text[:300]
    assert answer.json()
    assert dataframe_split(client, ["Goalkeeper saves penalty"])[0]["label"] in CLASSES


def test_invalid_utf8_is_refused_by_the_other_protocols_too(client: httpx.Client) -> None:
    plain = client.post("/predictions/news-classifier", content=b"\xff\xfe", headers={"content-type": "text/plain"})
    head = b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}]}'
    headers = {"inference-header-content-length": str(len(head))}
    binary = client.post(f"/v2/models/{MODEL}/infer", content=head + b"\x02\0\0\0\xff\xfe", headers=headers)
    assert {plain.status_code, binary.status_code} <= {400, 422}
