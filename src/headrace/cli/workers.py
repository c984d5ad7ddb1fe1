"""What the commands about workers do. They ask the database where there is one, else the control process."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace.cli import client as control
from headrace.cli import plain
from headrace.cli.terminal import console, good, print_json, text_of
from headrace.config.settings import Settings, read_settings
from headrace.errors import NotFound, Unavailable
from headrace.lifecycle.durable import roles_of
from headrace.lifecycle.nodes.base import Condition, Wish
from headrace.types import Json

RESTART_S = 120.0
DRAIN_S = 24 * 3600.0
#: Enough for lines of any sensible length.
LINE_BYTES = 400


def work(role: str, *, name: str, label: str) -> None:
    """Become a worker process."""
    roles = ",".join(roles_of(role))
    given = {"HEADRACE_NODE": name, "HEADRACE_LABELS": label}
    environment = {**read_settings().variables, **{key: value for key, value in given.items() if value}}
    command = [sys.executable, "-m", "headrace.dashboard.worker", roles]
    os.execve(sys.executable, command, environment)  # noqa: S606 - this interpreter and our own module


def show(*, as_json: bool) -> None:
    """Print the nodes."""
    found = [node.copy() for node in read_nodes(read_settings())]
    if as_json:
        print_json({"nodes": list(found)})
        return
    if not found:
        console().print("No worker runs. Start one: headrace up, or headrace worker --role …")
        return
    columns = ["node", "roles", "state", "host", "cpu", "memory", "disk free", "GPU", "heard", "does"]
    sys.stdout.write(plain.table(columns, [_row(node) for node in found]) + "\n")


def drain(name: str, *, as_json: bool) -> None:
    """Tell a node to take nothing new, and wait until it does nothing more."""
    settings = read_settings()
    told = ask_for(settings, name, Wish.DRAIN)
    with console(as_json=as_json).status(f"{text_of(name)} ends what it does …"):
        node = _wait(settings, name, DRAIN_S, lambda one: one["condition"] == Condition.DRAINED)
    if as_json:
        print_json(node or told)
        return
    good(f"{name} takes no work any more   (headrace restart {name})")


def restart(name: str, *, as_json: bool) -> None:
    """Tell a node to begin anew, and wait until it has."""
    settings = read_settings()
    before = ask_for(settings, name, Wish.RESTART)
    with console(as_json=as_json).status(f"{text_of(name)} begins anew …"):
        node = _wait(settings, name, RESTART_S, lambda one: one["session"] != before["session"])
    if as_json:
        print_json(node)
        return
    good(f"{name} began anew (pid {node['pid']})")


def logs(name: str, *, lines: int, as_json: bool) -> None:
    """Print the ends of logs."""
    settings = control.here()
    found = list(dict.fromkeys(_logs(settings, name)))
    if not found:
        workers = ", ".join(path.stem for path in sorted(settings.logs.glob("*.log"))) or "none"
        flows = {folder.name.partition("--")[0] for folder in settings.flows.glob("*--*")}
        raise NotFound(
            f"There is no log of {name or 'any worker'} (workers: {workers}; components: "
            f"{', '.join(sorted(flows)) or 'none'}).",
            "An endpoint's log lies in the run folder of the node that serves it: headrace nodes",
        )
    if as_json:
        print_json({"logs": [{"path": str(path), "lines": list[Json](tail(path, lines))} for path in found]})
        return
    for path in found:
        console().print(str(path), style="bold", markup=False)
        sys.stdout.write("".join(f"{line}\n" for line in tail(path, lines)))


def tail(path: Path, count: int) -> list[str]:
    """Return the last lines of a file, without reading all of it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - count * LINE_BYTES))
        return file.read().decode(errors="replace").splitlines()[-count:]


def _logs(settings: Settings, name: str) -> Iterator[Path]:
    if not name:
        yield from sorted(settings.logs.glob("*.log"))
        return
    if (settings.logs / f"{name}.log").exists():
        yield settings.logs / f"{name}.log"
    for stage in ("production", "dev"):
        yield from sorted((settings.run / f"{name}-{stage}").glob("*.log"))
    flows = sorted(settings.flows.glob(f"{name}--*"), key=lambda folder: folder.stat().st_mtime)
    for newest in flows[-1:]:
        yield from sorted([*newest.glob("*/log"), *newest.glob("*/*/log")], key=lambda path: path.stat().st_mtime)


def read_nodes(settings: Settings) -> Sequence[dict[str, Any]]:
    """Return the nodes as JSON; none where nothing runs."""
    if settings.database_url and not settings.control_url:
        from headrace.lifecycle.nodes.sql import SqlNodes

        return [node.as_json() for node in SqlNodes(settings.database_url).all()]
    client = control.find(settings)
    found: Sequence[dict[str, Any]] = [] if client is None else client.ask("GET", "/api/nodes")["nodes"]
    return found


def ask_for(settings: Settings, name: str, wish: Wish) -> dict[str, Any]:
    """Tell a node what to do and return how it was before. Raises NotFound, Unavailable."""
    before = {node["name"]: node for node in read_nodes(settings)}
    if name not in before:
        raise NotFound(f"There is no node {name} (there are: {', '.join(before) or 'none'}).", "headrace nodes")
    if before[name]["condition"] in (Condition.DEAD, Condition.LEFT):
        raise Unavailable(f"{name} is {before[name]['condition']}.", "Start it: headrace worker --role …")
    if settings.database_url and not settings.control_url:
        from headrace.lifecycle.nodes.sql import SqlNodes

        SqlNodes(settings.database_url).wish(name, wish)
    else:
        client = control.find(settings)
        assert client is not None
        client.ask("POST", "/api/nodes/wish", node=name, wish=wish.value)
    return before[name]


def _wait(settings: Settings, name: str, seconds: float, is_done: Any) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            node = {one["name"]: one for one in read_nodes(settings)}.get(name)
        except Unavailable:  # It is the control process itself that begins anew.
            node = None
        if node is not None and is_done(node):
            return node
        time.sleep(0.5)
    raise Unavailable(f"{name} did not do it within {seconds:.0f} s.", f"Look at it: headrace logs {name}")


def _row(node: dict[str, Any]) -> list[str]:
    gpus = [f"{gpu['name']} {gpu['percent']} %" for gpu in node.get("gpus", ())]
    doing = [*node.get("doing", ()), *(f"{one['component']} ({one['stage']})" for one in node.get("endpoints", ()))]
    return [
        node["name"],
        ",".join([*node["roles"], *node["labels"]]),
        node["condition"],
        f"{node['host']}:{node['pid']}",
        f"{node.get('cpu_percent', 0):.0f} % of {node.get('cpus', '?')}",
        f"{node.get('memory_used_gb', 0)} of {node.get('memory_gb', 0)} GB",
        f"{node.get('disk_free_gb', 0)} GB",
        ", ".join(gpus) or "–",
        f"{node['beat_ago_s']:.0f} s ago",
        ", ".join(doing) or "–",
    ]
