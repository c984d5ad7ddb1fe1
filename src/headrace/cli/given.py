"""The work behind `headrace monitor replay --file`: a version answers a file's rows, and the watch looks at them."""

from pathlib import Path

from headrace import wiring
from headrace.cli.client import here
from headrace.cli.watching import references_of, resized
from headrace.data.tables import arrays, read_columns
from headrace.errors import InvalidInput, NotFound
from headrace.lifecycle.candidates.evaluate import answer_all, champion_of, signature_of
from headrace.lifecycle.versions import recall
from headrace.monitoring.given import Given, replay_given
from headrace.monitoring.replay import Replay
from headrace.monitoring.seasons import moments_of
from headrace.types import Json


def replayed_file(component: str, path: Path, *, label: str, version: int, window: int, false_alarms: float) -> Replay:
    """Return what the watch would say about a file's rows, answered by a version of the component.

    Args:
        label: the column of the truth; the holdout's where it is empty and the file has it.
        version: 0 for the newest that was in production.

    Raises:
        InvalidInput: the file has no such column, or fewer rows than a window.
        NotFound: no such version was ever in production.
    """
    rooms = wiring.rooms(here().prepare())
    references = references_of(rooms, component)
    version = version or max(references)
    if version not in references:
        known = ", ".join(f"v{one}" for one in sorted(references))
        raise NotFound(f"v{version} of `{component}` was never in production (these were: {known}).")
    settings = recall(rooms, component, version).settings
    monitor = resized(settings.monitor, window, false_alarms)
    table = read_columns(path)
    if table.num_rows < monitor.window:
        raise InvalidInput(
            f"{path.name} has {table.num_rows} rows, and a window has {monitor.window}.",
            f"Name a longer file, or judge smaller windows: --window {max(table.num_rows // 2, 20)}",
        )
    usual = settings.data.holdout.label if settings.data.holdout and settings.data.holdout.label else ""
    column = label or (usual if usual in table.column_names else "")
    if column and column not in table.column_names:
        raise InvalidInput(
            f"{path.name} has no column `{column}` (it has: {', '.join(table.column_names)}).",
            "Name the column with the truth as `--label COLUMN`, or leave it out.",
        )
    timed = monitor.time_column if monitor.time_column in table.column_names else None
    features = table.drop_columns([name for name in (column, timed) if name])
    served = champion_of(rooms, component, version)
    inputs = arrays(features, signature_of(served))
    truth: list[Json] = table[column].to_pylist() if column else [None] * table.num_rows
    moments = moments_of(table, timed) if timed else []
    given = Given(inputs, answer_all(served, {"given": inputs})["given"], truth, moments)
    return replay_given(component, version, given, references[version], monitor)
