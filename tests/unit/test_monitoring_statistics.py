"""The tests keep their level where nothing changed and see what did."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import anderson_ksamp, chi2, fisher_exact

from headrace.evaluation.labels import as_text
from headrace.monitoring.profiles import Numbers, coded
from headrace.monitoring.statistics.boosting import DEPTH, Boosted, by_nodes, fit
from headrace.monitoring.statistics.multiplicity import benjamini_hochberg, family_p, holm
from headrace.monitoring.statistics.quadratic import tail_p
from headrace.monitoring.statistics.shares import clopper_pearson, fell_p, rose_p
from headrace.monitoring.statistics.twosample import (
    anderson_darling,
    anderson_darling_p,
    chi_square_p,
    fisher_p,
    ks_distance,
    psi,
)

counts = st.lists(st.integers(0, 40), min_size=2, max_size=12)


def test_anderson_darling_is_the_known_statistic() -> None:
    chance = np.random.default_rng(0)
    first, second = chance.integers(0, 12, 80), chance.integers(0, 14, 50)
    binned = anderson_darling(np.bincount(first, minlength=14), np.bincount(second, minlength=14))
    found = anderson_ksamp([first, second], variant="midrank")
    spread = (found.statistic, float(binned) - 1)
    # scipy gives the statistic standardised: (A2 - 1) / sigma, with a sigma near .75 for two samples.
    assert spread[1] / spread[0] == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("share", [np.full(64, 1 / 64), np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.04, 0.03, 0.03])])
def test_no_change_is_found_as_rarely_as_the_level_says(share: np.ndarray) -> None:
    chance = np.random.default_rng(1)
    reference = np.repeat(chance.multinomial(4000, share, 200), 200, axis=0)
    windows = chance.multinomial(1000, share, len(reference))
    p_values = anderson_darling_p(anderson_darling(reference, windows), reference)
    assert np.mean(p_values < 0.01) < 0.013
    assert np.mean(p_values < 0.001) < 0.002
    assert np.mean(p_values < 0.01) > 0.006


@given(st.floats(1.2, 40), st.floats(0.1, 9), st.integers(1, 12))
def test_the_tail_of_equal_weights_is_a_chi_squares(times: float, weight: float, terms: int) -> None:
    value = times * weight * terms
    found = float(tail_p(np.array([value]), np.full((1, terms), weight))[0])
    assert found == pytest.approx(float(chi2.sf(value / weight, terms)), rel=0.12)


def test_what_has_no_spread_is_no_evidence() -> None:
    assert tail_p(np.array([3.0, 0.0]), np.array([[0.0, 0.0], [1.0, 0.5]])).tolist() == [1.0, 1.0]
    only = np.array([0, 50, 0])
    assert float(anderson_darling_p(anderson_darling(only, only), only)) == 1.0


@given(counts, st.integers(1, 5))
def test_equal_shares_are_no_distance(cells: list[int], times: int) -> None:
    one, other = np.array(cells), np.array(cells) * times
    assert float(ks_distance(one, other)) == pytest.approx(0)
    assert float(anderson_darling(one, other)) == pytest.approx(0, abs=1e-9)
    assert chi_square_p(one, other) == pytest.approx(1)


@given(counts, st.data())
def test_distances_do_not_care_which_sample_came_first(cells: list[int], more: st.DataObject) -> None:
    one = np.array(cells) + 1
    other = np.array(more.draw(st.lists(st.integers(0, 40), min_size=len(cells), max_size=len(cells)))) + 1
    for distance in (anderson_darling, ks_distance, psi):
        assert float(distance(one, other)) == pytest.approx(float(distance(other, one)), rel=1e-6, abs=1e-9)
    assert chi_square_p(one, other) == pytest.approx(chi_square_p(other, one))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_values_are_ordered_by_strictness(p_values: list[float]) -> None:
    values = np.array(p_values)
    assert np.all(benjamini_hochberg(values) <= holm(values) + 1e-12)
    assert np.all(values <= benjamini_hochberg(values) + 1e-12)
    assert holm(values).min() == pytest.approx(family_p(values))


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 60), st.integers(1, 60))
def test_a_fall_is_fishers_exact_test(right: int, more: int, now: int, later: int) -> None:
    before, rows = right + more, now + later
    known = fisher_exact([[now, rows - now], [right, before - right]], alternative="less").pvalue
    assert fell_p(right, before, now, rows) == pytest.approx(known, rel=1e-6)
    mirrored = fisher_exact([[now, rows - now], [right, before - right]], alternative="greater").pvalue
    assert rose_p(right, before, now, rows) == pytest.approx(mirrored, rel=1e-6)


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4))
def test_two_cells_are_tested_exactly(cells: list[int]) -> None:
    table = np.array(cells, float).reshape(2, 2)
    assert fisher_p(table) == pytest.approx(float(fisher_exact(table.astype(int)).pvalue), rel=1e-6)


@given(
    st.lists(st.floats(-9, 9) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0]), max_size=60),
    st.lists(st.floats(-9, 9), min_size=2, max_size=9, unique=True),
)
def test_each_value_is_counted_in_its_own_bin(values: list[float], edges: list[float]) -> None:
    profile = Numbers(np.sort(edges), np.zeros(len(edges) + 1, int))
    usable = [value for value in values if not np.isnan(value)]
    expected = [
        sum(low <= value < high or value == high == np.inf for value in usable)
        for low, high in itertools.pairwise([-np.inf, *sorted(edges), np.inf])
    ]
    assert profile.count(np.array(values)).tolist() == expected


@pytest.mark.parametrize(
    "labels",
    [np.array([3, 1, 3]), np.array([3.0, 1.0, 3.0]), np.array(["b", "a"], object), np.array([1, "1", 1.0], object)],
)
def test_labels_by_number_are_the_texts_of_the_rows(labels: np.ndarray) -> None:
    found = coded(labels)
    assert [found.names[code] for code in found.codes] == as_text(labels).tolist()
    assert found.counts() == dict(collections.Counter(as_text(labels).tolist()))


@given(st.integers(1, 200), st.data())
def test_an_exact_interval_contains_the_share(rows: int, more: st.DataObject) -> None:
    hits = more.draw(st.integers(0, rows))
    found = clopper_pearson(hits, rows)
    assert 0 <= found.low <= hits / rows <= found.high <= 1


@pytest.mark.parametrize("rows", [100, 400])
def test_the_shared_test_keeps_its_level(rows: int) -> None:
    from headrace.monitoring.statistics.twosample import shift_p

    chance = np.random.default_rng(2)
    share = np.full(64, 1 / 64)
    before = np.repeat(chance.multinomial(2000, share, 400), 50, axis=0)
    p_values = shift_p(before, chance.multinomial(rows, share, len(before)))
    assert np.mean(p_values < 0.01) < 0.012
    assert np.mean(p_values < 0.0005) < 0.0011


def test_the_shared_test_sees_level_spread_and_shape() -> None:
    from headrace.monitoring.statistics.twosample import shift_p

    chance = np.random.default_rng(3)
    edges = np.quantile(chance.normal(size=100_000), np.linspace(0, 1, 65)[1:-1])

    def binned(values: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(edges, values), minlength=64)

    before = binned(chance.normal(size=4000))
    changed = [
        chance.normal(0.3, 1, 500), chance.normal(0, 1.3, 500), chance.normal(0, 0.75, 500),
        np.where(chance.random(500) < 0.5, -0.9, 0.9) + chance.normal(0, 0.43, 500),
    ]  # fmt: skip
    assert all(float(shift_p(before, binned(values))) < 1e-4 for values in changed)
    assert float(shift_p(before, binned(chance.normal(size=500)))) > 0.01


def test_trees_of_older_profiles_answer_as_they_did() -> None:
    chance = np.random.default_rng(0)
    codes, leaves = chance.integers(0, 40, (300, 4)), chance.normal(size=(6, 2**DEPTH))
    columns, limits = chance.integers(0, 4, (6, DEPTH)), chance.integers(0, 40, (6, DEPTH))
    expected = np.full(300, 0.5)
    for asked, limit, leaf in zip(columns, limits, leaves, strict=True):
        bits = codes[:, asked] > limit
        expected += leaf[bits @ (2 ** np.arange(DEPTH)[::-1])]
    found = Boosted(0.5, by_nodes(columns), by_nodes(limits), leaves).predict(codes)
    assert found == pytest.approx(expected)


def test_every_leaf_asks_a_question_of_its_own() -> None:
    chance = np.random.default_rng(1)
    codes = chance.integers(0, 60, (3000, 4))
    # Which of the other columns counts, the first one says.
    target = np.choose(codes[:, 0] // 20, [codes[:, 1], codes[:, 2], codes[:, 3]]) / 60.0
    model = fit(codes[:2000], target[:2000], bins=64)
    left = target[2000:] - model.predict(codes[2000:])
    assert float(left.var()) < 0.1 * float(target.var())


def test_no_leaf_has_fewer_rows_than_tell_anything() -> None:
    codes = np.arange(2000)[:, None] % 50
    target = np.where(np.arange(2000) < 15, 100.0, 0.0)  # Fifteen rows that no question may set apart by themselves.
    target[:15], codes[:15] = 100.0, 49
    codes[15:][codes[15:] == 49] = 48
    model = fit(codes, target, bins=64)
    assert float(model.predict(np.array([[49]]))[0]) == float(model.predict(np.array([[48]]))[0])


def test_nothing_is_learned_from_noise() -> None:
    chance = np.random.default_rng(2)
    model = fit(chance.integers(0, 60, (2000, 4)), chance.normal(size=2000), bins=64)
    assert float(model.predict(chance.integers(0, 60, (2000, 4))).var()) < 0.05
