"""Inputs: exact weights of the strata, moments, and points that integrate what samples estimate."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from capsolve.simulate import Inputs
from capsolve.simulate.inputs import rule

DENSITIES = [0.001, 0.05, 0.4, 1.0]
DISTRIBUTIONS = [Inputs(), Inputs(low=0.0), Inputs(low=-0.5), Inputs("gaussian"), Inputs("laplace")]
PAIRED = [Inputs(pairs="correlated"), Inputs(low=0.0, pairs="anticorrelated")]
REFERENCE = {"gaussian": stats.norm(), "laplace": stats.laplace(scale=1 / np.sqrt(2))}


def reference(inputs):
    return REFERENCE.get(inputs.distribution, stats.uniform(inputs.low, 1 - inputs.low))


@pytest.mark.parametrize("inputs", [Inputs(), *PAIRED])
@pytest.mark.parametrize("density", [0.001, 0.05, 0.4])
@pytest.mark.parametrize("features", [2, 6, 400])
def test_the_strata_are_a_distribution_with_the_right_mean(inputs, density, features):
    probability = inputs.strata(features, density)
    units = probability.size - 1
    active = {None: 1, "correlated": 2, "anticorrelated": 1}[inputs.pairs]
    assert probability.min() >= 0
    assert probability.sum() == pytest.approx(1, abs=1e-12)
    assert active * probability @ np.arange(units + 1) == pytest.approx(features * density, rel=1e-12)


@pytest.mark.parametrize("inputs", DISTRIBUTIONS, ids=str)
def test_the_rule_for_one_feature_is_exact_on_each_side_of_zero(inputs):
    x, w = rule(inputs)
    assert w.sum() == pytest.approx(1, abs=1e-12)
    for power in range(9):
        for side in (np.maximum(x, 0), np.minimum(x, 0)):
            law = reference(inputs)
            low, high = (0, max(law.ppf(1), 0)) if side.max() > 0 else (min(law.ppf(0), 0), 0)
            if power == 0 or low == high:
                continue
            expected = integrate.quad(lambda t, k=power, law=law: t**k * law.pdf(t), low, high, epsabs=1e-13)[0]
            assert w @ side**power == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("inputs", DISTRIBUTIONS, ids=str)
def test_quantiles_invert_the_distribution(inputs):
    u = np.linspace(0.001, 0.999, 41)
    np.testing.assert_allclose(inputs.quantile(u), reference(inputs).ppf(u), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("inputs", [Inputs(), Inputs("gaussian"), Inputs("laplace")], ids=str)
def test_moments_are_those_of_the_mixture(inputs):
    law, p = reference(inputs), 0.03
    assert inputs.variance(p) == pytest.approx(p * law.moment(2), rel=1e-12)
    assert inputs.kurtosis(p) == pytest.approx(law.moment(4) / law.moment(2) ** 2 / p, rel=1e-12)
    assert Inputs(low=0.0).variance(p) == pytest.approx(p / 3 - p**2 / 4, rel=1e-12)


@pytest.mark.parametrize("inputs", [*DISTRIBUTIONS, *PAIRED], ids=str)
@pytest.mark.parametrize("density", [0.002, 0.1, 0.45])
def test_points_have_the_right_moments(inputs, density):
    x, w = inputs.points(6, density, 4096, rng=0)
    assert x.shape == (4096, 6)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-12)
    # Left-out strata have less than 1e-4 of the interference; Sobol points do the rest, tails worst.
    accuracy = 0.002 if inputs.distribution == "uniform" else 0.02
    np.testing.assert_allclose(w @ (x != 0), density, rtol=accuracy)
    np.testing.assert_allclose(w @ x**2, density * reference(inputs).moment(2), rtol=accuracy)
    both = (x[:, :, None] != 0) & (x[:, None] != 0)
    expected = np.full((6, 6), density**2)
    if inputs.pairs:
        for i in range(0, 6, 2):
            expected[i, i + 1] = expected[i + 1, i] = density if inputs.pairs == "correlated" else 0
    off = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(np.tensordot(w, both, 1)[off], expected[off], rtol=0.003, atol=1e-18)


@pytest.mark.parametrize("inputs", [Inputs(), *PAIRED], ids=str)
def test_many_features_get_balanced_random_sets(inputs):
    x, w = inputs.points(40, 0.1, 4096, rng=0)
    np.testing.assert_allclose(w @ (x != 0), 0.1, rtol=0.05)  # sets are balanced within a stratum, up to one
    if inputs.pairs == "correlated":
        assert np.array_equal(x[:, ::2] != 0, x[:, 1::2] != 0)
    if inputs.pairs == "anticorrelated":
        assert not ((x[:, ::2] != 0) & (x[:, 1::2] != 0)).any()


def test_mirrored_points_have_no_odd_moments():
    x, w = Inputs().points(6, 0.2, 1024, rng=0)
    assert abs(w @ x.sum(axis=1) ** 3) < 1e-14
    plain, v = Inputs().points(6, 0.2, 1024, mirror=False, rng=0)
    assert abs(v @ plain.sum(axis=1) ** 3) > 1e-6  # so that the line above can fail


def test_every_set_of_a_small_stratum_is_there_equally_often():
    x, _ = Inputs().points(5, 0.05, 1024, rng=0)
    active = [tuple(np.flatnonzero(row)) for row in x]
    counts = [active.count(pair) for pair in itertools.combinations(range(5), 2)]
    assert min(counts) == max(counts) > 0


def test_points_are_reproducible():
    np.testing.assert_array_equal(Inputs().points(6, 0.1, 512, rng=3)[0], Inputs().points(6, 0.1, 512, rng=3)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Inputs("cauchy"), "distribution must be one of uniform, gaussian, laplace, got 'cauchy'"),
        (lambda: Inputs(low=1.0), r"low must be in \[-1, 1\), got 1.0"),
        (lambda: Inputs(pairs="both"), "pairs must be"),
        (lambda: Inputs().points(6, 0.0, 512), r"density must be in \(0, 1\], got 0.0"),
        (lambda: Inputs().points(6, 1.5, 512), r"density must be in \[0, 1\], got 1.5"),
        (lambda: Inputs().points(6, 0.1, 10), "points must be at least"),
        (lambda: Inputs(low=0.0).kurtosis(0.1), "mean 0"),
        (lambda: Inputs(pairs="correlated").points(5, 0.1, 512), "even number of features, got 5"),
        (lambda: Inputs(pairs="anticorrelated").points(6, 0.6, 512), r"\(0, 0.5\] for anticorrelated"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
