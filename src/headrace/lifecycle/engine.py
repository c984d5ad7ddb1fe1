"""The durable engine: flows on DBOS, each phase on the queue of its role. The only module that knows DBOS.

A flow that was interrupted goes on at the step that it was in when the engine starts again. Recovery is not a second
path.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID

from headrace.files import disk_trouble
from headrace.lifecycle.durable import Role
from headrace.lifecycle.request import Outcome
from headrace.lifecycle.rooms import Rooms

P = ParamSpec("P")
R = TypeVar("R")
Flow = Callable[..., Outcome]

#: Flows of another version of this number are not recovered by this code.
APPLICATION_VERSION = "1"
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class DbosSteps:
    """The steps of the flow that runs in this thread."""

    def step(self, name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return DBOS.run_step({"name": name}, function, *args, **kwargs)
        except Exception as error:
            trouble = disk_trouble(error)
            if trouble is None:
                raise
            # Room for DBOS and the journal to write how this flow ends.
            _house().rooms.settings.reserve.unlink(missing_ok=True)
            raise trouble from error

    def on(self, role: Role, phase: str, request: object, *args: object) -> object:
        with SetWorkflowID(f"{DBOS.workflow_id}/{phase}"):
            handle = DBOS.enqueue_workflow(role.value, _phase, phase, request, *args)
        return handle.get_result(polling_interval_sec=POLL_S)

    def start(self, kind: str, flow_id: str, request: object) -> None:
        with SetWorkflowID(flow_id):
            DBOS.enqueue_workflow(Role.CONTROL.value, _flow, kind, request)


@dataclass(slots=True)
class _Running:
    """What the flows of this process work with; set once, before the first flow can start."""

    rooms: Rooms
    flows: dict[str, Flow]
    phases: dict[str, Callable[..., object]]


_running: _Running | None = None


def _house() -> _Running:
    if _running is None:
        raise RuntimeError("a flow started before the engine")
    return _running


@DBOS.workflow(name="flow")
def _flow(kind: str, request: object) -> Outcome:
    house = _house()
    return house.flows[kind](DbosSteps(), house.rooms, request)


@DBOS.workflow(name="phase")
def _phase(phase: str, request: object, *args: object) -> object:
    house = _house()
    return house.phases[phase](DbosSteps(), house.rooms, request, *args)


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine."""

    rooms: Rooms

    def start(self, kind: str, flow_id: str, request: object) -> str:
        """Put a flow on the control queue; a second start with the same id changes nothing."""
        DbosSteps().start(kind, flow_id, request)
        return flow_id

    def state(self, flow_id: str) -> str | None:
        """Return DBOS's word for how a flow stands (`PENDING`, `SUCCESS`, …), or None where there is none."""
        status = DBOS.get_workflow_status(flow_id)
        return status.status if status else None

    def cancel(self, flow_id: str) -> None:
        """Stop a flow and its phases; the step that runs is told through the flow's stop file."""
        DBOS.cancel_workflow(flow_id, cancel_children=True)

    def running(self) -> Sequence[str]:
        """Return the ids of the flows that wait or run, phases left out."""
        found = DBOS.list_workflows(status=["PENDING", "ENQUEUED"], name="flow")
        return [status.workflow_id for status in found]

    def stop(self) -> None:
        """Leave the flows where they are; the next start goes on with them."""
        DBOS.destroy(workflow_completion_timeout_sec=0)


def start_engine(
    rooms: Rooms,
    *,
    roles: Sequence[Role],
    flows: dict[str, Flow],
    phases: dict[str, Callable[..., object]],
    executor: str = "local",
) -> Engine:
    """Start the engine of this process for `roles`; flows that were interrupted go on at once."""
    global _running  # noqa: PLW0603 - DBOS calls flows by name, without a place to hand anything in.
    _running = _Running(rooms, flows, phases)
    url = rooms.settings.flows_url
    if url.startswith("sqlite:///"):
        _use_wal(url.removeprefix("sqlite:///"))
    config: DBOSConfig = {
        "name": "headrace",
        "system_database_url": url,
        "application_version": APPLICATION_VERSION,
        "executor_id": executor,
        "log_level": "ERROR",
        "max_executor_threads": 32,
        "enable_otlp": False,
    }
    DBOS(config=config)
    DBOS.listen_queues([role.value for role in roles])
    DBOS.launch()
    for role in Role:
        # One training at a time on a machine; waiting on `control` costs a thread but no slot.
        DBOS.register_queue(
            role.value, polling_interval_sec=POLL_S, worker_concurrency=1 if role is Role.TRAIN else None
        )
    return Engine(rooms)


def _use_wal(path: str) -> None:
    # 33 ms a step with the default journal, 5.6 ms with WAL; synchronous stays FULL.
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
