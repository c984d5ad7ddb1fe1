"""A sealed baseline tells everything about one version, and no byte of it can be changed unnoticed."""

import json
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from headrace.errors import Conflict, InvalidConfig, InvalidInput, ModelRefused, NotFound
from headrace.files import sha256_file
from headrace.provenance.attest import Attestation, Kind, attest, read_attestations
from headrace.provenance.baseline import DataFacts, Draft, Sealed, read_baseline, seal
from headrace.provenance.card import model_card, rows
from headrace.provenance.code import Code
from headrace.provenance.compare import compare, compare_packages
from headrace.provenance.digest import digest_folder
from headrace.provenance.envelope import open_bundle, sign_statement
from headrace.provenance.sign import distrust, own_signer, trust, trusted_signers
from headrace.provenance.store import ModelStore
from headrace.provenance.verify import admit, findings, verify
from headrace.types import UNNAMED, Actor, Golden

GOLDEN = Golden({UNNAMED: np.ones((3, 2), "float32")}, {UNNAMED: np.zeros((3, 1), "float32")})
MLMODEL = """
flavors:
  python_function: {loader_module: mlflow.onnx, data: model.onnx}
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]'
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = tmp_path_factory.mktemp("state") / "keys"
    own_signer(keys)
    return keys


def draft(model: Path) -> Draft:
    return Draft(
        component="digits",
        at=datetime(2026, 11, 21, tzinfo=UTC),
        actor=Actor("person:ada"),
        run_id="r1",
        model=model,
        code=Code("https://example.org/ml.git", "a" * 40, "main", "digits", changes={"digits/train.py": "b" * 64}),
        lock="numpy==2.4.6 \\\n    --hash=sha256:00\ntorch==2.13.0\n",
        lock_digest="c" * 64,
        python="3.11.7",
        data={"train": DataFacts(uri="data/train.parquet", sha256="d" * 64, rows=100, columns={"label": "int64"})},
        parameters={"epochs": "3"},
        golden=GOLDEN,
        settings={"component": "digits", "gate": {"min_rows": 30}},
    )


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> tuple[Path, Sealed]:
    """A model folder and its sealed baseline; tests copy before they change them."""
    top = tmp_path_factory.mktemp("version")
    (top / "model").mkdir()
    (top / "model" / "MLmodel").write_text(MLMODEL)
    (top / "model" / "model.onnx").write_bytes(os.urandom(1000))
    return top / "model", seal(draft(top / "model"), top / "baseline", own_signer(keys))


@pytest.fixture
def copy(version: tuple[Path, Sealed], tmp_path: Path) -> tuple[Path, Path]:
    model, sealed = version
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(sealed.folder, tmp_path / "baseline")
    return tmp_path / "baseline", tmp_path / "model"


def test_a_baseline_says_where_everything_came_from(version: tuple[Path, Sealed], keys: Path) -> None:
    model, sealed = version
    verified = verify(sealed.folder, model, trusted_signers(keys), expected=sealed.digest)
    baseline = verified.baseline
    assert verified.signer.startswith("installation-")
    assert baseline.code.commit == "a" * 40
    assert baseline.code.is_dirty
    assert baseline.environment.packages == {"numpy": "2.4.6", "torch": "2.13.0"}
    assert baseline.model.formats == ["ONNX"]
    assert baseline.model.digest == sealed.model.digest == digest_folder(model).digest
    assert baseline.golden is not None
    assert baseline.golden.rows == 3
    assert baseline.marks["code.commit"] == "checked"
    assert baseline.marks["code.repository"] == "stated"
    assert baseline.marks["data.train.sha256"] == "checked"


def test_the_digest_is_that_of_the_document(version: tuple[Path, Sealed]) -> None:
    _, sealed = version
    assert sealed.digest == sha256_file(sealed.folder / "baseline.json")
    assert json.loads((sealed.folder / "baseline.json").read_bytes()) == read_baseline(sealed.folder).as_json()


def test_a_repeat_returns_what_was_sealed_first(version: tuple[Path, Sealed], keys: Path) -> None:
    model, sealed = version
    assert seal(draft(model), sealed.folder, own_signer(keys)) == sealed


def test_model_signing_itself_accepts_both_signatures(version: tuple[Path, Sealed], keys: Path) -> None:
    from model_signing.verifying import Config

    model, sealed = version
    [public] = (keys / "trusted").glob("*.pub")
    verifier = Config().use_elliptic_key_verifier(public_key=public)
    verifier.verify(model, sealed.folder / "model.sig")
    Config().use_elliptic_key_verifier(public_key=public).verify(sealed.folder, sealed.folder / "baseline.sig")
    with pytest.raises(ValueError, match="mismatch"):
        Config().use_elliptic_key_verifier(public_key=public).verify(model, sealed.folder / "baseline.sig")


def test_doors_do_not_import_model_signing() -> None:
    program = "import sys\nimport headrace.provenance.verify\nassert 'model_signing' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("file", ["baseline.json", "lock.txt", "golden/golden.npz", "golden/golden.json", "model.sig"])
def test_a_changed_part_of_the_baseline_is_named(copy: tuple[Path, Path], keys: Path, file: str) -> None:
    baseline, model = copy
    flip(baseline / file, 10)
    with pytest.raises(ModelRefused, match=f"`{file}` was changed"):
        verify(baseline, model, trusted_signers(keys))


def test_no_byte_of_the_signature_can_be_changed(copy: tuple[Path, Path], keys: Path) -> None:
    baseline, model = copy
    trusted, path = trusted_signers(keys), copy[0] / "baseline.sig"
    original = path.read_bytes()
    places = [*range(0, len(original), 37), *range(len(original) - 140, len(original))]
    for place in places:
        flip(path, place)
        with pytest.raises(ModelRefused, match=r"baseline\.sig"):
            verify(baseline, model, trusted)
        path.write_bytes(original)
    for changed in (original + b" ", original[:-1], b"", original.replace(b'"keyid":""', b'"keyid":"x"')):
        path.write_bytes(changed)
        with pytest.raises(ModelRefused, match=r"baseline\.sig"):
            verify(baseline, model, trusted)


@pytest.mark.parametrize("file", ["baseline.json", "lock.txt", "golden/golden.npz", "model.sig", "baseline.sig"])
@pytest.mark.parametrize("change", ["delete", "link", "truncate"])
def test_a_missing_linked_or_short_part_is_named(copy: tuple[Path, Path], keys: Path, file: str, change: str) -> None:
    baseline, model = copy
    path = baseline / file
    if change == "truncate":
        os.truncate(path, path.stat().st_size // 2)
    else:
        shutil.move(path, baseline.parent / "elsewhere")
        if change == "link":
            path.symlink_to(baseline.parent / "elsewhere")
    with pytest.raises(ModelRefused, match=f"`{file}`"):
        verify(baseline, model, trusted_signers(keys))


def test_an_extra_file_in_the_baseline_is_named(copy: tuple[Path, Path], keys: Path) -> None:
    baseline, model = copy
    (baseline / "golden" / "extra").write_text("x")
    with pytest.raises(ModelRefused, match="`golden/extra` is not part of the baseline"):
        verify(baseline, model, trusted_signers(keys))


def test_parts_of_another_version_are_refused(copy: tuple[Path, Path], keys: Path, tmp_path: Path) -> None:
    baseline, model = copy
    other_model = tmp_path / "other-model"
    shutil.copytree(model, other_model)
    (other_model / "model.onnx").write_bytes(b"another")
    other = seal(draft(other_model), tmp_path / "other", own_signer(keys))
    trusted = trusted_signers(keys)
    verify(other.folder, other_model, trusted)
    with pytest.raises(
        ModelRefused, match=r"`model\.onnx` was changed .*; the baseline .* was signed by installation-"
    ):
        verify(baseline, other_model, trusted)
    with pytest.raises(ModelRefused, match="the ledger has"):
        verify(other.folder, other_model, trusted, expected=sha256_file(baseline / "baseline.json"))
    for file in ("baseline.json", "model.sig", "baseline.sig"):
        mixed = tmp_path / f"mixed-{file}"
        shutil.copytree(baseline, mixed)
        shutil.copy(other.folder / file, mixed / file)
        with pytest.raises(ModelRefused):
            verify(mixed, model, trusted)


def test_only_trusted_keys_count_and_verifying_needs_no_private_key(
    copy: tuple[Path, Path], keys: Path, tmp_path: Path
) -> None:
    baseline, model = copy
    strangers = tmp_path / "keys"
    own_signer(strangers)
    with pytest.raises(
        ModelRefused, match=r"`baseline.sig` was signed with the key .*, which is not trusted"
    ) as refusal:
        verify(baseline, model, trusted_signers(strangers))
    assert "headrace signers add" in refusal.value.remedy
    [public] = (keys / "trusted").glob("*.pub")
    assert trust(strangers, public, name="ada").name == "ada"
    assert trust(strangers, public, name="again").name == "ada"
    with pytest.raises(Conflict, match="own key"):
        distrust(strangers, own_signer(strangers).name)
    (strangers / "signing.pem").unlink()
    assert verify(baseline, model, trusted_signers(strangers)).signer == "ada"
    assert admit(baseline, model, ModelStore(tmp_path / "models"), trusted_signers(strangers)).seal

    assert distrust(strangers, "ada").name == "ada"
    with pytest.raises(ModelRefused, match="not trusted here"):
        verify(baseline, model, trusted_signers(strangers))
    with pytest.raises(NotFound, match="no signer `ada`"):
        distrust(strangers, "ada")


def test_what_is_no_public_key_is_not_trusted(keys: Path, tmp_path: Path) -> None:
    own_signer(keys)
    with pytest.raises(InvalidInput, match="is a private key"):
        trust(tmp_path, keys / "signing.pem")
    (tmp_path / "text.pub").write_text("hello")
    with pytest.raises(InvalidInput, match="no public key"):
        trust(tmp_path, tmp_path / "text.pub")
    with pytest.raises(InvalidInput, match="cannot be read"):
        trust(tmp_path, tmp_path / "nowhere.pub")
    [public] = (keys / "trusted").glob("*.pub")
    with pytest.raises(InvalidInput, match="no name for a signer"):
        trust(tmp_path, public, name="../ada")
    other = own_signer(tmp_path / "other")
    trust(tmp_path, public, name="ada")
    with pytest.raises(InvalidInput, match="the name of another key"):
        trust(tmp_path, tmp_path / "other" / "trusted" / f"{other.name}.pub", name="ada")


def test_the_copies_to_serve_are_read_only_and_checked(copy: tuple[Path, Path], keys: Path, tmp_path: Path) -> None:
    baseline, model = copy
    store, trusted = ModelStore(tmp_path / "models"), trusted_signers(keys)
    admitted = admit(baseline, model, store, trusted)
    assert admitted.seal == admitted.model.name
    assert admitted.golden is not None
    assert admitted.lock.startswith("numpy==2.4.6")
    assert admit(baseline, model, store, trusted) == admitted
    flip(model / "MLmodel", 3)
    assert admit(baseline, model, store, trusted) == admitted
    shutil.move(admitted.model, tmp_path / "gone")
    with pytest.raises(ModelRefused, match=r"`MLmodel` was changed .*; the baseline .* was signed by"):
        admit(baseline, model, store, trusted)


def test_all_findings_are_told_at_once(copy: tuple[Path, Path], keys: Path) -> None:
    baseline, model = copy
    trusted = trusted_signers(keys)
    assert findings(baseline, model, trusted) == []
    flip(baseline / "lock.txt", 0)
    flip(model / "model.onnx", 0)
    (model / "MLmodel").unlink()
    found = "\n".join(findings(baseline, model, trusted))
    for name in ("`lock.txt` was changed", "`model.onnx` was changed", "`MLmodel` is missing"):
        assert name in found


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        signers = set(pool.map(lambda _: own_signer(tmp_path / "keys"), range(6)))
    assert len(signers) == 1
    assert len(trusted_signers(tmp_path / "keys").keys) == 1
    private = tmp_path / "keys" / "signing.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    private.chmod(0o640)
    with pytest.raises(InvalidConfig, match="Others may read"):
        own_signer(tmp_path / "keys")


def test_after_a_lost_key_old_signatures_stay_good(copy: tuple[Path, Path], keys: Path, tmp_path: Path) -> None:
    baseline, model = copy
    here = tmp_path / "keys"
    shutil.copytree(keys, here)
    (here / "signing.pem").unlink()
    own_signer(here)
    assert len(trusted_signers(here).keys) == 2
    verify(baseline, model, trusted_signers(here))


def test_statements_of_our_own_open_the_same_way(keys: Path) -> None:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "x",
        "subject": [],
        "predicate": {"α": 1.5},
    }
    raw = sign_statement(statement, own_signer(keys))
    opened = open_bundle(raw, trusted_signers(keys), "gate.json")
    assert opened.statement == statement
    with pytest.raises(ModelRefused, match="about something else"):
        opened.files()
    with pytest.raises(ModelRefused, match=r"`gate\.json` was changed"):
        open_bundle(raw.replace(b"in-toto+json", b"in-toto+jsom"), trusted_signers(keys), "gate.json")


def gate_verdict(**more: Any) -> Attestation:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    return Attestation("digits", "a" * 64, Kind.GATE, at, "gate", {"verdict": "pass", "accuracy": 0.96}, **more)


def test_attestations_come_back_with_their_signer_and_a_repeat_adds_none(keys: Path, tmp_path: Path) -> None:
    signer, trusted = own_signer(keys), trusted_signers(keys)
    first = attest(gate_verdict(), tmp_path, signer)
    assert attest(gate_verdict(), tmp_path, signer) == first
    assert read_attestations(tmp_path, "a" * 64, trusted) == [gate_verdict(signer=signer.name)]


def test_an_attestation_cannot_be_moved_changed_or_made_by_strangers(keys: Path, tmp_path: Path) -> None:
    path = attest(gate_verdict(), tmp_path / "a", own_signer(keys))
    with pytest.raises(ModelRefused, match="is about the baseline aaaaaaaaaaaa…, not about bbbbbbbbbbbb…"):
        read_attestations(tmp_path / "a", "b" * 64, trusted_signers(keys))
    flip(path, len(path.read_bytes()) // 2)
    with pytest.raises(ModelRefused, match=path.name):
        read_attestations(tmp_path / "a", "a" * 64, trusted_signers(keys))
    attest(gate_verdict(), tmp_path / "b", own_signer(tmp_path / "strangers"))
    with pytest.raises(ModelRefused, match="not trusted"):
        read_attestations(tmp_path / "b", "a" * 64, trusted_signers(keys))


def test_a_baseline_is_shown_with_how_each_fact_is_known_and_as_a_card(
    version: tuple[Path, Sealed], keys: Path
) -> None:
    baseline = read_baseline(version[1].folder)
    shown = {row.field: row for row in rows(baseline)}
    assert shown["code.commit"].mark == "checked"
    assert shown["actor"].mark == "stated"
    assert shown["code.is_dirty"].value.startswith("dirty: digits/train.py (diff ")
    card = model_card(
        baseline, version[1].digest, version=3, signer="ada", metrics={"accuracy": 0.9613},
        attestations=[gate_verdict(signer="ada")], decisions=["promoted by person:ada"],
    )  # fmt: skip
    for part in ("# digits, version 3", f"`{version[1].digest}`, signed by ada", "| accuracy | 0.9613 |",
                 "| torch | 2.13.0 |", "gate by gate: pass", "- promoted by person:ada",
                 "| inputs | (one tensor) | float32 | [-1, 2] |"):  # fmt: skip
        assert part in card


def test_equal_baselines_differ_in_nothing(version: tuple[Path, Sealed]) -> None:
    baseline = read_baseline(version[1].folder)
    assert compare(baseline, baseline).sentences() == []


def test_what_changed_between_two_versions_is_said_in_words(version: tuple[Path, Sealed]) -> None:
    before = read_baseline(version[1].folder)
    diff = before.code.diff
    after = structs.replace(
        before,
        code=structs.replace(before.code, commit="b" * 40, diff="", changed_files=[]),
        data={"train": DataFacts(uri="data/train.parquet", sha256="e" * 64, rows=120, columns={"label": "string"}),
              "recent": DataFacts(uri="recent.parquet", sha256="f" * 64)},
        parameters={"epochs": "5", "seed": "1"},
        environment=structs.replace(before.environment, packages={"numpy": "2.4.6", "torch": "2.12.1", "new": "1"}),
        model=structs.replace(before.model, files={**before.model.files, "model.onnx": "0" * 64}),
        settings={"component": "digits", "gate": {"min_rows": 50}},
    )  # fmt: skip
    found = compare(
        before, after, metrics=({"accuracy": 0.95}, {"accuracy": 0.97}), commits=["train longer"]
    ).sentences()
    assert found == [
        "code: commit aaaaaaaaaaaa before, bbbbbbbbbbbb now (1 commit)",
        "code: commit “train longer”",
        f"code: uncommitted changes in digits/train.py (digest {diff[:12]}) before, nothing uncommitted now",
        "data: recent is new (recent.parquet)",
        "data: train has other content (sha256 dddddddddddd… before, eeeeeeeeeeee… now, 100 rows before, 120 now)",
        "data: train: column label int64 before, string now",
        "parameters: epochs 3 before, 5 now",
        "parameters: seed is new: 1",
        "environment: torch 2.13.0 before, 2.12.1 now",
        "environment: new 1 only now",
        "model: other content in model.onnx",
        "settings: gate.min_rows 30 before, 50 now",
        "metrics: accuracy 0.95 before, 0.97 now",
    ]


def test_packages_are_compared_in_plain_words() -> None:
    training, here = {"torch": "2.13.0", "numpy": "2.4.6", "a": "1"}, {"torch": "2.12.1", "a": "1"}
    assert compare_packages(training, here) == ["torch 2.13.0 at training, 2.12.1 here", "numpy 2.4.6 only at training"]
