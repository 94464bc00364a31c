"""Which feature with κ < 3 gets the rest: against enumeration, in 60 digits, and to the last digit at the ends."""

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import QuadraticLoss, Status, certify, solve
from capsolve.certificate import STATUSES, certify_terms, status_of
from capsolve.losses.quadratic import response_curve
from capsolve.solvers import fractional, quadratic, two_pass
from capsolve.solvers.fractional import candidate_features, solve_fractional
from capsolve.solvers.price import resolve_ties, solve_knapsack
from capsolve.solvers.quadratic import solve_quadratic
from capsolve.solvers.routes import NUMPY
from capsolve.solvers.sources import ScaleInterval
from tests.oracles import convex_loss, feature_loss
from tests.routes import QUICK, ROUTES, capacity_of

EPS = np.finfo(float).eps


def solved(v, k, budget):
    """Solve problems in columns, all of which must end inside a feature with κ < 3."""
    curve, budget = response_curve(v, k), np.asarray(budget, dtype=float)
    relaxation = solve_knapsack(curve, budget)
    _, whole, inside = resolve_ties(relaxation, k, budget)
    assert inside.all()
    return solve_fractional(v, k, curve, budget, relaxation.scale, whole), relaxation.scale


def enumerated(v, k, budget):
    """Return the least loss of features with κ < 3: each set of ⌊budget⌋ full, each other one with the rest."""
    n, full = v.size, int(budget)
    return min(
        feature_loss(v, k, np.array([float(i in chosen) + (budget - full) * (i == j) for i in range(n)])).sum()
        for chosen in map(set, itertools.combinations(range(n), full))
        for j in range(n)
        if j not in chosen
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_best_way_to_spread_a_budget_over_concave_features(seed):
    rng = np.random.default_rng(seed)
    v, k = rng.lognormal(0, 0.2, 6), rng.uniform(1.01, 2.99, 6)
    budgets = np.arange(6)[:, None] + np.linspace(0.025, 0.975, 39)
    for budget in budgets.ravel():
        found, scale = solved(v[:, None], k[:, None], [budget])
        best = enumerated(v, k, budget)
        loss = feature_loss(v, k, found.capacity[:, 0]).sum()
        assert loss == pytest.approx(best, rel=1e-13)
        assert found.capacity.sum() == pytest.approx(budget, rel=4 * EPS)
        # the convex envelope joins the best values at whole budgets
        full = int(budget)
        ends = [np.sort(v * v * (k - 1))[: 6 - m].sum() for m in (full, full + 1)]
        line = ends[0] + (budget - full) * (ends[1] - ends[0])
        assert found.duality_gap[0] * scale[0] ** 2 == pytest.approx(loss - line, rel=1e-9, abs=1e-13 * ends[0])


@pytest.mark.parametrize("seed", range(10))
def test_columns_are_problems_of_their_own(seed):
    rng = np.random.default_rng(seed)
    v, k, budget = rng.lognormal(0, 0.3, (7, 5)), rng.uniform(1.1, 2.9, (7, 5)), rng.uniform(0, 1, 5) + np.arange(5)
    k[5:] += 2.0
    inside = resolve_ties(solve_knapsack(response_curve(v, k), budget), k, budget)[2]
    v, k, budget = v[:, inside], k[:, inside], budget[inside]
    together, _ = solved(v, k, budget)
    for j in range(budget.size):
        alone, _ = solved(v[:, j : j + 1], k[:, j : j + 1], budget[j : j + 1])
        np.testing.assert_allclose(together.capacity[:, j], alone.capacity[:, 0], rtol=0, atol=1e-12)
        assert together.duality_gap[j] == pytest.approx(alone.duality_gap[0], rel=1e-9, abs=1e-14)


def test_in_blocks_as_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    v, k, budget = rng.lognormal(0, 0.3, (9, 30)), rng.uniform(1.1, 2.9, (9, 30)), rng.uniform(0, 9, 30)
    once, _ = solved(v, k, budget)
    for table in (1, 100, 5000):
        monkeypatch.setattr(fractional, "TABLE", table)
        np.testing.assert_array_equal(solved(v, k, budget)[0].capacity, once.capacity)


@given(st.integers(0, 2**32 - 1))
def test_no_one_but_candidates_can_be_fractional(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 12))
    v, k = rng.lognormal(0, 0.1, n), rng.choice([1.2, 1.5, 2.0, 2.9, *rng.uniform(1, 3, 3)], n)
    order = np.argsort(-response_curve(v, k).full, kind="stable")
    v, k = v[order], k[order]
    saturated = int(rng.integers(0, n))
    share = float(rng.uniform(0.01, 0.99))
    whole = v * v * (k - 1)
    losses = np.array([(feature_loss(v[j], k[j], share) - whole[j] if j >= saturated else np.inf) for j in range(n)])
    losses = np.minimum(
        losses,
        [feature_loss(v[j], k[j], share) - whole[saturated] if j <= saturated else np.inf for j in range(n)],
    )
    rows = candidate_features(k, saturated)
    assert (np.diff(rows) > 0).all()
    assert losses[rows].min() <= losses.min() + 1e-14 * whole.max()


