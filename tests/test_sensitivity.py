"""Derivatives of the optimum against finite differences of the solver."""

import re

import numpy as np
import pytest

import capsolve
from capsolve import solve

STEP = 1e-5
# Central differences of a solver accurate to 1e-15: h² times third derivatives of order one, plus 1e-15 / h.
TOLERANCE = {"rtol": 2e-6, "atol": 2e-7}


def problem(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    bias = seed % 3 != 0
    v, k = rng.uniform(0.5, 2, n), 3 + rng.uniform(0.5, 9, n)
    if seed % 3 == 2:  # some concave features, at most one of them fractional
        k[: n // 2] = rng.uniform(1.2, 2.9, n // 2)
    return v, k, rng.uniform(0.3, n - 0.3), bias


def shifted(v, k, dimensions, bias, parameter, j, step):
    v, k = v.copy(), k.copy()
    if parameter == "importance":
        v[j] += step
    elif parameter == "kurtosis":
        k[j] += step
    else:
        dimensions += step
    return solve(v, k, dimensions, bias=bias, tolerance=1e-13)


@pytest.mark.parametrize("seed", range(45))
def test_against_finite_differences(seed):
    v, k, dimensions, bias = problem(seed)
    here = solve(v, k, dimensions, bias=bias, tolerance=1e-13)
    exact = here.sensitivity()
    for parameter, columns in (
        ("importance", range(v.size)),
        ("kurtosis", range(v.size)),
        ("dimensions", [0]),
    ):
        for j in columns:
            up, down = (shifted(v, k, dimensions, bias, parameter, j, s) for s in (STEP, -STEP))
            if (up.phase != here.phase).any() or (down.phase != here.phase).any():
                continue  # a kink lies within the step
            difference = {
                what: (getattr(up, what) - getattr(down, what)) / (2 * STEP) for what in ("loss", "price", "capacity")
            }
            direction = np.zeros(v.size)
            direction[j] = 1.0
            if parameter == "dimensions":
                change = exact.capacity_change(dimensions=1.0)
                pairs = [(exact.loss_dimensions, "loss"), (exact.price_dimensions, "price")]
                np.testing.assert_array_equal(change, exact.capacity_dimensions)
            else:
                change = exact.capacity_change(**{parameter: direction})
                np.testing.assert_allclose(exact.capacity_jacobian(parameter)[:, j], change, atol=1e-14)
                pairs = [(getattr(exact, f"{what}_{parameter}")[j], what) for what in ("loss", "price")]
            for value, what in pairs:
                np.testing.assert_allclose(value, difference[what], **TOLERANCE)
            np.testing.assert_allclose(change, difference["capacity"], **TOLERANCE)


def test_the_budget_stays_met_in_every_direction():
    rng = np.random.default_rng(0)
    exact = solve(rng.random(9), rng.uniform(3, 20, 9), 4.2).sensitivity()
    assert exact.capacity_change(importance=rng.random(9), kurtosis=rng.random(9)).sum() == pytest.approx(0, abs=1e-14)
    assert exact.capacity_dimensions.sum() == pytest.approx(1, rel=1e-14)


def test_one_linear_feature_fixes_the_price():
    """With κ = 3 exactly one feature absorbs the rest: the limit κ → 3 of the smooth case."""
    v, dimensions = np.array([1.0, 1.1, 0.9]), 2.0
    limit = solve(v, [9.0, 3.0, 7.0], dimensions).sensitivity()
    near = solve(v, [9.0, 3.0 + 1e-7, 7.0], dimensions).sensitivity()
    assert limit.active[1]
    for name in ("price_importance", "price_kurtosis", "capacity_dimensions", "loss_kurtosis"):
        np.testing.assert_allclose(getattr(limit, name), getattr(near, name), rtol=1e-5, atol=1e-5)
    for parameter in ("importance", "kurtosis"):
        np.testing.assert_allclose(
            limit.capacity_jacobian(parameter), near.capacity_jacobian(parameter), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(
            limit.capacity_change(**{parameter: [1, 2, 3]}), limit.capacity_jacobian(parameter) @ [1, 2, 3]
        )


def test_at_a_kink_the_derivatives_are_those_of_a_growing_budget():
    allocation = solve([1000.0, 2.0, 1.0], 9.0, 1.0)  # the first is full, the second about to enter
    exact = allocation.sensitivity()
    np.testing.assert_array_equal(exact.active, [False, True, False])
    np.testing.assert_allclose(exact.capacity_dimensions, [0, 1, 0])
    ahead = solve([1000.0, 2.0, 1.0], 9.0, 1.0 + 1e-7)
    assert exact.price_dimensions == pytest.approx((ahead.price - allocation.price) / 1e-7, rel=1e-5)


def test_with_slack_nothing_moves():
    exact = solve([1.0, 2.0], 9.0, 5.0).sensitivity()
    assert exact.loss_dimensions == exact.price_dimensions == 0.0
    assert not exact.capacity_dimensions.any()
    assert not exact.capacity_jacobian("importance").any()


def test_arbitrary_shares_have_no_derivative():
    with pytest.raises(ValueError, match="features 0 and 1 have kurtosis 3"):
        solve([1.0, 1.0], 3.0, 1.0).sensitivity()


def test_bad_arguments():
    exact = solve([1.0, 2.0], 9.0, 1.0).sensitivity()
    with pytest.raises(ValueError, match="parameter must be"):
        exact.capacity_jacobian("dimensions")
    with pytest.raises(ValueError, match="importance"):
        exact.capacity_change(importance="x")


@pytest.mark.parametrize("bias", [True, False])
def test_nothing_cancels_close_to_kurtosis_three(bias):
    rng = np.random.default_rng(4)
    for _ in range(200):
        n = int(rng.integers(2, 9))
        k = rng.choice([3 + 4e-16, 3 + 1e-15, 3 + 1e-12, 3 + 1e-7, 4.0, 1e6, 1e12], n)
        allocation = solve(rng.uniform(0.5, 2, n), k, rng.uniform(0.1, n - 0.1), bias=bias)
        exact = allocation.sensitivity()
        assert exact.capacity_dimensions.sum() == pytest.approx(1.0, rel=1e-12)
        assert (exact.capacity_dimensions >= -1e-12).all()


def test_of_tied_concave_features_one_takes_the_next_bit():
    allocation = solve(np.ones(5), 2.0, 2.0)
    exact = allocation.sensitivity()
    np.testing.assert_array_equal(exact.capacity_dimensions, [0, 0, 1, 0, 0])
    ahead = solve(np.ones(5), 2.0, 2.0 + 1e-6)
    np.testing.assert_allclose((ahead.capacity - allocation.capacity) / 1e-6, exact.capacity_dimensions, atol=1e-9)
    assert exact.price_dimensions == pytest.approx((ahead.price - allocation.price) / 1e-6, rel=1e-4)


@pytest.mark.parametrize("unit", [2.0**-660, 1.0, 2.0**660])
def test_extreme_scales(unit):
    exact = solve(np.array([1.0, 2.0, 1e-3]) * unit, 9.0, 1.0).sensitivity()
    np.testing.assert_allclose(exact.capacity_dimensions, [1 / 3, 2 / 3, 0], rtol=1e-12)
    solve([1e150, 1.0], 1e12, 0.0).sensitivity()  # no overflow


def test_what_is_shown_is_what_can_be_used():
    shown = repr(capsolve.solve([2.0, 1.0, 1.0], 9.0, dimensions=2).sensitivity())
    assert shown.startswith("Sensitivity(loss_importance=")
    assert "price_dimensions=" in shown
    assert "active=" in shown
    assert not re.search(r"\b_\w+=", shown)
