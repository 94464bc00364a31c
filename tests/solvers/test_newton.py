"""The root of Σ C = D by Newton's method, in NumPy and compiled, beside exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import QuadraticLoss, Status, allocate
from capsolve.losses.quadratic import response_curve
from capsolve.solvers import newton
from capsolve.solvers.newton import newton_root, next_point
from capsolve.solvers.routes import Limits, Route
from capsolve.solvers.sources import NumPySource
from tests.routes import numba_source

SOURCES = {"NumPy": lambda: NumPySource, "Numba": numba_source}


def exact_sum(v, k, u):
    """Return Σ C at τ = 1/u in rational arithmetic, for κ > 3."""
    u, total = Fraction(u), Fraction(0)
    for v_i, k_i in zip(map(Fraction, v.tolist()), map(Fraction, k.tolist()), strict=True):
        share = (v_i * (k_i - 1) * u - 2) / (k_i - 3)
        total += min(max(share, Fraction(0)), Fraction(1))
    return total


@pytest.mark.parametrize("kind", SOURCES)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 60),
    spread=st.sampled_from([0.1, 1.0, 10.0]),
    share=st.floats(0.01, 0.99),
)
def test_the_budget_is_spent_at_the_root(kind, seed, n, spread, share):
    rng = np.random.default_rng(seed)
    v, k = rng.lognormal(0.0, spread, n), 3.0 + rng.lognormal(1.0, 2.0, n)
    budget = share * n
    root = SOURCES[kind]()(v, k).newton_root(budget)
    assert root is not None
    # a step by the last digits of u moves Σ C by this much
    curve = response_curve(v, k)
    change = 16.0 * np.finfo(float).eps * (n + root.slope * root.scale + float(np.max(curve.slope)))
    assert abs(float(exact_sum(v, k, 1.0 / root.scale) - Fraction(budget))) <= change


@pytest.mark.parametrize("kind", SOURCES)
def test_budgets_that_end_inside_a_jump_are_told_and_near_which_scale(kind):
    source = SOURCES[kind]()
    for kurtosis in (1.5, 3.0, 3.0 + 1e-9):
        v, k = np.array([4.0, 2.0, 1.0]), np.full(3, kurtosis)
        scale, slope = source(v, k).newton_root(1.5)
        assert slope == math.inf
        assert scale == pytest.approx(response_curve(v, k).enter[1], rel=newton.STEEP)
    assert source(np.ones(9), np.full(9, 2.0)).newton_root(4.0).slope == math.inf, "which of them?"


@pytest.mark.parametrize("kind", SOURCES)
def test_budgets_that_end_inside_a_jump_are_solved_from_there(kind):
    """The interval around that scale, however many features jump in it, leads where all features together do."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n = int(rng.choice([300, 1000, 5000]))
        v, k = rng.lognormal(0.0, rng.choice([0.0, 1e-6, 1.0]), n), rng.uniform(1.1, 6.0, n)
        k = np.where(rng.random(n) < rng.random(), rng.choice([2.0, 3.0]), k)
        budget, root = rng.uniform(1.0, n / 2), None
        while root is None or root.slope < math.inf:
            budget += 0.37
            root = SOURCES[kind]()(v, k).newton_root(budget)
        model = QuadraticLoss(v, k)
        near = allocate(model, budget, route=Route("here", source=SOURCES[kind]()))
        everywhere = allocate(model, budget, route=Route("there", limits=Limits(newton=0)))
        assert near.status is everywhere.status is Status.OPTIMAL
        assert near.loss == pytest.approx(everywhere.loss, rel=1e-12)
        np.testing.assert_allclose(near.capacity, everywhere.capacity, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", SOURCES)
def test_between_jumps_the_price_is_that_of_the_next_feature(kind):
    v, k = np.array([4.0, 2.0, 1.0]), np.full(3, 2.0)
    root = SOURCES[kind]()(v, k).newton_root(2.0)
    assert root == (1.0 * math.sqrt(0.5), 0.0)
    allocation = allocate(QuadraticLoss(v, k), 2.0)
    assert allocation.status is Status.OPTIMAL
    assert allocation.lower_bound == pytest.approx(allocation.loss, rel=1e-14)


@pytest.mark.parametrize("kind", SOURCES)
def test_budgets_above_what_gains_anything_have_no_root(kind):
    source = SOURCES[kind]()
    v, k = np.array([4.0, 2.0, 0.0, 1.0]), np.array([9.0, 9.0, 9.0, 1.0])
    assert source(v, k).newton_root(2.0) is None
    assert source(v, k).newton_root(1.9) is not None
    assert source(np.zeros(3), np.full(3, 5.0)).newton_root(1.0) is None


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("order", ["sorted", "reversed", "two clusters", "one giant", "heavy tails", "sample misled"])
def test_whatever_the_order_the_root_is_found(kind, order):
    rng = np.random.default_rng(3)
    n = 10_000
    v = {
        "sorted": np.sort(rng.lognormal(size=n)),
        "reversed": -np.sort(-rng.lognormal(size=n)),
        "two clusters": np.where(np.arange(n) % 2, 1e-6, 1e6),
        "one giant": np.where(np.arange(n) == 77, 1e30, 1e-3),
        "heavy tails": rng.pareto(0.5, n) + 1e-3,
        "sample misled": np.where(np.arange(n) % (n // newton.SAMPLE), 1e-12, 1e12),
    }[order] * rng.uniform(0.9, 1.1, n)
    k = rng.uniform(3.5, 12.0, n)
    for budget in (3.0, n / 10, n / 2, n - 2.5):
        root = SOURCES[kind]()(v, k).newton_root(budget)
        assert root is not None
        used = float(response_curve(v, k).at(root.scale).sum())
        assert used == pytest.approx(budget, rel=1e-9)


def test_compiled_and_not_are_the_same():
    rng = np.random.default_rng(0)
    numba = numba_source()
    for n in (13, 700, 5000):
        v, k = rng.lognormal(size=n), np.where(rng.random(n) < 0.5, rng.uniform(1.0, 3.0, n), rng.uniform(3.0, 20.0, n))
        for kurtosis in (k, np.float64(7.0)):
            for precision in (np.float64, np.float32):
                data = v.astype(precision), np.asarray(kurtosis, precision)
                mine, other = numba(*data).newton_root(n / 3.0), NumPySource(*data).newton_root(n / 3.0)
                assert (mine is None) == (other is None)
                if other is not None:
                    assert mine.scale == pytest.approx(other.scale, rel=1e-12)
                    assert mine.slope == pytest.approx(other.slope, rel=1e-9)


def test_steps_stay_in_the_interval_and_halve_it_in_the_end():
    assert next_point(0, 1.0, 1.0, math.inf, 2.0, 1.0) == 3.0
    assert next_point(0, 1.0, 1.0, 4.0, 5.0, 1.0) == 2.0, "outside: the geometric middle"
    assert next_point(newton.PURE + 1, 1.0, 1.0, 4.0, 2.0, 1.0) == 2.0
    assert next_point(0, 1.0, 1.0, math.inf, 2.0, 0.0) == 4.0, "no slope"
    assert next_point(0, 1.0, 0.0, 1.0, -2.0, 0.0) == 0.25
    assert next_point(0, 1.0, 0.0, 1.0, 0.0, 0.0) == 1.0


def test_without_steps_there_is_no_root_and_the_answer_is_the_same(monkeypatch):
    v, k = np.random.default_rng(0).lognormal(size=300), np.full(300, 9.0)
    right = allocate(QuadraticLoss(v, k), 100.0)
    monkeypatch.setattr(newton, "STEPS", 1)
    assert newton_root(v, k, 100.0) is None
    again = allocate(QuadraticLoss(v, k), 100.0)
    np.testing.assert_allclose(again.capacity, right.capacity, atol=1e-13)
