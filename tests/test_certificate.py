"""Negative controls: a wrong answer put into any route must come out as not optimal, with a bound that still holds.

Every route has its answer changed behind the solver's back, after the search and before the certificate, and everything
that depends on the capacities is then judged by the model alone: status, gap and lower bound must say so.
"""

import dataclasses
import math
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capsolve
from capsolve import QuadraticLoss, Status, TabulatedLoss, certify
from capsolve.allocation import allocate
from capsolve.certificate import (
    NONE,
    STATUSES,
    CertificateTerms,
    certify_terms,
    lagrangian_bound,
    model_terms,
    status_of,
)
from capsolve.losses.model import ConvexLoss
from capsolve.losses.quadratic import feature_terms
from capsolve.solvers import quadratic, tabulated
from capsolve.solvers.routes import Limits, Route
from capsolve.solvers.sources import NumPySource
from tests.oracles import profiles

# --- routes, and how to change their answers -----------------------------------------------------------------------

PASSES = Limits(newton=0, all_free=0, free=4, sample=64, rough=16)


def compiled(limits):
    pytest.importorskip("numba")
    from capsolve.solvers.numba_source import NumbaSource

    return Route("compiled", source=NumbaSource, limits=limits)


def solve_by(make_route):
    def solve(v, k, dimensions):
        return allocate(QuadraticLoss(v, k), dimensions, route=make_route())

    return solve


def solve_as(library):
    def solve(v, k, dimensions):
        xp = pytest.importorskip(library)
        if library != "jax.numpy":
            return capsolve.solve(xp.asarray(v), xp.asarray(k), dimensions)
        with pytest.importorskip("jax").enable_x64(True):  # float64 exists in a context only, also for the status
            allocation = capsolve.solve(xp.asarray(v), xp.asarray(k), dimensions)
            assert allocation.status
            return allocation

    return solve


def solve_in_a_batch(v, k, dimensions):
    return capsolve.solve_batch(np.stack([v, v[::-1]]), np.stack([k, k[::-1]]), [dimensions, dimensions])[0]


# Each route with the function whose answer is changed: the last one before the certificate.
ROUTES = {
    "plain numbers": (solve_by(lambda: Route("plain", scalar=True)), "scalar"),
    "Newton": (solve_by(lambda: Route("NumPy")), "write"),
    "compiled Newton": (solve_by(lambda: compiled(Limits())), "write"),
    "all breakpoints": (solve_by(lambda: Route("NumPy", limits=Limits(newton=0))), "bracket"),
    "passes": (solve_by(lambda: Route("passes", limits=PASSES)), "bracket"),
    "compiled passes": (solve_by(lambda: compiled(PASSES)), "bracket"),
    "array API": (solve_as("array_api_strict"), "bracket"),
    "PyTorch": (solve_as("torch"), "bracket"),
    "JAX": (solve_as("jax.numpy"), "bracket"),
    "Dask": (solve_as("dask.array"), "bracket"),
    "batch": (solve_in_a_batch, "columns"),
}


def corrupt(monkeypatch, how, route):
    """Change the capacities (n,) that a route has found by ``how``, in the way that it hands them on."""
    if route == "scalar":
        real = quadratic.solve_scalar

        def solve_scalar(features, dimensions):
            found = real(features, dimensions)
            return found and (how(np.array(found[0])).tolist(), found[1])

        monkeypatch.setattr(quadratic, "solve_scalar", solve_scalar)
        fallback = "bracket"  # fractional features
    else:
        fallback = route
    if fallback == "bracket":
        real_bracket = quadratic.solve_in_bracket

        def solve_in_bracket(load, dimensions, limits):
            point = real_bracket(load, dimensions, limits)
            n = corrupt.problem[0].size
            model = QuadraticLoss(*corrupt.problem)
            right = NumPySource(*model.given).write(point.answer, point.unit)[0]
            wrong = how(right.copy())
            answer = point.answer._replace(free_index=np.arange(n), capacity=wrong)
            return point._replace(answer=answer)

        monkeypatch.setattr(quadratic, "solve_in_bracket", solve_in_bracket)
    if fallback == "write":
        sources = [NumPySource]
        if find_spec("numba"):
            from capsolve.solvers.numba_source import NumbaSource

            sources.append(NumbaSource)
        for source in sources:

            def write(self, answer, unit, real_write=source.write):
                wrong = how(real_write(self, answer, unit)[0])
                everything = {"free_index": np.arange(self.features), "capacity": wrong}
                return real_write(self, answer._replace(**everything), unit)

            monkeypatch.setattr(source, "write", write)
    if fallback == "columns":
        real_columns = quadratic._with_bias

        def with_bias(v, k, budget):
            capacity, *rest = real_columns(v, k, budget)
            capacity = capacity.copy()
            capacity[:, 0] = how(capacity[:, 0])
            return capacity, *rest

        monkeypatch.setattr(quadratic, "_with_bias", with_bias)


