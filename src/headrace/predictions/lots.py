"""Which predictions are marked for labelling: a uniform sample that nobody chooses.

Only labels reveal a change of what the inputs mean, and only a fair sample of them gives a fair picture. Each id draws
a lot, its SHA-256 with a prefix of its own, so the mark is the same on every machine, at any time, in Python and in
SQL, and has nothing to do with any other share that is taken of the same ids. What a low rate takes, a higher one does.
"""

import hashlib
from collections.abc import Mapping

_PREFIX, _DIGITS = "label-sample:", 16


def is_to_be_labelled(prediction_id: str, rate: float) -> bool:
    """Tell whether a prediction is in the sample that takes `rate` (0 to 1) of them."""
    return hashlib.sha256(f"{_PREFIX}{prediction_id}".encode()).hexdigest()[:_DIGITS] < _bound(rate)


def marked(rates: Mapping[int, float]) -> str:
    """Return the same as a SQL expression over `id` (a UUID), `version` and `shadow`; shadows are never marked.

    Args:
        rates: version to rate; other versions' rows are not marked.
    """
    lot = f"substr(sha256('{_PREFIX}' || id::VARCHAR), 1, {_DIGITS})"
    cases = " ".join(f"WHEN {version:d} THEN {lot} < '{_bound(rate)}'" for version, rate in rates.items() if rate > 0)
    return f"(NOT shadow AND CASE version {cases} ELSE false END)" if cases else "false"


def _bound(rate: float) -> str:
    # Beyond every lot where all are taken: "g" comes after all digits.
    return "g" if rate >= 1 else f"{int(max(rate, 0.0) * 16**_DIGITS):0{_DIGITS}x}"
