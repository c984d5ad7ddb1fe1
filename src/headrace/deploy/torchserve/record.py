"""What one TorchServe was told to do, kept on disk, so that a later command finds it again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.deploy.torchserve.server import Server
from headrace.files import write_atomically
from headrace.processes import ProcessName

NAME = "torchserve.json"


@dataclass(frozen=True, slots=True)
class Record:
    """One endpoint.

    Attributes:
        default: the version that answers.
        content: version number to what it was registered with; equal text means that nothing needs to be done.
    """

    component: str
    stage: str
    server: Server
    port: int
    generation: int = 0
    default: int | None = None
    content: Mapping[int, str] = field(default_factory=dict)


def write(record: Record) -> None:
    """Keep a record in its server's folder."""
    server = record.server
    document = {
        "component": record.component,
        "stage": record.stage,
        "process": server.process.as_json(),
        "inference": server.inference,
        "management": server.management,
        "port": record.port,
        "generation": record.generation,
        "default": record.default,
        "content": {str(number): text for number, text in record.content.items()},
    }
    write_atomically(server.folder / NAME, json.dumps(document, indent=1))


def read(folder: Path) -> Record | None:
    """Return the record of a folder; None where there is none that can be read."""
    try:
        found = json.loads((folder / NAME).read_text())
        process = ProcessName(int(found["process"]["pid"]), float(found["process"]["started"]))
        return Record(
            component=found["component"],
            stage=found["stage"],
            server=Server(folder, process, found["inference"], found["management"]),
            port=int(found["port"]),
            generation=int(found["generation"]),
            default=found["default"],
            content={int(number): text for number, text in found["content"].items()},
        )
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
