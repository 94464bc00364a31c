"""The loss of an embedding against its definition, the optimum's formula, and sampling."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsolve import construct_embedding, embedding_loss, embedding_loss_gradient, sampled_loss

EPS = np.finfo(float).eps


def by_definition(W, importance, kurtosis, bias=True):
    """The loss with an n × n matrix, in rational arithmetic."""
    rows = [[Fraction(float(x)) for x in row] for row in W]
    v = [Fraction(float(x)) for x in importance]
    k = [Fraction(float(x)) for x in np.broadcast_to(kurtosis, len(v))]
    G = [[sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0)) for b in rows] for a in rows]
    n = range(len(v))
    loss = sum((k[i] - 1) * (v[i] - G[i][i]) ** 2 + 2 * sum(G[i][j] ** 2 for j in n if j != i) for i in n)
    return float(loss if bias else loss + sum(v[i] - G[i][i] for i in n) ** 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([0, 1e-9, 1e-5, 0.1, 1]))
def test_every_digit_of_the_definition(seed, bias, mixing):
    """Nearly orthogonal rows included, where the second moments alone lose all digits of the interference."""
    rng = np.random.default_rng(seed)
    n, D = rng.integers(1, 9), rng.integers(1, 6)
    W = mixing * rng.standard_normal((n, D)) + np.eye(n, D) * rng.lognormal(size=(n, 1))
    v, k = np.vecdot(W, W) * (1 + mixing * rng.standard_normal(n) * 0.3).clip(0), 1 + rng.exponential(5, size=n)
    truth = by_definition(W, v, k, bias)
    # |w_i|² is known to eps, so (v_i − m_i)² to eps m_i |v_i − m_i| + (eps m_i)², next to rounding of what is summed.
    rounding = sum((k - 1) * np.vecdot(W, W) * np.abs(v - np.vecdot(W, W))) + (0 if bias else v.sum() ** 2)
    assert embedding_loss(W, v, k, bias) == pytest.approx(
        truth, rel=1e-13, abs=20 * EPS * rounding + 1e-30 * v.sum() ** 2
    )


def test_interference_alone_is_known_to_the_last_digits():
    W = np.array([[1.0, 1e-9], [0.0, 1.0], [0.0, 1e-3]])
    v = np.vecdot(W, W)
    interference = 2 * 2 * (1e-18 + 1e-24 + 1e-6)
    assert embedding_loss(W, v, 9) == pytest.approx(interference, rel=1e-14)
    W[2] = 0
    assert embedding_loss(W, v * [1, 1, 0], 9) == pytest.approx(4e-18, rel=1e-14)
    M = W.T @ W
    naive = 2 * ((M**2).sum() - (v[:2] ** 2).sum())
    assert abs(naive / 4e-18 - 1) > 0.1  # the shortcut sees nothing of it


@pytest.mark.parametrize(("n", "D"), [(12, 4), (100, 30), (700, 90), (2000, 250)])
@pytest.mark.parametrize("rotate", [False, True])
def test_an_optimum_costs_what_its_capacities_say(optimum, n, D, rotate):
    rng = np.random.default_rng(n)
    v, k = rng.lognormal(size=n), 3.5 + rng.exponential(3, size=n)
    C, m, loss = optimum(v, k, D)
    W = construct_embedding(C, m, rotate=rotate, rng=rng)
    assert embedding_loss(W, v, k) == pytest.approx(loss, rel=1e-12)
    assert np.abs(embedding_loss_gradient(W, v, k)).max() < 1e-11 * (k * v**1.5).max()
    nearby = W * (1 + 1e-3 * rng.standard_normal(W.shape)) + 1e-3 * rng.standard_normal(W.shape)
    assert embedding_loss(nearby, v, k) > loss


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_gradient(seed, bias):
    """On a line the loss is a quartic, whose derivative five values give exactly."""
    rng = np.random.default_rng(seed)
    W, step = rng.standard_normal((2, 6, 3))
    v, k = rng.exponential(size=6), 1 + rng.exponential(5, size=6)
    along = [embedding_loss(W + t * step, v, k, bias) for t in (-2, -1, 1, 2)]
    slope = (along[0] - 8 * along[1] + 8 * along[2] - along[3]) / 12
    assert np.sum(embedding_loss_gradient(W, v, k, bias) * step) == pytest.approx(slope, abs=1e-13 * max(along))


def test_scale():
    rng = np.random.default_rng(0)
    W, v = rng.standard_normal((5, 3)), rng.exponential(size=5)
    loss = embedding_loss(W, v, 5.0)
    assert embedding_loss(W * 1e-70, v * 1e-140, 5.0) == pytest.approx(loss * 1e-280, rel=1e-13)
    assert embedding_loss(W * 1e70, v * 1e140, 5.0) == pytest.approx(loss * 1e280, rel=1e-13)
    assert embedding_loss(np.zeros((5, 3)), v, 5.0) == pytest.approx(4 * (v**2).sum(), rel=1e-14)
    assert embedding_loss(np.zeros((5, 3)), np.zeros(5), 5.0) == 0
    assert embedding_loss(np.zeros((5, 0)), v, 5.0) == pytest.approx(4 * (v**2).sum(), rel=1e-14)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kurtosis", [1.0, 2.0, [1.0, 3.0, 5.0, 9.0, 9.0]])
def test_sampling_agrees_within_its_error(bias, kurtosis):
    rng = np.random.default_rng(1)
    W, v = rng.standard_normal((5, 3)), rng.exponential(size=5)
    mean, error = sampled_loss(W, v, kurtosis, bias, samples=200_000, rng=2)
    exact = embedding_loss(W, v, kurtosis, bias)
    assert error < 0.03 * exact
    assert abs(mean - exact) < 4.5 * error
    assert abs(mean - embedding_loss(W, v, np.add(kurtosis, 1), bias)) > 4.5 * error
    assert abs(mean - embedding_loss(W, v, kurtosis, not bias)) > 4.5 * error


def test_sampling_from_a_distribution():
    rng = np.random.default_rng(1)
    W, v = rng.standard_normal((4, 2)), rng.exponential(size=4)

    def sparse_uniform(rng, count):  # variance 1 and kurtosis 9/5 / 0.4
        return rng.uniform(-1, 1, (count, 4)) * (rng.random((count, 4)) < 0.4) * (3 / 0.4) ** 0.5

    mean, error = sampled_loss(W, v, draw=sparse_uniform, samples=200_000, rng=0)
    assert abs(mean - embedding_loss(W, v, 4.5)) < 4.5 * error
    assert abs(mean - embedding_loss(W, v, 3.0)) > 4.5 * error


def test_standard_errors_are_honest():
    W, v = np.array([[1.0, 0.2], [0.1, 1.0], [0.5, -0.5]]), np.array([1.0, 1.2, 0.4])
    rng = np.random.default_rng(3)
    exact = embedding_loss(W, v, 2.0)
    runs = np.array([sampled_loss(W, v, 2.0, samples=2000, rng=rng) for _ in range(400)])
    z = (runs[:, 0] - exact) / runs[:, 1]
    # Mean 0 ± 1/√400 and variance 1 ± √(2/400), at 4.5 standard deviations.
    assert abs(z.mean()) < 4.5 / 20
    assert abs(z.var() - 1) < 4.5 * (2 / 400) ** 0.5


def test_sampling_is_reproducible_and_in_batches(monkeypatch):
    W, v = np.eye(3, 2), np.ones(3)
    one = sampled_loss(W, v, 4.0, samples=1000, rng=5)
    assert one == sampled_loss(W, v, 4.0, samples=1000, rng=np.random.default_rng(5))
    monkeypatch.setattr("capsolve.geometry.loss._ENTRIES", 7)
    assert one == pytest.approx(sampled_loss(W, v, 4.0, samples=1000, rng=5), rel=1e-12)


def test_the_loss_does_not_depend_on_the_batch(monkeypatch):
    rng = np.random.default_rng(0)
    W, v = 3 * np.eye(9, 6) + 0.3 * rng.standard_normal((9, 6)), rng.exponential(size=9)
    loss = embedding_loss(W, v, 5.0)
    monkeypatch.setattr("capsolve.geometry.loss._ENTRIES", 20)
    assert embedding_loss(W, v, 5.0) == pytest.approx(loss, rel=1e-14)
    assert loss == pytest.approx(by_definition(W, v, 5.0), rel=1e-14)


@pytest.mark.parametrize("function", [embedding_loss, embedding_loss_gradient, sampled_loss])
def test_bad_input(function):
    with pytest.raises(ValueError, match="W must have one row per feature: 2 features"):
        function(np.ones((3, 2)), [1, 1], 3)
    with pytest.raises(ValueError, match="W must have 2 dimension"):
        function(np.ones(3), [1, 1, 1], 3)
    with pytest.raises(ValueError, match="W must be finite"):
        function([[np.nan]], [1], 3)
    with pytest.raises(ValueError, match="kurtosis must be >= 1"):
        function([[1.0]], [1], 0.5)
    with pytest.raises(ValueError, match="importance must be >= 0"):
        function([[1.0]], [-1], 3)


def test_bad_sampling():
    with pytest.raises(ValueError, match="exactly one of kurtosis and draw"):
        sampled_loss([[1.0]], [1])
    with pytest.raises(ValueError, match="samples must be >= 2"):
        sampled_loss([[1.0]], [1], 3, samples=1)
    with pytest.raises(ValueError, match="samples must be an integer"):
        sampled_loss([[1.0]], [1], 3, samples=2.5)
    with pytest.raises(ValueError, match=r"draw must return shape \(5, 1\), got \(5, 2\)"):
        sampled_loss([[1.0]], [1], draw=lambda rng, count: np.zeros((count, 2)), samples=5)
