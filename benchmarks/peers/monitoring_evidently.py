"""Runs in Evidently's own environment: its default drift preset on given windows. Imports no headrace.

The preset tests every column three times (for the count, for each value, for its table) and draws each one's
distributions; there is no switch for that. So its bare tests, once for each column, are timed as well.
"""

import json
import re
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")


def main(folder: Path) -> None:
    import evidently
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    found = []
    for path in sorted(folder.glob("window_*.parquet")):
        window = pd.read_parquet(path)
        reference = pd.read_parquet(folder / path.name.replace("window", "reference"))
        started = time.process_time()
        snapshot = Report([DataDriftPreset()]).run(window, reference)
        spent = time.process_time() - started
        started = time.process_time()
        bare_tests(reference, window)
        bare = time.process_time() - started
        metrics = snapshot.dict()["metrics"]
        first = next(one for one in metrics if "DriftedColumnsCount" in one["metric_name"])
        named = {re.match(r"ValueDrift\(column=(.*?),method=", one["metric_name"]): one["value"] for one in metrics}
        found.append(
            {"window": path.stem, "rows": len(window), "drifted": float(first["value"]["count"]),
             "share": float(first["value"]["share"]), "cpu_s": spent, "bare_cpu_s": bare,
             "scores": {found[1]: float(value) for found, value in named.items() if found}}
        )  # fmt: skip
    (folder / "evidently.json").write_text(json.dumps({"version": evidently.__version__, "windows": found}))


def bare_tests(reference, window) -> None:
    """Run the test that Evidently takes by default for each column, and nothing else of it."""
    from evidently.legacy.calculations.stattests.registry import get_stattest

    for name in window.columns:
        kind = "num" if window[name].dtype.kind in "iuf" else "cat"
        test = get_stattest(reference[name], window[name], kind, None)
        test(reference[name], window[name], kind, None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
