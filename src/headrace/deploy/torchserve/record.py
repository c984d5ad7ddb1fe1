"""What one TorchServe was told to do, kept on disk, so that a later command finds it again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.deploy.torchserve.server import Launcher, Server
from headrace.files import write_atomically

NAME = "torchserve.json"


@dataclass(frozen=True, slots=True)
class Record:
    """One endpoint.

    Attributes:
        fit: what its server was started for; see `Launcher`.
        default: the version that answers.
        content: version number to what it was registered with; equal text means that nothing needs to be done.
        tried: the same of versions that are to be ready, and that this server cannot hold: what they were tried with.
    """

    component: str
    stage: str
    server: Server
    port: int
    fit: str = ""
    generation: int = 0
    default: int | None = None
    content: Mapping[int, str] = field(default_factory=dict)
    tried: Mapping[int, str] = field(default_factory=dict)


def write(record: Record) -> None:
    """Keep a record in its server's folder."""
    server = record.server
    document = {
        "component": record.component,
        "stage": record.stage,
        "process": server.running.as_json(),
        "inference": server.inference,
        "management": server.management,
        "port": record.port,
        "fit": record.fit,
        "generation": record.generation,
        "default": record.default,
        "content": {str(number): text for number, text in record.content.items()},
        "tried": {str(number): text for number, text in record.tried.items()},
    }
    write_atomically(server.folder / NAME, json.dumps(document, indent=1))


def read(folder: Path, launcher: Launcher) -> Record | None:
    """Return the record of a folder; None where there is none that can be read."""
    try:
        found = json.loads((folder / NAME).read_text())
        running = launcher.found(found["process"])
        return Record(
            component=found["component"],
            stage=found["stage"],
            server=Server(folder, running, found["inference"], found["management"]),
            port=int(found["port"]),
            fit=found.get("fit", ""),  # Records of earlier versions lack it.
            generation=int(found["generation"]),
            default=found["default"],
            content={int(number): text for number, text in found["content"].items()},
            tried={int(number): text for number, text in found.get("tried", {}).items()},
        )
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
