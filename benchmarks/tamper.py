"""Every file of a version changed in every way, at every door: is it refused, by name, before anything is executed?

    .venv/bin/python -m benchmarks.tamper --json [--smoke]

The model is one from code that leaves a trace when it is loaded. The doors are those that a version passes:
`verify` (`headrace baseline verify`, and sealing), `admit` (registering, packaging, deploying: copies are made and
checked), `worker` (a real worker process on a changed copy), and `attested` (a signed statement about the version; that
one is lost or added is told by the ledger, not by the files). Digesting is timed next to `sha256sum`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Claim, report
from headrace.errors import ModelRefused
from headrace.provenance.attest import Attestation, Kind, attest, read_attestations
from headrace.provenance.baseline import Draft, Sealed, seal
from headrace.provenance.code import Code
from headrace.provenance.digest import digest_folder
from headrace.provenance.sign import Signer, Trusted, own_signer, trusted_signers
from headrace.provenance.store import ModelStore
from headrace.provenance.verify import admit, findings, verify
from headrace.serving.worker import start_worker
from headrace.types import UNNAMED, Actor, Golden, ServedVersion

MLMODEL = """
flavors:
  python_function:
    loader_module: mlflow.pyfunc.loaders.code_model
    model_code_path: model.py
    env: {virtualenv: python_env.yaml}
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]'
"""
#: Leaves a trace when it is imported.
MODEL = """
import mlflow, pathlib
pathlib.Path(%r).touch()
class Sum(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input.sum(axis=1)
mlflow.models.set_model(Sum())
"""


@dataclass(frozen=True, slots=True)
class Version:
    """A model folder with its sealed baseline."""

    model: Path
    sealed: Sealed


@dataclass(frozen=True, slots=True)
class Case:
    """One change to one file; `apply` returns the name that the refusal must hold, or None where nothing changed."""

    change: str
    apply: Callable[[Path, str, Path], str | None]


def make_version(folder: Path, number: int, signer: Signer, trace: Path) -> Version:
    """Seal a small version; no two have the same content."""
    model = folder / "model"
    (model / "artifacts").mkdir(parents=True)
    files = {
        "MLmodel": MLMODEL,
        "model.py": MODEL % str(trace) + f"# version {number}\n",
        "requirements.txt": f"mlflow==3.17.2\n# {number}\n",
        "python_env.yaml": f"python: 3.11.7\n# {number}\n",
        "artifacts/vocabulary.txt": f"{number}\n" * 50,
    }
    for name, content in files.items():
        (model / name).write_text(content)
    rows = np.arange(8, dtype="float64").reshape(4, 2) + number
    draft = Draft(
        component="tampered",
        at=datetime.now(UTC),
        actor=Actor("benchmark"),
        run_id=f"run-{number}",
        model=model,
        code=Code("/nowhere", "a" * 40),
        lock=f"mlflow==3.17.2\n# {number}\n",
        lock_digest=f"{number:064x}",
        python="3.11.7",
        golden=Golden({UNNAMED: rows}, {UNNAMED: rows.sum(axis=1)}),
    )
    return Version(model, seal(draft, folder / "baseline", signer))


# Changes


def flip(where: float) -> Callable[[Path, str, Path], str | None]:
    def apply(folder: Path, file: str, _: Path) -> str:
        raw = bytearray((folder / file).read_bytes())
        raw[min(int(len(raw) * where), len(raw) - 1)] ^= 1
        (folder / file).write_bytes(raw)
        return file

    return apply


def truncate(folder: Path, file: str, _: Path) -> str:
    os.truncate(folder / file, (folder / file).stat().st_size - 1)
    return file


def delete(folder: Path, file: str, _: Path) -> str:
    (folder / file).unlink()
    return file


def swap(folder: Path, file: str, other: Path) -> str | None:
    if (folder / file).read_bytes() == (other / file).read_bytes():
        return None
    shutil.copyfile(other / file, folder / file)
    return file


def add(folder: Path, file: str, _: Path) -> str:
    extra = (Path(file).parent / "extra.py").as_posix()
    (folder / extra).write_text("import os\n")
    return extra


def link(folder: Path, file: str, other: Path) -> str:
    outside = other.parent / f"outside-{time.monotonic_ns()}"
    shutil.move(folder / file, outside)
    (folder / file).symlink_to(outside)
    return file


CASES = (
    Case("flip first byte", flip(0)),
    Case("flip middle byte", flip(0.5)),
    Case("flip last byte", flip(1)),
    Case("truncate", truncate),
    Case("delete", delete),
    Case("swap with another version's", swap),
    Case("add an extra file", add),
    Case("link outward", link),
)


# Doors


def at_verify(baseline: Path, model: Path, _: ModelStore, trusted: Trusted) -> None:
    verify(baseline, model, trusted)


def at_admit(baseline: Path, model: Path, store: ModelStore, trusted: Trusted) -> None:
    admit(baseline, model, store, trusted)


DOORS = {"verify": at_verify, "admit": at_admit}


@contextmanager
def copied(version: Version, scratch: Path) -> Iterator[Version]:
    """Yield a copy that may be changed."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(version.model, folder / "model")
    shutil.copytree(version.sealed.folder, folder / "baseline")
    yield Version(folder / "model", Sealed(version.sealed.digest, folder / "baseline", version.sealed.model))
    shutil.rmtree(folder)


def refusal(door: Callable[[], object]) -> str | None:
    """Return what a door said; None where it let the version through."""
    try:
        door()
    except ModelRefused as error:
        return error.fact
    return None


def tamper(version: Version, other: Version, trusted: Trusted, scratch: Path) -> Iterator[dict[str, Any]]:
    """Change every file of model and baseline in every way, and knock at each door."""
    parts = {"model": (version.model, other.model), "baseline": (version.sealed.folder, other.sealed.folder)}
    for part, (folder, others) in parts.items():
        for file in digest_folder(folder).files:
            for case in CASES:
                for name, door in DOORS.items():
                    with copied(version, scratch) as copy:
                        place = copy.model if part == "model" else copy.sealed.folder
                        expected = case.apply(place, file, others)
                        if expected is None:
                            continue
                        store = ModelStore(copy.model.parent / "store")
                        said = refusal(lambda: door(copy.sealed.folder, copy.model, store, trusted))  # noqa: B023
                        yield row(name, part, file, case, said, expected)


def tamper_copies(version: Version, other: Version, trusted: Trusted, scratch: Path) -> Iterator[dict[str, Any]]:
    """Change every file of the read-only copy, and start a worker on it."""
    for file in version.sealed.model.files:
        for case in CASES:
            with copied(version, scratch) as copy:
                admitted = admit(copy.sealed.folder, copy.model, ModelStore(scratch / "store"), trusted)
                for place in (admitted.model, *(path for path in admitted.model.rglob("*") if path.is_dir())):
                    place.chmod(0o755)
                for path in admitted.model.rglob("*"):
                    path.chmod(0o755)
                expected = case.apply(admitted.model, file, other.model)
                if expected is not None:
                    said = refusal(lambda: start(admitted.model, admitted.seal, scratch))  # noqa: B023
                    yield row("worker", "copy", file, case, said, expected)
                shutil.rmtree(scratch / "store")


def tamper_statements(
    version: Version, other: Version, signer: Signer, trusted: Trusted, scratch: Path
) -> Iterator[dict[str, Any]]:
    """Change a signed statement about a version, or put one about another in its place."""
    for case in CASES:
        if case.change in ("delete", "add an extra file"):
            continue
        folders = []
        for number, one in enumerate((version, other)):
            folder = Path(tempfile.mkdtemp(dir=scratch)) / f"attestations-{number}"
            facts = {"verdict": "pass", "number": number}
            path = attest(
                Attestation("tampered", one.sealed.digest, Kind.GATE, datetime.now(UTC), "gate", facts), folder, signer
            )
            path.rename(folder / "gate.json")
            folders.append(folder)
        expected = case.apply(folders[0], "gate.json", folders[1])
        if expected is not None:
            said = refusal(lambda: read_attestations(folders[0], version.sealed.digest, trusted))  # noqa: B023
            yield row("attested", "attestation", "gate.json", case, said, expected)


def start(model: Path, seal_digest: str, scratch: Path) -> None:
    """Start a worker on a model and wait until it is loaded."""
    served = ServedVersion("tampered", 1, model, Path(sys.executable), seal=seal_digest)
    variables = {"PATH": os.environ["PATH"], "HOME": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    worker = start_worker(served, variables=variables, cwd=scratch, log=scratch / "worker.log")
    try:
        worker.wait_ready(60)
    finally:
        worker.stop()


def row(door: str, part: str, file: str, case: Case, said: str | None, expected: str) -> dict[str, Any]:
    is_named = said is not None and expected in said
    return {"door": door, "part": part, "file": file, "change": case.change, "refused": said is not None,
            "named": is_named, "said": said if not is_named else None}  # fmt: skip


def false_refusals(folder: Path, count: int, signer: Signer, trusted: Trusted) -> list[str]:
    """Return what any door says against versions that nobody touched."""
    said = []
    for number in range(count):
        version = make_version(folder / f"clean-{number}", 1000 + number, signer, folder / "trace")
        said += findings(version.sealed.folder, version.model, trusted, expected=version.sealed.digest)
        store = ModelStore(folder / f"clean-{number}" / "store")
        found = refusal(lambda: admit(version.sealed.folder, version.model, store, trusted))  # noqa: B023
        said += [found] if found else []
    return said


def digest_ratio(folder: Path, size: int, repeats: int = 5) -> tuple[float, str]:
    """Return our speed over that of `sha256sum` on the same file, turn by turn, each at its best."""
    folder.mkdir()
    block = os.urandom(1 << 20)
    with (folder / "file").open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    ours, theirs = [], []
    for _ in range(repeats):
        start_s = time.perf_counter()
        subprocess.run(["sha256sum", folder / "file"], check=True, stdout=subprocess.DEVNULL)
        theirs.append(time.perf_counter() - start_s)
        start_s = time.perf_counter()
        digest_folder(folder)
        ours.append(time.perf_counter() - start_s)
    rate = size / (1 << 20)
    return min(theirs) / min(ours), f"{rate / min(ours):.0f} MiB/s, sha256sum {rate / min(theirs):.0f} MiB/s"


def run(*, smoke: bool) -> str:
    with tempfile.TemporaryDirectory(prefix="headrace-tamper-") as name:
        folder = Path(name)
        trace = folder / "executed"
        signer = own_signer(folder / "keys")
        trusted = trusted_signers(folder / "keys")
        version, other = (make_version(folder / f"v{number}", number, signer, trace) for number in (1, 2))
        rows = list(tamper(version, other, trusted, folder))
        rows += list(tamper_copies(version, other, trusted, folder))
        rows += list(tamper_statements(version, other, signer, trusted, folder))
        is_untouched = not trace.exists()
        control = refusal(lambda: start(version.model, version.sealed.model.digest, folder))
        count = 10 if smoke else 100
        said = false_refusals(folder, count, signer, trusted)
        ratio, speeds = digest_ratio(folder / "speed", (128 if smoke else 1024) << 20)
        return report(
            "tamper", rows, claims(rows, is_untouched, trace.exists() and control is None, said, count, ratio, speeds)
        )


def claims(
    rows: list[dict[str, Any]], untouched: bool, control: bool, said: list[str], count: int, ratio: float, speeds: str
) -> list[Claim]:
    refused, named = (sum(found[key] for found in rows) / len(rows) for key in ("refused", "named"))
    doors = ", ".join(
        f"{door} {sum(found['door'] == door for found in rows)}" for door in (*DOORS, "worker", "attested")
    )
    shown = f"{len(rows)} changes ({doors})"
    return [
        Claim("tampering_refused", refused, "== 1", refused == 1, shown),
        Claim("right_file_named", named, "== 1", named == 1, shown),
        Claim("nothing_executed", int(untouched), "== 1", untouched and control,
              f"no trace of the model's code after all changes; loading it untouched leaves one: {control}"),
        Claim("false_refusals", len(said), "== 0", not said, f"{count} untouched versions at two doors {said[:2]}"),
        Claim("digest_speed_over_sha256sum", round(ratio, 2), ">= 0.8", ratio >= 0.8, speeds),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document (the default and only output)")
    parser.add_argument("--smoke", action="store_true", help="fewer versions and a smaller file")
    print(run(smoke=parser.parse_args().smoke))


if __name__ == "__main__":
    main()
