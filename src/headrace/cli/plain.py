"""Text for terminals without a library: what `history` and `status` show at once."""

import json
import math
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.config.settings import Settings
from headrace.types import Json

UNWATCHED = "it runs, and the control process that watches over it does not; start that with `headrace up`"


def as_json(document: object) -> str:
    """Return a document for standard output: JSON knows no infinity, and not every output takes every character."""
    is_ascii = (sys.stdout.encoding or "ascii").lower().replace("_", "-") not in ("utf-8", "utf8")
    try:
        return json.dumps(document, indent=2, ensure_ascii=is_ascii, allow_nan=False) + "\n"
    except ValueError:
        return json.dumps(_finite(document), indent=2, ensure_ascii=is_ascii, allow_nan=False) + "\n"


def _finite(document: object) -> object:
    if isinstance(document, Mapping):
        return {name: _finite(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def shown(text: str) -> str:
    """Return a text without what moves a terminal's cursor, colours it or turns its lines round."""
    return text if text.isprintable() else "".join(map(_one_shown, text))


def _one_shown(letter: str) -> str:
    if letter in "\t\n\r":
        return " "
    is_order = "\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069"
    return "\ufffd" if is_order or unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} else letter


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under their headings, in columns as wide as they need; a cell is one line, whatever it holds."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]
    return "\n".join([_bold(lines[0]), *lines[1:]])


def history(entries: Sequence[dict[str, Any]]) -> str:
    """Return ledger entries, as `Entry.as_json` gives them, for people."""
    rows = [
        [
            str(entry["sequence"]),
            f"{datetime.fromisoformat(entry['at']).astimezone():%Y-%m-%d %H:%M:%S}",
            entry["action"],
            moved(entry),
            entry["actor"],
            entry["reason"],
        ]
        for entry in entries
    ]
    return table(["#", "when", "what", "version", "who", "why"], rows)


def moved(entry: dict[str, Any]) -> str:
    """Return `v1 → v2` for what changed production, `v2` for the rest."""
    now, before = (f"v{number}" if number is not None else "–" for number in (entry["version"], entry["from_version"]))
    return now if entry["stage"] is None else f"{before} → {now}"


def status(answer: dict[str, Any]) -> str:
    """Return what runs and where, for people."""
    lines = [f"home      {answer['home']}", f"control   {answer.get('control') or 'not running'}"]
    if answer.get("mlflow"):
        lines.append(f"MLflow    {answer['mlflow']}")
    rows = [
        [
            row["component"],
            f"v{row['production']}" if row["production"] is not None else "–",
            row["url"] or "–",
            ago(row["since"]),
            row["problem"] or "fine",
        ]
        for row in answer["components"]
    ]
    if rows:
        lines.append(table(["component", "production", "endpoint", "since", "state"], rows))
    else:
        lines.append("No component yet. Begin with `headrace init` and `headrace run` in an MLflow Project's folder.")
    lines += [
        f"waiting   v{version} of {row['component']}   (headrace approve {row['component']} --version {version})"
        for row in answer["components"]
        for version in row.get("waiting", ())
    ]
    lines += [f"running   {flow}   (headrace follow {flow})" for flow in map(shown, answer["flows"])]
    return "\n".join(lines)


def at_rest(settings: Settings, components: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """Return the status of a home in which no control process runs; an endpoint may have outlived it."""
    rows: list[Json] = []
    for row in components:
        url, problem = None, ""
        if row["production"] is not None:
            url = _left_running(settings.run / f"{row['component']}-production")
            problem = UNWATCHED if url else "headrace is down; start it with `headrace up`"
        rows.append({**row, "url": url, "problem": problem})
    return {"components": rows, "flows": [], "home": str(settings.home), "control": None, "mlflow": None}


def _left_running(folder: Path) -> str | None:
    """Return the URL of an endpoint of this machine that runs without a control process."""
    try:
        found = json.loads((folder / "supervisor.json").read_text())
        port, pid, started = int((folder / "port").read_text()), int(found["pid"]), float(found["started"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    from headrace.processes import ProcessName, is_alive

    return f"http://127.0.0.1:{port}" if is_alive(ProcessName(pid, started)) else None


def ago(at: str | None) -> str:
    """Return how long ago a moment was, in one unit."""
    if at is None:
        return "–"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
