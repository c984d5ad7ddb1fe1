"""From a version to its first answer: with an equal lock, with one pin changed, and next to `mlflow models serve`.

    .venv/bin/python -m benchmarks.environments --json [--smoke]

Both sides get the same model folder, the same requirements, the same uv and its warm cache; each has an empty folder
for its environments. Measured is the time from asking until the first row is answered. A new version with an equal lock
must install nothing; one with a changed pin must fetch that package only.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.report import Claim, report
from headrace import processes
from headrace.config.settings import Settings, read_settings
from headrace.environment.uv import UvEnvironments
from headrace.errors import HeadraceError
from headrace.registry.mlflow import MLFLOW_VARIABLES
from headrace.serving.offline import answers
from headrace.types import UNNAMED, ServedVersion

MODEL = """
import mlflow
class Sum(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input.sum(axis=1)
mlflow.models.set_model(Sum())
"""
REQUIREMENTS = ["mlflow==3.17.2", "scikit-learn==1.9.1", "cloudpickle==3.1.2"]
CHANGED = [*REQUIREMENTS[:2], "cloudpickle==3.1.1"]
ROWS = np.ones((2, 3))
#: `virtualenv` installs all packages anew with pip, without a cache of installed files.
ANSWER_TIMEOUT_S = 900.0


def save_model(folder: Path, requirements: list[str]) -> Path:
    """Write an MLflow model of two lines with these requirements, and a project that asks for the same."""
    import mlflow
    from mlflow.models import infer_signature

    folder.mkdir(parents=True)
    (folder / "code.py").write_text(MODEL)
    mlflow.pyfunc.save_model(
        folder / "model", python_model=folder / "code.py", pip_requirements=requirements,
        signature=infer_signature(ROWS, ROWS.sum(axis=1)),
    )  # fmt: skip
    project = folder / "project"
    project.mkdir()
    (project / "MLproject").write_text("name: sum\n")
    (project / "requirements.txt").write_text("\n".join(requirements) + "\n")
    return folder


def by_headrace(folder: Path, settings: Settings) -> dict[str, Any]:
    """Lock, build, start a worker, answer two rows."""
    environments = UvEnvironments(settings)
    lock = environments.lock(folder / "project")
    fetched = environments.download(lock).packages
    installed: list[str] = []
    began = time.perf_counter()
    lock = environments.lock(folder / "project")
    built = environments.build(lock, progress=installed.append)
    ready = time.perf_counter()
    served = ServedVersion("sum", 1, folder / "model", built.python)
    given = answers(served, {UNNAMED: ROWS}, variables=settings.child_environment())
    assert next(iter(given.values())).tolist() == [3.0, 3.0]
    return {
        "environment_s": round(ready - began, 4),
        "first_answer_s": round(time.perf_counter() - began, 2),
        "fetched": fetched,
        "installed": bool(installed),
    }


def by_mlflow(folder: Path, settings: Settings, root: Path, manager: str) -> dict[str, Any]:
    """`mlflow models serve`, until it has answered two rows."""
    port, log = processes.free_port(), root / "serve.log"
    env = settings.child_environment(
        MLFLOW_VARIABLES | {"MLFLOW_ENV_ROOT": str(root / "envs"), "UV_CACHE_DIR": str(settings.uv_cache)}
    )
    programs = Path(sys.executable).parent
    env["PATH"] = f"{programs}:{env['PATH']}"
    began = time.perf_counter()
    server = processes.start_detached(
        [programs / "mlflow", "models", "serve", "-m", folder / "model", "-p", str(port), "--env-manager", manager],
        env=env, cwd=root, log=log,
    )  # fmt: skip
    try:
        while time.perf_counter() - began < ANSWER_TIMEOUT_S and processes.is_alive(server):
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"inputs": ROWS.tolist()}, timeout=30)
                if answer.status_code == httpx.codes.OK:
                    return {"first_answer_s": round(time.perf_counter() - began, 2)}
            except httpx.HTTPError:
                time.sleep(0.1)
        return {"first_answer_s": None, "problem": log.read_text(errors="replace").strip()[-300:]}
    finally:
        processes.stop(server)


@contextmanager
def workplace() -> Iterator[tuple[Settings, Path]]:
    """Give settings with an empty folder for environments, and the machine's own uv cache."""
    shared = read_settings()
    # On the disk of the cache, so that files can be linked rather than copied.
    shared.uv_cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=shared.uv_cache.parent) as folder:
        variables = {**shared.variables, "UV_CACHE_DIR": str(shared.uv_cache)}
        yield (
            replace(shared, state=Path(folder), home=Path(folder) / "home", variables=variables).prepare(),
            Path(folder),
        )


def run(*, smoke: bool) -> str:
    """Return the document."""
    rows: list[dict[str, Any]] = []
    with workplace() as (settings, folder):
        models = {
            "first": save_model(folder / "first", REQUIREMENTS),
            "equal lock": save_model(folder / "equal", REQUIREMENTS),
            "one pin changed": save_model(folder / "changed", CHANGED),
        }
        for name, model in models.items():
            try:
                rows.append({"side": "headrace", "version": name, **by_headrace(model, settings)})
            except HeadraceError as error:
                rows.append({"side": "headrace", "version": name, "problem": str(error)})
            for manager in ["uv"] if smoke else ["uv", "virtualenv"]:
                if not (smoke and name == "one pin changed"):
                    root = folder / f"mlflow-{manager}"
                    root.mkdir(exist_ok=True)
                    rows.append(
                        {"side": f"mlflow {manager}", "version": name, **by_mlflow(model, settings, root, manager)}
                    )
    return report("environments", rows, claims(rows))


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """Return what the numbers say; what could not be measured is said to be so."""
    by = {(row["side"], row["version"]): row for row in rows}
    equal, changed = by["headrace", "equal lock"], by["headrace", "one pin changed"]
    made = [
        Claim("equal_lock_installs_nothing", equal.get("environment_s"), "< 0.5 s and no install",
              None if "problem" in equal else equal["environment_s"] < 0.5 and not equal["installed"],
              equal.get("problem", f"fetched {equal.get('fetched')} packages")),
        Claim("changed_pin_fetches_that_package_only", changed.get("fetched"), "<= 1 package",
              None if "problem" in changed else changed["fetched"] <= 1,
              changed.get("problem", f"environment made in {changed.get('environment_s')} s by linking the others")),
    ]  # fmt: skip
    for version in ("equal lock", "one pin changed"):
        mine = by["headrace", version]
        for manager in ("uv", "virtualenv"):
            peer = by.get((f"mlflow {manager}", version), {"problem": "not run with --smoke"})
            made.append(against(version, manager, mine, peer))
    return made


def against(version: str, manager: str, mine: dict[str, Any], peer: dict[str, Any]) -> Claim:
    """Return how much sooner the first answer comes than with `mlflow models serve`."""
    name = f"first_answer_with_{version.replace(' ', '_')}_vs_mlflow_{manager}"
    if "problem" in peer or "problem" in mine:
        return Claim(name, None, ">= 1", None, str(peer.get("problem") or mine.get("problem")))
    ratio = peer["first_answer_s"] / mine["first_answer_s"]
    shown = f"{mine['first_answer_s']} s against {peer['first_answer_s']} s"
    return Claim(name, round(ratio, 2), ">= 1", ratio >= 1, shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document (the default and only output)")
    parser.add_argument("--smoke", action="store_true", help="leave out the slowest peers")
    given = parser.parse_args()
    print(run(smoke=given.smoke))


if __name__ == "__main__":
    main()
