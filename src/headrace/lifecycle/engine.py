"""The durable engine: flows on DBOS, each phase on the queue of its role. The only module that knows DBOS.

A flow that was interrupted goes on at the step that it was in when the engine starts again, here or on another node.
Recovery is not a second path.
"""

import concurrent.futures
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

# Private, and the same in all of 3.4: the owner token of an execution, and handing a dead worker's flows on.
from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos._context import get_local_dbos_context
from dbos._dbos import _get_dbos_instance
from dbos._recovery import recover_pending_workflows

from headrace.files import disk_trouble, use_wal
from headrace.ledger.base import Guardable
from headrace.lifecycle.claims import UNCLAIMED, Claim, ClaimedRegistry
from headrace.lifecycle.durable import Role
from headrace.lifecycle.nodes.membership import Membership
from headrace.lifecycle.request import Outcome
from headrace.lifecycle.rooms import Rooms

P = ParamSpec("P")
R = TypeVar("R")
Flow = Callable[..., Outcome]

#: Nodes work together only where this is equal, and flows of another one are not recovered by this code.
APPLICATION_VERSION = "1"
POLL_S = 0.25
#: DBOS's words for a flow that waits or runs.
UNDER_WAY = ("PENDING", "ENQUEUED", "DELAYED")
#: Whose queue a flow waits in. A promotion moves traffic, so it runs where the traffic is.
FLOW_ROLES = {"promote": Role.SERVE, "watch": Role.MONITOR, "look": Role.MONITOR}
#: Phases that need a whole machine.
TRAININGS = ("train", "take-in")


