"""Stopping a flow for certain: a file in its folder that every step looks for, long ones several times a second."""

from pathlib import Path

from headrace.errors import Cancelled

FILE = "stop"


def ask_to_stop(folder: Path, actor: str) -> None:
    """Tell the steps of the flow with this folder to end."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(actor)


def is_asked_to_stop(folder: Path) -> bool:
    """Tell whether somebody asked a flow to stop."""
    return (folder / FILE).exists()


def stop_if_asked(*folders: Path) -> None:
    """Raise Cancelled where somebody asked the flow of one of these folders to stop."""
    for folder in folders:
        if is_asked_to_stop(folder):
            who = (folder / FILE).read_text() or "somebody"
            raise Cancelled(f"{who} stopped the flow; nothing was promoted.", "Start it again with `headrace run`.")
