"""Clients that others wrote find what they expect: Triton's, MLflow's, curl as TorchServe's documentation types it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.conftest import SmallModels
from tests.endpoints import Endpoints, small_endpoints

pytestmark = pytest.mark.slow
ROW = [round(0.01 * place, 2) for place in range(64)]
RECORD = {"age": 1.5, "rooms": 3, "town": "Bern"}
KEY = "Authorization: Bearer open sesame"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def endpoints(small_models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    with small_endpoints(small_models, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def answer(endpoints: Endpoints) -> np.ndarray[Any, Any]:
    """What MLflow's protocol gives for `ROW`; all others must say the same."""
    return np.array(endpoints.mlp.post("/invocations", json={"instances": [ROW]}).json()["predictions"][0])


# tritonclient[http]


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_triton_client_infers(endpoints: Endpoints, answer: np.ndarray[Any, Any], binary: bool) -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    given = InferInput("input", [2, 64], "FP32")
    given.set_data_from_numpy(np.array([ROW, ROW], "float32"), binary_data=binary)
    wanted = [InferRequestedOutput("output", binary_data=binary)]
    with InferenceServerClient(_address(endpoints.mlp)) as client:
        got = client.infer("mlp", [given], outputs=wanted, request_id="7", model_version="1")
        np.testing.assert_allclose(got.as_numpy("output"), [answer, answer], rtol=1e-4)
        assert got.get_response()["id"] == "7"
        # Without a word about outputs, as most write it.
        np.testing.assert_allclose(client.infer("mlp", [given]).as_numpy("output")[0], answer, rtol=1e-4)


def test_triton_client_reads_metadata(endpoints: Endpoints) -> None:
    from tritonclient.http import InferenceServerClient

    with InferenceServerClient(_address(endpoints.mlp)) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("mlp")
        assert client.is_model_ready("mlp", "1")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["name"] == "headrace"
        model = client.get_model_metadata("mlp")
        assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 64]}]


def test_triton_client_sends_texts_as_bytes(endpoints: Endpoints) -> None:
    from tritonclient.http import InferenceServerClient, InferInput

    columns = [("age", "FP64", np.array([1.5])), ("rooms", "INT64", np.array([3]))]
    columns.append(("town", "BYTES", np.array(["Bern"], object)))
    given = []
    for name, datatype, values in columns:
        given.append(InferInput(name, [1], datatype))
        given[-1].set_data_from_numpy(values, binary_data=True)
    with InferenceServerClient(_address(endpoints.table)) as client:
        names = [one["name"] for one in client.get_model_metadata("table")["outputs"]]
        assert client.infer("table", given).as_numpy(names[0]).ravel().tolist() == [16.0]


def test_triton_client_hears_what_is_wrong(endpoints: Endpoints) -> None:
    from tritonclient.http import InferenceServerClient, InferInput
    from tritonclient.utils import InferenceServerException

    given = InferInput("input", [1, 3], "FP32")
    given.set_data_from_numpy(np.zeros((1, 3), "float32"))
    with (
        InferenceServerClient(_address(endpoints.mlp)) as client,
        pytest.raises(InferenceServerException) as refused,
    ):
        client.infer("mlp", [given])
    assert refused.value.status() == "422"


# MLflow


def test_mlflow_scoring_client(endpoints: Endpoints, answer: np.ndarray[Any, Any]) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    url = endpoints.mlp.base_url
    client = ScoringServerClient(url.host, url.port)
    client.wait_server_ready(timeout=60)
    assert json.loads(client.get_version())["component"] == "mlp"
    got = client.invoke(np.array([ROW], "float32"))
    np.testing.assert_allclose(got.get_predictions(predictions_format="ndarray")[0], answer, rtol=1e-4)
    url = endpoints.table.base_url
    got = ScoringServerClient(url.host, url.port).invoke(pd.DataFrame([RECORD]))
    assert got.get_predictions().iloc[0, 0] == 16.0