# --- features that share beside it ----------------------------------------------------------------------------------


def exact(v, k, dimensions, digits=60):
    """Return the least loss with the first feature fractional: equal marginal values or an end, in many digits.

    The others have κ > 3 and nothing is full: their least loss is that of one price.
    """
    with mpmath.workdps(digits):
        v, k, total = [mpmath.mpf(float(x)) for x in v], [mpmath.mpf(float(x)) for x in k], mpmath.mpf(dimensions)

        def others(left):
            # C_i = (v(κ−1)u − 2)/(κ−3) for those that have any, in the order in which they enter
            order = sorted(range(1, len(v)), key=lambda i: -v[i] * (k[i] - 1))
            for m in range(len(order), 0, -1):
                some = order[:m]
                u = (left + sum(2 / (k[i] - 3) for i in some)) / sum(v[i] * (k[i] - 1) / (k[i] - 3) for i in some)
                c = {i: (v[i] * (k[i] - 1) * u - 2) / (k[i] - 3) for i in some}
                if all(x >= 0 for x in c.values()):
                    break
            return sum(
                v[i] ** 2 * (k[i] - 1) * (1 - c.get(i, 0)) / (1 + (k[i] - 3) / 2 * c.get(i, 0))
                for i in range(1, len(v))
            )

        def loss(c):
            return v[0] ** 2 * (k[0] - 1) * (1 - c) / (1 + (k[0] - 3) / 2 * c) + others(total - c)

        low, high = mpmath.mpf(0), min(mpmath.mpf(1), total)
        best = min(loss(low), loss(high))
        for _ in range(12):  # zoom into the best of a grid
            grid = [low + (high - low) * i / 48 for i in range(49)]
            values = [loss(c) for c in grid]
            i = values.index(min(values))
            best = min(best, values[i])
            low, high = grid[max(i - 1, 0)], grid[min(i + 1, 48)]
        return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("route", QUICK.values(), ids=QUICK)
def test_a_concave_feature_that_shares_with_others(route, seed):
    rng = np.random.default_rng(seed)
    n = 4
    v, k = rng.uniform(0.2, 0.4, n), rng.uniform(7, 12, n)
    v[0], k[0] = 1.0, rng.uniform(2.8, 2.95)
    dimensions = rng.uniform(0.3, 0.9)
    allocation = route(v, k, dimensions)
    capacity = capacity_of(allocation)
    assert allocation.status is Status.OPTIMAL
    best = exact(v, k, dimensions)
    assert abs(allocation.loss - best) <= 1e-13 * (allocation.loss + allocation.price * dimensions)
    assert allocation.lower_bound <= best * (1 + mpmath.mpf(10) ** -13)
    shared = (capacity > 0) & (capacity < 1)
    if shared[0]:
        marginal = QuadraticLoss(v, k).marginal(capacity)
        np.testing.assert_allclose(marginal[shared], marginal[0], rtol=1e-12)


