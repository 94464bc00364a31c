"""The compiled steps: gradients against automatic differentiation, noise against its moments."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optimisers = pytest.importorskip("capsolve.incidental.optimisers")


def loss(W, penalty, noise=0.0):
    """The loss, written as it is said."""
    jnp = jax.numpy
    n = W.shape[0]
    outputs = jax.nn.relu((jnp.eye(n) @ W + noise) @ W.T)
    return ((outputs - jnp.eye(n)) ** 2).sum() + penalty * jnp.abs(W).sum()


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_with_noise_is_that_of_the_loss(shared):
    rng = np.random.default_rng(0)
    W, noise = rng.normal(size=(6, 8)) / np.sqrt(8), 0.2 * rng.normal(size=(1 if shared else 6, 8))
    with jax.enable_x64(True):
        wanted = np.asarray(jax.jit(jax.grad(loss))(jax.numpy.asarray(W), 0.0, jax.numpy.asarray(noise)))
        found = np.asarray(optimisers.noisy_gradient(jax.numpy.asarray(W), jax.numpy.asarray(noise)))
    np.testing.assert_allclose(found, wanted, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "kurtosis"),
    [("rademacher", 1.0), ("uniform", 1.8), ("gaussian", 3.0), ("laplace", 6.0), ("light", 2.2), ("sparse", 4.5)],
)
def test_noise_has_the_moments_it_promises(kind, kurtosis):
    x = np.asarray(optimisers.draw(kind, jax.random.key(1), (400_000,), np.float32(kurtosis)), dtype=float)
    for moment, wanted in ((1, 0.0), (2, 1.0), (4, kurtosis)):
        values = x**moment
        assert abs(values.mean() - wanted) < 4.5 * values.std() / np.sqrt(x.size) + 1e-6
