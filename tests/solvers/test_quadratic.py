"""The global optimum by every route: brute force, and the choice among ties."""

import numpy as np
import pytest
from hypothesis import given, settings

from capsolve import QuadraticLoss, Status, certify, solve
from capsolve.solvers import quadratic
from capsolve.solvers.quadratic import whole_budget
from tests.oracles import brute_force, profiles
from tests.routes import LOCAL, QUICK, ROUTES, capacity_of

EPS = np.finfo(float).eps
every_route = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
every_quick_route = pytest.mark.parametrize("route", QUICK.values(), ids=QUICK)


def random_mixed(rng, n, spread):
    v = rng.lognormal(0, spread, n)
    k = np.where(rng.random(n) < 0.6, rng.uniform(1.05, 3, n), 3 + rng.exponential(4, n))
    k[rng.random(n) < 0.1] = 3.0
    return v, k, rng.uniform(0, n)


# --- the optimum ----------------------------------------------------------------------------------------------------


@every_quick_route
@pytest.mark.parametrize("seed", range(40))
def test_no_on_off_set_with_one_fractional_feature_is_better(route, seed):
    rng = np.random.default_rng(seed)
    v, k, dimensions = random_mixed(rng, int(rng.integers(2, 8)), rng.choice([0.01, 0.3, 1.0]))
    if (k < 3).sum() > 5:
        k[np.flatnonzero(k < 3)[5:]] += 3
    allocation, best = route(v, k, dimensions), known(seed, v, k, dimensions)
    assert allocation.status is Status.OPTIMAL
    assert allocation.loss <= best * (1 + 1e-9)
    # the zoomed grid of the oracle is exact to the square of its last step, and its bisection to 1e-12
    assert allocation.loss >= best * (1 - 1e-8)
    assert allocation.lower_bound <= best * (1 + 1e-12)


BEST = {}


def known(seed, v, k, dimensions):
    """Return the least loss by brute force, which takes longer than all routes."""
    if seed not in BEST:
        BEST[seed] = brute_force(v, k, dimensions)
    return BEST[seed]


def test_brute_force_would_notice_a_worse_answer():
    """Negative control: rounding the shared feature away is measurably worse on a problem that needs it."""
    v, k = np.array([1.0, 0.99, 0.98]), np.array([1.5, 1.6, 1.7])
    best = brute_force(v, k, 1.5)
    assert solve(v, k, 1.0).loss > best * (1 + 1e-3)
    assert solve(v, k, 1.5).loss == pytest.approx(best, rel=1e-9)


def agree(mine, other, v, k, dimensions):
    """Two routes' answers differ by what rounding may have made of them."""
    assert mine.status is other.status is Status.OPTIMAL
    size = other.loss + other.price * min(dimensions, v.size)
    if np.isfinite(size):
        # Losses are sums of n terms, each with a few roundings; the budget that they share is known to some ulps, worth
        # the price each. With κ < 3 the features that all but tie may change places.
        assert mine.loss == pytest.approx(other.loss, rel=1e-12, abs=(1e-12 if (k >= 3).all() else 1e-9) * size)
    if ((k >= 3) & ((k == 3) | (k > 3 + 1e-6))).all():
        assert np.abs(capacity_of(mine) - other.capacity).max() <= 1e-12
        assert mine.price == pytest.approx(other.price, rel=1e-10)


@pytest.mark.slow
@every_quick_route
@given(profiles(max_features=60))
def test_routes_agree(route, problem):
    v, k, dimensions = problem
    agree(route(v, k, dimensions), LOCAL_ROUTE["NumPy, all breakpoints"](v, k, dimensions), v, k, dimensions)


LOCAL_ROUTE = {name: ROUTES[name] for name in LOCAL}


@every_quick_route
@given(profiles())
def test_every_answer_is_certified(route, problem):
    v, k, dimensions = problem
    allocation = route(v, k, dimensions)
    assert allocation.status is Status.OPTIMAL, (allocation, allocation.kkt_error, allocation.budget_error)
    assert allocation.budget_error <= 1e-12 * max(1.0, dimensions)
    # A concave feature is stationary as far as losses tell: where its curve hardly bends, or the budget is tiny,
    # answers whose marginal values differ have the same loss to the last bit.
    nearly_linear = (k < 3) & (k > 3 - 1e-6) | (k < 1 + 1e-6)
    if (k >= 3).all() or (not nearly_linear.any() and dimensions > 1e-6):
        assert allocation.kkt_error <= 1e-10
    assert allocation.lower_bound <= allocation.loss
    if (k >= 3).all():
        assert allocation.gap <= 1e-12


