"""Where a component is trained: on any worker that trains, or only on those that carry the label that it asks for."""

from pathlib import Path

from headrace.config.parse import FILE, parse_component, read_component
from headrace.errors import HeadraceError, InvalidConfig
from headrace.lifecycle.durable import Role
from headrace.lifecycle.nodes.base import Nodes
from headrace.lifecycle.request import CandidateRequest
from headrace.provenance.code import text_at


def label_of(request: CandidateRequest) -> str:
    """Return the label that headrace.yaml asks for, as it is at the request's commit; empty for none.

    A file that cannot be read asks for none: the step that checks it out says what is wrong with it.
    """
    folder = Path(request.repository or request.folder)
    try:
        if not request.commit:
            return read_component(folder).runs_on
        return parse_component(text_at(folder, FILE, request.commit), folder / FILE).runs_on
    except HeadraceError:
        return ""


def check_can_be_placed(nodes: Nodes, component: str, label: str, *, are_several: bool) -> str:
    """Return what to tell about a training that waits for a worker; empty where one is at work.

    Raises:
        InvalidConfig: this is the only worker that there can be, and it does not carry the label.
    """
    known = [node for node in nodes.all() if node.is_alive and Role.TRAIN in node.roles]
    if not label or any(label in node.labels for node in known):
        return ""
    carried = sorted({one for node in known for one in node.labels})
    fact = f"{component} runs on workers with the label `{label}`, and none is at work"
    fact += f" (labels there: {', '.join(carried)})." if carried else "."
    if are_several:
        return f"{fact} It waits; start one: headrace worker --role train --label {label}"
    raise InvalidConfig(
        fact,
        f"If this machine is such a one: headrace down, then HEADRACE_LABELS={label} headrace up. Else take `runs_on` "
        f"out of headrace.yaml.",
    )
