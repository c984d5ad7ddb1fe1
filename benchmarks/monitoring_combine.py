"""One document of several runs: false alarms add up over kinds, sizes and seeds; everything else is taken over."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.monitoring_alarms import alarm_claim, allowed_of
from benchmarks.monitoring_parts import Found
from benchmarks.report import Claim

PART = "false alarms"


def combine(paths: Sequence[Path]) -> Found:
    """Return what several runs found together.

    Raises:
        ValueError: two runs have the same cell with the same seed, or a claim of the same name.
    """
    found, cells, claims = Found(), {}, {}
    for path in paths:
        document = json.loads(path.read_text())
        for row in document["rows"]:
            known = {**row, "commit": document["commit"]}
            if row["part"] == PART:
                _add(cells.setdefault((row["data"], row["rows"]), {}), known, path)
            else:
                found.rows.append(known)
        for claim in document["claims"]:
            if claim["name"].startswith("false_alarms_"):
                continue  # Made anew from the sums.
            if claim["name"] in claims:
                raise ValueError(f"{path} has the claim {claim['name']} once more.")
            claims[claim["name"]] = Claim(**claim)
    found.rows += [summed(list(cell.values())) for cell in cells.values()]
    found.claims = [*claims.values(), *(alarm_claim(row) for row in found.rows if row["part"] == PART)]
    return found


def _add(cell: dict[int, dict[str, Any]], row: dict[str, Any], path: Path) -> None:
    if row["seed"] in cell:
        raise ValueError(f"{path} has {row['data']} windows of {row['rows']} rows with seed {row['seed']} once more.")
    cell[row["seed"]] = row


def summed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the windows of one kind and size, of several seeds, as one row."""
    windows = sum(row["windows"] for row in rows)
    return {
        "part": PART, "data": rows[0]["data"], "rows": rows[0]["rows"], "windows": windows,
        "alarms": sum(row["alarms"] for row in rows), "allowed": allowed_of(windows),
        "fired": [one for row in rows for one in row["fired"]], "seeds": [row["seed"] for row in rows],
        "commits": sorted({row["commit"] for row in rows}), "cpu_s": round(sum(row["cpu_s"] for row in rows), 1),
    }  # fmt: skip
