"""Stopping a flow for certain: a file in its folder that long steps look for."""

from pathlib import Path

from headrace.errors import Cancelled
from headrace.lifecycle.rooms import Rooms

FILE = "stop"


def ask_to_stop(rooms: Rooms, flow: str, actor: str) -> None:
    """Tell the flow's steps to end; they look for it several times a second."""
    folder = rooms.folder(flow)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(actor)


def is_asked_to_stop(folder: Path) -> bool:
    """Tell whether somebody asked a flow to stop."""
    return (folder / FILE).exists()


def stop_if_asked(rooms: Rooms, flow: str) -> None:
    """Raise Cancelled where somebody asked the flow to stop."""
    folder = rooms.folder(flow)
    if is_asked_to_stop(folder):
        who = (folder / FILE).read_text() or "somebody"
        raise Cancelled(f"{who} stopped flow {flow}; nothing was promoted.", "Start it again with `headrace run`.")