def test_some_of_them_do_share():
    count = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        v, k = rng.uniform(0.2, 0.4, 4), rng.uniform(7, 12, 4)
        v[0], k[0] = 1.0, rng.uniform(2.8, 2.95)
        capacity = solve(v, k, rng.uniform(0.3, 0.9)).capacity
        count += 0 < capacity[0] < 1 and (capacity[1:] > 0).any()
    assert count >= 3


@pytest.mark.parametrize("seed", range(20))
def test_the_proved_bound_is_between_the_relaxation_and_the_optimum(seed):
    rng = np.random.default_rng(seed)
    v, k = rng.lognormal(0, 0.3, 8), np.r_[rng.uniform(1.1, 2.9, 4), rng.uniform(3.5, 9, 4)]
    dimensions = rng.uniform(0.5, 7.5)
    allocation = solve(v, k, dimensions)
    relaxed = certify(allocation.model, dimensions, allocation.capacity)
    assert relaxed.lower_bound <= allocation.lower_bound * (1 + 1e-12)
    best = min(
        feature_loss(v[:4], k[:4], np.array(full)).sum() + convex_loss(v[4:], k[4:], dimensions - sum(full))
        for full in itertools.product([0.0, 1.0], repeat=4)
        if sum(full) <= dimensions
    )
    assert allocation.lower_bound <= best * (1 + 1e-9)


@pytest.mark.parametrize("largest", [1e8, 1e15, 1e30, 1e90])
@pytest.mark.parametrize("name", QUICK)
def test_beside_a_kurtosis_that_dwarfs_all_others(name, largest):
    """Its first bits save 1e13 and more; what the fraction is shared with is decided a thousandth apart."""
    v, k = np.array([1.0, 0.132, 0.0, 1.0, 0.132, 2.0]), np.array([3.0, 2.0066, 2.0066, 3.0, largest, 2.0])
    found = QUICK[name](v, k, 0.3)
    assert found.status is Status.OPTIMAL
    # only features 4 and 5 have a part; on a grid of 1e-8 the least loss of the two is known to 1e-12
    c = np.linspace(0.119, 0.121, 200_001)
    least = (feature_loss(v[4:], k[4:], np.stack([c, 0.3 - c], axis=1)).sum(axis=1)).min()
    rest = feature_loss(v[:4], k[:4], np.zeros(4)).sum()
    assert found.loss == pytest.approx(least + rest, rel=1e-9)


# --- a search that goes wrong must not vouch for itself ------------------------------------------------------------

BROKEN = np.array([3, 2.9, 2.8, 1.7, 1.5, 1]), np.array([2.9, 2.2, 2.95, 2.5, 4, 9]), 1.5
LEAST = 35.891553191489365


def broken():
    """Return loss, bound, gap and status of `BROKEN` by way of arrays."""
    model = QuadraticLoss(*BROKEN[:2])
    solution = solve_quadratic(model, BROKEN[2], NUMPY)
    found = certify_terms(
        solution.terms,
        features=6,
        dimensions=BROKEN[2],
        budget=BROKEN[2],
        multiplier=2.0 * solution.multiplier**2,
        unit=solution.unit,
        proved=solution.proved,
    )
    return found, STATUSES[int(status_of(found, solution.terms.used, BROKEN[2], 1e-9, False))]


def test_the_search_as_it_is():
    found, status = broken()
    assert status is Status.OPTIMAL
    assert found.loss == pytest.approx(LEAST, rel=1e-14)


def test_candidates_left_out(monkeypatch):
    monkeypatch.setattr(fractional, "candidate_features", lambda k, saturated: np.array([0]))
    found, status = broken()
    assert found.loss > 1.03 * LEAST
    assert status is Status.FEASIBLE
    assert found.lower_bound <= LEAST


