"""The work behind `headrace monitor` and `headrace predictions`: rooms are opened here, rendering is done there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from headrace import wiring
from headrace.cli.client import here
from headrace.config.component import Component, Monitor
from headrace.config.mistakes import said_of
from headrace.config.settings import read_settings
from headrace.errors import InvalidInput, NotFound
from headrace.ledger.base import Action
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall, version_folder
from headrace.lifecycle.watching.due import SOON
from headrace.lifecycle.watching.label_wait import label_wait, lasting
from headrace.monitoring import seasons
from headrace.monitoring.examples import HardExample, hardest_of
from headrace.monitoring.labelling import Task, sampled
from headrace.monitoring.memory import Memory
from headrace.monitoring.replay import Replay, pages_of, replay, windows_of
from headrace.monitoring.seasons import Seasons
from headrace.predictions.segments import SegmentLog
from headrace.predictions.snapshot import Snapshot


def replayed(component: str, window: int, false_alarms: float) -> Replay:
    """Return what the watch says about all stored predictions. 0 takes the newest version's own setting."""
    rooms = wiring.rooms(here().prepare())
    references = references_of(rooms, component)
    monitor = resized(settings_of(rooms, component, references).monitor, window, false_alarms)
    windows = windows_of(rooms.predictions, component, monitor.window)
    found = replay(component, windows, references, monitor, Memory())
    wait = label_wait(rooms, component, monitor)
    labels = f"A window waits {lasting(wait.seconds)} for its actuals: {wait.sentence}."
    if wait.seconds > SOON.total_seconds():
        labels += " What needs none is judged as soon as it is full."
    return replace(found, labels=labels)


def resized(monitor: Monitor, window: int, false_alarms: float) -> Monitor:
    """Return a watch with another window or budget; 0 leaves either as it is. Raises InvalidInput."""
    changed = {"window": window or monitor.window, "false_alarms": false_alarms or monitor.false_alarms}
    try:
        return Monitor.model_validate(monitor.model_dump() | changed)
    except ValidationError as error:
        wrong = [f"--{str(one['loc'][0]).replace('_', '-')} {said_of(one)}" for one in error.errors()]
        raise InvalidInput(
            f"{'; '.join(wrong)}.", "Name for example `--window 200` and `--false-alarms 0.01`, or leave them out."
        ) from error


def hardest(component: str, most: int) -> list[HardExample]:
    """Return the hardest of the newest version's rows."""
    rooms = wiring.rooms(here().prepare())
    references = references_of(rooms, component)
    version = max(references)
    known = references[version].overall
    lost = known.losses[np.isfinite(known.losses) & (known.losses > 0)]
    usual = float(np.median(lost)) if len(lost) else None
    pages = pages_of(rooms.predictions, component, version=version)
    return hardest_of(pages, known.task, classes=known.classes, most=most, usual_error=usual, embedding=known.embedding)


def to_be_labelled(component: str, rate: float | None) -> list[Task]:
    """Return the rows of the uniform sample that have no label yet, at each version's own rate or at a given one.

    Raises:
        InvalidInput: no version of the component marks any.
    """
    rooms = wiring.rooms(here().prepare())
    rates = label_rates(rooms, component, log_of(component).snapshot(component))
    if rate is not None:
        rates = dict.fromkeys(rates, rate)
    if not any(rates.values()):
        raise InvalidInput(
            f"No version of `{component}` marks predictions for labelling.",
            f"Set `monitor: {{label: {{rate: 0.01}}}}` in headrace.yaml and release, or: headrace monitor sample "
            f"{component} --rate 0.01",
        )
    return list(sampled(rooms.predictions, component, rates))


def label_rates(rooms: Rooms, component: str, seen: Snapshot) -> dict[int, float]:
    """Return what share of its predictions each version that answered marks for labelling."""
    found = {}
    for version in {*(one.version for one in seen.manifest.predictions), *(one.version for one in seen.parts)}:
        try:
            found[version] = recall(rooms, component, version).settings.monitor.label.rate
        except NotFound:  # Served without a release.
            found[version] = 0.0
    return found


def references_of(rooms: Rooms, component: str) -> dict[int, Seasons]:
    """Return the reference profile of every version that was in production. Raises NotFound where there is none."""
    found: dict[int, Seasons] = {}
    for entry in rooms.ledger.history(component, limit=10_000):
        if entry.action is Action.PROMOTED and entry.version is not None and entry.version not in found:
            try:
                found[entry.version] = seasons.load(version_folder(rooms, component, entry.version) / "reference")
            except NotFound:
                continue
    if not found:
        known = ", ".join(rooms.ledger.components()) or "none yet"
        raise NotFound(
            f"No version of `{component}` with a reference profile was ever in production (components: {known}).",
            "Release one with `headrace run`.",
        )
    return found


def settings_of(rooms: Rooms, component: str, references: dict[int, Seasons]) -> Component:
    """Return the settings of the newest version that has a reference."""
    return recall(rooms, component, max(references)).settings


def log_of(component: str) -> SegmentLog:
    """Return the log that has a component's predictions. Raises NotFound where there are none."""
    settings = read_settings()
    if not settings.predictions_url:
        here()
    log = wiring.segment_log(settings)
    known = log.components()
    if component not in known:
        place = settings.predictions_url or settings.predictions
        raise NotFound(
            f"There are no predictions of `{component}` in {place} (it has: {', '.join(known) or 'none yet'})."
        )
    return log


def prediction_folder(component: str) -> Path:
    """Return where a component's predictions lie on this machine. Raises NotFound where there are none."""
    return log_of(component).folder(component)
