"""The tabulated solver against enumeration, dynamic programming, HiGHS (LP and MILP), the paper's cases, symmetries."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse

import capsolve
from capsolve import TabulatedLoss
from capsolve.certificate import lagrangian_bound
from capsolve.solvers import tabulated
from capsolve.solvers.tabulated import solve_tabulated

seeds = st.integers(0, 2**32 - 1)
GRID = np.linspace(0.0, 1.0, 101)
EPS = np.finfo(float).eps
S_SHAPE = 1 / (1 + np.exp(12 * (GRID - 0.4)))


def some_curves(rng, n, g):
    """Draw curves of one kind: rough, falling, stepped, alike, ordered, concave, convex, or all of these mixed."""
    kind = rng.integers(8)
    x = np.linspace(0.0, 1.0, g)
    if kind == 0:
        y = rng.normal(size=(n, g))
    elif kind == 1:
        y = -np.cumsum(rng.exponential(size=(n, g)) ** 3, axis=1)
    elif kind == 2:
        y = -np.cumsum(rng.integers(0, 3, (n, g)), axis=1).astype(float)
    elif kind == 3:
        y = np.tile(rng.normal(size=g), (n, 1))
    elif kind == 4:
        y = np.outer(rng.lognormal(size=n), np.sort(rng.normal(size=g))[::-1])
    elif kind == 5:
        y = 1 - x ** rng.uniform(1, 4, (n, 1))
    elif kind == 6:
        y = (1 - x) ** rng.uniform(1, 4, (n, 1))
    else:
        y = np.where(rng.random((n, 1)) < 0.5, (1 - x) ** 2, rng.normal(size=(n, g)))
    return y * 10.0 ** rng.integers(-3, 4)


def terms_of_the_gap(model, dimensions, solution):
    """Return by how much the loss exceeds the proved bound, and the size of the Lagrangian's terms; in the unit."""
    terms, price = solution.terms, 2.0 * solution.multiplier**2
    budget = min(dimensions, model.saturation_budget)
    excess = terms.lagrangian_gap + price * max(0.0, budget - terms.used) - solution.proved
    return max(0.0, excess), terms.loss + price * budget


def gap_of(model, dimensions, solution):
    """Return the certificate's gap, without its allowance for rounding."""
    excess, size = terms_of_the_gap(model, dimensions, solution)
    return excess / size if size else 0.0


def check(model, dimensions, solution, best, tolerance=1e-9):
    """The solution is feasible and its loss is the known optimum, relative to what can be saved."""
    c = solution.capacity
    assert c.shape == (model.features,)
    assert ((c >= 0.0) & (c <= 1.0)).all()
    assert c.sum() <= dimensions + 1e-12 * max(1.0, dimensions)
    loss = model.feature_loss(c).sum()
    size = max(1e-13 * np.abs(model.curves).max() * model.features, 2 * tolerance * (loss - model.floor))
    assert gap_of(model, dimensions, solution) <= tolerance
    assert abs(loss - best) <= size


# --- independent routes -----------------------------------------------------------------------------------------


def enumerated(curves, grid, dimensions):
    """The optimum of piecewise-linear curves: with every feature in one cell it is a linear programme with one
    coupling constraint, so at most one capacity is off the grid, and it takes all that is left."""
    n, best = len(curves), np.inf
    for free in range(n):
        others = [i for i in range(n) if i != free]
        for cells in itertools.product(range(grid.size), repeat=n - 1):
            rest = dimensions - sum(grid[k] for k in cells)
            if rest < -1e-12:
                continue
            spent = sum(curves[i, k] for i, k in zip(others, cells, strict=True))
            inside = curves[free, grid <= rest + 1e-12].min()
            best = min(best, spent + inside, spent + np.interp(np.clip(rest, 0, 1), grid, curves[free]))
    return best


def dynamic(curves, steps):
    """The optimum over multiples of the grid step, which is the optimum when the budget is ``steps`` of them."""
    best = np.zeros(steps + 1)
    for y in curves:
        longer = np.full(steps + 1, np.inf)
        for k in range(min(y.size, steps + 1)):
            longer[k:] = np.minimum(longer[k:], best[: steps + 1 - k] + y[k])
        best = longer
    return best[-1]


