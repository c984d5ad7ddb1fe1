"""What several machines must share, and whether they do."""

import uuid
from pathlib import Path

from headrace.config.settings import Settings
from headrace.errors import Conflict, InvalidConfig
from headrace.files import write_atomically
from headrace.lifecycle.durable import Role
from headrace.lifecycle.nodes.base import STALE_S
from headrace.lifecycle.nodes.sql import SqlNodes

MARK = "installation"


def check_shared(settings: Settings, book: SqlNodes) -> None:
    """See that home and state are the folders that all workers of this database share; the first one marks them.

    Raises:
        Conflict: a folder lacks the installation's mark.
    """
    home = settings.home / MARK
    own = home.read_text().strip() if home.exists() else ""
    proposed = own or uuid.uuid4().hex

    def mark_folders() -> None:
        write_atomically(settings.state / "installations" / proposed, "")
        write_atomically(home, proposed + "\n")

    mark = book.mark(proposed, mark_folders)
    state = settings.state / "installations" / mark
    _refuse("HEADRACE_HOME", settings.home, is_shared=own in (mark, "") and home.exists())
    _refuse("HEADRACE_STATE", settings.state, is_shared=state.exists())


def _refuse(variable: str, folder: Path, *, is_shared: bool) -> None:
    if not is_shared:
        raise Conflict(
            f"{folder} ({variable}) is not the folder that the workers of this database share: it does not carry their "
            "mark.",
            f"Mount the shared folder there, at the same path on every machine, or set {variable} to where it is.",
        )


def check_may_begin(settings: Settings) -> None:
    """Raise Conflict where control is played elsewhere: a command that needs it makes no worker of its machine."""
    if settings.database_url is None:
        return
    book = SqlNodes(settings.ledger_url)
    try:
        others = [node for node in book.all() if node.name != settings.node and Role.CONTROL in node.roles]
    finally:
        book.close()
    for node in others:
        if node.is_alive and node.beat_ago_s < STALE_S:
            address = node.url or "http://CONTROL:8010"
            raise Conflict(
                f"The control process of this database is {node.name} on {node.host}, at {address}.",
                f"Talk to it: HEADRACE_URL={address} HEADRACE_TOKEN=… (made there with `headrace token create`). "
                "To work here, too: `headrace worker --role …`.",
            )


def check_several(settings: Settings) -> None:
    """Raise InvalidConfig where the settings fit one process only."""
    if settings.database_url is None:
        raise InvalidConfig(
            "Workers find each other in PostgreSQL, and HEADRACE_DATABASE_URL is not set.",
            "Set it, or use `headrace up`: one process that plays all roles.",
        )
    if settings.tracking_uri is None or settings.tracking_uri.startswith("sqlite:"):
        raise InvalidConfig(
            "Workers on several machines need one MLflow server, and MLFLOW_TRACKING_URI names none.",
            "Start `mlflow server` on a machine that all can reach and set MLFLOW_TRACKING_URI=http://HOST:5000.",
        )
    if not settings.variables.get("HEADRACE_RUN"):
        raise InvalidConfig(
            f"Each worker needs a run folder of its own, on its own disk; {settings.run} lies among the shared ones.",
            "Set it: HEADRACE_RUN=/var/lib/headrace/run",
        )
