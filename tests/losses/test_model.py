"""What a loss must know: the protocol, and what `ConvexLoss` derives from four things."""

import numpy as np
import pytest

from capsolve import QuadraticLoss, Status, TabulatedLoss, allocate, certify
from capsolve.losses.model import ConvexLoss, is_loss_model

GRID = np.linspace(0.0, 1.0, 1001)


class Offset(ConvexLoss):
    """f_i(C) = a_i + v_i max(0, t_i − C)²: flat from t_i on, and never below a_i."""

    def __init__(self, importance, enough, offset=0.0):
        self.importance, self.enough, self.offset = np.asarray(importance, float), np.asarray(enough, float), offset

    @property
    def features(self):
        return self.importance.size

    def feature_loss(self, capacity):
        return self.offset + self.importance * np.maximum(0.0, self.enough - np.asarray(capacity)) ** 2

    def marginal(self, capacity, *, growing=True):
        return 2.0 * self.importance * np.maximum(0.0, self.enough - np.asarray(capacity))

    def response(self, price):
        return np.maximum(0.0, self.enough - price / (2.0 * self.importance))


MODEL = Offset([3.0, 1.0, 2.0], [1.0, 0.5, 0.2], offset=7.0)


def test_models_fulfil_the_protocol():
    for model in (MODEL, QuadraticLoss([1.0], 9.0), TabulatedLoss([[1.0, 0.0]])):
        assert is_loss_model(model)
    for other in (Offset, QuadraticLoss, object(), np.ones(3), None, "quadratic"):
        assert not is_loss_model(other)


def test_a_model_that_lacks_something_is_refused():
    class Half:
        features, convex, saturation_budget, floor = 1, True, 1.0, 0.0

        def feature_loss(self, capacity):
            return capacity

    assert not is_loss_model(Half())
    for call in (lambda: allocate(Half(), 1.0), lambda: certify(Half(), 1.0, [0.5])):
        with pytest.raises(TypeError, match="another LossModel, got Half"):
            call()
    with pytest.raises(TypeError, match="got the class Offset"):
        allocate(Offset, 1.0)
    with pytest.raises(TypeError, match="abstract"):
        ConvexLoss()


def test_what_follows_from_the_four():
    assert MODEL.convex
    assert MODEL.saturation_budget == pytest.approx(1.7, rel=1e-15)
    assert MODEL.floor == pytest.approx(21.0, rel=1e-15)
    c = np.array([0.3, 0.5, 0.1])
    np.testing.assert_allclose(MODEL.excess_loss(c), MODEL.feature_loss(c) - 7.0, rtol=1e-15)
    np.testing.assert_allclose(MODEL.average_gain([0.3, 0.7, 1.0]), [2 * 3 * 0.7, 0, 0])
    assert MODEL.normalised(c) == (MODEL, 1.0)


@pytest.mark.parametrize("price", [0.0, 0.1, 1.0, 5.0])
def test_the_gap_of_the_tangents_is_never_below_the_true_one(price):
    rng = np.random.default_rng(0)
    least = np.min([MODEL.feature_loss(np.full(3, c)) + price * c for c in GRID], axis=0)
    for _ in range(50):
        c = rng.choice([0.0, 1.0, *rng.random(3)], 3)
        true = MODEL.feature_loss(c) + price * c - least
        assert (MODEL.lagrangian_gap(c, price) >= true - 1e-6).all()  # the grid misses the minimum by as much
    np.testing.assert_allclose(MODEL.lagrangian_gap(MODEL.response(price), price), 0.0, atol=1e-15)


@pytest.mark.parametrize("model", [MODEL, QuadraticLoss([2.0, 1.0, 1.5], [9.0, 3.0, 30.0])])
def test_marginal_curves_are_marginal_values_along_one_feature(model):
    at = np.array([0.2, 0.3, 0.4])
    for feature in range(3):
        capacity, value = model.marginal_curve(feature, at)
        assert capacity[0] == 0.0
        assert capacity[-1] == 1.0
        for c, v in zip(capacity[::25], value[::25], strict=True):
            there = at.copy()
            there[feature] = c
            assert v == pytest.approx(model.marginal(there)[feature], rel=1e-14)
    np.testing.assert_array_equal(at, [0.2, 0.3, 0.4])


def test_what_nobody_needs_is_left_unused():
    allocation = allocate(MODEL, 2.5)
    np.testing.assert_allclose(allocation.capacity, [1.0, 0.5, 0.2])
    assert allocation.status is Status.OPTIMAL
    assert allocation.loss == pytest.approx(21.0, rel=1e-15)
    assert allocation.price == 0.0


def test_large_constants_do_not_swamp_the_gap():
    plain, shifted = (allocate(Offset([3.0, 1.0, 2.0], [1.0, 0.5, 0.2], offset), 0.9) for offset in (0.0, 2.0**20))
    assert shifted.status is Status.OPTIMAL
    # a constant of 2²⁰ rounds losses to multiples of 2⁻³³
    assert shifted.loss - 3 * 2.0**20 == pytest.approx(plain.loss, abs=3 * 2.0**-32)
    np.testing.assert_allclose(shifted.capacity, plain.capacity, atol=1e-14)