def mixed_integer(curves, grid, dimensions):
    """The optimum by HiGHS: segments fill from the left, one binary per interior grid point says how far."""
    n, m = len(curves), grid.size - 1
    share, full = np.arange(n * m).reshape(n, m), n * m + np.arange(n * m).reshape(n, m)
    rows, low = [], []
    for i in range(n):
        for k in range(m - 1):
            for column, sign in ((share[i, k], 1.0), (share[i, k + 1], -1.0)):  # share_k ≥ full_k ≥ share_{k+1}
                row = np.zeros(2 * n * m)
                row[column], row[full[i, k]] = sign, -sign
                rows.append(row)
                low.append(0.0)
    budget = np.concatenate([np.tile(np.diff(grid), n), np.zeros(n * m)])
    constraints = [optimize.LinearConstraint(budget, ub=dimensions)]
    if rows:
        constraints.append(optimize.LinearConstraint(sparse.csr_array(np.array(rows)), lb=np.array(low)))
    result = optimize.milp(
        np.concatenate([np.diff(curves).ravel(), np.zeros(n * m)]),
        integrality=np.concatenate([np.zeros(n * m), np.ones(n * m)]),
        bounds=optimize.Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    assert result.success
    return curves[:, 0].sum() + result.fun


@given(seeds, st.integers(1, 4), st.integers(2, 6))
def test_against_enumeration(seed, n, g):
    rng = np.random.default_rng(seed)
    grid = np.concatenate([[0.0], np.sort(rng.uniform(0.01, 0.99, g - 2)), [1.0]])
    curves, dimensions = some_curves(rng, n, g), rng.uniform(0, n)
    model = TabulatedLoss(curves, grid)
    check(model, dimensions, solve_tabulated(model, dimensions, 1e-9), enumerated(curves, grid, dimensions))


@given(seeds, st.integers(1, 6), st.integers(2, 14))
def test_against_dynamic_programming(seed, n, g):
    rng = np.random.default_rng(seed)
    curves, steps = some_curves(rng, n, g), int(rng.integers(0, n * (g - 1) + 2))
    model = TabulatedLoss(curves)
    check(model, steps / (g - 1), solve_tabulated(model, steps / (g - 1), 1e-9), dynamic(curves, steps))


@given(seeds, st.integers(1, 6), st.integers(2, 14))
def test_one_shape_against_dynamic_programming(seed, n, g):
    """Rising and falling shapes alike: dominance by weight must not cut the optimum off."""
    rng = np.random.default_rng(seed)
    shape, steps = some_curves(rng, 1, g)[0], int(rng.integers(0, n * (g - 1) + 2))
    weight = rng.choice([0.0, 1.0, 1.0, 2.0, rng.lognormal(), 1.0 + 1e-9 * rng.random()], n)
    model = TabulatedLoss(shape, weight=weight)
    solution = solve_tabulated(model, steps / (g - 1), 1e-9)
    loss, best = model.feature_loss(solution.capacity).sum(), dynamic(np.outer(weight, shape), steps)
    size = 1e-13 * np.abs(shape).max() * weight.sum() + 2e-9 * (loss - model.floor)
    assert abs(loss - best) <= size
    assert gap_of(model, steps / (g - 1), solution) <= 1e-9


@settings(max_examples=12)
@given(seeds)
def test_against_mixed_integer_programming(seed):
    rng = np.random.default_rng(seed)
    n, g = int(rng.integers(2, 7)), int(rng.integers(2, 9))
    grid = np.concatenate([[0.0], np.sort(rng.uniform(0.05, 0.95, g - 2)), [1.0]])
    curves, dimensions = some_curves(rng, n, g), rng.uniform(0, n)
    curves /= np.ptp(curves) or 1.0
    model = TabulatedLoss(curves, grid)
    solution = solve_tabulated(model, dimensions, 1e-9)
    loss = model.feature_loss(solution.capacity).sum()
    # HiGHS takes 1e-6 for an integer and 1e-7 for feasible; a slope times that is what it may win or lose
    slope = np.abs(np.diff(curves) / np.diff(grid)).max()
    assert loss == pytest.approx(mixed_integer(curves, grid, dimensions), abs=3e-6 * n * slope)


def test_enumeration_rejects_a_solver_that_ignores_the_gap():
    """Negative control: the root's own allocation is not optimal, and the checks see it."""
    rng = np.random.default_rng(0)
    curves = 1 - np.linspace(0, 1, 6) ** rng.uniform(2, 4, (3, 1))
    model = TabulatedLoss(curves)
    best = enumerated(curves, model.grid, 1.3)
    check(model, 1.3, solve_tabulated(model, 1.3, 1e-9), best)
    unfinished = solve_tabulated(model, 1.3, 1e-9, node_limit=1)
    assert gap_of(model, 1.3, unfinished) > 1e-9
    with pytest.raises(AssertionError):
        check(model, 1.3, unfinished, best)


def test_dynamic_programming_rejects_dominance_that_does_not_hold(monkeypatch):
    """Negative control: if every feature is taken to dominate all later ones, optima are lost."""

    def everyone(self, j):
        index = np.arange(self.weight.size)
        return index <= j, index >= j

    monkeypatch.setattr(tabulated._Problem, "dominance", everyone)
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(20):
        curves, steps = rng.normal(size=(4, 6)), int(rng.integers(2, 12))
        model = TabulatedLoss(curves)
        loss = model.feature_loss(solve_tabulated(model, steps / 5, 1e-9).capacity).sum()
        wrong += loss > dynamic(curves, steps) + 1e-6
    assert wrong > 0


# --- convex curves ----------------------------------------------------------------------------------------------


@given(seeds)
def test_convex_curves_against_a_linear_programme(seed):
    rng = np.random.default_rng(seed)
    n, g = int(rng.integers(1, 12)), int(rng.integers(2, 30))
    curves = (1 - np.linspace(0, 1, g)) ** rng.uniform(1, 4, (n, 1)) * rng.lognormal(size=(n, 1))
    model, dimensions = TabulatedLoss(curves), rng.uniform(0, n)
    solution = solve_tabulated(model, dimensions, 1e-9)
    width = 1 / (g - 1)
    programme = optimize.linprog(
        np.diff(curves).ravel() / width,
        A_ub=np.ones((1, n * (g - 1))),
        b_ub=[dimensions],
        bounds=(0, width),
        method="highs",
    )
    loss = model.feature_loss(solution.capacity).sum()
    slope = np.abs(np.diff(curves)).max() / width
    assert loss == pytest.approx(curves[:, 0].sum() + programme.fun, abs=1e-7 * slope * n)  # HiGHS's tolerance
    assert solution.nodes == 1
    # an envelope that is the curve leaves rounding only: of n differences of terms, in units of their sizes
    assert gap_of(model, dimensions, solution) <= 8 * EPS * n
    # the price alone certifies it
    price = max(0.0, np.max(np.where(solution.capacity < 1, model.marginal(solution.capacity), 0.0)))
    assert loss - lagrangian_bound(model, price, dimensions) <= 1e-13 * (loss + price * dimensions)
    wrong = 1.1 * price + 0.1
    assert loss - lagrangian_bound(model, wrong, dimensions) >= -1e-13 * loss  # any price bounds
    if 0.0 < solution.capacity.sum() < n:
        assert solution.capacity.sum() == pytest.approx(dimensions, abs=1e-12 * max(1.0, dimensions))


def test_convex_curves_against_clarabel():
    import cvxpy as cp

    rng = np.random.default_rng(4)
    n, g = 40, 21
    curves = np.sort(rng.exponential(size=(n, g - 1)), axis=1)[:, ::-1]
    curves = np.concatenate(
        [curves.sum(axis=1, keepdims=True), curves.sum(axis=1, keepdims=True) - curves.cumsum(1)], 1
    )
    model, dimensions = TabulatedLoss(curves), 13.37
    slopes = np.diff(curves) * (g - 1)
    capacity, cost = cp.Variable(n), cp.Variable(n)
    above = [cost >= curves[:, k] + cp.multiply(slopes[:, k], capacity - k / (g - 1)) for k in range(g - 1)]
    problem = cp.Problem(
        cp.Minimize(cp.sum(cost)), [*above, cp.sum(capacity) <= dimensions, capacity >= 0, capacity <= 1]
    )
    problem.solve(solver=cp.CLARABEL)
    solution = solve_tabulated(model, dimensions, 1e-9)
    assert model.feature_loss(solution.capacity).sum() == pytest.approx(problem.value, rel=1e-7)
    np.testing.assert_allclose(solution.capacity, capacity.value, atol=1e-5)


# --- the paper's cases ------------------------------------------------------------------------------------------


def quadratic_curves(importance, kurtosis):
    def curve(v):
        gamma = (kurtosis - 3) / 2
        return lambda c: v**2 * (kurtosis - 1) * (1 - c) / (1 + gamma * c)

    return [curve(v) for v in importance]


@pytest.mark.parametrize(
    ("case", "kurtosis", "importance", "odd"),
    [
        ("A: increasing marginal benefit, the others are worth more", 2.0, 0.8, 0.0),
        ("B: increasing marginal benefit, this feature is worth more", 2.0, 1.25, 1.0),
        ("C: constant marginal benefit, all alike: critical", 3.0, 1.0, 0.5),
        ("D: diminishing marginal benefit, this feature is ignored", 9.0, 0.2, 0.0),
        ("E: diminishing marginal benefit, everything is shared", 9.0, 1.2, None),
        ("F: diminishing marginal benefit, this feature is monosemantic", 9.0, 2.5, 1.0),
    ],
)
def test_the_cases_of_figure_4(case, kurtosis, importance, odd):
    """One odd feature of importance V among N = 6 in D = 3 dimensions (arXiv 2210.01892, section 3 and Fig. 4)."""
    model = TabulatedLoss.from_callables(quadratic_curves([importance] + [1.0] * 5, kurtosis))
    solution = solve_tabulated(model, 3.0, 1e-9)
    if odd is None:  # τ = (κ−1)(N−1+V)/((κ−3)D+2N), C = (v(κ−1) − 2τ)/(τ(κ−3))
        scale = (kurtosis - 1) * (5 + importance) / ((kurtosis - 3) * 3 + 12)
        odd = (importance * (kurtosis - 1) - 2 * scale) / (scale * (kurtosis - 3))
        assert 0.05 < odd < 0.95
    # The slope of a cell is the true marginal value somewhere in it, so at one price tabulated and true capacities
    # differ by at most a cell; the budgets agree, hence at the optimum by at most n − 1 cells.
    cell = 5 * np.diff(model.grid).max()
    assert solution.capacity[0] == pytest.approx(odd, abs=1e-12 if odd in {0.0, 0.5, 1.0} else cell)
    assert solution.capacity.sum() == pytest.approx(3.0, abs=1e-12)
    assert gap_of(model, 3.0, solution) <= 1e-9
    others = solution.capacity[1:]
    if kurtosis >= 3.0:
        np.testing.assert_allclose(others, (3 - solution.capacity[0]) / 5, atol=1e-12)
    else:
        assert set(others) == {0.0, 1.0}


@pytest.mark.parametrize(("first", "winner"), [(0.9, 1), (1.1, 0)])
def test_with_increasing_marginal_benefit_the_higher_total_takes_everything(first, winner):
    model = TabulatedLoss.from_callables(quadratic_curves([first, 1.0], 1.5))
    capacity = solve_tabulated(model, 1.0, 1e-9).capacity
    np.testing.assert_array_equal(capacity, np.arange(2) == winner)


def test_an_early_start_does_not_beat_a_higher_total():
    """What counts is the whole, not the first step: the second feature starts worse and ends better."""
    model = TabulatedLoss([[1.0, 0.5, 0.4], [1.0, 0.9, 0.0]])
    np.testing.assert_array_equal(solve_tabulated(model, 1.0, 1e-9).capacity, [0.0, 1.0])


# --- many features ----------------------------------------------------------------------------------------------

MANY = 1000
NEARLY = 1 + 1e-6 * np.random.default_rng(2).random(MANY)


@pytest.mark.parametrize(
    "shape", [S_SHAPE, 1 - GRID**2, 1 - np.minimum(1, 2 * GRID) ** 3], ids=["S", "concave", "step"]
)
@pytest.mark.parametrize(
    "weight", [np.ones(MANY), NEARLY, np.geomspace(1, 100, MANY)], ids=["equal", "nearly", "ordered"]
)
@pytest.mark.parametrize("written_out", [False, True])
def test_many_ordered_features_close_in_a_handful_of_boxes(shape, weight, written_out):
    model = TabulatedLoss(np.outer(weight, shape)) if written_out else TabulatedLoss(shape, weight=weight)
    solution = solve_tabulated(model, 100.5, 1e-9)
    assert solution.nodes <= 9
    assert gap_of(model, 100.5, solution) <= 1e-9
    assert solution.capacity.sum() == pytest.approx(100.5, abs=1e-10)


def test_without_dominance_identical_features_need_a_tree(monkeypatch):
    """Negative control: the handful of nodes is due to dominance."""
    model = TabulatedLoss(S_SHAPE, weight=np.ones(12))
    solution = solve_tabulated(model, 5.7, 1e-9)
    monkeypatch.setattr(tabulated._Problem, "dominance", lambda self, j: (np.arange(12) == j,) * 2)
    tree = solve_tabulated(model, 5.7, 1e-9)
    assert tree.nodes > 10 * solution.nodes
    assert model.feature_loss(tree.capacity).sum() == pytest.approx(model.feature_loss(solution.capacity).sum())


def test_a_hard_knapsack_ends_with_an_honest_gap():
    """Steps worth what they need: a subset sum. The best is known by dynamic programming."""
    rng = np.random.default_rng(7)
    need = rng.integers(40, 100, 14)
    curves = np.where(np.arange(101) < need[:, None], need[:, None], 0.0) / 100
    model, steps = TabulatedLoss(curves), 451
    best = dynamic(curves, steps)
    for limit in (1, 10, 100):
        solution = solve_tabulated(model, steps / 100, 1e-9, node_limit=limit)
        loss = model.feature_loss(solution.capacity).sum()
        excess, _ = terms_of_the_gap(model, steps / 100, solution)
        assert loss - excess * solution.unit**2 - 1e-12 <= best <= loss + 1e-12
        assert excess > 1e-9 * loss
        assert solution.nodes <= limit + 1


# --- ties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1 - GRID) ** 2, 1 - GRID, np.maximum(0, 1 - 2 * GRID)])
@pytest.mark.parametrize("dimensions", [0.003, 1.0, 1.77, 3.5])
def test_identical_convex_features_share_equally(shape, dimensions):
    capacity = solve_tabulated(TabulatedLoss([shape] * 7), dimensions, 1e-9).capacity
    np.testing.assert_allclose(capacity, dimensions / 7, atol=1e-14)
    assert np.ptp(capacity) == 0.0


def test_identical_concave_features_are_served_in_order():
    capacity = solve_tabulated(TabulatedLoss([1 - GRID**2] * 5), 2.3, 1e-9).capacity
    np.testing.assert_allclose(capacity, [1, 1, 0.3, 0, 0], atol=1e-14)


def test_tied_steps_are_taken_whole_before_tied_lines():
    """A line and a step of equal gain: the line can use any rest, the step cannot."""
    line, step = [1.0, 0.5, 0.0], [1.0, 1.0, 0.0]
    for curves, expected in (([line, step], [0.5, 1.0]), ([step, line], [1.0, 0.5])):
        solution = solve_tabulated(TabulatedLoss(curves), 1.5, 1e-9)
        np.testing.assert_array_equal(solution.capacity, expected)
        assert solution.nodes == 1


# --- symmetries -------------------------------------------------------------------------------------------------


def some_problem(seed):
    """Rough curves: the optimum is unique except by accident."""
    rng = np.random.default_rng(seed)
    n, g = int(rng.integers(1, 8)), int(rng.integers(2, 12))
    return rng.normal(size=(n, g)), rng.uniform(0, n / 2), rng


def solved(curves, dimensions, grid=None):
    model = TabulatedLoss(curves, grid)
    solution = solve_tabulated(model, dimensions, 1e-12)
    assert gap_of(model, dimensions, solution) <= 1e-12
    return solution.capacity


@given(seeds)
def test_permuting_features_permutes_the_answer(seed):
    curves, dimensions, rng = some_problem(seed)
    order = rng.permutation(len(curves))
    np.testing.assert_allclose(solved(curves[order], dimensions), solved(curves, dimensions)[order], atol=1e-12)


@given(seeds, st.integers(-200, 200))
def test_the_unit_of_the_loss_does_not_matter(seed, exponent):
    curves, dimensions, _ = some_problem(seed)
    np.testing.assert_array_equal(solved(np.ldexp(curves, exponent), dimensions), solved(curves, dimensions))
    np.testing.assert_allclose(solved(curves * 10.0**exponent, dimensions), solved(curves, dimensions), atol=1e-12)


@given(seeds)
def test_adding_constants_changes_nothing(seed):
    curves, dimensions, rng = some_problem(seed)
    shifted = curves + rng.normal(size=(len(curves), 1))
    np.testing.assert_allclose(solved(shifted, dimensions), solved(curves, dimensions), atol=1e-12)


def test_large_constants_do_not_swamp_the_gap():
    rng = np.random.default_rng(0)
    curves, offset = -np.cumsum(rng.exponential(size=(6, 9)) ** 2, axis=1), 1e9 * rng.normal(size=(6, 1))
    shifted, plain = TabulatedLoss(curves + offset), TabulatedLoss(curves)
    solution = solve_tabulated(shifted, 2.2, 1e-9)
    assert gap_of(shifted, 2.2, solution) <= 1e-9
    best = plain.feature_loss(solve_tabulated(plain, 2.2, 1e-9).capacity).sum()
    # adding 1e9 rounds every value to a multiple of 1.2e-7
    assert plain.feature_loss(solution.capacity).sum() == pytest.approx(best, abs=6 * 1.2e-7)


@given(seeds)
def test_a_flat_or_rising_feature_gets_nothing_and_changes_nothing(seed):
    curves, dimensions, _ = some_problem(seed)
    useless = np.stack([np.full(curves.shape[1], 3.0), np.linspace(0, 1, curves.shape[1])])
    capacity = solved(np.concatenate([useless, curves]), dimensions)
    np.testing.assert_array_equal(capacity[:2], 0.0)
    np.testing.assert_allclose(capacity[2:], solved(curves, dimensions), atol=1e-12)


@given(seeds)
def test_a_finer_grid_on_the_same_lines_changes_nothing(seed):
    curves, dimensions, rng = some_problem(seed)
    grid = np.linspace(0, 1, curves.shape[1])
    finer = np.union1d(grid, rng.random(5))
    fine_curves = np.array([np.interp(finer, grid, y) for y in curves])
    np.testing.assert_allclose(solved(fine_curves, dimensions, finer), solved(curves, dimensions, grid), atol=1e-12)


@given(seeds)
def test_more_budget_never_costs(seed):
    curves, _, rng = some_problem(seed)
    model = TabulatedLoss(curves)
    budgets = np.sort(rng.uniform(0, len(curves), 6))
    losses = [model.feature_loss(solve_tabulated(model, d, 1e-12).capacity).sum() for d in budgets]
    assert (np.diff(losses) <= 1e-12 * np.ptp(curves) * len(curves)).all()


# --- budgets at the edge ----------------------------------------------------------------------------------------


@given(seeds)
def test_no_budget_and_slack(seed):
    curves, _, _ = some_problem(seed)
    model = TabulatedLoss(curves)
    np.testing.assert_array_equal(solve_tabulated(model, 0.0, 1e-9).capacity, 0.0)
    for dimensions in (model.saturation_budget, model.saturation_budget + 1e-9, len(curves), 1e6, 1e300):
        solution = solve_tabulated(model, dimensions, 1e-9)
        np.testing.assert_array_equal(solution.capacity, model.response(0.0))
        assert gap_of(model, dimensions, solution) == 0.0


def test_capacity_that_harms_is_left_unused():
    model = TabulatedLoss([[1.0, 0.0, 2.0], [0.0, 1.0, 0.5]])
    np.testing.assert_array_equal(solve_tabulated(model, 2.0, 1e-9).capacity, [0.5, 0.0])
    np.testing.assert_array_equal(solve_tabulated(model, 0.3, 1e-9).capacity, [0.3, 0.0])


def test_a_budget_too_small_for_a_hump_is_left_unused():
    """The curve must get worse before it gets better."""
    model = TabulatedLoss([[1.0, 1.5, 0.0]])
    np.testing.assert_array_equal(solve_tabulated(model, 0.6, 1e-9).capacity, [0.0])
    np.testing.assert_array_equal(solve_tabulated(model, 0.9, 1e-9).capacity, [0.9])


@pytest.mark.parametrize("shape", [(1 - GRID) ** 2, 1 - GRID, 1 - GRID**2, S_SHAPE])
@pytest.mark.parametrize("dimensions", [1e-300, 1e-15, 1e-9, 0.5, 1.0, 4.999999, 5 - 1e-12, 3 + 1e-15])
def test_the_budget_is_used_exactly(shape, dimensions):
    model = TabulatedLoss(shape, weight=[1, 1, 2, 3, 0.5])
    solution = solve_tabulated(model, dimensions, 1e-9)
    assert gap_of(model, dimensions, solution) <= 1e-9
    assert solution.nodes <= 9
    assert solution.capacity.sum() == pytest.approx(dimensions, abs=1e-15 * 5, rel=1e-15)


def test_the_budget_is_used_exactly_by_many_features():
    rng = np.random.default_rng(3)
    for shape in ((1 - GRID) ** 2, S_SHAPE, 1 - GRID**2):
        capacity = solve_tabulated(TabulatedLoss(shape, weight=rng.lognormal(size=30_000)), 3210.987, 1e-9).capacity
        assert abs(capacity.sum() - 3210.987) <= 1e-12 * 3210.987


@pytest.mark.parametrize("extra", [0.0, 1e-9, 2e-8, 1e-6])
def test_many_features_a_hair_beside_the_grid_still_use_the_budget(extra):
    """Each is nearer to a grid point than the budget is to its rounded value; all together they are not."""
    n, dimensions = 100_000, 10_000 + extra
    capacity = solve_tabulated(TabulatedLoss((1 - GRID) ** 2, weight=np.ones(n)), dimensions, 1e-9).capacity
    assert abs(capacity.sum() - dimensions) <= 1e-14 * dimensions


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, "3", [1.0], None])
def test_bad_dimensions(bad):
    with pytest.raises(ValueError, match="dimensions must"):
        solve_tabulated(TabulatedLoss([[1.0, 0.0]]), bad, 1e-9)


