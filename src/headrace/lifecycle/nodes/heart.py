"""The heartbeat of one node: it says that the node lives, hears what is wanted of it, and notices its own death."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from headrace.errors import HeadraceError
from headrace.lifecycle.nodes.base import BEAT_S, LEASE_S, Node, Nodes, Wish
from headrace.types import Json

LOG = logging.getLogger("headrace.nodes")
GPU_S = 30.0


def boot_s() -> float:
    """Return seconds that go on while this process, or the whole machine, is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Heart:
    """Beats every two seconds in a thread of its own.

    Attributes:
        doing: returns what the node does, for `headrace nodes`; cheap, and never waiting for anybody.
        on_wish: called when what is wanted of the node changes.
        on_death: called once, when others have declared the node dead.
    """

    nodes: Nodes
    node: Node
    doing: Callable[[], Mapping[str, Json]] = dict
    on_wish: Callable[[Wish], None] = lambda _: None
    on_death: Callable[[], None] = lambda: None
    is_dead: bool = False
    _beat_s: float = field(default_factory=boot_s)
    _ended: threading.Event = field(default_factory=threading.Event)
    _gpus: tuple[float, list[Json]] = (-GPU_S, [])

    def is_fresh(self) -> bool:
        """Tell whether nobody can have declared this node dead."""
        return not self.is_dead and boot_s() - self._beat_s < LEASE_S

    def start(self) -> None:
        """Beat from now on."""
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    def stop(self, *, comes_back: bool = False) -> None:
        """Beat no more, and say so, unless the node comes back at once."""
        self._ended.set()
        if not comes_back:
            self.nodes.leave(self.node)

    def beat(self) -> None:
        """Beat once."""
        began_s = boot_s()
        figures = self._figures()  # Slow; what others set of the node meanwhile stays.
        self.node = replace(self.node, figures=figures)
        wish = self.nodes.beat(self.node)
        if wish is None:
            self.is_dead = True
            self._ended.set()
            self.on_death()
            return
        self._beat_s = began_s
        if wish is not self.node.wish:
            self.node = replace(self.node, wish=wish)
            self.on_wish(wish)

    def _run(self) -> None:
        told = ""
        while not self._ended.wait(BEAT_S):
            try:
                self.beat()
                told = ""
            except HeadraceError as error:  # The database may be away, and come back.
                if told != error.fact:
                    LOG.warning("heartbeat: %s", error.fact)
                told = error.fact
            except Exception:  # The loop's boundary: a node without a heart is dead.
                LOG.exception("heartbeat")

    def _figures(self) -> dict[str, Json]:
        memory = psutil.virtual_memory()
        place = Path(self.node.run)
        disk = psutil.disk_usage(str(place if place.exists() else Path("/")))
        return {
            "cpu_percent": psutil.cpu_percent(),
            "cpus": os.cpu_count(),
            "memory_used_gb": round((memory.total - memory.available) / 1e9, 1),
            "memory_gb": round(memory.total / 1e9, 1),
            "disk_free_gb": round(disk.free / 1e9, 1),
            "gpus": self._seen_gpus(),
            **self.doing(),
        }

    def _seen_gpus(self) -> list[Json]:
        if boot_s() - self._gpus[0] >= GPU_S:
            self._gpus = (boot_s(), gpus())
        return self._gpus[1]


def gpus() -> list[Json]:
    """Return this machine's GPUs as nvidia-smi tells them; empty where it is not there or does not answer."""
    query = "name,utilization.gpu,memory.used,memory.total"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=3, check=True)
        return [_gpu(line) for line in answer.stdout.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _gpu(line: str) -> Json:
    name, percent, used, total = (part.strip() for part in line.split(","))
    return {"name": name, "percent": percent, "memory_used_mb": used, "memory_mb": total}
