"""Which version answers a request: pure, so that the same key always meets the same version."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Shares:
    """Traffic shares, compiled.

    Attributes:
        bounds: (version, upper bound of its part of 0…1), newest version first, so that a growing challenger keeps
            the keys that it already has.
        only: the version that gets everything; None where traffic is split.
    """

    bounds: tuple[tuple[int, float], ...]
    only: int | None

    def choose(self, point: float) -> int:
        """Return the version that a point in [0, 1) belongs to."""
        for version, bound in self.bounds:
            if point < bound:
                return version
        # Rounding can leave the last bound a hair under 1; the last version takes that hair.
        return self.bounds[-1][0]


def compile_shares(shares: Mapping[int, float], warm: Sequence[int]) -> Shares:
    """Return the shares as bounds.

    Raises:
        InvalidInput: they do not add up to 1, or name a version that is not loaded.
    """
    total = sum(shares.values())
    if abs(total - 1) > 1e-6 or any(share < 0 for share in shares.values()):
        raise InvalidInput(
            f"The traffic shares {dict(shares)} add up to {total:g}, not 1.", "Change them so that they do."
        )
    cold = sorted(version for version, share in shares.items() if share > 0 and version not in warm)
    if cold:
        raise InvalidInput(f"Version {cold[0]} has a share of the traffic and is not loaded (loaded: {sorted(warm)}).")
    bounds = []
    bound = 0.0
    for version in sorted((v for v, share in shares.items() if share > 0), reverse=True):
        bound += shares[version]
        bounds.append((version, bound))
    return Shares(tuple(bounds), bounds[0][0] if len(bounds) == 1 else None)


def point_of(key: str, salt: str) -> float:
    """Return where a key lies in [0, 1), evenly spread; the salt (the component) keeps endpoints independent."""
    digest = hashlib.blake2b(key.encode(), digest_size=7, key=salt.encode()[:64]).digest()
    # 52 bits fit a float exactly, so the result is below 1.
    return (int.from_bytes(digest, "big") >> 4) / (1 << 52)
