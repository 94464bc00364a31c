"""Incidental polysemanticity: the derived laws against the flow itself, against chance, and against exact sums."""

import itertools

import numpy as np
import pytest
import sympy as sp

from derivations import incidental
from derivations.incidental import lam, m, n, q, t, y_0


def flow(weights, strength, step, times):
    """Follow one row without interference by explicit Euler steps; return |w|₁, |w|² and m' at the given times."""
    size, seen = np.abs(weights), []
    for k in range(max(times) + 1):
        if k in times:
            seen.append((size.sum(), (size**2).sum(), np.count_nonzero(size)))
        size = np.maximum(size + step * ((1 - (size**2).sum()) * size - strength), 0.0) * (size > 0)
        size = size[size > 0]
    return np.array(seen).T


@pytest.mark.slow
def test_a_row_becomes_sparse_along_the_law():
    width, strength, step = 20_000, 1e-4, 0.5
    weights = np.random.default_rng(1).normal(scale=width**-0.5, size=width)
    times = [20, 100, 300, 600, 1000, 1500, 2000]  # hundreds of survivors to the end, so that q is well defined
    norm, square, survivors = flow(weights, strength, step, times)
    # |w|₁ of Gaussian weights: its standard deviation is √(1 − 2/π) = 0.6, independently of m
    assert np.abs(weights).sum() == pytest.approx(float(incidental.START.subs(m, width)), abs=4 * 0.6)
    assert square == pytest.approx(1.0, abs=2 * strength * norm.max())  # in balance: 1 − S = λ y / S
    shape = survivors * square / norm**2
    assert np.pi / 2 - 0.02 < shape[0] < shape[-1] - 0.2 < 1.9
    # 1/|w|₁ grows by (q−1) λ t; q changes between two observations, by no more than it differs between them
    slopes = np.diff(1 / norm) / (strength * step * np.diff(times))
    middle, spread = (shape[1:] + shape[:-1]) / 2 - 1, np.abs(np.diff(shape)) / 2
    assert (np.abs(slopes - middle) < spread + 0.02).all()
    law = sp.lambdify((y_0, q, lam, t), incidental.L1_NORM, "numpy")
    elapsed = step * (times[1] - times[0])
    assert law(norm[0], 1 + slopes[0], strength, elapsed) == pytest.approx(norm[1], rel=1e-12)
    assert norm[-1] > 1.1 * law(norm[0], 2.0, strength, step * (times[-1] - times[0]))  # q = 2 is too fast so far
    count = sp.lambdify((y_0, q, lam, t), incidental.SURVIVORS, "numpy")
    assert survivors == pytest.approx(count(norm, shape, strength, 0.0) / square, rel=1e-12)
    assert (survivors > 1.5 * norm**2).all()  # m' = |w|₁² is too low throughout


def test_collisions_by_chance():
    features = neurons = 256
    rng, trials = np.random.default_rng(2), 2000
    seats = rng.integers(2 * neurons, size=(trials, features))
    taken = np.zeros((trials, 2 * neurons), dtype=int)
    np.add.at(taken, (np.arange(trials)[:, None], seats), 1)
    positive, negative = taken[:, :neurons], taken[:, neurons:]
    for counts, formula in (
        ((positive * negative).sum(axis=1), incidental.PAIRS),
        (((positive > 0) & (negative > 0)).sum(axis=1), incidental.NEURONS),
    ):
        expected = float(formula.subs({n: features, m: neurons}))
        assert abs(counts.mean() - expected) < 5 * counts.std() / trials**0.5
    # the check can tell the two counts apart
    assert abs(float((incidental.PAIRS - incidental.NEURONS).subs({n: features, m: neurons}))) > 20


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kurtosis", [1.0, 2.0, 3.0, 7.5])
def test_excess_kurtosis_of_projected_noise_by_summing_over_all_outcomes(seed, kurtosis):
    w = np.random.default_rng(seed).normal(size=6)
    # ±√κ with probability 1/(2κ) each and otherwise 0: variance 1, kurtosis κ
    values, weights = (
        np.array([-np.sqrt(kurtosis), 0.0, np.sqrt(kurtosis)]),
        np.array([0.5, kurtosis - 1, 0.5]) / kurtosis,
    )
    noise = np.array(list(itertools.product(values, repeat=w.size)))
    chance = np.array([np.prod(x) for x in itertools.product(weights, repeat=w.size)])
    fourth, second = ((noise @ w) ** 4 @ chance), ((noise @ w) ** 2 @ chance)
    letters = (incidental.W, sp.Symbol("m", integer=True, positive=True), incidental.KAPPA_NOISE)
    formula = sp.lambdify(letters, incidental.EXCESS_KURTOSIS, "numpy")
    # a sum of 729 positive terms, then a difference of numbers of order κ
    assert fourth / second**2 - 3 == pytest.approx(formula(w, w.size, kurtosis), abs=1e-12 * max(kurtosis, 3))
