"""What requests of the control API may say."""

import msgspec
import pytest

from headrace.dashboard.bodies import Collect


@pytest.mark.parametrize("component", ["", "digits", "a" * 63])
def test_a_collection_may_name_a_component(component: str) -> None:
    assert msgspec.convert({"component": component}, Collect).component == component


@pytest.mark.parametrize("component", ["../digits", "Digits", "a" * 64])
def test_a_collection_names_nothing_else(component: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"component": component}, Collect)
