"""What this installation knows about each registered version: enough to serve it again without asking anybody.

A record lies beside a copy of the version's baseline under `home/versions/NAME/vN`. It is a convenience, not a truth:
what it points at is checked against the baseline before it is served.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from headrace.config.component import Component
from headrace.errors import ModelRefused, NotFound
from headrace.files import write_atomically
from headrace.lifecycle.rooms import Rooms
from headrace.types import Json, Resources, ServedVersion, Stage

RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One registered version.

    Attributes:
        run_id: the MLflow run that made it; model_uri: the model that it logged.
        model: its verified copy in the model store; seal: the digest of that folder.
        python: the interpreter of its environment.
        baseline: the digest of its core.
        folder: the component's folder at the time, for its data files.
        config: its headrace.yaml, as JSON.
        train_data: the training file that it was made from.
    """

    component: str
    version: int
    run_id: str
    model_uri: str
    model: str
    seal: str
    python: str
    baseline: str
    folder: str
    config: dict[str, Json]
    train_data: str = ""

    @property
    def settings(self) -> Component:
        """The component's configuration that this version was made with.

        Raises:
            ModelRefused: it was made with another headrace, and this one does not take it.
        """
        try:
            return Component.model_validate({**self.config, "folder": self.folder})
        except ValidationError as error:
            places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
            raise ModelRefused(
                f"This headrace does not take the configuration of version {self.version} of {self.component} "
                f"({places}), which another one wrote.",
                "Serve it with the headrace that it was made with, or train a new version: headrace run",
            ) from error


def version_folder(rooms: Rooms, component: str, version: int) -> Path:
    """Return where a version's record and baseline lie."""
    return rooms.settings.home / "versions" / component / f"v{version}"


def remember(rooms: Rooms, record: VersionRecord) -> None:
    """Keep a version's record."""
    folder = version_folder(rooms, record.component, record.version)
    write_atomically(folder / RECORD, json.dumps(asdict(record), indent=2))


def is_known(rooms: Rooms, component: str, version: int) -> bool:
    """Tell whether this installation has a version's record."""
    return (version_folder(rooms, component, version) / RECORD).exists()


def recall(rooms: Rooms, component: str, version: int) -> VersionRecord:
    """Return a version's record. Raises NotFound."""
    path = version_folder(rooms, component, version) / RECORD
    if not path.exists():
        raise NotFound(
            f"This installation has no record of version {version} of {component} ({path} is missing).",
            f"See its versions with `headrace history {component}`.",
        )
    return VersionRecord(**json.loads(path.read_text()))


def served_version(rooms: Rooms, component: str, version: int, stage: Stage) -> ServedVersion:
    """Return what a target needs to serve a version.

    Raises:
        NotFound: no record of it.
        ModelRefused: its verified copy or its environment is gone.
    """
    record = recall(rooms, component, version)
    for what, path in (("model", Path(record.model)), ("environment", Path(record.python))):
        if not path.exists():
            raise ModelRefused(
                f"The {what} of version {version} of {component} is gone: {path} does not exist.",
                f"Bring it back: `headrace restore {component}/{version}`",
            )
    wanted = record.settings.stages.get(stage)
    golden = version_folder(rooms, component, version) / "baseline" / "golden"
    return ServedVersion(
        component=component,
        version=version,
        model=Path(record.model),
        python=Path(record.python),
        baseline=record.baseline,
        seal=record.seal,
        golden=golden if golden.exists() else None,
        environment_variables=wanted.environment_variables if wanted else {},
        secrets=wanted.secrets if wanted else (),
        allow_pickle=record.settings.allow_pickle,
        limits=wanted.limits.as_resources() if wanted else Resources(),
    )
