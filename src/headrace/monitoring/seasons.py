"""Seasonal references: a Monday morning is compared with Monday mornings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from headrace.monitoring.reference_profile import Reference

Season = Literal["none", "hour", "weekday", "hour of weekday"]
#: A season with fewer rows than this has no reference of its own.
FEWEST = 200


def season_of(moment: datetime, season: Season) -> str:
    """Return the name of the season that a moment (taken in UTC) is in."""
    utc = moment.astimezone(UTC)
    names = {
        "none": "", "hour": f"{utc.hour:02d}h", "weekday": f"{utc:%a}", "hour of weekday": f"{utc:%a} {utc.hour:02d}h",
    }  # fmt: skip
    return names[season]


def split(moments: Sequence[datetime], season: Season) -> dict[str, np.ndarray]:
    """Return the rows of each season that has enough of them."""
    names = np.array([season_of(one, season) for one in moments])
    found = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    return {name: rows for name, rows in found.items() if len(rows) >= FEWEST}


@dataclass(frozen=True, slots=True)
class Seasons:
    """References by season; `overall` where a season has none."""

    season: Season
    overall: Reference
    by_name: Mapping[str, Reference]

    def at(self, moments: Sequence[datetime]) -> Reference:
        """Return the reference for a window: its season's, where most of its rows are in one."""
        names = [season_of(one, self.season) for one in moments]
        if not names:
            return self.overall
        commonest = max(set(names), key=names.count)
        if names.count(commonest) < 0.8 * len(names):
            return self.overall
        return self.by_name.get(commonest, self.overall)
