"""Archives that people write and that TorchServe cannot start, one for each way in which they fail."""

import json
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HANDLER = """\
import os
import torch
from ts.torch_handler.base_handler import BaseHandler

class Handler(BaseHandler):
    def initialize(self, context):
        folder = context.system_properties["model_dir"]
        {initialize}
        self.initialized = True

    def handle(self, data, context):
        return [0] * len(data)
"""
NETWORK = "import torch\n\ndef network():\n    return torch.nn.Sequential(torch.nn.Linear(64, 10))\n"
LOAD = (
    "from network import network\n"
    "        self.model = network()\n"
    "        self.model.load_state_dict(torch.load(os.path.join(folder, 'weights.pt'), weights_only=True))"
)


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        files: what the archive holds, besides its manifest.
        fact: a pattern that the found cause must match.
        remedy: a pattern that its remedy must match.
    """

    name: str
    files: dict[str, bytes]
    fact: str
    remedy: str


def cases(python: Path, folder: Path) -> list[Case]:
    """Return all cases; weights are written by the component's own torch."""
    weights = _weights(python, folder)
    good = weights["good"]
    return [
        Case(
            "missing-dependency",
            _files("import phonemizer_pro\n" + HANDLER.format(initialize="pass")),
            r"`phonemizer_pro` is not installed.*handler\.py, line 1",
            "requirements",
        ),
        Case(
            "syntax-error",
            _files(HANDLER.format(initialize="self.model = (")),
            r"handler\.py, line \d+ is no valid Python: '\(' was never closed",
            "py_compile",
        ),
        Case(
            "state-dict-mismatch",
            _files(HANDLER.format(initialize=LOAD), {"network.py": NETWORK.encode(), "weights.pt": weights["wider"]}),
            r"do not fit the network Sequential: size mismatch for 0\.weight",
            "network",
        ),
        Case(
            "corrupt-weights",
            _files(HANDLER.format(initialize=LOAD), {"network.py": NETWORK.encode(), "weights.pt": good[:-300]}),
            r"(damaged|cut off)",
            "again",
        ),
        Case(
            "forgotten-extra-file",
            _files(HANDLER.format(initialize="self.names = open(os.path.join(folder, 'index_to_name.json')).read()")),
            r"`index_to_name\.json` is not in the archive",
            "--extra-files",
        ),
        Case(
            "forgotten-module",
            _files(HANDLER.format(initialize=LOAD), {"weights.pt": good}),
            r"`network` is not installed",
            "--extra-files",
        ),
        Case(
            "wrong-torch",
            _files(
                HANDLER.format(initialize="self.model = torch.export.load(os.path.join(folder, 'model.pt2'))"),
                {"model.pt2": weights["newer"]},
            ),
            r"saved by another version of torch",
            "version that saved it",
        ),
        Case(
            "out-of-memory",
            _files(HANDLER.format(initialize="self.model = torch.empty(1 << 46)")),
            r"ran out of memory",
            "memory",
        ),
        Case(
            "killed",
            _files(HANDLER.format(initialize="os.kill(os.getpid(), 9)")),
            r"was killed while it loaded",
            "memory",
        ),
    ]


def write(case: Case, path: Path) -> None:
    """Write a case's archive as `torch-model-archiver` would."""
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "model": {"modelName": case.name, "handler": "handler.py", "modelVersion": "1.0"},
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, content in case.files.items():
            archive.writestr(name, content)


def _files(handler: str, more: dict[str, bytes] | None = None) -> dict[str, bytes]:
    return {"handler.py": handler.encode(), **(more or {})}


def _weights(python: Path, folder: Path) -> dict[str, bytes]:
    script = """
import sys, torch, pathlib, zipfile
folder = pathlib.Path(sys.argv[1])
torch.manual_seed(0)
torch.save(torch.nn.Sequential(torch.nn.Linear(64, 10)).state_dict(), folder / "good")
torch.save(torch.nn.Sequential(torch.nn.Linear(128, 10)).state_dict(), folder / "wider")
program = torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(2, 4),))
torch.export.save(program, folder / "program.pt2")
import json, re
with zipfile.ZipFile(folder / "program.pt2") as source, zipfile.ZipFile(folder / "newer", "w") as target:
    for name in source.namelist():
        content = source.read(name)
        if name.endswith(".json") and b"schema_version" in content:
            document = json.loads(content)
            document["schema_version"]["major"] += 1
            content = json.dumps(document).encode()
        target.writestr(name, content)
"""
    subprocess.run([python, "-c", script, folder], check=True, timeout=300, capture_output=True)
    return {name: (folder / name).read_bytes() for name in ("good", "wider", "newer")}


Explain = Callable[[str], str]
