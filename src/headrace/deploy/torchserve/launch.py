"""Starts one TorchServe worker in the environment of the version that it is to serve.

TorchServe has one interpreter for all of its models, and starts it in the folder of the unpacked archive. This file is
that interpreter's stand-in: it reads which version lies in the folder, and becomes that version's own interpreter.
It needs the standard library alone, in two steps: `choose` in whichever Python started it, `enter` in the version's.
"""

import json
import os
import resource
import runpy
import sys

MAP = "HEADRACE_TORCHSERVE_MAP"
FALLBACK = "HEADRACE_TORCHSERVE_FALLBACK"
#: The map's entry for archives that are not headrace's.
ANY = "*"


def lying_here() -> str:
    """Return the name in the map of the archive in this folder."""
    with open("headrace.json") as file:
        archive = json.load(file)
    return f"{archive['component']}/{archive['version']}"


def choose(arguments: list[str]) -> None:
    """Replace this process by the version's interpreter, with the version's own variables."""
    with open(os.environ[MAP]) as file:
        workers = json.load(file)
    worker = workers[lying_here() if os.path.exists("headrace.json") else ANY]
    variables = {name: value for name, value in os.environ.items() if name != MAP} | worker["variables"]
    limit(worker.get("memory", 0), worker.get("cores", 0))
    os.execve(worker["python"], [worker["python"], "-u", __file__, "--enter", *arguments], variables)  # noqa: S606


def limit(memory: int, cores: int) -> None:
    """Hold this process, whatever it becomes, to so many bytes and so many cores; 0 for no limit."""
    if memory:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, most))
    if cores and sys.platform == "linux":
        known = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {known[(os.getpid() + place) % len(known)] for place in range(cores)})


def enter(arguments: list[str]) -> None:
    """Run TorchServe's worker here.

    What it needs beyond its own package (psutil, pyyaml) comes last on the path, so that the version's packages win.
    """
    sys.path[0] = os.path.dirname(arguments[0])
    sys.path.append(os.environ.pop(FALLBACK))
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--enter"]:
        enter(sys.argv[2:])
    else:
        choose([argument for argument in sys.argv[1:] if argument != "-u"])