@dataclass(frozen=True, slots=True)
class DbosSteps:
    """The steps of the flow that runs in this thread."""

    claim: Claim = UNCLAIMED

    def step(self, name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self.claim.check()
        with _room_to_end():
            return DBOS.run_step({"name": name}, function, *args, **kwargs)

    def on(self, role: Role, phase: str, request: object, *args: object, label: str = "") -> object:
        with _room_to_end(), SetWorkflowID(f"{DBOS.workflow_id}/{phase}"):
            handle = DBOS.enqueue_workflow(queue_of(role, label), _phase, phase, request, *args)
        return handle.get_result(polling_interval_sec=POLL_S)

    def start(self, kind: str, flow_id: str, request: object) -> None:
        with _room_to_end(), SetWorkflowID(flow_id):
            DBOS.enqueue_workflow(FLOW_ROLES.get(kind, Role.CONTROL).value, _flow, kind, request)


@contextmanager
def _room_to_end() -> Iterator[None]:
    """Where the disk is full, say so, and make room for DBOS and the journal to write how this flow ends."""
    try:
        yield
    except Exception as error:
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        _house().rooms.settings.reserve.unlink(missing_ok=True)
        if trouble is error:
            raise
        raise trouble from error


@dataclass(slots=True)
class _Running:
    """What the flows of this process work with; set once, before the first flow can start.

    Attributes:
        member: this process's place among the nodes; None where there is only one.
        doing: the flows and phases that run here.
    """

    rooms: Rooms
    flows: dict[str, Flow]
    phases: dict[str, Callable[..., object]]
    member: Membership | None = None
    doing: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    training: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def turn(self, phase: str) -> Iterator[None]:
        """Let one training at a time run here: a worker with labels takes from several queues."""
        if phase not in TRAININGS:
            yield
            return
        with self.training:
            yield

    @contextmanager
    def execution(self) -> Iterator[Rooms]:
        """Claim the flow of this thread, and hand out back ends that act only while the claim holds.

        Raises:
            Superseded: it was handed to another execution meanwhile.
        """
        context = get_local_dbos_context()
        assert context is not None
        flow = context.workflow_id
        with self.lock:
            self.doing[flow] = self.doing.get(flow, 0) + 1
        rooms = None
        try:
            rooms = self.rooms
            if self.member is not None:
                rooms = claimed(self.rooms, self.member, flow, str(context.owner_xid))
            yield rooms
        finally:
            if self.member is not None and rooms is not None and not rooms.claim.is_lost():
                self.member.forget(flow)
            with self.lock:
                self.doing[flow] -= 1
                if not self.doing[flow]:
                    del self.doing[flow]


def claimed(rooms: Rooms, member: Membership, flow: str, owner: str) -> Rooms:
    """Return back ends that refuse to write once the flow has another owner. Raises Superseded."""
    claim = member.claim(flow, owner)
    guarded = rooms.ledger.guarded(claim.check_in) if isinstance(rooms.ledger, Guardable) else rooms.ledger
    return replace(rooms, claim=claim, ledger=guarded, registry=ClaimedRegistry(rooms.registry, claim))


_running: _Running | None = None


def _house() -> _Running:
    if _running is None:
        raise RuntimeError("a flow started before the engine")
    return _running


@DBOS.workflow(name="flow")
def _flow(kind: str, request: object) -> Outcome:
    with _house().execution() as rooms:
        return _house().flows[kind](DbosSteps(rooms.claim), rooms, request)


@DBOS.workflow(name="phase")
def _phase(phase: str, request: object, *args: object) -> object:
    with _house().turn(phase), _house().execution() as rooms:
        return _house().phases[phase](DbosSteps(rooms.claim), rooms, request, *args)


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine.

    Attributes:
        rooms: the back ends, which also know by now what runs.
    """

    rooms: Rooms

    def start(self, kind: str, flow_id: str, request: object) -> str:
        """Put a flow on the control queue; a second start with the same id changes nothing."""
        DbosSteps().start(kind, flow_id, request)
        return flow_id

    def state(self, flow_id: str) -> str | None:
        """Return DBOS's word for how a flow stands (`PENDING`, `SUCCESS`, …), or None where there is none."""
        status = DBOS.get_workflow_status(flow_id)
        return status.status if status else None

    def error(self, flow_id: str) -> Exception | None:
        """Return what a flow broke on, where it never wrote its own end."""
        status = DBOS.get_workflow_status(flow_id)
        return status.error if status else None

    def has_ended(self, flow_id: str) -> bool:
        """Tell whether there was such a flow and it runs no more."""
        return self.state(flow_id) not in (None, *UNDER_WAY)

    def cancel(self, flow_id: str) -> None:
        """Stop a flow and its phases; the step that runs is told through the flow's stop file."""
        DBOS.cancel_workflow(flow_id, cancel_children=True)

    def running(self) -> Sequence[str]:
        """Return the ids of the flows that wait or run, phases left out."""
        found = DBOS.list_workflows(status=["PENDING", "ENQUEUED"], name="flow")
        return [status.workflow_id for status in found]

    def doing(self) -> Sequence[str]:
        """Return the flows and phases that run in this process."""
        house = _house()
        with house.lock:
            return sorted(house.doing)

    def ask(self, role: Role, phase: str, request: object, *args: object) -> object:
        """Run a phase on a worker of `role`, now, for a caller that is no flow; also from within a step."""

        def asked() -> object:
            with SetWorkflowID(f"ask/{phase}/{uuid.uuid4()}"):
                handle = DBOS.enqueue_workflow(role.value, _phase, phase, request, *args)
            return handle.get_result(polling_interval_sec=POLL_S)

        # A thread of its own: a step may not start a flow, and this one is nobody's.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(asked).result()

    def hand_on(self, nodes: Sequence[str]) -> int:
        """Put what dead nodes were doing back into its queues, and return how much that was."""
        return len(recover_pending_workflows(_get_dbos_instance(), list(nodes))) if nodes else 0

    def take_no_more(self) -> None:
        """Take nothing new from the queues; what runs goes on to its end."""
        for event in _get_dbos_instance().background_thread_stop_events:
            event.set()

    def listen(self, role: Role) -> None:
        """Take work of one more role."""
        listening = _get_dbos_instance()._listening_queues
        if listening is not None and role.value not in listening:
            listening.append(role.value)

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
    member: Membership | None = None,
) -> Engine:
    """Start the engine of this process for `roles`; flows that were interrupted go on at once.

    Args:
        executor: whose interrupted flows go on here.
        member: this process's place among the nodes, where there may be several; it names the executor.
    """
    rooms = replace(rooms, is_under_way=is_under_way)
    global _running  # noqa: PLW0603 - DBOS calls flows by name, without a place to hand anything in.
    _running = _Running(rooms, flows, phases, member)
    url = rooms.settings.flows_url
    if url.startswith("sqlite:///"):
        # 33 ms a step with the default journal, 5.6 ms with WAL; synchronous stays FULL.
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            use_wal(database)
    config: DBOSConfig = {
        "name": "headrace",
        "system_database_url": url,
        "application_version": APPLICATION_VERSION,
        "executor_id": member.name if member else executor,
        "log_level": "ERROR",
        "max_executor_threads": 32,
        "enable_otlp": False,
    }
    DBOS(config=config)
    labelled = [queue_of(Role.TRAIN, label) for label in rooms.settings.labels if Role.TRAIN in roles]
    DBOS.listen_queues([*(role.value for role in roles), *labelled])
    DBOS.launch()
    for name in [*Role, *labelled]:
        # One training at a time on a machine; waiting on `control` costs a thread but no slot.
        is_training = name.startswith(Role.TRAIN)
        DBOS.register_queue(name, polling_interval_sec=POLL_S, worker_concurrency=1 if is_training else None)
    return Engine(rooms)


def is_under_way(flow_id: str) -> bool:
    """Tell whether a flow waits or runs; may be asked from within a step."""
    status = DBOS.get_workflow_status(flow_id)
    return status is not None and status.status in UNDER_WAY


def queue_of(role: Role, label: str = "") -> str:
    """Return the queue of a role, or of those of its workers that carry a label."""
    return f"{role.value}/{label}" if label else role.value
