"""The one document that every benchmark prints."""

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim with its bar; `holds` is None where it could not be measured, and `evidence` says why."""

    name: str
    value: float | int | str | None
    bar: str
    holds: bool | None
    evidence: str = ""


def report(benchmark: str, rows: Sequence[dict[str, Any]], claims: Sequence[Claim]) -> str:
    """Return the document as JSON."""
    document = {
        "benchmark": benchmark,
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {_cores()} cores, Python {platform.python_version()}",
        "rows": list(rows),
        "claims": [asdict(claim) for claim in claims],
    }
    return json.dumps(document, indent=1)


def _commit() -> str:
    run = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip()


def _cores() -> int:
    import psutil

    return len(psutil.Process().cpu_affinity() or ()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
