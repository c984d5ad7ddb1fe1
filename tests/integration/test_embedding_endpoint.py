"""A model whose answers hold an embedding is served, and the watch names it when only that moves, before any label."""

import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from tests.conftest import SmallModels
from tests.houses import House

from headrace import wiring
from headrace.client import Scorer
from headrace.config.component import Component, Monitor, Serve
from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.evaluation.base import Rows
from headrace.ledger.base import Action, Draft
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, remember, version_folder
from headrace.monitoring import seasons
from headrace.registry.mlmodel import read_mlmodel
from headrace.types import Actor, ServedVersion, Stage, Task

pytestmark = pytest.mark.slow
MONITOR = Monitor(window=250, embedding="meaning")
HELD, SHIFTED = 500, 250


@pytest.fixture
def rooms(settings: Settings, small_models: SmallModels) -> Iterator[Rooms]:
    """A home in which version 1 of `topics` is in production."""
    made = wiring.rooms(settings)
    config = Component(component="topics", monitor=MONITOR).as_json()
    model = str(small_models.topics)
    remember(made, VersionRecord("topics", 1, "r", "m-1", model, "seal", sys.executable, "baseline", "folder", config))
    draft = Draft("topics", Action.PROMOTED, Actor("ada"), "best", "p", Stage.PRODUCTION, 1)
    made.ledger.move(draft, expected=None)
    version = ServedVersion("topics", 1, small_models.topics, small_models.python)
    made.target.apply(Route("topics", Stage.PRODUCTION, [version], {1: 1.0}, Serve()))
    yield made
    made.target.remove("topics", Stage.PRODUCTION)


def texts(rows: int, letters: str) -> np.ndarray:
    """Return words of twelve letters, always of the same alphabet as a whole."""
    chance = np.random.default_rng(rows + len(letters))
    return np.array(["".join(chance.choice(list(letters), 12)) for _ in range(rows)], object)


def test_an_embedding_that_moves_behind_a_live_endpoint_is_named(rooms: Rooms, small_models: SmallModels) -> None:
    status = rooms.target.status("topics", Stage.PRODUCTION)
    assert status is not None
    held, moved = texts(HELD, "abcdefgh"), texts(SHIFTED, "aabbcdefgh")
    with Scorer(status.endpoint.url) as scorer:
        signature = read_mlmodel(small_models.topics).signature
        outputs = scorer.score(signature, {"text": held}).outputs
        scorer.score(signature, {"text": moved})
    scores, truth = outputs["probabilities"], np.random.default_rng(0).integers(0, 2, HELD)
    rows = Rows(np.arange(HELD), truth, scores.argmax(axis=1), scores, {}, np.arange(2))
    usual = seasons.profile(rows, {"text": held}, task=Task.CLASSIFICATION, monitor=MONITOR, outputs=outputs)
    seasons.save(usual, version_folder(rooms, "topics", 1) / "reference")
    house = House(rooms.settings.home, {**os.environ, "HEADRACE_HOME": str(rooms.settings.home)})
    told = house.headrace("monitor", "run", "topics", "--json")
    assert told.code == 0, told.out + told.err
    *quiet, loud = told.document["windows"]
    assert [one["evidence"]["consequence"] for one in quiet] == ["none", "none"]
    assert loud["evidence"]["consequence"] == "warn"
    fired = {one["name"]: one["sentence"] for one in loud["evidence"]["signals"] if one["fired"]}
    assert "of meaning` went from" in fired["input drift"]
    assert all("of meaning`" in sentence for sentence in fired.values())
    assert told.document["waits_for"].startswith("0 of 250 actuals are in")
