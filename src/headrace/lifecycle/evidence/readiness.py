"""Preflight before every deployment, without a second start of the model.

    look(rooms, component, version, stage) -> Preflight      # before: files, and the interpreter that will serve
    explained(rooms, component, version, stage, error)       # after a failure: every finding, the first cause first
    examine(rooms, component, version, stage) -> Preflight   # all of it, as `headrace check` asks

Loading the model costs as much as a deployment. A target does it anyway, in the very interpreter and on the very
workers that will serve: it checks the seal, imports, loads, warms up with golden inputs at one row, two and four,
measures memory and latency, and compares all golden answers; acceptance asks them again one by one. So a deployment
looks at files and packages first, which costs one start of the interpreter, lets the target prove the rest, and only
where that fails runs the whole preflight, which finds the cause that a worker's last words do not tell.
"""

from dataclasses import replace

from headrace.errors import HeadraceError, ModelRefused
from headrace.lifecycle.evidence.preflight import Preflight, inspect, preflight
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import served_version, version_folder
from headrace.provenance.baseline import read_baseline
from headrace.types import Stage


def look(rooms: Rooms, component: str, version: int, stage: Stage) -> Preflight:
    """Return what can be told before anything is loaded. A model without a signature can be served, so it passes.

    Raises:
        ModelRefused: it would not serve; the message is the first finding.
        NotFound: there is no record of it.
    """
    served = served_version(rooms, component, version, stage)
    environment = read_baseline(version_folder(rooms, component, version) / "baseline").environment
    found = inspect(
        served, variables=rooms.settings.child_environment(), trained_with=environment.packages,
        trained_python=environment.python,
    )  # fmt: skip
    found.findings = [
        replace(finding, is_blocking=False) if finding.check == "signature" else finding for finding in found.findings
    ]
    found.refuse()
    return found


def examine(rooms: Rooms, component: str, version: int, stage: Stage) -> Preflight:
    """Return every finding: the model is loaded, asked and measured in its own interpreter."""
    served = served_version(rooms, component, version, stage)
    environment = read_baseline(version_folder(rooms, component, version) / "baseline").environment
    known = rooms.settings.variables
    secrets = {name: known[name] for name in served.secrets if name in known}
    return preflight(
        # The worker gets its secrets as a target gives them.
        replace(served, environment_variables={**served.environment_variables, **secrets}),
        variables=rooms.settings.child_environment(),
        trained_with=environment.packages,
        trained_python=environment.python,
    )


def explained(rooms: Rooms, component: str, version: int, stage: Stage, error: HeadraceError) -> HeadraceError:
    """Return why a target refused a version: what preflight finds, or the target's own words where it finds nothing."""
    if not isinstance(error, ModelRefused):
        return error
    try:
        examine(rooms, component, version, stage).refuse()
    except ModelRefused as found:
        return found
    except HeadraceError:
        return error
    return error
