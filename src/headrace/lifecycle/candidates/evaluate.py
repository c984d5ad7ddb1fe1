"""Judging material: the candidate's and the champion's answers, row by row, by the very worker that serves."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.config.component import Component, DataInput
from headrace.data.tables import LabelledTable, arrays, read_table
from headrace.errors import InvalidInput, ModelRefused
from headrace.evaluation.answers import read_outputs, task_of
from headrace.evaluation.base import Rows
from headrace.evaluation.metrics import measure_all
from headrace.lifecycle.candidates.entry_point_rows import ask_entry_point
from headrace.lifecycle.candidates.retrain import Gathered, train_input
from headrace.lifecycle.request import CandidateRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall
from headrace.monitoring import seasons
from headrace.provenance import golden
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving.offline import answers
from headrace.serving.warmup import own_example
from headrace.training.train import Workplace
from headrace.types import Arrays, Golden, ServedVersion, Signature, Stage, Task

GOLDEN_ROWS = 16


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the evaluation left in the flow's folder.

    Attributes:
        champion: the version that the candidate is compared with; None where none serves.
        files: name (`holdout.candidate`, `holdout.champion`, `recent.…`) to the file that holds the rows.
    """

    task: Task
    metrics: dict[str, float]
    champion: int | None
    files: dict[str, str]
    golden: str


@dataclass(frozen=True, slots=True)
class Answered:
    """One version's answers.

    Attributes:
        rows: by name of the set: `holdout`, and `recent` where there are recent labelled rows.
        inputs: what the holdout's answers were given to; empty where nobody knows.
        golden: the answers to the golden inputs; empty where it was not asked for them.
        outputs: all that the model gave for the holdout; empty where an entry point asked it.
    """

    rows: dict[str, Rows]
    inputs: Arrays
    golden: Arrays
    outputs: Arrays


def evaluate(
    rooms: Rooms, request: CandidateRequest, component: Component, place: Workplace, model: str, gathered: Gathered
) -> Evaluated:
    """Answer the holdout (and the recent labelled rows) with the candidate and the champion; keep golden answers."""
    folder = rooms.place(request.flow_id)
    python = place.environment.python
    candidate = ServedVersion(component.component, 0, Path(model), python, allow_pickle=component.allow_pickle)
    serving = rooms.ledger.serving(component.component, Stage.PRODUCTION)
    champion = serving.version if serving else None
    with rooms.journal(request.flow_id).step("evaluate", announced(component)) as note:
        tables = tables_of(request, component, gathered)
        given = golden_inputs(candidate, request, component, tables.get("holdout"))
        asked = {"candidate": (candidate, given)}
        if champion is not None:
            asked["champion"] = (champion_of(rooms, component.component, champion), {})
        found = answered_by_all(asked, component, tables, place, folder)
        own = found["candidate"]
        task = task_for(component, own.rows["holdout"].truth)
        files = {
            f"{title}.{name}": save_rows(rows, folder / f"{title}.{name}.npz")
            for name, each in found.items()
            for title, rows in each.rows.items()
        }
        golden.save(Golden(given, own.golden), folder / "golden")
        metrics = dict(measure_all(own.rows["holdout"], task))
        table = tables["holdout"].table if "holdout" in tables else None
        found_usual = seasons.profile(
            own.rows["holdout"], own.inputs, task=task, monitor=component.monitor, table=table, outputs=own.outputs
        )
        seasons.save(found_usual, folder / "reference")
        note.numbers = dict(metrics)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in list(metrics.items())[:3])
        kept = len(next(iter(given.values())))
        note.found = f"{len(own.rows['holdout'])} rows: {shown}; {kept} golden answers recorded"
    return Evaluated(task, metrics, champion, files, str(folder / "golden"))


def announced(component: Component) -> str:
    """Return what the step does."""
    if component.evaluate or component.data.holdout is None:
        return f"asking the entry point `{component.evaluate}` for rows"
    return f"answering {component.data.holdout.uri} row by row"


def task_for(component: Component, truth: "np.ndarray[Any, Any]") -> Task:
    """Return the component's task; where it names none, what the truth looks like."""
    return component.task or task_of(truth)


def tables_of(request: CandidateRequest, component: Component, gathered: Gathered) -> dict[str, LabelledTable]:
    """Return the labelled tables that versions are asked for through their signature."""
    tables = {}
    if component.data.holdout is not None and not component.evaluate:
        tables["holdout"] = read_table(component.data.holdout, Path(request.folder))
    if gathered.recent:
        train = train_input(component)
        tables["recent"] = read_table(DataInput(uri=gathered.recent, label=train.label, id=train.id), Path("/"))
    return tables


def answered_by_all(
    asked: Mapping[str, tuple[ServedVersion, Arrays]],
    component: Component,
    tables: Mapping[str, LabelledTable],
    place: Workplace,
    folder: Path,
) -> dict[str, Answered]:
    """Return what `answered` says of each version and its golden inputs.

    Loading takes most of the time, so they load side by side; a component's own script need not bear a twin.
    """

    def one(name: str) -> Answered:
        version, given = asked[name]
        return answered(version, component, tables, given, place, folder / f"evaluate-{name}")

    if component.evaluate:
        return {name: one(name) for name in asked}
    with ThreadPoolExecutor(len(asked)) as pool:
        return dict(zip(asked, pool.map(one, asked), strict=True))


