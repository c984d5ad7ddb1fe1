"""Make docs/demo.svg, the picture in the README, from a real run: `.venv/bin/python scripts/picture.py`."""

import io
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    run = subprocess.run(
        [Path(sys.executable).parent / "headrace", "demo"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "130", "TERM": "xterm-256color"},
    )  # fmt: skip
    if run.returncode != 0:
        sys.exit(f"the demo ended with exit code {run.returncode}; no picture was made\n{run.stdout[-3000:]}")
    console = Console(record=True, width=130, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(run.stdout))
    console.save_svg(str(ROOT / "docs" / "demo.svg"), title="make demo")


if __name__ == "__main__":
    main()