@pytest.mark.slow
@every_quick_route
@given(profiles())
def test_at_most_one_feature_below_three_is_fractional(route, problem):
    v, k, dimensions = problem
    capacity = capacity_of(route(v, k, dimensions))
    inside = (capacity > 0) & (capacity < 1) & (k < 3) & (k > 1)
    assert np.count_nonzero(inside) <= 1


@pytest.mark.parametrize("n", [10, 1000, 100_000])
@pytest.mark.parametrize("spread", [0.0, 1e-12, 1e-6, 1e-2])
def test_many_like_features_with_a_fractional_budget(n, spread):
    # a tree over features would need 2^n nodes here
    rng = np.random.default_rng(0)
    v = 1 + spread * rng.random(n)
    k = 2 + spread * rng.random(n)
    allocation = solve(v, k, n / 10 + 0.5)
    assert allocation.status is Status.OPTIMAL
    assert allocation.nodes == 1, "local optima are enumerated"
    assert np.count_nonzero((allocation.capacity > 0) & (allocation.capacity < 1)) == 1


def test_a_few_sharing_features_among_many_that_do_not():
    rng = np.random.default_rng(1)
    v = np.concatenate([rng.uniform(0.9, 1.1, 500), [1.0, 0.9, 1.1]])
    k = np.concatenate([rng.uniform(1.2, 2.8, 500), [4.0, 9.0, 5.0]])
    for dimensions in np.linspace(0.1, 502.9, 60):
        assert solve(v, k, dimensions).status is Status.OPTIMAL


# --- ties -----------------------------------------------------------------------------------------------------------


