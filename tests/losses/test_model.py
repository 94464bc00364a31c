"""What a loss must know to be solved: the protocol, and who is refused."""

import pytest

from capsolve import QuadraticLoss, TabulatedLoss, allocate
from capsolve.losses.model import ConvexLoss, is_loss_model
from capsolve.losses.neuron_noise import NeuronNoiseLoss


def test_the_protocol():
    assert is_loss_model(QuadraticLoss([1.0], 9.0))
    assert is_loss_model(TabulatedLoss([[1.0, 0.0]]))
    assert is_loss_model(NeuronNoiseLoss([1.0], 9.0, 0.1))
    assert not is_loss_model(NeuronNoiseLoss)
    assert not is_loss_model(3.0)
    with pytest.raises(TypeError, match="must be a QuadraticLoss, a TabulatedLoss or another LossModel, got float"):
        allocate(3.0, 1.0)
    with pytest.raises(TypeError, match="got the class NeuronNoiseLoss"):
        allocate(NeuronNoiseLoss, 1.0)


class Concave(ConvexLoss):
    convex = False
    features = 1
    feature_loss = marginal = response = None


def test_what_is_not_convex_is_refused():
    with pytest.raises(ValueError, match="loss_model must be convex"):
        allocate(Concave(), 0.5)
