"""A canary goes on where the process died, on the real engine: neither that start nor a second promotion skips it."""

import json
import subprocess
import sys
from pathlib import Path

from headrace.config.settings import Settings

HOUSE = """
import json, os, sys
from pathlib import Path
from headrace.clock import SystemClock
from headrace.config.component import Component
from headrace.config.settings import Settings
from headrace.deploy.memory import MemoryTarget
from headrace.errors import Conflict
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.control import Control
from headrace.lifecycle.durable import Role
from headrace.lifecycle.engine import start_engine
from headrace.lifecycle.flows import FLOWS
from headrace.lifecycle.production import promote
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, remember
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor, Stage

folder, told = Path(sys.argv[1]), {}
settings = Settings(folder / "state", folder / "home").prepare()
ledger, ada = SqlLedger(settings.ledger_url), Actor("person:ada")
rooms = Rooms(settings, SystemClock(), MemoryRegistry(), ledger, MemoryTarget(), None, MemoryLog())
(folder / "model").mkdir(exist_ok=True)
(folder / "python").touch()
release = {"strategy": "canary", "steps": [10, 100], "step_s": "0s"}
config = Component.model_validate({"component": "digits", "release": release}).as_json()
for number in (1, 2, 3):
    rooms.registry.register("digits", run_id="run", model="models:/m", key=f"v{number}", tags={})
    record = VersionRecord("digits", number, "run", "models:/m", str(folder / "model"), "seal", str(folder / "python"),
                           "b", str(folder), config)
    remember(rooms, record)
    for action in (Action.REGISTERED, Action.GATED, Action.ACCEPTED):
        ledger.append(Draft("digits", action, ada, "good", f"{action}/{number}", version=number))
first = Draft("digits", Action.PROMOTED, ada, "good", "first", stage=Stage.PRODUCTION, version=1)
ledger.move(first, expected=None) if ledger.find("first") is None else None

def shares():
    status = rooms.target.status("digits", Stage.PRODUCTION)
    return status and sorted(status.shares.items())

def looks(*_, **__):
    if not (folder / "was-here").exists():
        (folder / "was-here").touch()
        os._exit(9)
    if "restart" not in told:
        rooms.target.remove("digits", Stage.PRODUCTION)
        control().bring_up()
        told["restart"] = shares()
        try:
            control().promote("digits", 3, actor="person:bob", reason="", key="k3")
        except Conflict as error:
            told["second"] = error.fact
        told["shares"] = shares()
    return {}

promote.tallies, promote.pass_production_door = looks, lambda *_: None
engine = start_engine(rooms, roles=list(Role), flows=FLOWS, phases={})
control = lambda: Control(engine.rooms, engine)
flow = "digits/promote/person-k2/1"
if engine.state(flow) is None:
    control().bring_up()
    control().promote("digits", 2, actor="person:ada", reason="better", key="k2")
from dbos import DBOS
told["end"] = DBOS.retrieve_workflow(flow).get_result(polling_interval_sec=0.05).fact
told["last"] = shares()
print(json.dumps(told))
engine.stop()
"""


def test_a_canary_survives_a_crash_and_lets_nobody_in_between(tmp_path: Path) -> None:
    script = tmp_path / "house.py"
    script.write_text(HOUSE)
    command = [sys.executable, script, tmp_path]
    environment = Settings(tmp_path / "state", tmp_path / "home").child_environment({})
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == 9, killed.stderr
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["restart"] == told["shares"] == [[1, 0.9], [2, 0.1]]
    assert told["second"] == "Another promotion of digits is under way (flow digits/promote/person-k2/1)."
    assert told["end"].startswith("Version 2 of digits answers at")
    assert told["last"] == [[2, 1.0]]