@pytest.mark.parametrize("bad", [-1e-9, np.nan, 2.0])
def test_bad_tolerance(bad):
    with pytest.raises(ValueError, match="tolerance must"):
        solve_tabulated(TabulatedLoss([[1.0, 0.0]]), 1.0, bad)


# --- local search -----------------------------------------------------------------------------------------------


def test_a_local_solver_never_beats_the_bound():
    rng = np.random.default_rng(8)
    curves = rng.lognormal(size=(6, 1)) / (
        1 + np.exp(rng.uniform(5, 25, (6, 1)) * (GRID - rng.uniform(0.2, 0.8, (6, 1))))
    )
    model, dimensions = TabulatedLoss(curves), 2.3
    solution = solve_tabulated(model, dimensions, 1e-9)
    loss = model.feature_loss(solution.capacity).sum()
    bound = loss - terms_of_the_gap(model, dimensions, solution)[0] * solution.unit**2
    found = []
    for _ in range(30):
        start = rng.random(6)
        local = optimize.minimize(
            lambda c: model.feature_loss(np.clip(c, 0, 1)).sum(),
            start * min(1, dimensions / start.sum()),
            jac=lambda c: -model.marginal(np.clip(c, 0, 1)),
            bounds=[(0, 1)] * 6,
            constraints={"type": "ineq", "fun": lambda c: dimensions - c.sum()},
            method="SLSQP",
        )
        c = np.clip(local.x, 0, 1)
        found.append(model.feature_loss(c * min(1.0, dimensions / c.sum())).sum())
    assert min(found) >= bound - 1e-12
    assert min(found) <= 1.05 * loss  # it searched where the optimum is


@pytest.mark.parametrize("points", [6, 11, 21])
def test_capacities_that_rounding_puts_beside_the_grid_are_put_back(points):
    # no grid point but 0 and 1 is a binary fraction here
    rng = np.random.default_rng(points)
    for _ in range(100):
        n = int(rng.integers(2, 6))
        curves = -np.sort(-rng.integers(0, 9, (n, points)).astype(float), axis=1)
        dimensions = int(rng.integers(1, n * (points - 1))) / (points - 1)
        allocation = capsolve.allocate(capsolve.TabulatedLoss(curves), dimensions)
        assert allocation.status is capsolve.Status.OPTIMAL, (curves.tolist(), dimensions, allocation)
        assert allocation.kkt_error <= 1e-10
    tilted = capsolve.allocate(capsolve.TabulatedLoss([[7, 6, 4, 3, 1, 0], [7, 6, 6, 3, 2, 1]]), 1.4)
    assert tilted.price == pytest.approx(5.0)
