"""Predictions against the derived formulas, against counting every outcome, and against chance."""

import itertools

import numpy as np
import pytest
import sympy as sp

from capsolve.incidental import expected_neurons, expected_pairs, projected_excess, sparsity_laws
from derivations import incidental

n, m = incidental.n, incidental.m


@pytest.mark.parametrize(("features", "neurons"), [(256, 256), (256, 4096), (7, 3), (1, 1), (5, 10**6)])
def test_counts_are_the_derived_ones(features, neurons):
    sizes = {n: features, m: neurons}
    assert expected_pairs(features, neurons) == pytest.approx(float(incidental.PAIRS.subs(sizes)), rel=1e-14)
    # of m (e0 - 2 e1) with e0 ≈ -n/m the part (n/m)²/4 is left: a relative error of about 4 m/n roundings
    exact = float(incidental.NEURONS.subs(sizes).evalf(30))
    assert expected_neurons(features, neurons) == pytest.approx(
        exact, rel=1e-15 * 8 * (1 + neurons / features), abs=1e-15
    )


@pytest.mark.parametrize(("features", "neurons"), [(2, 2), (3, 2), (3, 4), (4, 3)])
def test_exclusive_places_counted_one_by_one(features, neurons):
    places = list(itertools.product(range(neurons), (1, -1)))
    outcomes = list(itertools.combinations(places, features))
    both = [sum((k, 1) in outcome and (k, -1) in outcome for k in range(neurons)) for outcome in outcomes]
    assert expected_neurons(features, neurons, exclusive=True) == pytest.approx(np.mean(both), rel=1e-14)


def test_arrays_of_widths():
    widths = [[256, 512], [1024, 2048]]
    found = expected_neurons(256, widths)
    assert found.shape == (2, 2)
    assert found[1, 0] == expected_neurons(256, 1024)


def test_sparsity_laws_are_the_derived_ones():
    law = sp.lambdify((incidental.y_0, incidental.q, incidental.lam, incidental.t), incidental.L1_NORM)
    norm, survivors = sparsity_laws([0.0, 100.0], 1e-3, start=50.0, shape=1.7)
    np.testing.assert_allclose(norm, [50.0, law(50.0, 1.7, 1e-3, 100.0)], rtol=1e-14)
    np.testing.assert_allclose(survivors, 1.7 * norm**2, rtol=1e-14)
    late = sparsity_laws(1e9, 1e-3, start=50.0)
    assert (late[0], late[1]) == (1.0, 1.0)


def test_projected_excess_is_what_samples_have():
    rng = np.random.default_rng(0)
    w = np.array([0.9, 0.3, -0.2])
    projected = rng.choice([-1.0, 1.0], size=(400_000, 3)) @ w
    measured = np.mean(projected**4) / np.mean(projected**2) ** 2 - 3.0
    assert measured == pytest.approx(projected_excess(w, 1.0), abs=0.01)  # 5 standard errors, 0.002 each
    assert projected_excess(w, 3.0) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_pairs(0, 4), "features must be >= 1, got 0"),
        (lambda: expected_pairs(2.5, 4), "features must be an integer, got 2.5"),
        (lambda: expected_neurons(4, [4, 0]), "neurons must be >= 1, got 0.0 at index 1"),
        (lambda: expected_neurons(4, 4.5), "neurons must be an integer, got 4.5"),
        (lambda: expected_neurons(9, 4, exclusive=True), "neurons must be at least features / 2"),
        (lambda: sparsity_laws([-1.0], 0.1, 2.0), "time must be >= 0"),
        (lambda: projected_excess([[0.0, 0.0]], 1.0), "no row of zeros"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
