"""Any convex loss by its response to a price: against other solvers, straight pieces, and what never ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import QuadraticLoss, Status, TabulatedLoss, allocate
from capsolve.certificate import budget_rounding
from capsolve.losses.model import ConvexLoss
from capsolve.solvers.quadratic import solve_quadratic
from capsolve.solvers.separable import solve_separable
from capsolve.solvers.tabulated import solve_tabulated
from tests.oracles import profiles


class Power(ConvexLoss):
    """f_i(C) = v_i (1 − C)^p."""

    def __init__(self, importance, power=2.0):
        self.importance, self.power = np.asarray(importance, dtype=float), power

    @property
    def features(self):
        return self.importance.size

    def feature_loss(self, capacity):
        return self.importance * (1.0 - np.asarray(capacity)) ** self.power

    def marginal(self, capacity, *, growing=True):
        return self.power * self.importance * (1.0 - np.asarray(capacity)) ** (self.power - 1.0)

    def response(self, price):
        safe = np.where(self.importance > 0, self.importance, 1.0)
        rest = (price / (self.power * safe)) ** (1.0 / (self.power - 1.0))
        return np.where(self.importance > 0, np.clip(1.0 - rest, 0.0, 1.0), 0.0)


def by_hand(v, dimensions):
    """The optimum for p = 2: 1 − C = λ/2v for the features that have any, the most important first."""
    order = np.argsort(-v)
    for m in range(v.size, 0, -1):
        some = v[order[:m]]
        half = (m - dimensions) / np.sum(1 / some)
        if half <= some[-1]:
            break
    return np.clip(1 - half / v, 0.0, 1.0), 2 * half


# Marginal values that vanish at C = 1 are known as well as 1 − C is: with more than 10⁴ between importances not to
# 1e-10.
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), st.floats(0.001, 0.999))
def test_squares_by_hand(importance, share):
    v = np.array(importance)
    dimensions = share * v.size
    found = allocate(Power(v), dimensions)
    capacity, price = by_hand(v, dimensions)
    assert found.status is Status.OPTIMAL
    # the price is known to an ulp or two, and 1 − C is proportional to it; what it misses is shared
    np.testing.assert_allclose(found.capacity, capacity, rtol=0, atol=1e-14 * v.size)
    assert found.price == pytest.approx(price, rel=1e-11)
    assert found.capacity.sum() == pytest.approx(dimensions, rel=1e-14)


@given(profiles(convex=True))
def test_agrees_with_the_breakpoints_of_the_quadratic_loss(problem):
    v, k, dimensions = problem
    if not ((v == 0) | (np.abs(np.log10(np.where(v > 0, v, 1))) < 60)).all() or (k > 1e6).any():
        return
    model = QuadraticLoss(v, k)
    found, right = solve_separable(model, dimensions), solve_quadratic(model, dimensions)
    loss, best = (model.feature_loss(s.capacity).sum() for s in (found, right))
    assert found.capacity.sum() <= dimensions * (1 + 1e-14) + 1e-300
    size = best + 2 * (right.multiplier * right.unit) ** 2 * min(dimensions, v.size)
    # the other one takes a budget within some ulps of a whole number for that number
    price = model.marginal(found.capacity)[found.capacity < 1].max(initial=0.0)
    assert loss <= best + 1e-12 * size + budget_rounding(price, dimensions)


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_the_segments_of_tabulated_losses(seed):
    """Straight pieces: responses jump, and those who are indifferent share."""
    rng = np.random.default_rng(seed)
    curves = np.cumsum(np.sort(rng.exponential(size=(6, 8)), axis=1), axis=1)[:, ::-1]
    model, dimensions = TabulatedLoss(curves - curves[:, -1:]), rng.uniform(0.2, 5.8)
    found, right = solve_separable(model, dimensions), solve_tabulated(model, dimensions, 1e-9)
    assert found.capacity.sum() == pytest.approx(min(dimensions, model.saturation_budget), rel=1e-13)
    best = model.feature_loss(right.capacity).sum()
    assert model.feature_loss(found.capacity).sum() == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0, 7.0])
@pytest.mark.parametrize("dimensions", [0.0, 1e-12, 0.5, 2.0, 4.0 - 1e-3, 4.0, 9.0])
def test_budgets_at_the_edge(power, dimensions):
    found = allocate(Power([4.0, 2.0, 1.0, 0.5, 0.0], power), dimensions)
    assert found.status is Status.OPTIMAL
    assert found.capacity.sum() == pytest.approx(min(dimensions, 4.0), rel=1e-12)
    assert found.capacity[-1] == 0.0
    assert (found.price > 0) == (dimensions < 4.0)


def test_a_profile_of_zeros():
    found = allocate(Power(np.zeros(3)), 1.0)
    assert found.status is Status.OPTIMAL
    assert not found.capacity.any()


@pytest.mark.parametrize("unit", [1e-100, 1e-30, 1e30, 1e100])
def test_the_unit_of_the_loss_does_not_matter(unit):
    v = np.array([4.0, 2.0, 1.0])
    np.testing.assert_allclose(allocate(Power(unit * v), 1.3).capacity, allocate(Power(v), 1.3).capacity, atol=1e-14)


def test_equal_features_share_equally():
    np.testing.assert_allclose(allocate(Power(np.ones(7)), 2.0).capacity, 2 / 7, rtol=1e-14)


def test_only_convex_losses():
    with pytest.raises(ValueError, match="loss_model must be convex"):
        solve_separable(QuadraticLoss([1.0, 1.0], 2.0), 1.0)


class Wrong(Power):
    """A response that is wrong for every other feature."""

    def response(self, price):
        right = super().response(price)
        return np.where(np.arange(self.features) % 2, right**2, right)


def test_a_wrong_response_is_found_out():
    """Negative control: the budget is met, the marginal values are not equal."""
    found, best = allocate(Wrong([4.0, 2.0, 1.0, 0.5]), 1.5), allocate(Power([4.0, 2.0, 1.0, 0.5]), 1.5)
    assert found.budget_error < 1e-12
    assert found.status is Status.FEASIBLE
    assert found.lower_bound <= best.loss < found.loss
