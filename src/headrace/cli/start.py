"""Where `headrace` begins: two commands that people type all day answer at once, all others load the command line.

`history` and `status` need neither typer nor SQLAlchemy where the ledger is a file or the control process runs. What
is not quite plain here (an option that is not known, an error) is left to the command line proper.
"""

import json
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

from headrace.cli.bounds import MOST_ENTRIES

MOST_S = 5.0


def run() -> None:
    """Run the command."""
    # What cannot be written in the output's encoding is written as its number, and ends no command.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    words = sys.argv[1:]
    if words[:1] in (["history"], ["status"]) and _quick(words):
        return
    from headrace.cli.main import run_command

    run_command()


def _quick(words: Sequence[str]) -> bool:
    """Answer a command if that is plain; tell whether it was."""
    try:
        if words[0] == "status":
            return set(words[1:]) <= {"--json"} and _status(as_json="--json" in words)
        wanted = _history_words(words[1:])
        return wanted is not None and _history(*wanted)
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return False


def _history_words(words: Sequence[str]) -> tuple[str, int, bool] | None:
    names, limit, as_json = [], 30, False
    rest = iter(words)
    for word in rest:
        if word == "--json":
            as_json = True
        elif word == "--limit":
            limit = int(next(rest, ""))
        elif word.startswith("--limit="):
            limit = int(word.partition("=")[2])
        elif word.startswith("-"):
            return None
        else:
            names.append(word)
    return (names[0], limit, as_json) if len(names) == 1 and 0 < limit <= MOST_ENTRIES else None


def _history(component: str, limit: int, as_json: bool) -> bool:
    from headrace.config.settings import read_settings
    from headrace.ledger import glance

    settings = read_settings()
    if settings.database_url is not None or settings.control_url:
        return False
    entries = glance.history(settings.home / "ledger.db", component, limit=limit)
    if entries is None:
        return False
    if as_json:
        _print_json({"component": component, "entries": entries})
        return True
    from headrace.cli import plain

    sys.stdout.write(plain.history(entries) + "\n")
    return True


def _status(*, as_json: bool) -> bool:
    from headrace.cli import plain
    from headrace.config.settings import read_settings
    from headrace.ledger import glance

    settings = read_settings()
    if settings.control_url:
        return False
    running = settings.run / "control.json"
    if running.exists():
        document = _asked(json.loads(running.read_text()))
    else:
        found = glance.production(settings.home / "ledger.db") if settings.database_url is None else None
        if found is None:
            return False
        document = plain.at_rest(settings, found)
    if as_json:
        _print_json(document)
    else:
        sys.stdout.write(plain.status(document) + "\n")
    return True


def _asked(control: dict[str, Any]) -> dict[str, Any]:
    """Return what the control process says. Raises OSError or ValueError where it does not."""
    from http.client import HTTPConnection, HTTPException

    os.kill(int(control["pid"]), 0)
    host, _, port = str(control["url"]).removeprefix("http://").rpartition(":")
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=MOST_S)
    try:
        connection.request("GET", "/api/status", headers={"authorization": f"Bearer {control['token']}"})
        answer = connection.getresponse()
        text = answer.read()
    except HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"status {answer.status}")
    document: dict[str, Any] = json.loads(text)
    return document


def _print_json(document: object) -> None:
    from headrace.cli import plain

    sys.stdout.write(plain.as_json(document))