def convex_problem(n, rng):
    return rng.lognormal(0, 1, n), 3 + rng.exponential(20, n), float(round(n / 3)) + 0.25


def mixed_problem(n, rng):
    """Return a problem whose budget is used up by whole concave features and shared convex ones."""
    v = rng.lognormal(0, 1, n)
    k = np.where(rng.random(n) < 0.5, rng.uniform(1.1, 2.5, n), 3 + rng.exponential(20, n))
    return v, k, float(round(n / 4))


def concave_problem(n, rng):
    """Return a problem whose optimum has a fractional concave feature."""
    return rng.lognormal(0, 0.3, n), rng.uniform(1.2, 2.8, n), float(round(n / 3)) + 0.4


def swap(model, capacity, dimensions):
    """Two capacities exchanged, of very different features."""
    order = np.argsort(model.average_gain(np.zeros(model.features)))
    i, j = order[0], order[-1]
    capacity[i], capacity[j] = capacity[j], capacity[i]
    return capacity


def give_to_the_wrong_one(model, capacity, dimensions):
    """The dimension of a full feature given to an ignored one."""
    full, empty = np.flatnonzero(capacity == 1.0), np.flatnonzero(capacity == 0.0)
    gain = model.average_gain(np.zeros(model.features))
    i, j = full[np.argmax(gain[full])], empty[np.argmin(gain[empty])]
    capacity[i], capacity[j] = 0.0, 1.0
    return capacity


def overdraw(model, capacity, dimensions):
    """What is optimal with more dimensions."""
    return allocate(model, dimensions + 0.5).capacity.copy()


def underspend(model, capacity, dimensions):
    """What is optimal with fewer dimensions."""
    return allocate(model, dimensions - 0.5).capacity.copy()


