"""The allocation problems that every solver gets: four families of profiles, from fixed seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from capsolve._checks import FloatArray


class Problem(NamedTuple):
    """One allocation problem."""

    importance: FloatArray
    kurtosis: FloatArray
    dimensions: float


def _power_law(n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    return rng.permutation(np.arange(1, n + 1) ** -0.5), _log_uniform(rng, 3.5, 300.0, n)


def _log_normal(n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    return rng.lognormal(sigma=1.0, size=n), 3.0 + rng.exponential(20.0, n)


def _nearly_equal(n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    return 1.0 + 1e-6 * rng.uniform(-1.0, 1.0, n), 9.0 + 1e-6 * rng.uniform(-1.0, 1.0, n)


def _mixed(n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    return rng.permutation(np.arange(1, n + 1) ** -0.5), _log_uniform(rng, 1.2, 100.0, n)


FAMILIES: dict[str, tuple[str, Callable[[int, np.random.Generator], tuple[FloatArray, FloatArray]]]] = {
    "A": ("v = i^-0.5 shuffled, κ log-uniform in [3.5, 300]", _power_law),
    "B": ("v log-normal(σ = 1), κ = 3 + exponential(20)", _log_normal),
    "C": ("v and κ within 1e-6 of 1 and 9", _nearly_equal),
    "D": ("v = i^-0.5 shuffled, κ log-uniform in [1.2, 100]: not convex", _mixed),
}


def problem(family: str, n: int) -> Problem:
    """Return the problem of this family with n features in D = n/10 dimensions."""
    rng = np.random.default_rng([ord(family), n])
    importance, kurtosis = FAMILIES[family][1](n, rng)
    return Problem(importance, kurtosis, n / 10)


def _log_uniform(rng: np.random.Generator, low: float, high: float, n: int) -> FloatArray:
    return np.exp(rng.uniform(np.log(low), np.log(high), n))
