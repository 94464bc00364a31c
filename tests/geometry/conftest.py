"""An optimum of the quadratic model found by bisection on the price, by none of the package's own code."""

import numpy as np
import pytest


def _optimum(importance, kurtosis, dimensions):
    """Capacities, squared norms and least loss for kurtosis >= 3: C_i(τ) falls with τ, so bisect ΣC(τ) = D."""
    v, k = np.asarray(importance, float), np.asarray(kurtosis, float)

    def respond(tau):
        return np.clip((v * (k - 1) - 2 * tau) / (tau * (k - 3)), 0, 1)

    low, high = 0.0, float((v * (k - 1)).max())
    for _ in range(2000):
        tau = 0.5 * (low + high)
        if tau in (low, high):
            break
        low, high = (tau, high) if respond(tau).sum() > dimensions else (low, tau)
    C = respond(tau)
    inside = (C > 0) & (C < 1)
    # What is left of the budget when τ cannot get any nearer: one Newton step in C.
    slope = v[inside] * (k[inside] - 1) / (k[inside] - 3)
    C[inside] += (dimensions - C.sum()) * slope / slope.sum()
    m = v * (k - 1) / 2 * C / (1 + (k - 3) / 2 * C)
    loss = np.sum(v**2 * (k - 1) * (1 - C) / (1 + (k - 3) / 2 * C))
    return C, m, loss


@pytest.fixture
def optimum():
    return _optimum
