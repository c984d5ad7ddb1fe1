"""A home of its own for each module's tests."""

import os
from collections.abc import Iterator

import pytest
from tests.houses import House

from headrace.config.settings import read_settings
from headrace.environment.base import Environment


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, digits_environment: Environment) -> Iterator[House]:
    """A home whose services are taken down at the end; the component's environment is the digits example's."""
    home = tmp_path_factory.mktemp("house") / "home"
    home.mkdir()
    variables = {**os.environ, "HEADRACE_HOME": str(home), "HEADRACE_STATE": str(read_settings().state)}
    variables.pop("MLFLOW_TRACKING_URI", None)
    made = House(home, variables)
    yield made
    made.headrace("down")
    assert made.processes() == []
