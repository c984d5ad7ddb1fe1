"""After a promotion: an annotated tag NAME/v3 in the component's repository, naming baseline and ledger head."""

from pathlib import Path

from headrace.errors import HeadraceError
from headrace.lifecycle.request import PromoteRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall, version_folder
from headrace.provenance.baseline import read_baseline
from headrace.provenance.tags import ReleaseTag, write_tag


def tag(rooms: Rooms, request: PromoteRequest) -> str:
    """Write the release tag, and return why there is none; a release is never held up by its tag."""
    name = f"{request.component}/v{request.version}"
    with rooms.journal(request.flow_id).step("tag", f"tagging {name}", must_run=True) as note:
        try:
            record = recall(rooms, request.component, request.version)
            baseline = read_baseline(version_folder(rooms, request.component, request.version) / "baseline")
            [head] = rooms.ledger.history(request.component, limit=1)
            problem = write_tag(
                Path(record.folder),
                ReleaseTag(
                    request.component, request.version, record.baseline, head.hash, request.trigger.actor,
                    baseline.code.commit,
                ),
            )  # fmt: skip
        except (HeadraceError, OSError, ValueError) as error:
            problem = str(error)
        note.found = f"no tag: {problem}" if problem else f"{name} names baseline and ledger head"
    return problem
