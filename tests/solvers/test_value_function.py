"""The least loss as a function of the budget: against 50 digits, a bisection, and sums that are exact."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given

from capsolve.losses.quadratic import ResponseCurve, response_curve
from capsolve.solvers.value_function import ValueFunction, _covered, running_sum
from tests.oracles import convex_loss, exact_convex, profiles

EPS = np.finfo(float).eps


@given(profiles(convex=True))
def test_scale_and_loss_are_those_of_fifty_digits(problem):
    v, k, dimensions = problem
    if not (v > 0).any():
        return
    scale, loss = ValueFunction.of(response_curve(v, k)).at(np.array([dimensions]))
    _, tau, least = exact_convex(v, k, dimensions)
    size = least + 2 * tau**2 * min(dimensions, np.count_nonzero(v))
    if size == 0 or not 1e-290 < size < 1e290:
        return
    # a relative error of 1e-14 in a knot's budget costs that much of price · D
    assert abs(loss[0] - least) <= 1e-12 * size
    with mpmath.workdps(50):
        if not ((k > 3) & (k < 3 + 1e-6)).any() and abs(dimensions - round(dimensions)) > 1e-9:
            assert abs(scale[0] - tau) <= 1e-10 * tau


def test_knots_of_one_feature():
    function = ValueFunction.of(response_curve(np.array([2.0]), np.array([9.0])))
    np.testing.assert_allclose(function.dimensions, [0.0, 1.0])
    np.testing.assert_allclose(function.scale, [8.0, 2.0])  # v (κ−1)/2 and v
    np.testing.assert_allclose(function.loss, [32.0, 0.0])  # v² (κ−1)


def test_a_jump_is_two_knots_of_one_scale():
    function = ValueFunction.of(response_curve(np.array([2.0, 2.0]), np.array([3.0, 3.0])))
    scale, loss = function.at(np.array([0.0, 0.5, 1.0, 1.5, 2.0]))
    np.testing.assert_allclose(scale[:4], 2.0)
    np.testing.assert_allclose(loss, [16, 12, 8, 4, 0])


def test_it_falls_and_is_convex_whatever_the_spread():
    rng = np.random.default_rng(1)
    v, k = 10 ** rng.uniform(-100, 100, 300), 3 + 10 ** rng.uniform(-15, 6, 300)
    function = ValueFunction.of(response_curve(v, k))
    assert (np.diff(function.dimensions) >= 0).all()
    assert (np.diff(function.scale) <= 0).all()
    assert (np.diff(function.loss) <= 0).all()
    assert function.dimensions[-1] == 300.0, "where all is saturated the sum is exact"


@pytest.mark.parametrize("largest", [1e2, 1e30])
def test_up_to_a_budget_differences_of_the_loss_keep_their_digits(largest):
    """With 1e30 the first bits save 1e29 times what the rest of the budget is worth."""
    v, k = np.array([1.0, 2.0, 0.5]), np.array([largest, 9.0, 5.0])
    function = ValueFunction.of(response_curve(v, k))
    budgets = np.array([0.9, 1.1, 1.5])
    _, loss = function.until(np.array(1.5)).at(budgets)
    for budget, found in zip(budgets, loss, strict=True):
        exact = exact_convex(v, k, budget)[2] - exact_convex(v, k, 1.5)[2]
        assert found == pytest.approx(float(exact), rel=1e-13, abs=0)


def test_against_bisection():
    rng = np.random.default_rng(2)
    v, k, budgets = rng.lognormal(size=30), 3 + rng.exponential(9, 30), rng.uniform(0, 30, 50)
    _, loss = ValueFunction.of(response_curve(v, k)).at(budgets)
    np.testing.assert_allclose(loss, convex_loss(v, k, budgets), rtol=1e-9, atol=1e-9)


def test_columns_are_problems_of_their_own():
    rng = np.random.default_rng(3)
    v, k = rng.lognormal(size=(9, 4)), 3 + rng.exponential(9, (9, 4))
    v[:4, 1], k[:, 2], v[2:5, 3] = 0.0, 3.0, 1.0
    budgets = rng.uniform(0, 10, (5, 4))
    curve = response_curve(v, k)
    scale, loss = ValueFunction.of(curve).at(budgets)
    for j in range(4):
        one = ValueFunction.of(ResponseCurve(*(part[:, j] for part in curve))).at(budgets[:, j])
        # the sums have zeros in other places
        np.testing.assert_allclose(scale[:, j], one[0], rtol=1e-13)
        np.testing.assert_allclose(loss[:, j], one[1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("seed", range(20))
def test_covered_sums_the_intervals_over_each_cell(seed):
    rng = np.random.default_rng(seed)
    size, count = int(rng.integers(1, 70)), int(rng.integers(1, 90))
    first = rng.integers(0, size, count)
    last = first + rng.integers(0, size - first + 1)
    value = 10.0 ** rng.uniform(-150, 150, count)
    expected = [value[(first <= cell) & (cell < last)].sum() for cell in range(size)]
    np.testing.assert_allclose(_covered(first, last, value, size), expected, rtol=1e-14)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_running_sums_have_the_precision_they_are_asked_for(levels):
    rng = np.random.default_rng(levels)
    large = rng.normal(size=500) * 1e12
    values = np.concatenate([large, rng.random(400), -large, rng.random(100)])
    sums = running_sum(values, levels, block=64)
    exact = np.array([math.fsum(values[: i + 1]) for i in range(values.size)])
    error = np.max(np.abs(sums - exact) / np.maximum(1.0, np.abs(exact)))
    assert (error > 1e-6) if levels == 1 else (error < 1e-15)  # one level is the control


def test_running_sums_become_infinite_where_they_overflow():
    values = np.array([1.0, 2.0, 1e308, 1e308, 5.0, np.inf, 1.0])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(running_sum(values, 2, block=2), np.cumsum(values))


@pytest.mark.parametrize("excess", [1.0, 1e-9, 1e-14])
def test_knots_of_steep_features_among_flat_ones(excess):
    """The slopes of features near κ = 3 are up to 1e14 times those of the others, and leave no trace when gone."""
    rng = np.random.default_rng(3)
    v, k = rng.lognormal(size=400), 3.0 + rng.exponential(9.0, 400)
    k[:5] = 3.0 + excess
    curve = response_curve(v, k)
    path = ValueFunction.of(curve)
    for i in range(0, 800, 7):
        used = math.fsum(curve.at(path.scale[i]))
        below, above = (np.searchsorted(-path.scale, -path.scale[i], side) for side in ("left", "right"))
        assert path.dimensions[below] - 1e-11 <= used + curve.jumps_at(path.scale[i]).sum()
        assert used <= path.dimensions[above - 1] + 1e-11
