"""MLflow's deployments plugin: `mlflow deployments … -t headrace` talks to the endpoints of this machine's home.

`headrace` means production, `headrace:/dev` the stage `dev`. Loaded by MLflow through an entry point; nothing else here
imports it.
"""

import json
from typing import Any, NoReturn

import httpx
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from mlflow.utils.proto_json_utils import dump_input_data

from headrace import wiring
from headrace.client import bearer
from headrace.config.settings import read_settings
from headrace.deploy.base import Status
from headrace.errors import InvalidInput
from headrace.types import Stage

TIMEOUT_S = 60.0
#: What the documents of `/invocations` consist of.
DOCUMENT = frozenset({"dataframe_records", "dataframe_split", "inputs", "instances", "params"})


class HeadraceDeployments(BaseDeploymentClient):  # type: ignore[misc]  # mlflow is not typed
    """What MLflow asks of a target. Deployments go by their component's name."""

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        _, _, path = target_uri.partition(":")
        try:
            self.stage = Stage(path.strip("/") or "production")
        except ValueError as cause:
            stages = ", ".join(f"headrace:/{stage}" for stage in Stage)
            raise MlflowException(
                f"`{target_uri}` names no stage. Use one of {stages}.", INVALID_PARAMETER_VALUE
            ) from cause
        self._settings = read_settings()
        self._target = wiring.target(self._settings.prepare())

    def create_deployment(
        self, name: str, model_uri: str, flavor: Any = None, config: Any = None, endpoint: Any = None
    ) -> NoReturn:
        """Refuse: nothing gets into a stage but through its gate."""
        _through_the_gate(name)

    def update_deployment(
        self, name: str, model_uri: Any = None, flavor: Any = None, config: Any = None, endpoint: Any = None
    ) -> NoReturn:
        """Refuse: nothing gets into a stage but through its gate."""
        _through_the_gate(name)

    def delete_deployment(self, name: str, config: Any = None, endpoint: Any = None) -> None:
        """Refuse: what serves is in the ledger."""
        raise MlflowException(
            f"What serves is written in the ledger of `{name}`. Stop it with `headrace down`, or go back with "
            f"`headrace rollback {name}`.",
            INVALID_PARAMETER_VALUE,
        )

    def list_deployments(self, endpoint: Any = None) -> list[dict[str, Any]]:
        """Return the stage's deployments, each with a `name`."""
        found = [one.component for one in self._target.endpoints() if one.stage == self.stage]
        return [self.get_deployment(name) for name in sorted(found)]

    def get_deployment(self, name: str, endpoint: Any = None) -> dict[str, Any]:
        """Return how a deployment stands."""
        status = self._status(name)
        return {
            "name": name,
            "stage": str(self.stage),
            "url": status.endpoint.url,
            "shares": {str(version): share for version, share in status.shares.items()},
            "warm": list(status.warm),
            "problem": status.problem,
        }

    def predict(self, deployment_name: str | None = None, inputs: Any = None, endpoint: Any = None) -> Any:
        """Return the answer for a DataFrame, an array, a dict of arrays by input, or a document of `/invocations`."""
        if deployment_name is None:
            raise MlflowException("Name the deployment with `--name`.", INVALID_PARAMETER_VALUE)
        status = self._status(deployment_name)
        url = f"{status.endpoint.url}/invocations"
        try:
            key = bearer(status.predict_keys, self._settings.variables)
        except InvalidInput as cause:
            raise MlflowException(f"{cause.fact} {cause.remedy}", INVALID_PARAMETER_VALUE) from cause
        headers = {"content-type": "application/json", **key}
        try:
            answer = httpx.post(
                url, content=dump_input_data(_document(inputs)), headers=headers, timeout=TIMEOUT_S, trust_env=False
            )
        except httpx.HTTPError as cause:
            raise MlflowException(
                f"{url} does not answer ({type(cause).__name__}). See `headrace status`.", TEMPORARILY_UNAVAILABLE
            ) from cause
        if answer.is_error:
            raise MlflowException(f"{url} answered {answer.status_code}: {answer.text[:500]}", INVALID_PARAMETER_VALUE)
        return PredictionsResponse.from_json(answer.text)

    def _status(self, name: str) -> Status:
        status = self._target.status(name, self.stage)
        if status is None:
            raise MlflowException(
                f"No {self.stage} endpoint of `{name}` runs here. Start what the ledger says with `headrace up`.",
                RESOURCE_DOES_NOT_EXIST,
            )
        return status


def _document(inputs: Any) -> Any:
    """Return a dict of arrays as a document: MLflow's own conversion unpacks its names as if they were pairs."""
    if not isinstance(inputs, dict):
        return inputs
    is_document = DOCUMENT.issuperset(inputs) and not any(hasattr(value, "tolist") for value in inputs.values())
    named = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in inputs.items()}
    return json.dumps(inputs if is_document else {"inputs": named})


def _through_the_gate(name: str) -> NoReturn:
    raise MlflowException(
        f"A version of `{name}` gets into a stage through its gate. Use `headrace promote {name} --version N`.",
        INVALID_PARAMETER_VALUE,
    )


def run_local(name: str, model_uri: str, flavor: Any = None, config: Any = None) -> NoReturn:
    """Refuse, with the command that serves a model here and now."""
    raise MlflowException(f"Use `headrace serve {model_uri}`.", INVALID_PARAMETER_VALUE)


def target_help() -> str:
    """Return what `mlflow deployments help -t headrace` prints."""
    return (
        "headrace: the endpoints of this machine's home (HEADRACE_HOME).\n"
        "  -t headrace        production\n"
        "  -t headrace:/dev   the stage dev\n"
        "predict, get and list work here; versions get in with `headrace promote` and out with `headrace rollback`.\n"
        "Example: mlflow deployments predict -t headrace --name digits -I rows.json"
    )
