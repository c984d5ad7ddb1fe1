"""`headrace baseline` and `headrace ledger verify` on a version that was sealed here."""

import importlib.metadata
import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace import wiring
from headrace.cli.main import app
from headrace.clock import SystemClock
from headrace.config.component import Component
from headrace.config.settings import Settings, read_settings
from headrace.environment.garbage import collect_garbage
from headrace.errors import HeadraceError, ModelRefused, Unavailable
from headrace.ledger.base import Action, Draft
from headrace.lifecycle.evidence.preflight import Finding, Preflight
from headrace.lifecycle.evidence.readiness import explained, look
from headrace.lifecycle.evidence.statements import state_entry
from headrace.lifecycle.upkeep import environments
from headrace.lifecycle.versions import VersionRecord, recall, remember, version_folder
from headrace.provenance.baseline import Draft as BaselineDraft
from headrace.provenance.baseline import seal
from headrace.provenance.code import Code
from headrace.provenance.sign import own_signer
from headrace.provenance.store import ModelStore
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor, Stage

ADA = Actor("person:ada")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with one sealed version in production; returns its model folder."""
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    settings: Settings = read_settings().prepare()
    registry = MemoryRegistry()
    monkeypatch.setattr(wiring, "registry", lambda _: registry)
    rooms = wiring.rooms(settings)
    run = registry.start_run("digits", key="r", tags={})
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.onnx, data: m.onnx}}\n")
    (model / "m.onnx").write_bytes(b"weights")
    draft = BaselineDraft(
        component="digits", at=datetime(2026, 1, 1, tzinfo=UTC), actor=ADA, run_id=run.id, model=model,
        code=Code("/nowhere", "a" * 40), lock="numpy==2.0.0\nonly-then==1.0\n", lock_digest="c" * 64, python="3.11.7",
        parameters={"epochs": "3"},
    )  # fmt: skip
    sealed = seal(draft, version_folder(rooms, "digits", 1) / "baseline", own_signer(settings.keys))
    config = Component(component="digits").as_json()
    remember(rooms, VersionRecord("digits", 1, run.id, "models:/m", str(model), sealed.model.digest, "python",
                                  sealed.digest, str(tmp_path), config))  # fmt: skip
    promoted = Draft("digits", Action.PROMOTED, ADA, "first", "k", Stage.PRODUCTION, 1, sealed.digest)
    state_entry(rooms, rooms.ledger.move(promoted, expected=None))
    return model


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize("name", ["digits/1", "digits/v1", "models:/digits/1", "digits"])
def test_a_version_can_be_named_in_several_ways(model: Path, name: str) -> None:
    shown = json.loads(call("baseline", "show", name, "--json"))
    assert shown["version"] == 1
    assert shown["baseline"]["parameters"] == {"epochs": "3"}
    assert shown["baseline"]["marks"]["parameters"] == "checked"


def test_an_untouched_version_is_verified_and_a_flipped_byte_is_named(model: Path) -> None:
    assert "digits v1: 2 model files" in call("baseline", "verify", "digits/1")
    (model / "m.onnx").write_bytes(b"Weights")
    with pytest.raises(ModelRefused, match=r"`m\.onnx` was changed"):
        call("baseline", "verify", "digits/1")


def test_a_changed_copy_is_set_aside_and_brought_back(model: Path) -> None:
    rooms = wiring.rooms(read_settings())
    assert isinstance(rooms.registry, MemoryRegistry)
    record = recall(rooms, "digits", 1)
    python = model.parent / "python"
    python.touch()
    uri = rooms.registry.add_model(record.run_id, model)
    copy = ModelStore(rooms.settings.models).admit(model)
    remember(rooms, replace(record, model_uri=uri, model=str(copy), python=str(python)))
    weights = copy / "m.onnx"
    weights.chmod(0o644)
    weights.write_bytes(b"Weights")
    with pytest.raises(ModelRefused) as refused:
        call("baseline", "verify", "digits/1")
    assert refused.value.remedy.endswith("headrace restore digits/1")
    assert json.loads(call("restore", "digits/1", "--json"))["model"] == str(copy)
    assert weights.read_bytes() == b"weights"
    (aside,) = copy.parent.glob(".damaged-*")
    assert (aside / "m.onnx").read_bytes() == b"Weights"
    call("baseline", "verify", "digits/1")
    assert json.loads(call("restore", "digits/1", "--json"))["model"] is None


def test_no_advice_is_given_about_somebodys_own_folder(model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "m.onnx").write_bytes(b"mine")
    with pytest.raises(ModelRefused, match=r"`m\.onnx` was changed") as refused:
        call("baseline", "verify", "digits/1", "--model", str(own))
    assert refused.value.remedy == ""


def test_decisions_are_attested_and_a_changed_or_lost_statement_is_named(model: Path) -> None:
    [promotion] = json.loads(call("baseline", "show", "digits/1", "--json"))["attestations"]
    assert (promotion["kind"], promotion["actor"]) == ("promotion", "person:ada")
    assert (promotion["facts"]["stage"], promotion["facts"]["version"]) == ("production", 1)
    assert "promotion  person:ada" in call("baseline", "show", "digits")
    assert "promotion by person:ada: first (signed by installation-" in call("baseline", "export", "digits/1")

    rooms = wiring.rooms(read_settings())
    folder = version_folder(rooms, "digits", 1) / "attestations"
    [kept] = folder.glob("*.json")
    good = kept.read_bytes()
    kept.write_bytes(good.replace(b"a", b"b", 1))
    with pytest.raises(ModelRefused, match=rf"attestations: `{kept.name}` was changed after it was signed"):
        call("baseline", "verify", "digits/1")
    kept.unlink()
    with pytest.raises(ModelRefused, match="no statement repeats the ledger's entry 1 \\(promoted by person:ada\\)"):
        call("baseline", "verify", "digits/1")

    # A repeat of the step writes the very same statement.
    [entry] = rooms.ledger.history("digits")
    state_entry(rooms, entry)
    assert [path.name for path in folder.glob("*.json")] == [kept.name]
    assert "1 attestations" in call("baseline", "verify", "digits/1")


def test_another_installations_key_is_trusted_by_its_public_half(model: Path, tmp_path: Path) -> None:
    other = own_signer(tmp_path / "other")
    public = tmp_path / "other" / "trusted" / f"{other.name}.pub"
    call("signers", "add", str(public), "--name", "laptop")
    listed = json.loads(call("signers", "list", "--json"))["signers"]
    assert [(one["is_own"], one["name"] == "laptop") for one in listed] == [(True, False), (False, True)]
    call("signers", "remove", "laptop")
    assert len(json.loads(call("signers", "list", "--json"))["signers"]) == 1


def test_the_ledgers_chain_is_verified_and_a_changed_entry_named(model: Path) -> None:
    import sqlite3

    assert "digits: 1 entries" in call("ledger", "verify")
    with sqlite3.connect(read_settings().home / "ledger.db") as connection:
        connection.execute("UPDATE entries SET reason = 'x'")
    with pytest.raises(HeadraceError, match=r"digits: entry 1 .* was changed after it was written"):
        call("ledger", "verify")


def test_what_names_no_version_says_so(model: Path) -> None:
    with pytest.raises(HeadraceError, match="names no version"):
        call("baseline", "show", "digits@@")
    with pytest.raises(HeadraceError, match="no record of version 9"):
        call("baseline", "show", "digits/9")
    with pytest.raises(HeadraceError, match="has no champion"):
        call("baseline", "show", "news")


def test_an_environment_is_compared_with_the_python_at_hand(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", str(Path(sys.executable).parents[1]))
    found = json.loads(call("environment", "diff", "digits/1", "here", "--json"))["differences"]
    here = importlib.metadata.version("numpy")
    assert f"numpy 2.0.0 at training, {here} here" in found
    assert "only-then 1.0 only at training" in found
    assert any(sentence.startswith("pytest ") and sentence.endswith(" only here") for sentence in found)
    assert "only-then 1.0 only at training" in call("environment", "diff", "models:/digits/1")
    assert call("environment", "diff", "digits/1", "digits/v1") == "nothing differs\n"


def test_a_deployment_is_refused_where_packages_are_others_than_at_training(model: Path) -> None:
    rooms = wiring.rooms(read_settings())
    remember(rooms, replace(recall(rooms, "digits", 1), python=sys.executable))
    with pytest.raises(ModelRefused, match=r"numpy 2\.0\.0 at training, .* here; only-then 1\.0 only at training"):
        look(rooms, "digits", 1, Stage.PRODUCTION)


def test_a_targets_refusal_is_explained_by_preflight(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = wiring.rooms(read_settings())
    refusal = ModelRefused("digits version 1 ended with exit code 1", "See its log")
    cause = Finding("load", "it imports `lost`, which its environment does not have", "Add `lost`")
    monkeypatch.setattr("headrace.lifecycle.evidence.readiness.examine", lambda *_: Preflight([cause]))
    assert explained(rooms, "digits", 1, Stage.DEV, refusal).fact == cause.fact
    monkeypatch.setattr("headrace.lifecycle.evidence.readiness.examine", lambda *_: Preflight())
    assert explained(rooms, "digits", 1, Stage.DEV, refusal) is refusal
    taken = Unavailable("port 80 is taken")
    assert explained(rooms, "digits", 1, Stage.DEV, taken) is taken


def test_only_environments_that_no_home_needs_are_collected(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings()
    needed, refused, unknown, fresh = (letter * 64 for letter in "abcd")
    for digest in (needed, refused, unknown, fresh):
        folder = settings.environments / digest
        (folder / "bin").mkdir(parents=True)
        (folder / ".ready").write_text('{"python": "3.11.7", "packages": 2}')
        if digest != fresh:
            os.utime(folder / ".ready", (0, 0))
    rooms = wiring.rooms(settings)
    for number, digest in ((2, needed), (3, refused)):
        python = str(settings.environments / digest / "bin" / "python")
        remember(rooms, replace(recall(rooms, "digits", 1), version=number, python=python))
    rooms.ledger.append(Draft("digits", Action.REFUSED, ADA, "worse", "refused", version=3))

    # Another home shares the environments, and asks for the clean-up.
    monkeypatch.setenv("HEADRACE_HOME", str(model.parent / "other"))
    settings = read_settings()
    listed = json.loads(call("environment", "list", "--json"))["environments"]
    assert {one["digest"]: len(one["needed_by"]) for one in listed} == {needed: 1, refused: 0, unknown: 0, fresh: 0}
    keep = environments.needed(settings, wiring.ledger)
    for is_rehearsal in (True, False):
        found = collect_garbage(settings, keep=keep, clock=SystemClock(), is_rehearsal=is_rehearsal)
        assert [*found.environments] == [refused, unknown]
    left = {path.parent.name for path in settings.environments.glob("*/.ready")}
    assert left == {needed, fresh}
