"""The small models of the tests, for benchmarks: made once in the digits example's environment and kept."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from headrace.config.settings import Settings, read_settings
from headrace.environment.uv import UvEnvironments

ROOT = Path(__file__).parent.parent


def component_python(settings: Settings) -> Path:
    """Return the interpreter of the digits example's environment, built where it is not there yet."""
    environments = UvEnvironments(settings)
    lock = environments.lock(ROOT / "examples" / "digits")
    return environments.build(lock, progress=lambda _: None).python


def made(settings: Settings, script: Path, *, python: Path) -> Path:
    """Return the folder that `script` filled, running it in the component's environment the first time."""
    key = hashlib.sha256(script.read_bytes() + str(python).encode()).hexdigest()[:12]
    folder = settings.state / "cache" / "benchmark-models" / key
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        environment = settings.child_environment()
        subprocess.run([python, script, folder], env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / ".ready").touch()
    return folder


def bench_settings(home: Path) -> Settings:
    """Return settings with a home of the benchmark's own and the shared state folder."""
    shared = read_settings()
    return Settings(shared.state, home, None, "person:benchmark", shared.variables).prepare()
