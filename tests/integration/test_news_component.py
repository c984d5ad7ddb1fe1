"""The news component by itself: its own tests, a training on its own headlines, and the answers of the served model."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

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

FOLDER = Path(__file__).parents[2] / "examples" / "news_classifier"
CLASSES = ("world", "sports", "business", "science")


@pytest.fixture(scope="module")
def python() -> Path:
    environments = UvEnvironments(read_settings())
    return environments.build(environments.lock(FOLDER), progress=print).python


def run(python: Path, *command: str | Path, cwd: Path = FOLDER, **variables: str) -> str:
    env: Mapping[str, str] = read_settings().child_environment() | variables
    done = subprocess.run(
        [python, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
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
    assert "artifacts/weights.safetensors" in model.files


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


def test_odd_texts_get_an_answer(trained: tuple[ServedVersion, Path]) -> None:
    version, _ = trained
    odd = ["", " \n", "😀😀", "Привет, мир", "東京", "<script>goal</script>", "a\x00b", "x" * 1_000_000]
    found = answers(version, {"text": np.array(odd, dtype=object)})
    assert set(found["label"]) <= set(CLASSES)
    assert np.allclose(sum(found[name] for name in CLASSES), 1, atol=1e-5)


@pytest.fixture(scope="module")
def url(trained: tuple[ServedVersion, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shared, version = read_settings(), trained[0]
    home = tmp_path_factory.mktemp("home")
    target = ProcessTarget(Settings(shared.state, home, None, "person:test", shared.variables).prepare())
    sealed = replace(version, seal=folder_digest(str(version.model)))
    try:
        status = target.apply(Route(sealed.component, Stage.PRODUCTION, [sealed], {1: 1.0}, Serve(deadline_ms=20_000)))
        yield status.endpoint.url
    finally:
        target.remove(sealed.component, Stage.PRODUCTION)


def post(url: str, path: str, body: Any, kind: str = "application/json") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(url + path, content=content, headers={"content-type": kind}, timeout=60, trust_env=False)


def records(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text[:500]
    document = answer.json()
    found = document["predictions"] if isinstance(document, dict) else document
    return list(found)


def by_invocations(url: str, texts: list[str]) -> list[dict[str, Any]]:
    table = {"columns": ["text"], "data": [[text] for text in texts]}
    return records(post(url, "/invocations", {"dataframe_split": table}))


def by_records(url: str, texts: list[str]) -> list[dict[str, Any]]:
    return records(post(url, "/invocations", {"dataframe_records": [{"text": text} for text in texts]}))


def by_csv(url: str, texts: list[str]) -> list[dict[str, Any]]:
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    return records(post(url, "/invocations", "\n".join(["text", *quoted]).encode(), "text/csv"))


def by_v2(url: str, texts: list[str]) -> list[dict[str, Any]]:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    answer = post(url, "/v2/models/news-classifier/infer", {"inputs": [tensor]})
    assert answer.status_code == 200, answer.text[:500]
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    return [{name: values[row] for name, values in outputs.items()} for row in range(len(texts))]


PROTOCOLS = (by_invocations, by_records, by_csv, by_v2)


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("ask", PROTOCOLS, ids=lambda ask: ask.__name__)
def test_every_protocol_gives_the_offline_answers_row_by_row(
    offline: Answered, url: str, ask: Callable[[str, list[str]], list[dict[str, Any]]], batch: int
) -> None:
    texts = offline.texts
    served = [row for start in range(0, len(texts), batch) for row in ask(url, texts[start : start + batch])]
    assert [row["label"] for row in served] == list(offline.answers["label"])
    for name in CLASSES:
        assert np.allclose([row[name] for row in served], offline.answers[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 1_000_000,
        "\U0001f600\U0001f389",
        "Привет, мир",
        "東京で会議",
        "<b>goal</b><script>x</script>",
        "a\x00b",
    ],
    ids=["empty", "megabyte", "emoji", "cyrillic", "japanese", "html", "null-byte"],
)
def test_an_odd_text_gets_a_prediction(url: str, text: str) -> None:
    (row,) = by_invocations(url, [text])
    assert row["label"] in CLASSES


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
def test_what_is_no_text_is_refused_or_answered_but_never_an_error_of_ours(url: str, body: bytes) -> None:
    answer = post(url, "/invocations", body)
    assert answer.status_code in {200, 400, 415, 422}, answer.text[:300]
    assert by_invocations(url, ["Goalkeeper saves penalty"])[0]["label"] in CLASSES
