"""What the control API's requests say; the OpenAPI document is made of these. `actor` counts only from the
installation's own command line."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace.config.component import LONGEST_S

NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
#: `$` alone lets a line's end through in Python; `\Z` means nothing to those who read the OpenAPI document.
END = r"$(?!\n)"
Name = Annotated[str, Meta(pattern=f"^{NAME}{END}", description="A component's name.")]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1, description="A version's number.")]
#: What neither files nor databases take.
WITHOUT_NUL = r"^[^\x00]*$"
Text = Annotated[str, Meta(max_length=10_000, pattern=WITHOUT_NUL)]
Folder = Annotated[
    str,
    Meta(
        min_length=1, max_length=1000, pattern=WITHOUT_NUL, description="A folder on the control process's machine."
    ),
]  # fmt: skip
Flow = Annotated[
    str,
    Meta(min_length=1, max_length=200, pattern=WITHOUT_NUL, description="A flow's id, as `/api/status` names it."),
]
Key = Annotated[
    str,
    Meta(
        min_length=1, max_length=100, pattern=WITHOUT_NUL,
        description="Tells this request from others; a repeat changes nothing.",
    ),
]  # fmt: skip
Age = Annotated[float, Meta(ge=0, le=LONGEST_S, description="Seconds.")]
Actor = Annotated[str, Meta(max_length=200, pattern=WITHOUT_NUL)]


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One request's body or query."""


class Run(Body):
    """Train and judge a new version, or judge the one that `version` names, which somebody else registered."""

    folder: Folder
    reason: Text
    key: Key
    actor: Actor = ""
    commit: Annotated[str, Meta(max_length=100, pattern=WITHOUT_NUL)] = ""
    version: Annotated[int, Meta(ge=0, le=2**31 - 1, description="0 trains a new one.")] = 0


class Promote(Body):
    """Make a version the champion."""

    component: Name
    version: Number
    reason: Text
    key: Key
    actor: Actor = ""


class Decision(Body):
    """Approve or reject a version that waits."""

    component: Name
    actor: Actor = ""
    comment: Text = ""
    version: Number | None = None


class RollBack(Body):
    """Serve an earlier champion again."""

    component: Name
    reason: Text
    key: Key
    actor: Actor = ""
    to: Number | None = None


class Retire(Body):
    """Say that a version is not wanted any more."""

    component: Name
    version: Number
    reason: Text = ""
    actor: Actor = ""


class Collect(Body):
    """Remove what nobody needs any more; of every component where none is named."""

    component: Annotated[str, Meta(pattern=f"^({NAME})?{END}", description="A component's name.")] = ""
    unused_for_s: Age = 7 * 86400.0
    predictions_s: Age = 90 * 86400.0
    dry_run: bool = False


class NodeWish(Body):
    """Tell a worker to drain or to restart."""

    node: Annotated[str, Meta(min_length=1, max_length=63, description="A node's name, as `/api/nodes` tells it.")]
    wish: Literal["drain", "restart"]


class Stop(Body):
    """End a flow."""

    flow: Flow
    actor: Actor = ""


class Judge(msgspec.Struct, forbid_unknown_fields=True):
    """Judge a component's next window, if it is due."""

    component: str


class Watching(Body):
    """Look at a folder's commits, data, clock and tags from now on."""

    folder: Folder


class Forget(Body):
    """Look at a component's sources no more."""

    component: Name


class NewToken(Body):
    """Make a token; `lives_s` of None never ends."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    rank: Literal["viewer", "operator", "admin"] = "viewer"
    lives_s: Annotated[float, Meta(gt=0, le=LONGEST_S)] | None = None


class Revoke(Body):
    """End a token."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]


class OfFlow(Body):
    """A flow's events, from a number on."""

    flow: Flow
    after: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


class OfStream(Body):
    """A flow's steps, or every decision where none is named."""

    flow: Flow | None = None


class OfComponent(Body):
    """One component."""

    component: Name


class OfTriggers(Body):
    """One component, or all that are watched where none is named."""

    component: Name | None = None


class OfHistory(Body):
    """A component's newest entries."""

    component: Name
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 30


class OfChains(Body):
    """One component, or all where none is named."""

    component: Name | None = None
