"""`InheritedEnvironments`: the interpreter at hand, frozen and named. For `dev` only: anything may change it."""

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.config.settings import Settings
from headrace.environment.base import Download, Environment, Lock
from headrace.environment.distributions import installed
from headrace.errors import EnvironmentFailed
from headrace.files import sha256_json


@dataclass(frozen=True, slots=True)
class InheritedEnvironments:
    """The first `python` on the user's PATH, as it is.

    The lock has versions and no hashes: it can be compared, not rebuilt.
    """

    settings: Settings

    def lock(self, project: Path, *, for_gpus: bool = False) -> Lock:
        """Freeze what the interpreter has, for GPUs or not."""
        python = self.python()
        try:
            found = installed(python, self.settings.child_environment())
        except EnvironmentFailed as error:
            raise EnvironmentFailed(error.fact, "Put a working `python` first on PATH.") from error
        header = f"# inherited from {python} on {platform.node()}\n"
        text = header + "".join(f"{name}=={version}\n" for name, version in sorted(found.packages.items()))
        return Lock(digest=sha256_json({"text": text, "python": found.python}), text=text, python=found.python)

    def download(self, lock: Lock) -> Download:
        """Nothing is ever fetched."""
        return Download(0, 0)

    def build(self, lock: Lock, *, progress: Callable[[str], None]) -> Environment:
        """Return the interpreter, if it still is what the lock says. Raises EnvironmentFailed."""
        present = self.lock(Path())
        if present.digest != lock.digest:
            before, after = set(lock.text.splitlines()), set(present.text.splitlines())
            changed = ", ".join(sorted(after - before or before - after)[:5])
            raise EnvironmentFailed(
                f"The inherited environment has changed since it was frozen: {changed}.",
                "Train again, or use `environment: uv`, which nothing outside can change.",
            )
        progress(f"using {self.python()} as it is")
        return Environment(lock.digest, self.python(), lock)

    def python(self) -> Path:
        """Return the user's interpreter: that of an activated environment, else the first on PATH."""
        active = self.settings.variables.get("VIRTUAL_ENV")
        if active and (Path(active) / "bin" / "python").exists():
            return Path(active) / "bin" / "python"
        path = self.settings.variables.get("PATH")
        found = shutil.which("python", path=path) or shutil.which("python3", path=path)
        if found is None:
            raise EnvironmentFailed("There is no `python` on PATH.", "Activate the environment to inherit.")
        return Path(found)
