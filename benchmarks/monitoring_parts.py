"""What the parts of the monitoring benchmark share: how much is run, what was found, peers in places of their own."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, Claim

BUDGET = 0.001
ELEC2 = ROOT.parent / "shared" / "data" / "elec2.parquet"
AG_NEWS = ROOT.parent / "shared" / "data" / "ag_news_train.parquet"
PEERS = {"nannyml": ["nannyml", "statsmodels", "pandas<3"], "evidently": ["evidently", "pandas<3"]}


@dataclass
class Found:
    """What one part measured."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    windows: int
    peer_windows: int
    trials: int
    nulls: int
    loss_trials: int
    peer_rows: int
    speed_rows: int
    replayed: tuple[int, int]
    predictions: int
    actuals: int
    kinds: tuple[str, ...] = ()
    window_rows: tuple[int, ...] = (500, 5000)
    seed: int = 0


FULL = Sizes(5000, 30, 200, 1000, 300, 1_000_000, 600_000, (100_000, 500_000), 10_000_000, 500_000)
SMOKE = Sizes(10, 0, 4, 12, 12, 15_000, 40_000, (3_000, 9_000), 90_000, 9_000)


def run_peer(name: str, folder: Path, *arguments: str) -> str:
    """Run a peer's script in an environment of its own; return why it could not, or nothing."""
    place = Path(tempfile.gettempdir()) / f"headrace-benchmark-{os.getuid()}" / name
    uv = Path(sys.executable).parent / "uv"
    extra = [f"--find-links={os.environ['PIP_FIND_LINKS']}"] if os.environ.get("PIP_FIND_LINKS") else []
    environment = {**os.environ, "NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}
    script = ROOT / "benchmarks" / "peers" / f"monitoring_{name}.py"
    steps = [
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, place],
        [uv, "pip", "install", "--quiet", "--python", place / "bin" / "python", *extra, *PEERS[name]],
        [place / "bin" / "python", script, folder, *arguments],
    ]
    for step in steps:
        run = subprocess.run(step, capture_output=True, text=True, env=environment, check=False, timeout=3600)
        if run.returncode:
            return f"{Path(str(step[0])).name} ended with {run.returncode}: {run.stderr.strip()[-300:]}"
    return ""
