"""Switches, rollbacks, kills and floods under load: the claims of the resilience benchmark that are not about time."""

import json

import pytest
from benchmarks.resilience import measure

pytestmark = pytest.mark.slow
ABOUT_TIME = {"rollback_s", "flood_accepted_p99_ms", "flood_rate_1s_after"}


def test_no_request_fails_whatever_is_switched_or_killed() -> None:
    claims = json.loads(measure(smoke=True))["claims"]
    assert len(claims) >= 10
    broken = [claim for claim in claims if not claim["holds"] and claim["name"] not in ABOUT_TIME]
    assert not broken
