"""The global solver against brute force, and the structure it relies on."""

import numpy as np
import pytest
from hypothesis import given, settings

from capsolve import QuadraticLoss, Status, solve
from capsolve.solvers.quadratic import _group_loss, solve_quadratic
from tests.oracles import brute_force, feature_loss, profiles


def random_mixed(rng, n, spread):
    v = rng.lognormal(0, spread, n)
    k = np.where(rng.random(n) < 0.6, rng.uniform(1.05, 3, n), 3 + rng.exponential(4, n))
    k[rng.random(n) < 0.1] = 3.0
    return v, k, rng.uniform(0, n)


@pytest.mark.parametrize("seed", range(40))
def test_no_on_off_set_with_one_fractional_feature_is_better(seed):
    rng = np.random.default_rng(seed)
    v, k, dimensions = random_mixed(rng, int(rng.integers(2, 8)), rng.choice([0.01, 0.3, 1.0]))
    if (k < 3).sum() > 5:
        k[np.flatnonzero(k < 3)[5:]] += 3
    allocation = solve(v, k, dimensions)
    best = brute_force(v, k, dimensions)
    assert allocation.status is Status.OPTIMAL
    assert allocation.loss <= best * (1 + 1e-9)
    # the zoomed grid of the oracle is exact to the square of its last step, and its bisection to 1e-12
    assert allocation.loss >= best * (1 - 1e-8)
    assert allocation.lower_bound <= best * (1 + 1e-12)


def test_brute_force_would_notice_a_worse_answer():
    """Negative control: rounding the shared feature away is measurably worse on a problem that needs it."""
    v, k = np.array([1.0, 0.99, 0.98]), np.array([1.5, 1.6, 1.7])
    best = brute_force(v, k, 1.5)
    assert solve(v, k, 1.0).loss > best * (1 + 1e-3)
    assert solve(v, k, 1.5).loss == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_group_loss_is_the_best_way_to_spread_a_total(seed):
    rng = np.random.default_rng(seed)
    m = 6
    v, k = rng.lognormal(0, 0.2, m), rng.uniform(1.01, 2.99, m)
    order = np.argsort(-v * np.sqrt(k - 1))
    v, k = v[order], k[order]
    for served in range(m):
        curve = _group_loss(v, k, served)
        shares = np.linspace(0, 1, 41)
        values = np.array([curve(c)[0] for c in shares])
        assert (np.diff(values) < 0).all()
        middle = (values[2:] + values[:-2]) / 2
        assert (values[1:-1] >= middle - 1e-12).all(), "concave between whole numbers"
        for share in shares[1:-1]:
            # independent: any set full, any one feature with the rest
            best = min(
                feature_loss(v, k, np.array([float(i in full) + share * (i == j) for i in range(m)])).sum()
                for full in map(set, __import__("itertools").combinations(range(m), served))
                for j in range(m)
                if j not in full
            )
            unserved = values[0] - feature_loss(v[served:], k[served:], 0.0).sum()
            assert curve(share)[0] - unserved == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("n", [10, 1000, 100_000])
@pytest.mark.parametrize("spread", [0.0, 1e-12, 1e-6, 1e-2])
def test_many_like_features_with_a_fractional_budget_close_in_a_few_boxes(n, spread):
    # a tree over features would need 2^n boxes here
    rng = np.random.default_rng(0)
    v = 1 + spread * rng.random(n)
    k = 2 + spread * rng.random(n)
    allocation = solve(v, k, n / 10 + 0.5)
    assert allocation.status is Status.OPTIMAL
    assert allocation.boxes < 50
    assert np.count_nonzero((allocation.capacity > 0) & (allocation.capacity < 1)) == 1


def test_a_few_sharing_features_among_many_that_do_not():
    rng = np.random.default_rng(1)
    v = np.concatenate([rng.uniform(0.9, 1.1, 500), [1.0, 0.9, 1.1]])
    k = np.concatenate([rng.uniform(1.2, 2.8, 500), [4.0, 9.0, 5.0]])
    for dimensions in np.linspace(0.1, 502.9, 60):
        allocation = solve(v, k, dimensions)
        assert allocation.status is Status.OPTIMAL, allocation
        assert allocation.boxes < 200


