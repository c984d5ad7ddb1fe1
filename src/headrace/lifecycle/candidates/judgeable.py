"""Whether a candidate could be judged at all: told at once, and not after its training."""

from pathlib import Path

from headrace.config.component import Component, DataInput
from headrace.data.tables import read_table
from headrace.errors import InvalidConfig
from headrace.evaluation.answers import task_of
from headrace.evaluation.gate import check_names
from headrace.training.project import read_project


def check_can_be_judged(component: Component, folder: Path) -> None:
    """Look at what judging needs: entry points, data files, the holdout's columns, the names in the gate.

    Args:
        folder: the component's own, where its data lies; the code is in `component.folder`.

    Raises:
        InvalidConfig: something is missing or misspelt, so that no training could end well.
    """
    data = component.data
    if component.evaluate:
        read_project(component.project_folder).entry_point(component.evaluate)
    elif data.holdout is None:
        raise InvalidConfig(
            "headrace.yaml names no holdout, so nothing can be judged.",
            "Add `holdout: {uri: FILE, label: COLUMN}` under `data:` there, with rows that training does not see, "
            "or an entry point that writes rows as `evaluate: NAME`.",
        )
    missing = missing_data(component, folder)
    if missing and data.prepare is None:
        raise InvalidConfig(
            f"{', '.join(missing)} (named under `data:` in headrace.yaml) is not in {folder}.",
            "Put the file there, correct the `uri`, or name an entry point that makes it with `data: {prepare: …}`.",
        )
    if data.holdout is not None and not component.evaluate and (folder / data.holdout.uri).is_file():
        table = read_table(data.holdout, folder)
        check_names(component.gate, component.task or task_of(table.labels), table.table.column_names)


def missing_data(component: Component, folder: Path) -> list[str]:
    """Return the data files that headrace.yaml names and that are not there."""
    data = component.data
    named: list[DataInput] = [item for item in (data.train, data.holdout, data.golden) if item is not None]
    return [item.uri for item in named if not (folder / item.uri).exists()]
