"""Loss curves and predictions: exact where the theory is, rejected where they are wrong, and honest about the rest."""

import dataclasses

import numpy as np
import pytest

import capsolve
import capsolve.simulate.loss_curves
import capsolve.simulate.transfers
from capsolve.simulate import Inputs, LossCurve, Transfer, measure_loss_curve, transfer

DENSITY, KURTOSIS, D = 0.2, 9.0, 2
IMPORTANCE = [[2.0, 1.2, 1.0, 0.6], [3.0, 1.0, 0.9, 0.2]]


@pytest.fixture(scope="module")
def curve():
    pytest.importorskip("optax")
    return measure_loss_curve("sum-quadratic", DENSITY, features=4, instances=2, steps=500, rng=0)


@pytest.fixture(scope="module")
def report(curve):
    return transfer("sum-quadratic", IMPORTANCE, DENSITY, dimensions=D, curve=curve, instances=4, steps=1000, rng=1)


def made_up(model="sum-relu", inputs=None, density=0.1):
    line = np.linspace(0, 1, 5)
    falling = np.array([1.0, 0.5, 0.2, 0.05, 0.0])
    return LossCurve(model, inputs or Inputs(), density, line, falling, falling, 0 * line)


@pytest.mark.slow
def test_the_prediction_for_the_quadratic_model_is_right(report):
    exact = np.stack([capsolve.solve(v, KURTOSIS, D).capacity for v in IMPORTANCE])
    np.testing.assert_allclose(report.predicted, exact, atol=0.04)
    np.testing.assert_allclose(report.trained, exact, atol=0.04)
    errors = report.errors()
    assert errors["prediction"] < 0.03
    assert errors["prediction"] < 0.2 * min(errors["equal shares"], errors["the most important"])
    np.testing.assert_allclose(report.predicted_loss / report.trained_loss, 1, atol=0.05)


@pytest.mark.slow
def test_a_wrong_curve_predicts_wrongly(curve, report):
    bent = dataclasses.replace(curve, loss=curve.loss[0] * (1 - curve.capacity) ** 0.7)  # increasing returns
    predictions = tuple(capsolve.allocate(bent.loss_model(v), D) for v in IMPORTANCE)
    wrong = dataclasses.replace(report, curve=bent, predictions=predictions)
    assert wrong.errors()["prediction"] > 5 * report.errors()["prediction"]


@pytest.mark.slow
def test_the_rivals(report):
    rivals = report.rivals
    np.testing.assert_array_equal(rivals["equal shares"], np.full((2, 4), 0.5))
    np.testing.assert_array_equal(rivals["the most important"], [[1, 1, 0, 0]] * 2)
    exact = np.stack([capsolve.solve(v, KURTOSIS, D).capacity for v in IMPORTANCE])
    np.testing.assert_allclose(rivals["quadratic formula"], exact, atol=1e-6)


@pytest.mark.slow
def test_the_report(report):
    text = report.summary()
    assert text.startswith("sum-quadratic at density 0.2: 2 profiles of 4 features in 2 dimensions\n")
    for name, error in report.errors().items():
        assert any(line.split() == [*name.split(), f"{error:.3f}"] for line in text.splitlines())
    assert "worst feature: profile " in text
    plain = report.to_dict()
    assert plain["errors"] == report.errors()
    assert np.shape(plain["trained"]) == np.shape(plain["predicted"]) == (2, 4)
    assert repr(report).startswith(
        "Transfer(sum-quadratic, 2 profiles of 4 features in 2 dimensions: capacities differ"
    )
    assert isinstance(report, Transfer)


@pytest.mark.parametrize(("model", "weight"), [("sum-relu", 4.0), ("autoencoder-relu", 2.0)])
def test_importance_enters_as_the_model_says(model, weight):
    for smooth in (True, False):
        loss = made_up(model).loss_model([2.0, 1.0, 0.0], smooth=smooth)
        np.testing.assert_allclose(loss.feature_loss([0.25, 0.5, 0.5]), [0.5 * weight, 0.2, 0.0], rtol=1e-12)
    line = made_up(model).loss_model([1.0], smooth=False).feature_loss([0.375])
    curved = made_up(model).loss_model([1.0]).feature_loss([0.375])
    assert line == pytest.approx(0.35)
    assert curved < line


def test_kurtosis_of_inputs_that_are_not_centred():
    # E x⁴ / (E x²)² of a uniform variable on [0, 1] is (1/5)/(1/3)² = 9/5, whatever its mean
    kurtosis = capsolve.simulate.transfers._kurtosis(Inputs(low=0.0), 0.1)
    assert kurtosis == pytest.approx(18.0, rel=1e-14)
    assert capsolve.simulate.transfers._kurtosis(Inputs("laplace"), 0.1) == 60.0


def test_networks_that_all_diverged_are_an_error(monkeypatch, curve, report):
    lost = np.ones_like(report.training.diverged)
    training = dataclasses.replace(report.training, diverged=lost)
    monkeypatch.setattr(capsolve.simulate.transfers, "train", lambda *_, **__: training)
    with pytest.raises(ValueError, match="all networks of profile 0 diverged"):
        transfer("sum-quadratic", IMPORTANCE, DENSITY, dimensions=D, curve=curve)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"importance": [[[1.0]]]}, r"importance must have the shape \(n,\) or \(m, n\), got \(1, 1, 1\)"),
        ({"importance": []}, "importance must have the shape"),
        ({"importance": [1.0, -1.0]}, "importance must be >= 0"),
        ({"model": "sum-gelu"}, "curve must be that of"),
        ({"density": 0.2}, "curve must be that of"),
        ({"inputs": Inputs("laplace")}, "curve must be that of"),
        ({"curve": 0.5}, "curve must be a capsolve.simulate.LossCurve, got 0.5"),
        ({"dimensions": -1}, "dimensions must be >= 0"),
    ],
)
def test_bad_arguments(changed, message):
    given = {"model": "sum-relu", "importance": [1.0, 2.0], "density": 0.1, "dimensions": 1, "curve": made_up()}
    with pytest.raises(ValueError, match=message):
        transfer(**given | changed)
