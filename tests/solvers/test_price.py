"""The price search on bare demand curves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import QuadraticLoss
from capsolve.solvers.price import fill
from tests.oracles import profiles


@given(profiles())
def test_the_budget_is_met_and_capacities_are_in_range(problem):
    v, k, dimensions = problem
    filling = fill(QuadraticLoss(v, k).demand_curve(), dimensions)
    assert (filling.capacity >= 0).all()
    assert (filling.capacity <= 1).all()
    if dimensions <= np.count_nonzero(v):
        assert abs(filling.capacity.sum() - dimensions) <= 1e-12 * max(1.0, dimensions)


@given(profiles(), st.floats(0, 1))
def test_more_budget_never_takes_capacity_away(problem, fraction):
    v, k, dimensions = problem
    demand = QuadraticLoss(v, k).demand_curve()
    less, more = fill(demand, dimensions * fraction), fill(demand, dimensions)
    assert (more.capacity >= less.capacity - 1e-15).all()
    assert more.scale <= less.scale * (1 + 1e-15)


@pytest.mark.parametrize("ulps", [0, 1, 2, 4, 100, 10**6])
def test_the_budget_holds_by_construction_close_above_three(ulps):
    # one ulp of the price moves these capacities by up to 1
    kurtosis = 3.0 + ulps * np.spacing(3.0)
    v = np.random.default_rng(ulps).uniform(1, 1 + 1e-15, 1000)
    filling = fill(QuadraticLoss(v, kurtosis).demand_curve(), 333.25)
    assert abs(filling.capacity.sum() - 333.25) < 1e-12 * 333.25


def test_equal_features_share_equally_also_at_kurtosis_three():
    for kurtosis in (3.0, 3 + 1e-15, 3 + 1e-9, 9.0):
        np.testing.assert_allclose(fill(QuadraticLoss(np.ones(7), kurtosis).demand_curve(), 2.0).capacity, 2 / 7)


def test_on_a_kink_the_scale_is_that_of_the_next_feature_to_enter():
    demand = QuadraticLoss([1000.0, 2.0, 1.0], 9.0).demand_curve()
    assert fill(demand, 1.0).scale == 2.0 * 8 / 2
    assert fill(demand, 0.0).scale == 1000.0 * 8 / 2
    assert fill(demand, 3.0).scale == 0.0


def test_the_search_needs_few_passes(monkeypatch):
    from capsolve.losses import quadratic

    rng = np.random.default_rng(0)
    demand = QuadraticLoss(10 ** rng.uniform(-100, 100, 20_000), 10 ** rng.uniform(0.5, 6, 20_000)).demand_curve()
    passes = []
    at = quadratic.Demand.at
    monkeypatch.setattr(quadratic.Demand, "at", lambda self, scale: (passes.append(1), at(self, scale))[1])
    fill(demand, 5000.0)
    assert len(passes) <= 3 * np.log2(2 * 20_000)