def test_mlflow_deployments_client(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd
    from mlflow.deployments import get_deploy_client
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("HEADRACE_HOME", str(endpoints.folder))
    client = get_deploy_client("headrace")
    assert [one["name"] for one in client.list_deployments()] == ["mlp", "table", "text"]
    assert client.get_deployment("table")["shares"] == {"1": 1.0}
    assert client.predict("table", pd.DataFrame([RECORD])).get_predictions().iloc[0, 0] == 16.0
    named = client.predict("table", {"age": np.array([1.5]), "rooms": np.array([3]), "town": ["Bern"]})
    assert named.get_predictions().iloc[0, 0] == 16.0
    assert client.predict("table", {"dataframe_records": [RECORD]}).get_predictions().iloc[0, 0] == 16.0
    with pytest.raises(MlflowException, match="answered 422"):
        client.predict("table", pd.DataFrame([{"age": 1.0}]))
    with pytest.raises(MlflowException, match="headrace up"):
        client.get_deployment("nobody")
    with pytest.raises(MlflowException, match="headrace promote"):
        client.create_deployment("table", "models:/table/2")
    with pytest.raises(MlflowException, match="headrace:/dev"):
        get_deploy_client("headrace:/moon")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("help", "headrace:/dev   the stage dev"),
        ("list", "'name': 'text', 'stage': 'production'"),
        ("get --name table", "shares: {'1': 1.0}"),
        ("get --name nobody", "No production endpoint of `nobody` runs here"),
        ("create --name table --model-uri models:/table/2", "Use `headrace promote table --version N`"),
        ("update --name table --model-uri models:/table/2", "Use `headrace promote table --version N`"),
        ("delete --name table", "go back with `headrace rollback table`"),
        ("run-local --name table --model-uri models:/table/1", "Use `headrace serve models:/table/1`"),
    ],
)  # fmt: skip
def test_mlflow_deployments_commands_answer_or_say_what_to_type(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    from click.testing import CliRunner
    from mlflow.deployments.cli import commands

    monkeypatch.setenv("HEADRACE_HOME", str(endpoints.folder))
    verb, *options = words.split()
    done = CliRunner().invoke(commands, [verb, "--target", "headrace", *options])
    assert told in (str(done.exception) if done.exit_code else done.output)


def test_mlflow_deployments_command(endpoints: Endpoints, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([RECORD]))
    mlflow = Path(sys.executable).parent / "mlflow"
    done = subprocess.run(
        [mlflow, "deployments", "predict", "-t", "headrace", "--name", "table", "-I", rows],
        capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "HEADRACE_HOME": str(endpoints.folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "16.0" in done.stdout


# TorchServe's documentation, with our models for its pictures


def curl(client: httpx.Client, path: str, *words: str) -> Any:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail-with-body", *words, f"{str(client.base_url).rstrip('/')}{path}"],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout} {done.stderr}"
    return json.loads(done.stdout)


def test_torchserve_curl_lines(endpoints: Endpoints, answer: np.ndarray[Any, Any], tmp_path: Path) -> None:
    row, text = tmp_path / "row.json", tmp_path / "sample_text.txt"
    row.write_text(json.dumps(ROW))
    text.write_text("Bloomberg has decided to publish a new report on the global economy.")
    assert curl(endpoints.mlp, "/ping") == {"status": "Healthy"}
    assert curl(endpoints.mlp, "/", "-X", "OPTIONS")["openapi"].startswith("3.")
    assert curl(endpoints.mlp, "/api-description")["paths"]["/predictions/mlp"]
    json_kind = ("-H", "Content-Type: application/json")
    for words in (("-T", str(row)), ("-X", "POST", *json_kind, "-d", f"@{row}"), ("-X", "POST", "-F", f"data=@{row}")):
        np.testing.assert_allclose(curl(endpoints.mlp, "/predictions/mlp", *words), answer, rtol=1e-4)
    np.testing.assert_allclose(curl(endpoints.mlp, "/predictions/mlp/1", "-T", str(row)), answer, rtol=1e-4)
    for words in (("-T", str(text)), ("-X", "POST", "-F", f"data=@{text}"), ("-X", "POST", "-d", "data=@x")):
        assert curl(endpoints.text, "/predictions/text", *words, "-H", KEY)["label"] in ("long", "short")
    assert curl(endpoints.text, "/predictions/text", "-T", str(text), "-H", KEY)["label"] == "long"


# schemathesis, against our own document


@pytest.mark.parametrize("name", ["mlp", "table"])
def test_no_generated_request_gets_a_5xx(endpoints: Endpoints, name: str, tmp_path: Path) -> None:
    url = str(getattr(endpoints, name).base_url).rstrip("/")
    done = subprocess.run(
        [Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json", "--checks", CHECKS,
         "--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--max-time", "30", "--no-shrink",
         "--generation-deterministic", "--suppress-health-check", "all",
         "--request-timeout", "20", "--continue-on-failure", "--no-color"],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def _address(client: httpx.Client) -> str:
    return f"{client.base_url.host}:{client.base_url.port}"
