"""A user's home and commands, and a component that trains in a second."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sklearn.datasets import load_iris

HEADRACE = Path(sys.executable).parent / "headrace"
FLOWERS = Path(__file__).parent / "e2e" / "flowers"
#: What a shell starts in the background ignores Ctrl-C, and hands that on.
HEAR_CTRL_C = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Told:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class House:
    """One home, and the commands of its user, who waits so long for each."""

    home: Path
    variables: dict[str, str] = field(repr=False)
    patience_s: float = 600.0

    def headrace(self, *words: str | Path, cwd: Path | None = None, **variables: str) -> Told:
        """Run a command to its end."""
        done = subprocess.run(
            [HEADRACE, *words], capture_output=True, text=True, timeout=self.patience_s, check=False,
            cwd=cwd or self.home, env={**self.variables, **variables},
        )  # fmt: skip
        return Told(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own, as a terminal does; Ctrl-C reaches it."""
        command = [sys.executable, "-c", HEAR_CTRL_C, HEADRACE, *words]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.variables,
            start_new_session=True,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """Return the command lines of everything that runs for this home."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            words = " ".join(process.info["cmdline"] or [])
            if (process.info["environ"] or {}).get("HEADRACE_HOME") == str(self.home) or str(self.home) in words:
                found.append(words)
        return found

    def component(self, name: str, *, mode: str = "good", **changes: str) -> Path:
        """Return the folder of a component called `name`; `changes` replace lines of its headrace.yaml by section."""
        folder = self.home.parent / name
        shutil.copytree(FLOWERS, folder)
        frame = load_iris(as_frame=True).frame
        frame.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]
        frame = frame.sample(frac=1, random_state=0)
        frame[:90].to_csv(folder / "train.csv", index=False)
        frame[90:].to_csv(folder / "holdout.csv", index=False)
        text = (folder / "headrace.yaml").read_text().replace("component: flowers", f"component: {name}")
        for old, new in changes.items():
            text = "".join(
                f"{old}: {new}\n" if line.startswith(f"{old}:") else line for line in text.splitlines(keepends=True)
            )
        (folder / "headrace.yaml").write_text(f"{text}parameters: {{mode: {mode}}}\n")
        return folder
