"""The monitoring benchmark adds its runs up, and its rivals are what their libraries say."""

import collections
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.monitoring_combine import combine
from benchmarks.monitoring_rivals import distance, known, plain_ks
from benchmarks.monitoring_streams import Shift, stream
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance


def run(folder: Path, seed: int, alarms: int) -> Path:
    row = {
        "part": "false alarms", "data": "real", "rows": 500, "windows": 1000, "alarms": alarms, "allowed": 3,
        "fired": [["why"]] * alarms, "seed": seed, "cpu_s": 1.5,
    }  # fmt: skip
    claim = {"name": "false_alarms_real_500", "value": alarms, "bar": "<= 3", "holds": True, "evidence": ""}
    path = folder / f"{seed}.json"
    path.write_text(json.dumps({"commit": "abc", "rows": [row], "claims": [claim]}))
    return path


def test_false_alarms_of_several_seeds_add_up_to_one_claim(tmp_path: Path) -> None:
    paths = [run(tmp_path, seed, alarms) for seed, alarms in enumerate([0, 3, 1, 4, 1])]
    found = combine(paths)
    (row,), (claim,) = found.rows, found.claims
    assert (row["windows"], row["alarms"], row["allowed"], row["seeds"]) == (5000, 9, 9, [0, 1, 2, 3, 4])
    assert len(row["fired"]) == 9
    assert (claim.name, claim.value, claim.holds) == ("false_alarms_real_500", 9, True)
    with pytest.raises(ValueError, match="seed 1 once more"):
        combine([*paths, paths[1]])


def test_the_rivals_statistics_are_their_libraries() -> None:
    chance = np.random.default_rng(0)
    reference, window = stream(chance, 1500), stream(chance, 300, shift=Shift("", columns=2, move=0.3))
    counted, numbers = known(reference), [name for name in reference.inputs if name.startswith("n")]
    p_values = [ks_2samp(reference.inputs[name], window.inputs[name], method="asymp").pvalue for name in numbers]
    assert plain_ks(counted, window) == pytest.approx(min(p_values), rel=1e-9)
    for name in numbers[:4]:
        before, now = reference.inputs[name], window.inputs[name]
        expected = wasserstein_distance(before, now) / before.std()
        assert distance(counted, name, now) == pytest.approx(expected, rel=1e-9)
    for name in counted.names:
        before, now = (sorted(collections.Counter(one.inputs[name].to_pylist()).items()) for one in (reference, window))
        assert [value for value, _ in before] == [value for value, _ in now]
        expected = jensenshannon([count for _, count in before], [count for _, count in now])
        assert distance(counted, name, window.inputs[name]) == pytest.approx(expected, rel=1e-9)
