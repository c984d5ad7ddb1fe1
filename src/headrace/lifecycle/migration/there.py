"""The place that a home moves to, as a file of variables names it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from headrace.config.settings import Settings
from headrace.errors import InvalidConfig


def check_settings(settings: Settings, to: Settings) -> None:
    """Raise InvalidConfig where these are not a home on files and another one on PostgreSQL."""
    if settings.database_url or settings.predictions_url:
        raise InvalidConfig(
            "This home is not one on files: HEADRACE_DATABASE_URL or HEADRACE_PREDICTIONS_URL is set.",
            "Unset them, and name those of the new place in the file that --to names.",
        )
    if to.database_url is None:
        raise InvalidConfig(
            "The new place has no database.", "Add HEADRACE_DATABASE_URL_FILE=… to the file that --to names."
        )
    if settings.tracking_uri is None and to.mlflow_database_url is None:
        raise InvalidConfig(
            "Runs and versions lie in this home, and nothing says where they go.",
            "Add HEADRACE_MLFLOW_DATABASE_URL_FILE=… to the file that --to names; it may be the same database.",
        )
    old, new = settings.home.resolve(), to.home.resolve()
    if new == old or old in new.parents or new in old.parents:
        raise InvalidConfig(
            f"The new home would be {new}, and the old one is {old}.",
            "Name another folder with HEADRACE_HOME=… in the file that --to names; the old home stays as it is.",
        )
    if not old.is_dir():
        raise InvalidConfig(f"There is no home at {old}.", "Name it with HEADRACE_HOME.")
    if to.state != settings.state:
        raise InvalidConfig(
            f"The new home would use the state folder {to.state}; keys and environments lie in {settings.state}.",
            "Leave HEADRACE_STATE as it is here: versions name their interpreters by its path.",
        )


def read_environment_file(path: Path) -> dict[str, str]:
    """Return the variables of a file as systemd and Docker read it: NAME=VALUE, `#` begins a comment line.

    Raises:
        InvalidConfig: it cannot be read, or a line is none of these. The line is not shown; it may be a secret.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}.", "Name the file with --to FILE.") from error
    found = {}
    for number, line in enumerate(lines, 1):
        word = line.strip().removeprefix("export ").strip()
        if not word or word.startswith("#"):
            continue
        name, sign, value = word.partition("=")
        if not sign or not name.isidentifier():
            raise InvalidConfig(f"Line {number} of {path} is no NAME=VALUE.", "Correct it.")
        found[name] = value.strip().strip("\"'")
    return found


def settings_there(variables: Mapping[str, str], file: Path) -> dict[str, str]:
    """Return the environment of the new place: a file's variables, and of this one's what no part is named by."""
    kept = {name: value for name, value in variables.items() if not name.startswith(("HEADRACE_", "MLFLOW_"))}
    with suppress(KeyError):
        kept["HEADRACE_STATE"] = variables["HEADRACE_STATE"]
    return kept | read_environment_file(file)
