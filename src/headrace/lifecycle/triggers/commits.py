"""Commits on a watched branch. Polling is the truth; webhooks and git hooks only say that it is time to look."""

from headrace.config.component import Commits, Component
from headrace.lifecycle.request import Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event, Sighting, Watched
from headrace.lifecycle.triggers.repository import Repository, repository_of
from headrace.types import Json


class CommitSource:
    """The newest commit of one branch."""

    name = "commit"

    def is_wanted(self, settings: Component) -> bool:
        return settings.triggers.commit is not None

    def look(self, rooms: Rooms, watched: Watched, mark: Json) -> Sighting:
        wanted = watched.settings.triggers.commit
        assert wanted is not None
        repository = repository_of(rooms, watched, wanted.remote, wanted.branch)
        head = repository.head(wanted.branch)
        if mark is None or mark == head:
            return Sighting(head)
        before = str(mark)
        if not repository.is_changed(before, head):
            return Sighting(head, problem=f"commit {head[:12]} does not touch {watched.folder.name}")
        return Sighting(head, [event_of_commit(watched, repository, wanted, head, before)])


def event_of_commit(watched: Watched, repository: Repository, wanted: Commits, commit: str, before: str) -> Event:
    """Return the event of a commit; `before` is the one that was seen last."""
    author, subject = repository.told(commit)
    is_rewritten = not repository.follows(before, commit)
    rewritten = f" (its history was rewritten: {before[:12]} is no longer part of it)" if is_rewritten else ""
    reason = f"commit {commit[:12]} on {wanted.branch}{rewritten}: {subject}"
    evidence: dict[str, Json] = {"commit": commit, "branch": wanted.branch, "before": before, "rewritten": is_rewritten}
    trigger = Trigger(Cause.COMMIT, commit, f"git:{author or 'unknown'}", reason, evidence)
    return Event(
        watched.component, trigger, folder=str(watched.folder), commit=commit,
        repository=str(repository.folder) if repository.is_copy else "",
    )  # fmt: skip