WRONG = [swap, give_to_the_wrong_one, overdraw, underspend]
PROBLEMS = [convex_problem, mixed_problem, concave_problem]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda f: f.__name__)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [12, 300])
@pytest.mark.parametrize("route", ROUTES)
def test_a_wrong_answer_is_found_out(route, n, problem, wrong, monkeypatch):
    solve, kind = ROUTES[route]
    v, k, dimensions = problem(n, np.random.default_rng(n))
    model = QuadraticLoss(v, k)
    best = allocate(model, dimensions)
    assert best.status is Status.OPTIMAL
    right = solve(v, k, dimensions)
    assert right.status is Status.OPTIMAL, "without the change"
    capacity = wrong(model, best.capacity.copy(), dimensions)
    corrupt.problem = (v, k)
    corrupt(monkeypatch, lambda _: capacity.copy(), kind)
    bad = solve(v, k, dimensions)
    assert bad.status is not Status.OPTIMAL
    # rounding of sums of n numbers, in units of their terms
    size = best.loss + best.price * dimensions
    assert bad.lower_bound <= best.loss + 1e-13 * size
    if wrong is overdraw:
        assert bad.status is Status.INFEASIBLE
        assert bad.budget_error == pytest.approx(0.5, abs=1e-9)
    else:
        assert bad.loss >= best.loss - 1e-13 * size
        assert bad.gap > 1e-6
        assert bad.lower_bound + bad.gap * (bad.loss + bad.price * dimensions) * 2 >= bad.loss


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 2.0])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("route", ["all breakpoints", "passes", "compiled passes", "array API", "JAX", "Dask"])
def test_a_wrong_price_is_found_out(route, problem, factor, monkeypatch):
    """The capacities respond to another price: they miss the budget. A wrong multiplier alone makes the bound loose."""
    solve, _ = ROUTES[route]
    v, k, dimensions = problem(300, np.random.default_rng(5))
    best = allocate(QuadraticLoss(v, k), dimensions)
    size = best.loss + best.price * dimensions
    real = quadratic.solve_in_bracket
    nobody = {"free_index": np.empty(0, dtype=np.int64), "capacity": np.empty(0)}
    changes = (
        lambda a: a._replace(scale=a.scale * factor, correction=0.0, **nobody),
        lambda a: a._replace(scale=a.scale * factor, multiplier=a.multiplier * factor, correction=0.0, **nobody),
        lambda a: a._replace(multiplier=a.multiplier * factor),
    )
    for change in changes:

        def solve_in_bracket(load, dimensions, limits, change=change):
            point = real(load, dimensions, limits)
            return point._replace(answer=change(point.answer))

        monkeypatch.setattr(quadratic, "solve_in_bracket", solve_in_bracket)
        bad = solve(v, k, dimensions)
        assert bad.status is not Status.OPTIMAL
        assert bad.lower_bound <= best.loss + 1e-13 * size


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.0 + 1e-9, 2.0])
@pytest.mark.parametrize("route", ["Newton", "compiled Newton"])
def test_a_wrong_root_is_mended_or_not_taken(route, factor, monkeypatch):
    """What is written tells whether a root spends the budget; the general search takes one that cannot be mended."""
    v, k, dimensions = convex_problem(300, np.random.default_rng(5))
    solve, searched = ROUTES[route][0], []
    right, real = solve(v, k, dimensions), quadratic.solve_in_bracket
    monkeypatch.setattr(quadratic, "solve_in_bracket", lambda *given: searched.append(1) or real(*given))
    solve(v, k, dimensions)
    assert not searched
    for source in {NumPySource, type(compiled(Limits()).source(v, k)) if "compiled" in route else NumPySource}:

        def newton_root(self, budget, real_root=source.newton_root):
            root = real_root(self, budget)
            return root._replace(scale=root.scale * factor)

        monkeypatch.setattr(source, "newton_root", newton_root)
    found = solve(v, k, dimensions)
    assert len(searched) == (0 if factor < 1.001 and factor > 0.999 else 1)
    assert found.status is Status.OPTIMAL
    np.testing.assert_allclose(found.capacity, right.capacity, atol=1e-12)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [12, 300])
def test_a_wrong_answer_without_bias_is_found_out(n, wrong, monkeypatch):
    v, k, dimensions = convex_problem(n, np.random.default_rng(n))
    model = QuadraticLoss(v, k, bias=False)
    best = allocate(model, dimensions)
    assert best.status is Status.OPTIMAL
    real, other = quadratic._without_bias, wrong(model, best.capacity.copy(), dimensions)

    def without_bias(some_v, some_k, budget):
        capacity, *rest = real(some_v, some_k, budget)
        capacity[:, 0] = other
        return capacity, *rest

    monkeypatch.setattr(quadratic, "_without_bias", without_bias)
    for bad in (allocate(model, dimensions), capsolve.solve_batch(v[None], k[None], [dimensions], bias=False)[0]):
        assert bad.status is not Status.OPTIMAL
        assert bad.lower_bound <= best.loss * (1 + 1e-12)


