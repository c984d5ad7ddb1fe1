"""Real endpoints of the small models, for tests that talk to them over HTTP."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.conftest import SmallModels

from headrace.config.component import Serve
from headrace.config.settings import Settings, read_settings
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.types import ServedVersion, Stage

BODY_BYTES = 200_000
NAMES = ("mlp", "table", "text")


@dataclass(frozen=True)
class Endpoints:
    """One endpoint for each small model, the `mlp` with two fronts, the `text` with keys."""

    mlp: httpx.Client
    table: httpx.Client
    text: httpx.Client
    folder: Path


def home_settings(home: Path, variables: Mapping[str, str] | None = None) -> Settings:
    """Return settings with a home of the test's own and the shared state folder."""
    shared = read_settings()
    return Settings(shared.state, home, None, "person:test", {**shared.variables, **(variables or {})}).prepare()


@contextmanager
def small_endpoints(models: SmallModels, home: Path) -> Iterator[Endpoints]:
    """Run the three endpoints."""
    target = ProcessTarget(home_settings(home, {"PREDICT_KEY": "open sesame", "FEEDBACK_KEY": "label sesame"}))

    def serve(name: str) -> httpx.Client:
        version = ServedVersion(name, 1, getattr(models, name), models.python)
        serve = Serve(
            fronts=2 if name == "mlp" else 1,
            deadline_ms=60_000,
            max_body_bytes=BODY_BYTES,
            queue=256,
            predict_keys=("PREDICT_KEY",) if name == "text" else (),
            feedback_keys=("FEEDBACK_KEY",) if name == "text" else (),
        )
        status = target.apply(Route(name, Stage.PRODUCTION, [version], {1: 1.0}, serve))
        return httpx.Client(base_url=status.endpoint.url, timeout=120, trust_env=False)

    try:
        with ThreadPoolExecutor(3) as starting:
            mlp, table, text = starting.map(serve, NAMES)
        yield Endpoints(mlp, table, text, home)
    finally:
        for name in NAMES:
            target.remove(name, Stage.PRODUCTION)
