"""Runs a training in a container, as the supervised command: `python -I contain.py PLAN`; with `--end`, it ends it.

The container is named after the work's folder. It outlives this process as this one outlives headrace: started again,
it goes on with the container that is there, or takes the result that it left. It needs the standard library alone.
"""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

SOCKETS = "/run/headrace"
WORK = "/work"
LOG = "/work.log"
INSIDE = Path(__file__).with_name("inside.py")
#: `python3` is what images have; nothing of the project is on its path.
BEGIN = f'exec "$(command -v python3 || command -v python)" -I {SOCKETS}/inside.py'
ENGINE_BACK_WITHIN_S = 600.0
STARTS_WITHIN_S = 300.0
STOP_S = 5
PIECE = 1 << 16
Plan = dict[str, Any]


class Engine:
    """The docker program, as far as it is needed here."""

    def __init__(self, plan: Plan) -> None:
        self.docker: str = plan["docker"]
        self.variables: dict[str, str] = plan["engine"]

    def run(self, *words: str, timeout_s: float | None = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run a docker command. Raises subprocess.TimeoutExpired."""
        return subprocess.run(
            [self.docker, *words], env=self.variables, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def state(self, name: str) -> dict[str, Any] | None:
        """Return a container's state, empty where there is no such container; None where the engine does not answer."""
        try:
            done = self.run("container", "inspect", "--format", "{{json .State}}", name)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        return {} if "No such container" in done.stderr else None


class Stopping:
    """Has the container stopped when this process is asked to end."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.is_asked = False
        self._engine, self._name = engine, name
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        if not self.is_asked:
            self.is_asked = True
            # In a session of its own: whoever ends this process's group does not end the stopping.
            subprocess.Popen(
                [self._engine.docker, "stop", "--time", str(STOP_S), self._name], env=self._engine.variables,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip


def main() -> int:
    """Run the plan's container to its end, and end as it did."""
    path = Path(sys.argv[1])
    plan: Plan = json.loads(path.read_text())
    engine, name = Engine(plan), str(plan["name"])
    if sys.argv[2:] == ["--end"]:
        return remove(engine, plan, path)
    stopping = Stopping(engine, name)
    sockets = sockets_folder(plan, path)
    # Before the container: it asks what to do as soon as it lives.
    listen(sockets / "control.sock", lambda connection: tell(connection, plan))
    if plan["tracking"]:
        listen(sockets / "tracking.sock", lambda connection: carry(connection, plan["tracking"]))
    state = engine.state(name)
    if state == {} and not (Path(plan["work"]) / "exit.json").exists():
        create(engine, plan, sockets)
        state = engine.state(name)
    if state is not None and state.get("Status") == "created":
        started = engine.run("start", name, timeout_s=STARTS_WITHIN_S)
        if started.returncode != 0:
            remove(engine, plan, path)
            sys.exit(f"The container cannot be started: {last_line(started.stderr)}")
    code = result(plan, ended(engine, name), engine, stopping)
    remove(engine, plan, path)
    return code


def sockets_folder(plan: Plan, path: Path) -> Path:
    """Return the folder that is mounted for the sockets: the one that the container has, or a new one."""
    note = path.with_name("sockets")
    if note.exists() and Path(note.read_text()).is_dir():
        return Path(note.read_text())
    folder = Path(tempfile.mkdtemp(prefix="hr-train-", dir="/tmp"))  # Paths of sockets must be short.
    shutil.copyfile(INSIDE, folder / "inside.py")
    (folder / "inside.py").chmod(0o755)
    note.write_text(str(folder))
    hand_over(plan, folder)
    return folder


def create(engine: Engine, plan: Plan, sockets: Path) -> None:
    """Make the container. Exits with the engine's words where that cannot be."""
    work = Path(plan["work"])
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    for place in (work, Path(plan["log"])):
        hand_over(plan, place)
    for folder in map(Path, plan["writes"]):
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, *folder.iterdir()):  # Those below were made by trainings as processes.
            hand_over(plan, place)
    mounts: list[tuple[str, ...]] = [(str(sockets), SOCKETS), (str(work), WORK), (plan["log"], LOG)]
    mounts += [(place, place, "readonly") for place in plan["reads"]] + [(place, place) for place in plan["writes"]]
    mounted = [f"--mount={mount(*one)}" for one in mounts]
    done = engine.run(
        "create", "--name", plan["name"], "--user", plan["user"], "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--workdir", WORK, *mounted, *plan["options"],
        "--entrypoint", "/bin/sh", plan["image"], "-c", BEGIN, timeout_s=STARTS_WITHIN_S,
    )  # fmt: skip
    if done.returncode != 0:
        shutil.rmtree(sockets, ignore_errors=True)
        sys.exit(f"The container cannot be made: {last_line(done.stderr)}")