@every_route
def test_ties_are_split_as_documented(route):
    def capacity(v, k, dimensions):
        return capacity_of(route(np.asarray(v, dtype=float), np.asarray(k, dtype=float), dimensions))

    # κ < 3: whole, in the order of the index; κ = 3: equally
    np.testing.assert_array_equal(capacity(np.ones(5), np.full(5, 2.0), 2.0), [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(capacity(np.ones(5), np.full(5, 2.0), 2.5), [1, 1, 0.5, 0, 0])
    np.testing.assert_allclose(capacity(np.ones(5), np.full(5, 3.0), 2.0), 0.4)
    # a tie of both: √((κ−1)/2)·v is 1 for every feature
    v, k = [1.0, 2.0, 2.0, 1.0], [3.0, 1.5, 1.5, 3.0]
    np.testing.assert_array_equal(capacity(v, k, 2.5), [0.25, 1, 1, 0.25])
    np.testing.assert_array_equal(capacity(v, k, 1.5), [0.25, 1, 0, 0.25])


@every_route
def test_features_that_gain_nothing_come_last_and_whole(route):
    # κ = 1: x² is a constant that the bias knows
    v, k = np.array([1.0, 5, 9, 1, 0]), np.array([9.0, 1, 1, 9, 1])
    np.testing.assert_array_equal(capacity_of(route(v, k, 2.0)), [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(capacity_of(route(v, k, 3.25)), [1, 1, 0.25, 1, 0])
    np.testing.assert_array_equal(capacity_of(route(np.array([1.0, 0, 1]), np.ones(3), 0.5)), [0.5, 0, 0])


@every_route
def test_of_equal_concave_features_the_first_are_served_first(route):
    a = (1.01 / 1.9) ** 0.5
    v, k = np.array([a, a, 10**0.5]), np.array([2.9, 2.9, 1.1])
    np.testing.assert_allclose(capacity_of(route(v, k, 2.5)), [1, 0.5, 1])


# --- rounding -------------------------------------------------------------------------------------------------------


@every_route
def test_almost_full_budgets_meet_equal_marginal_losses(route):
    allocation = route(np.ones(4), np.array([3 - 1e-12, 1.5, 1e6, 1e9]), 4 - 1e-9)
    assert allocation.kkt_error <= 1e-10
    assert allocation.status is Status.OPTIMAL


@every_quick_route
@pytest.mark.parametrize(
    ("importance", "kurtosis", "dimensions"),
    [
        ([10.0, 10.0, 10.0, 10.0, 10.00001445], [2.9, 2.9, 2.9, 2.9, 1.75], 4.999999999999),  # who gives way by 1e-12?
        ([1.0], [1 + 1e-12], 1e-10),  # a first bit worth 1e-24 of the whole is still given
        ([5.62341325, 1.0], [1 + 1e-12, 1 + 1e-12], 1e-9),  # a gap of just the tolerance
    ],
)
def test_small_differences_do_not_drown(route, importance, kurtosis, dimensions):
    allocation = route(np.array(importance), np.array(kurtosis), dimensions)
    assert allocation.status is Status.OPTIMAL
    assert allocation.kkt_error <= 1e-10
    assert allocation.budget_error <= 1e-12 * dimensions


@every_quick_route
def test_losses_that_overflow_leave_the_certificate_intact(route):
    allocation = route(np.array([1e150, 1e149]), np.array([1e12, 1e12]), 0.0)
    assert allocation.loss == np.inf
    assert allocation.status is Status.OPTIMAL
    assert route(np.array([1e-170, 1e-171]), np.full(2, 9.0), 1.0).status is Status.OPTIMAL


@every_quick_route
def test_the_smallest_floats_are_scaled_up(route):
    """Subnormal importances have few digits, but those are the data: the answer is that of the same, times 2¹⁰⁰⁰."""
    v, k = np.array([16, 36, 44]) * 5e-324, np.array([1 + 7e-16, 1 + 7e-16, 1 + 2e-16])
    tiny, plain = route(v, k, 1.0), route(v * 2.0**1000, k, 1.0)
    assert tiny.status is plain.status is Status.OPTIMAL
    np.testing.assert_array_equal(capacity_of(tiny), [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(capacity_of(tiny), capacity_of(plain))


@every_quick_route
def test_the_largest_kurtosis(route):
    allocation = route(np.array([5.0, 2.0]), np.array([1.5, 1e100]), 1.0)
    assert allocation.status is Status.OPTIMAL
    # the first one's loss without capacity; the second one asks for all but nothing
    assert allocation.loss <= 12.5 * (1 + 1e-12)
    assert allocation.lower_bound <= allocation.loss


@pytest.mark.parametrize("ulps", [-8, -1, 0, 1, 8])
@pytest.mark.parametrize("n", [101, 200, 2000])
@every_quick_route
def test_a_whole_budget_but_for_rounding_is_whole(route, n, ulps):
    """0.57 · 100 is an ulp below 57, and meant to be 57: no feature gets what rounding has left of another."""
    m = int(0.57 * n)
    dimensions = m + ulps * np.spacing(float(m))
    allocation = route(np.ones(n), np.full(n, 1.8), dimensions)
    assert allocation.status is Status.OPTIMAL
    np.testing.assert_array_equal(capacity_of(allocation), np.arange(n) < m)
    steps = route(np.r_[np.ones(50), np.full(100, 1e-8)], np.full(150, 2.0), 50 + ulps * np.spacing(50.0))
    assert steps.status is Status.OPTIMAL
    np.testing.assert_array_equal(capacity_of(steps), np.arange(150) < 50)


def test_whole_budgets():
    assert whole_budget(0.57 * 100) == 57.0
    assert whole_budget(0.0) == 0.0
    for dimensions in (57.0 * (1 - 20 * EPS), 0.5, 1e-300, 57.3):
        assert whole_budget(dimensions) == dimensions
    np.testing.assert_array_equal(whole_budget(np.array([0.57 * 100, 0.5, 3.0])), [57.0, 0.5, 3.0])


# --- without bias ---------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(profiles(convex=True))
def test_without_bias_every_convex_problem_is_certified(problem):
    v, k, dimensions = problem
    allocation = solve(v, k, dimensions, bias=False)
    assert allocation.status is Status.OPTIMAL, (allocation, allocation.kkt_error, allocation.budget_error)


def test_two_features_in_one_dimension():
    # equal κ: shared ⇔ 2/(κ−1) < v₂/v₁ < (κ−1)/2
    for kurtosis in (4.0, 9.0, 100.0):
        edge = (kurtosis - 1) / 2
        for ratio, shared in ((edge * 0.999, True), (edge * 1.001, False)):
            for pair in ([1.0, ratio], [ratio, 1.0]):
                capacity = solve(pair, kurtosis, 1.0).capacity
                assert (capacity.min() > 0) == shared


# --- many features --------------------------------------------------------------------------------------------------


def families(n, seed=0):
    rng = np.random.default_rng(seed)
    power = rng.permutation(np.arange(1, n + 1) ** -0.5)
    return {
        "wide": (power, np.exp(rng.uniform(np.log(3.5), np.log(300), n))),
        "log-normal": (rng.lognormal(0, 1, n), 3 + rng.exponential(20, n)),
        "alike": (1 + 1e-6 * rng.random(n), 9 + 1e-6 * rng.random(n)),
        "mixed": (power, np.exp(rng.uniform(np.log(1.2), np.log(100), n))),
        "sorted": (np.arange(1, n + 1) ** -0.5, 3 + rng.exponential(20, n)),
        "one giant": (np.append(rng.random(n - 1), 1e150), 3 + rng.exponential(20, n)),
        "tiny": (1e-150 * rng.lognormal(0, 1, n), 3 + rng.exponential(20, n)),
        "steps": (rng.lognormal(0, 1, n), np.full(n, 3.0)),
        "near-steps": (1 + 1e-13 * rng.random(n), 3 + 1e-12 * (1 + rng.random(n))),
        "equal": (np.ones(n), np.full(n, 9.0)),
        "equal steps": (np.ones(n), np.full(n, 3.0)),
        "equal concave": (np.ones(n), np.full(n, 1.5)),
        "concave": (rng.lognormal(0, 1, n), rng.uniform(1.1, 1.5, n)),
        "few concave": (rng.lognormal(0, 1, n), np.where(rng.random(n) < 0.003, 1.5, 4.0)),
        "half zeros": (rng.lognormal(0, 1, n) * (rng.random(n) < 0.5), 3 + rng.exponential(20, n)),
    }


@pytest.mark.parametrize("name", families(4))
@pytest.mark.parametrize("route", [r for r in QUICK if r not in {"NumPy, all breakpoints", "NumPy, small blocks"}])
def test_many_features(route, name):
    n = 20_000
    v, k = families(n)[name]
    model = QuadraticLoss(v, k)
    budgets = (0.0, 1e-9, n / 10 + 0.3, n - 0.5) if route in LOCAL else (n / 10 + 0.3,)
    for dimensions in budgets:
        mine, other = ROUTES[route](v, k, dimensions), LOCAL_ROUTE["NumPy, all breakpoints"](v, k, dimensions)
        assert mine.status is other.status is Status.OPTIMAL
        capacity = capacity_of(mine)
        judged = certify(model, dimensions, capacity, lower_bound=mine.lower_bound)
        assert judged.status is Status.OPTIMAL
        if (k >= 3).all():
            # what is left for the last one is known to some ulps of the budget
            np.testing.assert_allclose(capacity, other.capacity, rtol=0, atol=1e-12 + 1e-15 * dimensions)
        size = other.loss + other.price * dimensions
        assert mine.loss == pytest.approx(other.loss, rel=1e-12, abs=1e-13 * size)
        assert mine.price == pytest.approx(other.price, rel=1e-10)


def test_equal_features_by_the_million_take_as_long_as_others(monkeypatch):
    """They are all at one price, and yet none is looked at one by one."""
    n, sizes = 300_000, []
    real = quadratic.solve_in_bracket

    def watched(load, dimensions, limits):
        def counted(interval):
            found = load(interval)
            sizes.append(found.free_index.size if found else 0)
            return found

        return real(counted, dimensions, limits)

    monkeypatch.setattr(quadratic, "solve_in_bracket", watched)
    for kurtosis, dimensions in ((2.0, 30_000.5), (3.0, 30_000.5), (9.0, 30_000.5)):
        allocation = solve(np.ones(n), kurtosis, dimensions)
        assert allocation.status is Status.OPTIMAL
    assert len(sizes) <= 9, "three passes each at most"