@pytest.mark.parametrize("change", ["swap", "shift", "overdraw"])
@pytest.mark.parametrize("shape", ["convex", "S-shaped"])
def test_a_wrong_answer_for_tabulated_losses_is_found_out(shape, change, monkeypatch):
    grid = np.linspace(0, 1, 21)
    curve = (1 - grid) ** 2 if shape == "convex" else 1 - grid**2 * (3 - 2 * grid)
    model = TabulatedLoss(curve, grid, weight=np.random.default_rng(0).lognormal(0, 1, 8))
    best = allocate(model, 3.3)
    assert best.status is Status.OPTIMAL
    real = tabulated.branch_and_bound

    def branch_and_bound(*args, **options):
        outcome = real(*args, **options)
        c = outcome.capacity.copy()
        i, j = int(np.argmax(c)), int(np.argmin(c))
        if change == "swap":
            c[i], c[j] = c[j], c[i]
        elif change == "shift":
            c[i], c[j] = c[i] - 0.1, c[j] + 0.1
        else:
            c[j] += 0.2
        return dataclasses.replace(outcome, capacity=c)

    monkeypatch.setattr(tabulated, "branch_and_bound", branch_and_bound)
    bad = allocate(model, 3.3)
    assert bad.status is (Status.INFEASIBLE if change == "overdraw" else Status.FEASIBLE)
    assert bad.lower_bound <= best.loss * (1 + 1e-12)
    if change != "overdraw":
        assert bad.gap > 1e-4


class Squares(ConvexLoss):
    """f_i(C) = v_i (1 − C)², with a response that is wrong by a factor."""

    def __init__(self, importance, factor=1.0):
        self.importance, self.factor = np.asarray(importance, dtype=float), factor

    @property
    def features(self):
        return self.importance.size

    def feature_loss(self, capacity):
        return self.importance * (1.0 - capacity) ** 2

    def marginal(self, capacity, *, growing=True):
        return 2.0 * self.importance * (1.0 - capacity)

    def response(self, price):
        wrong = np.where(np.arange(self.features) % 2, self.factor, 1.0)
        return np.clip(1.0 - wrong * price / (2.0 * self.importance), 0.0, 1.0)


def test_a_wrong_response_of_a_model_is_found_out():
    v = np.array([4.0, 2.0, 1.0, 0.5])
    right, wrong = allocate(Squares(v), 1.5), allocate(Squares(v, 1.5), 1.5)
    assert right.status is Status.OPTIMAL
    assert right.kkt_error < 1e-12
    assert wrong.budget_error < 1e-12, "it solves its own problem"
    assert wrong.status is Status.FEASIBLE
    assert wrong.lower_bound <= right.loss <= wrong.loss


# --- each part of the certificate is needed -------------------------------------------------------------------------


def nearly_optimal():
    """Return a convex problem and capacities that only the marginal values betray: the loss is right to 1e-14."""
    v, k = np.array([1.0, 1.0, 1.0, 0.2]), 9.0
    c = allocate(QuadraticLoss(v, k), 1.5).capacity + np.array([1e-8, -1e-8, 0.0, 0.0])
    return QuadraticLoss(v, k), 1.5, c


@pytest.mark.parametrize("route", [r for r in ROUTES if r != "PyTorch"])
def test_mutant_without_the_kkt_error(route, monkeypatch):
    model, dimensions, c = nearly_optimal()
    solve, kind = ROUTES[route]
    corrupt.problem = (model.importance, model.kurtosis)
    corrupt(monkeypatch, lambda capacity: c.copy(), kind)
    bad = solve(model.importance, model.kurtosis, dimensions)
    assert bad.gap < 1e-9
    assert bad.budget_error < 1e-12
    assert bad.kkt_error > 1e-9
    assert bad.status is Status.FEASIBLE


@pytest.mark.parametrize("route", [r for r in ROUTES if r != "PyTorch"])
def test_mutant_without_the_gap(route, monkeypatch):
    """Where losses are not convex only the gap can tell: marginal values and budget are in order."""
    solve, kind = ROUTES[route]
    v, k = np.array([1.0, 0.9, 0.8, 0.7]), np.full(4, 2.0)
    wrong = np.array([0.0, 1.0, 1.0, 0.0])
    corrupt.problem = (v, k)
    corrupt(monkeypatch, lambda capacity: wrong.copy(), kind)
    bad = solve(v, k, 2.0)
    assert bad.budget_error == 0.0
    assert bad.gap > 0.05
    assert bad.status is Status.FEASIBLE