@given(profiles())
def test_at_most_one_feature_below_three_is_fractional(problem):
    v, k, dimensions = problem
    capacity = solve_quadratic(QuadraticLoss(v, k), dimensions, 1e-9).capacity
    inside = (capacity > 0) & (capacity < 1) & (k < 3) & (k > 1)
    assert np.count_nonzero(inside) <= 1


def test_ties_are_split_as_documented():
    # κ < 3: whole, in the order of the index; κ = 3: equally
    np.testing.assert_array_equal(solve(np.ones(5), 2.0, 2.0).capacity, [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(solve(np.ones(5), 2.0, 2.5).capacity, [1, 1, 0.5, 0, 0])
    np.testing.assert_allclose(solve(np.ones(5), 3.0, 2.0).capacity, 0.4)
    # a tie of both: √((κ−1)/2)·v is 1 for every feature
    v, k = np.array([1.0, 2.0, 2.0, 1.0]), np.array([3.0, 1.5, 1.5, 3.0])
    np.testing.assert_array_equal(solve(v, k, 2.5).capacity, [0.25, 1, 1, 0.25])
    np.testing.assert_array_equal(solve(v, k, 1.5).capacity, [0.25, 1, 0, 0.25])


def test_two_features_in_one_dimension():
    # equal κ: shared ⇔ 2/(κ−1) < v₂/v₁ < (κ−1)/2
    for kurtosis in (4.0, 9.0, 100.0):
        edge = (kurtosis - 1) / 2
        for ratio, shared in ((edge * 0.999, True), (edge * 1.001, False)):
            for pair in ([1.0, ratio], [ratio, 1.0]):
                capacity = solve(pair, kurtosis, 1.0).capacity
                assert (capacity.min() > 0) == shared


@settings(max_examples=50)
@given(profiles(convex=True))
def test_without_bias_every_convex_problem_is_certified(problem):
    v, k, dimensions = problem
    allocation = solve(v, k, dimensions, bias=False)
    assert allocation.status is Status.OPTIMAL, (allocation, allocation.kkt_error, allocation.budget_error)


def test_features_that_gain_nothing_come_last_and_whole():
    # κ = 1: x² is a constant that the bias knows
    np.testing.assert_array_equal(solve([1, 5, 9, 1, 0], [9, 1, 1, 9, 1], 2.0).capacity, [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(solve([1, 5, 9, 1, 0], [9, 1, 1, 9, 1], 3.25).capacity, [1, 1, 0.25, 1, 0])
    np.testing.assert_array_equal(solve([1, 0, 1], [1, 1, 1], 0.5).capacity, [0.5, 0, 0])


def test_of_equal_concave_features_the_first_are_served_first():
    a = (1.01 / 1.9) ** 0.5
    np.testing.assert_allclose(solve([a, a, 10**0.5], [2.9, 2.9, 1.1], 2.5).capacity, [1, 0.5, 1])


def test_almost_full_budgets_meet_equal_marginal_losses():
    allocation = solve([1, 1, 1, 1], [3 - 1e-12, 1.5, 1e6, 1e9], 4 - 1e-9)
    assert allocation.kkt_error <= 1e-10
    assert allocation.status is Status.OPTIMAL


@pytest.mark.parametrize(
    ("importance", "kurtosis", "dimensions"),
    [
        ([10.0, 10.0, 10.0, 10.0, 10.00001445], [2.9, 2.9, 2.9, 2.9, 1.75], 4.999999999999),  # who gives way by 1e-12?
        ([1.0], [1 + 1e-12], 1e-10),  # a first bit worth 1e-24 of the whole is still given
        ([5.62341325, 1.0], [1 + 1e-12, 1 + 1e-12], 1e-9),  # a gap of just the tolerance
    ],
)
def test_small_differences_do_not_drown(importance, kurtosis, dimensions):
    allocation = solve(importance, kurtosis, dimensions)
    assert allocation.status is Status.OPTIMAL
    assert allocation.kkt_error <= 1e-10
    assert allocation.budget_error <= 1e-12 * dimensions
