"""Judging material: the candidate's and the champion's answers, row by row, by the very worker that serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.config.component import Component, DataInput
from headrace.data.tables import LabelledTable, arrays, read_table
from headrace.errors import InvalidConfig, InvalidInput, ModelRefused
from headrace.evaluation.answers import read_outputs, task_of
from headrace.evaluation.base import Rows
from headrace.evaluation.metrics import measure_all
from headrace.lifecycle.request import CandidateRequest
from headrace.lifecycle.retrain import Gathered
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall
from headrace.monitoring import reference
from headrace.provenance import golden
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving.offline import answers
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


def evaluate(
    rooms: Rooms, request: CandidateRequest, component: Component, python: str, model: str, gathered: Gathered
) -> Evaluated:
    """Answer the holdout (and the recent labelled rows) with the candidate and the champion; keep golden answers."""
    folder = rooms.folder(request.flow_id)
    holdout = holdout_of(component)
    candidate = ServedVersion(component.component, 0, Path(model), Path(python), allow_pickle=component.allow_pickle)
    serving = rooms.ledger.serving(component.component, Stage.PRODUCTION)
    champion = serving.version if serving else None
    with rooms.journal(request.flow_id).step("evaluate", f"answering {holdout.uri} row by row") as note:
        tables = {"holdout": read_table(holdout, Path(request.folder))}
        if gathered.recent:
            recent = DataInput(uri=gathered.recent, label=holdout.label, id=holdout.id)
            tables["recent"] = read_table(recent, Path("/"))
        task = component.task or task_of(tables["holdout"].labels)
        slices = component.gate.slices
        given = golden_inputs(candidate, component, request, tables["holdout"])
        taken = inputs_of(candidate, tables)
        outputs = answer_all(candidate, {**taken, "golden": given})
        golden.save(Golden(given, outputs.pop("golden")), folder / "golden")
        files: dict[str, str] = {}
        judged = {name: rows_of(outputs[name], table, task, slices) for name, table in tables.items()}
        for name, rows in judged.items():
            files[f"{name}.candidate"] = save_rows(rows, folder / f"{name}.candidate.npz")
        if champion is not None:
            served = champion_of(rooms, component.component, champion)
            outputs = answer_all(served, inputs_of(served, tables))
            for name, table in tables.items():
                rows = rows_of(outputs[name], table, task, slices)
                files[f"{name}.champion"] = save_rows(rows, folder / f"{name}.champion.npz")
        metrics = dict(measure_all(judged["holdout"], task))
        reference.save(reference.build(judged["holdout"], task=task, inputs=taken["holdout"]), folder / "reference")
        note.numbers = dict(metrics)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in list(metrics.items())[:3])
        kept = len(next(iter(given.values())))
        note.found = f"{len(tables['holdout'])} rows: {shown}; {kept} golden answers recorded"
    return Evaluated(task, metrics, champion, files, str(folder / "golden"))


def holdout_of(component: Component) -> DataInput:
    """Return the component's holdout. Raises InvalidConfig where none is named, or an entry point is to judge."""
    if component.evaluate:
        raise InvalidConfig(
            f"headrace.yaml asks the entry point `{component.evaluate}` for rows, which this version cannot do yet.",
            "Take `evaluate:` out and name a holdout: `data: {holdout: {uri: FILE, label: COLUMN}}`.",
        )
    if component.data.holdout is None:
        raise InvalidConfig(
            "headrace.yaml names no holdout, so nothing can be judged.",
            "Add `data: {holdout: {uri: FILE, label: COLUMN}}` with rows that training does not see.",
        )
    return component.data.holdout


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


def rows_of(outputs: Arrays, table: LabelledTable, task: Task, slices: Sequence[str]) -> Rows:
    """Return a version's answers beside the truth. Raises ModelRefused where they are no answers."""
    try:
        found = read_outputs(outputs, task)
    except InvalidInput as error:
        raise ModelRefused(error.fact, error.remedy) from error
    named = {
        name: np.asarray(table.table.column(name).to_pylist()) for name in slices if name in table.table.column_names
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
    version: ServedVersion, component: Component, request: CandidateRequest, holdout: LabelledTable
) -> Arrays:
    """Return the inputs whose answers are kept; a later deployment must answer them the same."""
    named = component.data.golden
    table = read_table(named, Path(request.folder)) if named else holdout
    return {name: values[:GOLDEN_ROWS] for name, values in arrays(table.table, signature_of(version)).items()}


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