@pytest.mark.parametrize("route", [r for r in ROUTES if r != "PyTorch"])
def test_mutant_without_the_budget_error(route, monkeypatch):
    """The optimum of a slightly larger budget has equal marginal values, and hardly a gap."""
    solve, kind = ROUTES[route]
    v, k = np.array([1.0, 1.0, 1.0, 0.2]), np.full(4, 9.0)
    more = allocate(QuadraticLoss(v, k), 1.5 + 1e-10).capacity
    corrupt.problem = (v, k)
    corrupt(monkeypatch, lambda capacity: more.copy(), kind)
    bad = solve(v, k, 1.5)
    assert bad.kkt_error < 1e-12
    assert bad.gap < 1e-9
    assert bad.status is Status.INFEASIBLE


def terms(**changes):
    given = {
        "used": 2.0,
        "empty": 1,
        "full": 1,
        "loss": 10.0,
        "max_marginal_unsaturated": 3.0,
        "min_marginal_active": 3.0,
        "lagrangian_gap": 0.0,
    }
    return CertificateTerms(**(given | changes))


def status(changes, **options):
    given = {"features": 4, "dimensions": 2.0, "budget": 2.0, "multiplier": 3.0} | options
    some = terms(**changes)
    return STATUSES[int(status_of(certify_terms(some, **given), some.used, given["dimensions"], 1e-9, True))]


def test_status_of_terms():
    assert status({}) is Status.OPTIMAL
    assert status({"lagrangian_gap": 1e-7}) is Status.FEASIBLE
    assert status({"lagrangian_gap": 1e-7}, proved=1e-7) is Status.OPTIMAL
    assert status({"min_marginal_active": 3.0 - 1e-8}) is Status.FEASIBLE
    assert status({"used": 2.0 - 1e-10}) is Status.FEASIBLE
    assert status({"used": 2.0 + 1e-10}) is Status.INFEASIBLE
    for name in ("loss", "max_marginal_unsaturated", "lagrangian_gap", "min_marginal_active"):
        assert status({name: math.nan}) is not Status.OPTIMAL
    assert status({"used": math.nan}) is not Status.OPTIMAL


def test_one_definition_for_numbers_and_arrays():
    one = certify_terms(terms(lagrangian_gap=0.3), features=4, dimensions=2.0, budget=2.0, multiplier=2.5, unit=2.0)
    many = certify_terms(
        CertificateTerms(*(np.array([x, x]) for x in terms(lagrangian_gap=0.3))),
        features=4,
        dimensions=np.array([2.0, 2.0]),
        budget=np.array([2.0, 2.0]),
        multiplier=np.array([2.5, 2.5]),
        unit=np.array([2.0, 2.0]),
    )
    for name in one._fields:
        np.testing.assert_array_equal(getattr(many, name), getattr(one, name))


def test_terms_of_parts_are_merged():
    parts = [terms(), terms(loss=1.0, max_marginal_unsaturated=4.0, min_marginal_active=NONE, lagrangian_gap=0.5)]
    assert CertificateTerms.merge(parts) == (4.0, 2, 2, 11.0, 4.0, 3.0, 0.5)


# --- the Lagrangian gap ----------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.floats(0.01, 100),
    st.one_of(st.floats(1.0, 60.0), st.sampled_from([1.0, 3.0, 3 - 1e-12, 3 + 1e-12, 1e6])),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 1e-9, 1 - 1e-9])),
    st.floats(0.01, 100),
)
def test_the_lagrangian_gap_of_a_feature(v, k, c, scale):
    """Independent: f(C) + λC minus its least value on a fine grid, which is never below the true one."""
    found = feature_terms(np.array([v]), np.array([k]), np.array([c]), scale).lagrangian_gap[0]
    grid = np.union1d(np.linspace(0, 1, 2001), np.geomspace(1e-12, 1, 500))
    price = 2 * scale * scale

    def lagrangian(x):
        denominator = 1 + (k - 3) / 2 * x
        return v * v * (k - 1) * (1 - x) / np.where(denominator == 0, 1, denominator) + price * x

    size = price + v * v * (k - 1)
    direct = lagrangian(c) - lagrangian(grid).min()
    assert found >= direct - 1e-14 * size  # rounding of the direct difference
    if k < 3 or k > 3 + 1e-9:  # a grid point is near the minimum, the error is of second order in its distance
        inside = np.clip((v * (k - 1) / scale - 2) / (k - 3), 0, 1) if k > 3 else 0.0
        exact = min(lagrangian(inside), lagrangian(0.0), lagrangian(1.0))
        assert found <= lagrangian(c) - exact + 1e-11 * size


