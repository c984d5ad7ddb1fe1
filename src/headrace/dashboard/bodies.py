"""What the control API's requests say. `actor` counts only from the installation's own command line."""

from typing import Annotated

import msgspec


class Run(msgspec.Struct, forbid_unknown_fields=True):
    """Train and judge a new version."""

    folder: str
    reason: str
    key: str
    actor: str = ""
    commit: str = ""


class Promote(msgspec.Struct, forbid_unknown_fields=True):
    """Make a version the champion."""

    component: str
    version: int
    reason: str
    key: str
    actor: str = ""


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """Approve or reject a version that waits."""

    component: str
    actor: str = ""
    comment: str = ""
    version: int | None = None


class RollBack(msgspec.Struct, forbid_unknown_fields=True):
    """Serve an earlier champion again."""

    component: str
    reason: str
    key: str
    actor: str = ""
    to: int | None = None


class Retire(msgspec.Struct, forbid_unknown_fields=True):
    """Say that a version is not wanted any more."""

    component: str
    version: int
    reason: str = ""
    actor: str = ""


class Collect(msgspec.Struct, forbid_unknown_fields=True):
    """Remove what nobody needs any more; of every component where none is named."""

    component: str = ""
    unused_for_s: Annotated[float, msgspec.Meta(ge=0)] = 7 * 86400.0
    predictions_s: Annotated[float, msgspec.Meta(ge=0)] = 90 * 86400.0
    dry_run: bool = False


class Stop(msgspec.Struct, forbid_unknown_fields=True):
    """End a flow."""

    flow: str
    actor: str = ""


class Watching(msgspec.Struct, forbid_unknown_fields=True):
    """Look at a folder's commits, data, clock and tags from now on."""

    folder: str
    actor: str = ""


class Forget(msgspec.Struct, forbid_unknown_fields=True):
    """Look at a component's sources no more."""

    component: str
    actor: str = ""


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """Make a token; `lives_s` of None never ends."""

    name: str
    rank: str = "viewer"
    lives_s: float | None = None


class Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """End a token."""

    name: str
