"""How many workers and threads a model gets on a machine."""

import pytest

from headrace.serving.control import Limits
from headrace.serving.replicas import HEAVY_MS, Shape, shape_of

CHEAP, HEAVY = HEAVY_MS / 2, HEAVY_MS * 2


@pytest.mark.parametrize(
    ("limits", "forward_ms", "shape"),
    [
        (Limits(), CHEAP, Shape(1, 1)),
        (Limits(threads="auto"), HEAVY, Shape(1, 8)),
        (Limits(workers="auto"), CHEAP, Shape(1, 1)),
        (Limits(workers="auto"), HEAVY, Shape(8, 1)),
        (Limits(workers=2, threads="auto"), HEAVY, Shape(2, 4)),
        (Limits(workers=20, threads="auto"), HEAVY, Shape(20, 1)),
        (Limits(workers=2, threads=3), HEAVY, Shape(2, 3)),
    ],
)
def test_shape_on_eight_cores(limits: Limits, forward_ms: float, shape: Shape) -> None:
    assert shape_of(limits, forward_ms, 8) == shape
