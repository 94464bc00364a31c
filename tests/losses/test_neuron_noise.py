"""A convex loss of its own: proved, sampled, solved, certified and drawn by what knows only the protocol."""

import numpy as np
import pytest
import sympy as sp

import capsolve
from capsolve import QuadraticLoss, Status, allocate, certify, figures
from capsolve.losses.neuron_noise import NeuronNoiseLoss
from derivations import neuron_noise
from derivations.symbols import C, kappa, v


def problem(seed, n=7):
    rng = np.random.default_rng(seed)
    return rng.lognormal(0, 1, n), 3 + rng.exponential(5, n), rng.uniform(0.1, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_formulas_are_the_proved_ones(seed):
    importance, k, s = problem(seed)
    model = NeuronNoiseLoss(importance, k, s)
    c = np.random.default_rng(seed).uniform(0.05, 0.95, 7)
    letters = (v, kappa, C, neuron_noise.s)
    kept = importance > 2 * s**2 / (k - 1)
    assert kept.any()
    for formula, mine in (
        (neuron_noise.NOISY_LOSS, model.feature_loss(c)),
        (neuron_noise.NOISY_NORM, model.squared_norm(c)),
    ):
        exact = sp.lambdify(letters, formula)(importance, k, c, s)
        # a few roundings, times the condition of v − 2s²/(κ−1) and of the difference of squares
        np.testing.assert_allclose(mine[kept], exact[kept], rtol=1e-12, atol=1e-13 * (importance**2 * k).max())
    np.testing.assert_allclose(model.feature_loss(c)[~kept], ((k - 1) * importance**2)[~kept], rtol=1e-14)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_solved_and_certified(seed):
    importance, k, s = problem(seed)
    model = NeuronNoiseLoss(importance, k, s)
    for dimensions in (0.0, 0.3, 2.5, model.saturation_budget, 7.0):
        found = allocate(model, dimensions)
        assert found.status is Status.OPTIMAL
        assert found.gap <= 1e-12
        assert found.kkt_error <= 1e-12
        assert found.budget_error <= 1e-12
        # independent: the quadratic model at the effective importance, which another solver optimises
        effective = np.maximum(0.0, importance - 2 * s**2 / (k - 1))
        other = capsolve.solve(effective, k, dimensions)
        np.testing.assert_allclose(found.capacity, other.capacity, atol=1e-11)
        constant = np.sum((k - 1) * (importance**2 - effective**2))
        assert found.loss == pytest.approx(other.loss + constant, rel=1e-12)
        assert found.price == pytest.approx(other.price, rel=1e-9, abs=1e-300)


def test_without_noise_it_is_the_quadratic_model():
    importance, k, _ = problem(3)
    model, plain = NeuronNoiseLoss(importance, k, 0.0), QuadraticLoss(importance, k)
    c = np.linspace(0, 1, 7)
    np.testing.assert_array_equal(model.feature_loss(c), plain.feature_loss(c))
    np.testing.assert_array_equal(model.marginal(c), plain.marginal(c))


@pytest.mark.slow
def test_the_loss_of_its_embedding_by_sampling():
    """Inputs, noise and network as they are: the embedding of the allocation has the loss of the model."""
    importance, k, s, dimensions = np.array([2.0, 1.0, 0.8, 0.7]), 9.0, 0.3, 2
    model = NeuronNoiseLoss(importance, k, s)
    found = allocate(model, dimensions)
    W = capsolve.construct_embedding(found.capacity, model.squared_norm(found.capacity), dimensions=dimensions)
    rng, errors = np.random.default_rng(0), []
    for _ in range(40):
        x = rng.standard_normal((50_000, 4)) * np.sqrt(3.0) * (rng.random((50_000, 4)) < 1 / 3)  # kurtosis 3 · 3
        y_hat = np.square(x @ W + s * rng.standard_normal((50_000, dimensions))).sum(axis=1)
        errors.append(y_hat - np.square(x) @ importance)
    errors = np.array(errors)
    squared = (errors - errors.mean()) ** 2
    constant = 2 * s**4 * dimensions  # the variance of |ξ|² for Gaussian noise
    standard_error = squared.std() / np.sqrt(squared.size)
    assert squared.mean() == pytest.approx(found.loss + constant, abs=5 * standard_error)
    assert abs(squared.mean() - allocate(model, dimensions + 0.3).loss - constant) > 5 * standard_error, "control"


def test_a_wrong_allocation_of_it_is_found_out():
    model = NeuronNoiseLoss([2.0, 1.0, 1.0], 9.0, 0.3)
    found = allocate(model, 1.5)
    bad = certify(model, 1.5, found.capacity[::-1])
    assert bad.status is Status.FEASIBLE
    assert bad.lower_bound <= found.loss <= bad.loss


def test_tables_and_figures_take_it():
    found = allocate(NeuronNoiseLoss([2.0, 1.0, 0.9, 0.1], 9.0, 0.5), 1.5)
    table = found.to_dict(names=list("abcd"))
    assert table["phase"][-1] == "ignored"
    assert "monosemantic" in found.summary()
    ax = figures.water_level(found)
    assert len(ax.lines) >= 4  # a curve each, and the price
    heights = np.concatenate([c.get_offsets()[:, 1] for c in ax.collections if len(c.get_offsets())])
    shared = (found.capacity > 0) & (found.capacity < 1)
    assert shared.any()
    assert np.isclose(heights, found.price, rtol=1e-9).sum() >= shared.sum()
    figures.capacity(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], 2.9, 0.1), r"kurtosis must be >= 3 for every feature, got 2.9 at index 0"),
        (([1.0], 9.0, -1.0), r"noise must be >= 0, got -1.0"),
        (([-1.0], 9.0, 1.0), r"importance must be >= 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeuronNoiseLoss(*arguments)


def test_importances_of_any_size():
    tiny = allocate(NeuronNoiseLoss([1e-200, 1e-201, 0.0], 9.0, 0.0), 0)
    assert tiny.capacity.sum() == 0.0
    large = allocate(NeuronNoiseLoss([1e120, 1e119, 1.0], 9.0, 0.1), 1.5)
    assert large.status is Status.OPTIMAL
    judged = certify(large.model, 1.5, large.capacity)
    assert judged.status is Status.OPTIMAL
    assert judged.loss == pytest.approx(large.loss, rel=1e-12)
    with pytest.raises(ValueError, match="divide all importances"):
        NeuronNoiseLoss([1e200, 1.0, 1.0], 9.0, 0.1)