@given(profiles(), st.randoms(use_true_random=False))
def test_solve_and_certify_agree(problem, random):
    v, k, dimensions = problem
    allocation = capsolve.solve(v, k, dimensions)
    judged = certify(allocation.model, dimensions, allocation.capacity)
    size = allocation.loss + allocation.price * min(dimensions, v.size)
    if 1e-290 < size < 1e290:
        assert judged.loss == pytest.approx(allocation.loss, rel=1e-13, abs=1e-14 * size)
        assert judged.lower_bound <= allocation.loss + 1e-13 * size
    if allocation.model.convex:
        assert judged.status is allocation.status is Status.OPTIMAL
        assert judged.gap <= max(1e-12, allocation.gap * 10)
    better = certify(allocation.model, dimensions, allocation.capacity, lower_bound=allocation.lower_bound)
    if 1e-290 < size < 1e290:
        assert better.status is Status.OPTIMAL


def test_any_price_bounds_the_loss():
    rng = np.random.default_rng(0)
    for _ in range(50):
        v, k, dimensions = mixed_problem(10, rng)
        best = capsolve.solve(v, k, dimensions)
        model = best.model
        for price in best.price * np.array([0.0, 0.3, 1.0, 3.0]):
            assert lagrangian_bound(model, price, dimensions) <= best.loss * (1 + 1e-13)
            for c in (best.capacity, rng.random(10)):
                found = model_terms(model, c, price)
                bound = found.loss - found.lagrangian_gap - price * (dimensions - found.used)
                assert bound <= best.loss * (1 + 1e-12)


# --- former names ----------------------------------------------------------------------------------------------------


def test_former_names_work_and_warn():
    model, c = QuadraticLoss([2.0, 1.0, 0.5], 9.0), np.array([0.7, 0.3, 0.0])
    with pytest.warns(DeprecationWarning, match="steepest is now average_gain"):
        np.testing.assert_array_equal(model.steepest(c), model.average_gain(c))
    with pytest.warns(DeprecationWarning, match="demand is now saturation_budget"):
        assert model.demand == model.saturation_budget
    with pytest.warns(DeprecationWarning, match="lagrangian_bound"):
        assert model.lower_bound(3.0, 1.0) == lagrangian_bound(model, 3.0, 1.0)
    mixed = capsolve.solve([1.0, 0.9], 2.0, 1.5)
    with pytest.warns(DeprecationWarning, match="boxes is now nodes"):
        assert mixed.boxes == mixed.nodes == 1
    with pytest.warns(DeprecationWarning, match="gap is now lower_bound"):
        former = certify(mixed.model, 1.5, mixed.capacity, gap=1e-12)
    assert former.status is Status.OPTIMAL
    assert certify(mixed.model, 1.5, mixed.capacity).status is Status.FEASIBLE


def test_a_bound_above_the_loss_is_refused():
    model = QuadraticLoss([1.0, 1.0], 2.0)
    for bound in (1e9, math.inf, math.nan):
        with pytest.raises(ValueError, match="lower_bound must be"):
            certify(model, 1.0, [0.5, 0.5], lower_bound=bound)


def test_extremes_leave_numbers_in_the_certificate():
    one = capsolve.solve_batch([[1e-200, 1e150]], [[1.74, 1.0]], 0.3)[0]
    assert one.status is Status.OPTIMAL
    assert math.isfinite(one.gap)