@pytest.mark.parametrize("factor", [1.1, 0.9, 1 + 1e-6, 1 - 1e-6])
def test_a_price_beside_the_budget(monkeypatch, factor):
    def moved(curve, budget):
        relaxation = solve_knapsack(curve, budget)
        return relaxation._replace(scale=relaxation.scale * factor)

    for module in (fractional, quadratic, two_pass):
        monkeypatch.setattr(module, "solve_knapsack", moved)
    found, status = broken()
    assert found.lower_bound <= LEAST
    assert status is not Status.OPTIMAL or found.loss == pytest.approx(LEAST, rel=1e-9)


def test_a_bracket_that_does_not_hold_all_candidates(monkeypatch):
    """The bracket is looked at once more when the search has ended, and then claims nothing."""
    monkeypatch.setattr(two_pass, "wider_bracket", lambda found, *_: ScaleInterval(*found.fixed[:2]))
    found, status = broken()
    assert status is Status.FEASIBLE
    assert found.lower_bound < LEAST * (1 - 1e-4)


# --- to the last digit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shortage", [1e-3, 1e-6, 1e-9, 1e-12])
def test_who_gives_way_by_next_to_nothing(shortage):
    """All marginal values are 2 at C = 1: the most concave one loses least. That is second order in the shortage."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(2, 9))
        k = np.where(rng.random(n) < 0.5, rng.uniform(1.2, 3, n), 10 ** rng.uniform(0.5, 9, n))
        k[rng.integers(n)] = rng.uniform(1.2, 2.9)
        capacity = solve(np.ones(n), k, n - shortage).capacity
        assert np.flatnonzero(capacity < 1).tolist() == [np.argmin(k)]
        assert 1 - capacity.min() == pytest.approx(shortage, abs=2 * EPS * n)


@pytest.mark.parametrize("budget", [1e-3, 1e-6, 1e-9, 1e-300])
def test_who_gets_next_to_nothing(budget):
    """By the first bit the one with the most marginal value at 0, ½(v(κ−1))², though others save more as a whole."""
    rng = np.random.default_rng(0)
    others = 0
    for _ in range(100):
        n = int(rng.integers(2, 9))
        # whole they save about as much as each other, but their first bits are worth anything
        k = 1 + 10.0 ** rng.uniform(-9, -0.2, n)
        v = rng.uniform(1, 1.5, n) / np.sqrt(k - 1)
        capacity = solve(v, k, budget).capacity
        first = v * (k - 1)
        assert np.flatnonzero(capacity).tolist() == [np.argmax(first)]
        others += np.argmax(first) != np.argmax(v * v * (k - 1))
    assert others > 30
    # a feature with κ > 3 whose first bit is worth more, though not more than the other's whole
    capacity = solve([1.0, 0.12], [1.5, 6.0], budget).capacity
    assert capacity[0] == 0.0
    assert capacity[1] == budget


@pytest.mark.parametrize("excess", [1e-15, 1e-12, 1e-9, 1e-3])
def test_a_fraction_close_to_one_whose_last_bit_is_worth_much(excess):
    """Near κ = 1 the whole feature saves little and its last bit much: an ulp of the budget counts."""
    for dimensions in (3 - 1e-12, 3 - 1e-9, np.nextafter(3.0, 0.0) - 8e-15):
        for k in ([1 + excess, 9.0, 4.0], [1 + excess, 9.0, 1.5]):
            found = solve([1.0, 1.0, 1.0], k, dimensions)
            assert found.status is Status.OPTIMAL, found
            assert found.gap < 1e-12


@pytest.mark.parametrize("route", QUICK)
def test_budgets_close_to_whole_numbers_and_kurtoses_close_to_one(route):
    """Where the optimum's price is far above the relaxation's, an ulp of the budget is not taken for a gap."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 30))
        v = rng.choice([0.5, 1, 2], n) if rng.random() < 0.5 else rng.lognormal(0, 1, n)
        k = np.where(rng.random(n) < 0.5, 1 + 10.0 ** rng.uniform(-13, 0.3, n), 3 + 10.0 ** rng.uniform(-13, 3, n))
        whole = n if seed % 2 else int(rng.integers(1, n))
        found = ROUTES[route](v, k, max(0.0, whole - 10.0 ** rng.uniform(-13, -3)))
        assert found.status is Status.OPTIMAL, (seed, found)