def mount(source: str, target: str, *modes: str) -> str:
    """Return a bind mount as the engine reads it: a line of CSV, as paths may hold commas and quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"src={source}", f"dst={target}", *modes])
    return line.getvalue()


def hand_over(plan: Plan, place: Path) -> None:
    """Give a file or folder to the container's user, where that is another."""
    owner, _, group = str(plan["user"]).partition(":")
    if os.getuid() == 0 and owner.isdigit() and owner != "0":
        os.chown(place, int(owner), int(group) if group.isdigit() else -1)


def listen(path: Path, serve: Any) -> None:
    """Serve each connection to a socket in a thread of its own."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o666)  # The folder that it lies in lets nobody else in.
    listener.listen(64)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def tell(connection: socket.socket, plan: Plan) -> None:
    """Say what is to be done, with the variables that this process was started with for that purpose."""
    told = {
        "command": plan["command"], "project": plan["project"], "port": plan["port"],
        "variables": {name: os.environ[name] for name in plan["pass"] if name in os.environ},
    }  # fmt: skip
    with contextlib.suppress(OSError), connection:
        connection.sendall(json.dumps(told).encode() + b"\n")


def carry(connection: socket.socket, address: str) -> None:
    """Carry a connection to the MLflow server and back."""
    host, _, port = address.rpartition(":")
    try:
        server = socket.create_connection((host, int(port)), timeout=30)
    except OSError:
        connection.close()
        return
    server.settimeout(None)
    back = threading.Thread(target=pump, args=(server, connection), daemon=True)
    back.start()
    pump(connection, server)
    back.join()
    connection.close()
    server.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until there are no more."""
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def ended(engine: Engine, name: str) -> dict[str, Any]:
    """Wait for the container's end, over restarts of its engine, and return its state; empty where it is gone."""
    deadline = time.monotonic() + ENGINE_BACK_WITHIN_S
    while True:
        with contextlib.suppress(subprocess.SubprocessError):
            engine.run("wait", name, timeout_s=None)
        state = engine.state(name)
        if state is not None and not state.get("Running") and state.get("Status") != "restarting":
            return state
        if state is not None:
            deadline = time.monotonic() + ENGINE_BACK_WITHIN_S
        elif time.monotonic() > deadline:
            sys.exit(f"The engine has not answered for {ENGINE_BACK_WITHIN_S:.0f} s. Look at it: docker info")
        time.sleep(0.5)


def result(plan: Plan, state: dict[str, Any], engine: Engine, stopping: Stopping) -> int:
    """Return the exit code as a shell has it, and say why where only the engine knows."""
    with contextlib.suppress(OSError, ValueError):
        code = int(json.loads((Path(plan["work"]) / "exit.json").read_text())["code"])
        if code != 0 and state.get("OOMKilled"):
            print(out_of_memory(plan), flush=True)
        return code if code >= 0 else 128 - code
    code = int(state.get("ExitCode", 1)) or 1
    if state.get("OOMKilled"):
        print(out_of_memory(plan), flush=True)
    elif not state:
        print("The container is gone: somebody has removed it.", flush=True)
    elif code > 128 and not stopping.is_asked:
        print("The container was ended from outside: by somebody, or because its engine restarted.", flush=True)
    else:
        said = engine.run("logs", "--tail", "5", plan["name"])
        print((said.stdout + said.stderr).strip() or state.get("Error", ""), flush=True)
    return code


def out_of_memory(plan: Plan) -> str:
    """Return what is so where the engine's limit was hit."""
    limit = plan["memory"]
    if not limit:
        return "The container was killed because the machine ran out of memory."
    return (
        f"The training needed more than the {limit} that `training.memory` in headrace.yaml gives it, and was killed."
    )


def remove(engine: Engine, plan: Plan, path: Path) -> int:
    """Remove the container, whatever it does, and its sockets; what is gone is no error."""
    done = engine.run("rm", "--force", "--volumes", plan["name"], timeout_s=120)
    is_gone = done.returncode == 0 or re.search("No such container|already in progress", done.stderr) is not None
    note = path.with_name("sockets")
    with contextlib.suppress(OSError):
        shutil.rmtree(note.read_text(), ignore_errors=True)
        note.unlink()
    if not is_gone:
        print(f"The container {plan['name']} cannot be removed: {last_line(done.stderr)}", flush=True)
    return 0 if is_gone else 1


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return text.strip().rpartition("\n")[2] or "the engine said nothing"


if __name__ == "__main__":
    sys.exit(main())