def answered(
    version: ServedVersion,
    component: Component,
    tables: Mapping[str, LabelledTable],
    given: Arrays,
    place: Workplace,
    folder: Path,
) -> Answered:
    """Return a version's answers to all that it is judged by, and to the golden inputs where some are given."""
    taken = inputs_of(version, tables)
    asked = {**taken, "golden": given} if given else taken
    outputs = answer_all(version, asked) if asked else {}
    rows, inputs = {}, taken.get("holdout", {})
    if component.evaluate:
        written = ask_entry_point(place, component, version, folder)
        rows, inputs, truth = {"holdout": written.rows}, written.inputs, written.rows.truth
    else:
        truth = tables["holdout"].labels
    task = task_for(component, truth)
    rows |= {name: rows_of(outputs[name], table, task, component) for name, table in tables.items()}
    return Answered(rows, inputs, outputs.get("golden", {}), outputs.get("holdout", {}))


def champion_of(rooms: Rooms, component: str, version: int) -> ServedVersion:
    """Return the champion as something that can answer offline."""
    record = recall(rooms, component, version)
    return ServedVersion(
        component, version, Path(record.model), Path(record.python), record.baseline, record.seal,
        allow_pickle=record.settings.allow_pickle,
    )  # fmt: skip


def inputs_of(version: ServedVersion, tables: Mapping[str, LabelledTable]) -> dict[str, Arrays]:
    """Return each table as the arrays that a version takes."""
    signature = signature_of(version)
    return {name: arrays(table.table, signature) for name, table in tables.items()}


def answer_all(version: ServedVersion, inputs: Mapping[str, Arrays]) -> dict[str, Arrays]:
    """Return a version's answers to several sets of rows; its worker is started once for all of them."""
    fields = next(iter(inputs.values()))
    whole = {name: np.concatenate([part[name] for part in inputs.values()]) for name in fields}
    outputs = answers(version, whole)
    found: dict[str, Arrays] = {}
    start = 0
    for title, part in inputs.items():
        end = start + len(next(iter(part.values())))
        found[title] = {name: values[start:end] for name, values in outputs.items()}
        start = end
    return found


def rows_of(outputs: Arrays, table: LabelledTable, task: Task, component: Component) -> Rows:
    """Return a version's answers beside the truth. Raises ModelRefused where they are no answers."""
    try:
        found = read_outputs(outputs, task, ignored=component.monitor.embedding)
    except InvalidInput as error:
        raise ModelRefused(error.fact, error.remedy) from error
    named = {
        name: np.asarray(table.table.column(name).to_pylist())
        for name in component.gate.slices
        if name in table.table.column_names
    }
    return Rows(table.ids, table.labels, found.answer, found.scores, named, found.classes)


def signature_of(version: ServedVersion) -> Signature:
    """Return what a version takes and gives. Raises ModelRefused where its model has no signature."""
    signature = read_mlmodel(version.model).signature
    if signature is None:
        raise ModelRefused(
            f"The model in {version.model} has no signature, so nobody can know what it takes.",
            "Log it with `signature=mlflow.models.infer_signature(inputs, outputs)`.",
        )
    return signature


def golden_inputs(
    version: ServedVersion, request: CandidateRequest, component: Component, holdout: LabelledTable | None
) -> Arrays:
    """Return the inputs whose answers are kept; a later deployment must answer them the same.

    They are the first rows of `data.golden`, else of the holdout, else the model's own input example.
    """
    named = component.data.golden or (component.data.holdout if holdout is None else None)
    table = read_table(named, Path(request.folder)) if named else holdout
    if table is not None:
        return {name: values[:GOLDEN_ROWS] for name, values in arrays(table.table, signature_of(version)).items()}
    example = own_example(read_mlmodel(version.model))
    if example is None:
        raise ModelRefused(
            "The model has no input example, and headrace.yaml names neither a holdout nor golden rows, so nothing "
            "can tell later whether a deployment answers as this model does.",
            "Log it with `input_example=X[:4]`, or add `data: {golden: {uri: FILE}}`.",
        )
    return {name: values[:GOLDEN_ROWS] for name, values in example.as_arrays().items()}


def save_rows(rows: Rows, path: Path) -> str:
    """Keep rows as `.npz` without pickled objects, and return the path."""
    content: dict[str, Any] = {
        "ids": plain(rows.ids),
        "truth": plain(rows.truth),
        "answer": plain(rows.answer),
        **{f"slice.{name}": plain(values) for name, values in rows.slices.items()},
    }
    if rows.scores is not None:
        content["scores"] = rows.scores
    if rows.classes is not None:
        content["classes"] = plain(rows.classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **content)
    return str(path)


def load_rows(path: str) -> Rows:
    """Return rows that `save_rows` kept."""
    with np.load(path, allow_pickle=False) as content:
        return Rows(
            content["ids"],
            content["truth"],
            content["answer"],
            content.get("scores"),
            {name.removeprefix("slice."): content[name] for name in content if name.startswith("slice.")},
            content.get("classes"),
        )


def plain(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return an array of Python objects as one of strings."""
    return values.astype(str) if values.dtype == object else values
