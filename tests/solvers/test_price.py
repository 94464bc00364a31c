"""The price search on bare response curves, one problem or many at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve.losses import quadratic
from capsolve.losses.quadratic import response_curve
from capsolve.solvers.price import interpolate_scale, resolve_ties, solve_knapsack
from tests.oracles import profiles


def fill(v, k, dimensions):
    """Solve one problem."""
    v, k = np.asarray(v, dtype=float), np.broadcast_to(k, np.shape(v)).astype(float)
    return solve_knapsack(response_curve(v, k).take((slice(None), None)), np.array([float(dimensions)]))


@given(profiles())
def test_the_budget_is_met_and_capacities_are_in_range(problem):
    v, k, dimensions = problem
    capacity = fill(v, k, dimensions).capacity
    assert capacity.shape == (v.size, 1)
    assert (capacity >= 0).all()
    assert (capacity <= 1).all()
    if dimensions <= np.count_nonzero(v):
        assert abs(capacity.sum() - dimensions) <= 1e-12 * max(1.0, dimensions)


@given(profiles(), st.floats(0, 1))
def test_more_budget_never_takes_capacity_away(problem, fraction):
    v, k, dimensions = problem
    less, more = fill(v, k, dimensions * fraction), fill(v, k, dimensions)
    assert (more.capacity >= less.capacity - 1e-15).all()
    assert more.scale[0] <= less.scale[0] * (1 + 1e-15)


@given(st.lists(profiles(), min_size=1, max_size=5))
def test_columns_are_problems_of_their_own(problems):
    n = min(v.size for v, _, _ in problems)
    v, k = (np.stack([p[i][:n] for p in problems], axis=1) for i in (0, 1))
    budget = np.array([p[2] for p in problems])
    together = solve_knapsack(response_curve(v, k), budget)
    for j in range(budget.size):
        alone = fill(v[:, j], k[:, j], budget[j])
        np.testing.assert_array_equal(together.jumping[:, j], alone.jumping[:, 0])
        # sums over n ≤ 12 numbers in another order: an ulp of the budget, which a steep capacity may be
        np.testing.assert_allclose(together.capacity[:, j], alone.capacity[:, 0], rtol=0, atol=1e-14 * n)
        assert together.scale[j] == pytest.approx(alone.scale[0], rel=1e-14)


@pytest.mark.parametrize("ulps", [0, 1, 2, 4, 100, 10**6])
def test_the_budget_holds_by_construction_close_above_three(ulps):
    # one ulp of the price moves these capacities by up to 1
    kurtosis = 3.0 + ulps * np.spacing(3.0)
    v = np.random.default_rng(ulps).uniform(1, 1 + 1e-15, 1000)
    assert abs(fill(v, kurtosis, 333.25).capacity.sum() - 333.25) < 1e-12 * 333.25


def test_equal_features_share_equally_also_at_kurtosis_three():
    for kurtosis in (3.0, 3 + 1e-15, 3 + 1e-9, 9.0):
        np.testing.assert_allclose(fill(np.ones(7), kurtosis, 2.0).capacity, 2 / 7)


def test_on_a_kink_the_scale_is_that_of_the_next_feature_to_enter():
    v = [1000.0, 2.0, 1.0]
    assert fill(v, 9.0, 1.0).scale == 2.0 * 8 / 2
    assert fill(v, 9.0, 0.0).scale == 1000.0 * 8 / 2
    assert fill(v, 9.0, 3.0).scale == 0.0


def test_what_gains_nothing_is_last_and_in_order():
    spare = fill([1, 5, 9, 1, 0], [9, 1, 1, 9, 1], 3.25)
    np.testing.assert_array_equal(spare.capacity[:, 0], [1, 1, 0.25, 1, 0])
    assert spare.scale == 0.0


def test_the_search_needs_few_passes(monkeypatch):
    rng = np.random.default_rng(0)
    v, k = 10 ** rng.uniform(-100, 100, 20_000), 10 ** rng.uniform(0.5, 6, 20_000)
    passes = []
    at = quadratic.ResponseCurve.at
    monkeypatch.setattr(quadratic.ResponseCurve, "at", lambda self, scale: (passes.append(1), at(self, scale))[1])
    fill(v, k, 5000.0)
    assert 0 < len(passes) <= 3 * np.log2(2 * 20_000)


@given(st.floats(0.1, 10), st.floats(0.01, 1), st.floats(0, 1))
def test_scales_are_interpolated_in_their_inverse(near, ratio, part):
    far = near * ratio
    scale, correction = interpolate_scale(near, far, part)
    assert far * (1 - 1e-15) <= scale <= near * (1 + 1e-15)
    assert 1 / scale == pytest.approx(part / far + (1 - part) / near, rel=1e-14)
    assert abs(correction) <= np.spacing(scale)


# --- ties -----------------------------------------------------------------------------------------------------------


def resolved(v, k, dimensions):
    v, k = np.asarray(v, dtype=float)[:, None], np.asarray(k, dtype=float)[:, None]
    budget = np.array([float(dimensions)])
    capacity, whole, inside = resolve_ties(solve_knapsack(response_curve(v, k), budget), k, budget)
    return capacity[:, 0].tolist(), whole[0], inside[0]


def test_tied_concave_features_are_saturated_in_order_and_linear_ones_share_the_rest():
    # √((κ−1)/2)·v is 1 for every feature
    v, k = [1.0, 2.0, 2.0, 1.0], [3.0, 1.5, 1.5, 3.0]
    assert resolved(v, k, 2.5) == ([0.25, 1, 1, 0.25], 2.0, False)
    assert resolved(v, k, 1.5) == ([0.25, 1, 0, 0.25], 1.0, False)
    assert resolved(v, k, 3.5) == ([0.75, 1, 1, 0.75], 2.0, False)
    assert resolved([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], 2.0) == ([1, 1, 0], 2.0, False)
    assert resolved([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], 1.5)[1:] == (1.0, True), "the budget ends inside the second"
    assert resolved([1.0, 1.0], [3.0, 9.0], 0.5)[2] == np.False_


def test_a_whole_number_of_tied_features_is_whole_in_spite_of_rounding():
    for n, dimensions in ((3, 2.0), (150, 57.0), (999, 333.0)):
        for budget in (dimensions, np.nextafter(dimensions, 0.0), np.nextafter(dimensions, np.inf)):
            _, whole, inside = resolved(np.ones(n), np.full(n, 1.8), budget)
            assert whole == dimensions
            assert not inside or budget > dimensions
