"""Loss curves of equal features: exact where the theory is."""

import dataclasses

import numpy as np
import pytest

import capsolve
import capsolve.simulate.loss_curves
import capsolve.simulate.transfers
from capsolve.simulate import measure_loss_curve, train
from tests.extras import needs

DENSITY, KURTOSIS, D = 0.2, 9.0, 2
IMPORTANCE = [[2.0, 1.2, 1.0, 0.6], [3.0, 1.0, 0.9, 0.2]]


@pytest.fixture(scope="module")
def curve():
    pytest.importorskip("optax")
    return measure_loss_curve("sum-quadratic", DENSITY, features=4, instances=2, steps=500, rng=0)


@pytest.mark.slow
def test_the_curve_of_the_quadratic_model_is_the_theorys(curve):
    C = curve.capacity
    np.testing.assert_allclose(C, [0, 0.25, 0.5, 0.75, 1])
    expected = (1 - C) / (1 + (KURTOSIS - 3) / 2 * C)
    # Training leaves up to a few per cent of the loss of a size (see studies/training.py); 1 % of the scale
    # is half of the least distance between neighbours.
    np.testing.assert_allclose(curve.loss / curve.loss[0], expected, atol=0.01)
    assert curve.loss[0] == pytest.approx((KURTOSIS - 1) * (DENSITY / 3) ** 2, rel=0.02)
    assert (np.diff(curve.loss) <= 0).all()
    assert (curve.measured >= curve.loss).all()
    assert curve.spread.max() < 0.1


@needs("optax")
def test_networks_that_all_diverged_are_an_error(monkeypatch):
    training = train("sum-quadratic", np.ones(3), DENSITY, dimensions=1, instances=2, steps=1, rng=0)
    lost = dataclasses.replace(training, diverged=np.ones_like(training.diverged))
    monkeypatch.setattr(capsolve.simulate.loss_curves, "train", lambda *_, **__: lost)
    with pytest.raises(ValueError, match="all networks with 3 features in 1 dimensions diverged"):
        measure_loss_curve("sum-quadratic", DENSITY, features=3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": 1}, "features must be >= 2"),
        ({"features": 2.5}, "features must be an integer"),
        ({"density": 1.5}, r"density must be in \[0, 1\]"),
        ({"model": "sum"}, "model must be one of"),
    ],
)
def test_bad_arguments_of_a_curve(changed, message):
    with pytest.raises(ValueError, match=message):
        measure_loss_curve(**{"model": "sum-relu", "density": 0.1} | changed)
