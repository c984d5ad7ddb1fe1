"""The route is pure: the same key meets the same version, and shares come out as asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidInput
from headrace.serving.route import compile_shares, point_of


@given(st.text(max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_growing_challenger_keeps_the_keys_that_it_has(key: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    point = point_of(key, "component")
    assert 0 <= point < 1
    before = compile_shares({1: 1 - small, 2: small}, [1, 2]).choose(point)
    after = compile_shares({1: 1 - large, 2: large}, [1, 2]).choose(point)
    assert (before, after) != (2, 1)


def test_shares_come_out_as_asked() -> None:
    shares = compile_shares({1: 0.75, 2: 0.25}, [1, 2])
    hits = sum(shares.choose(point_of(f"customer-{n}", "c")) == 2 for n in range(4000))
    assert 900 < hits < 1100


def test_single_version_needs_no_key() -> None:
    assert compile_shares({1: 0.0, 2: 1.0}, [1, 2]).only == 2


@pytest.mark.parametrize(("shares", "words"), [({1: 0.9}, "add up to 0.9"), ({3: 1.0}, "is not loaded")])
def test_wrong_shares_are_refused(shares: dict[int, float], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        compile_shares(shares, [1, 2])
