"""The generic routes against oracles that share no code with them."""

import numpy as np
import pytest

from capsolve import example, solve
from capsolve.verification.independent import convex_programme, exhaustive, loss_at_zero
from tests import oracles


def draw(rng, n, low, high):
    return 10 ** rng.uniform(-1, 1, n), rng.uniform(low, high, n)


@pytest.mark.parametrize("seed", range(4))
def test_convex_programme(seed):
    rng = np.random.default_rng(seed)
    v, k = draw(rng, 7, 3, 40)
    k[0] = 3.0
    for dimensions in (0.0, 0.7, 3.0, 7.0, 9.0):
        value, kept = convex_programme(v, k, dimensions, True)
        expected = float(oracles.exact_convex(v, k, dimensions)[2])
        assert value == pytest.approx(expected, abs=20 * kept * loss_at_zero(v, k, True))


def test_convex_programme_without_bias():
    # Two equal features in one dimension: L = (κ−1) 2 (v−m)² + 4 m² (2 − 1) + 4 (v−m)², a parabola in m.
    v, k = np.array([1.5, 1.5]), np.array([9.0, 9.0])
    a, b = 2 * 8 + 4, 4
    least = 1.5**2 * a * b / (a + b)
    value, kept = convex_programme(v, k, 1.0, False)
    assert value == pytest.approx(least, abs=20 * kept * loss_at_zero(v, k, False))


def test_convex_programme_with_chords_is_a_bound_and_sharp_where_features_are_whole():
    rng = np.random.default_rng(8)
    v, k = draw(rng, 6, 1, 3)
    least = oracles.brute_force(v, k, 3.0)
    value, kept = convex_programme(v, k, 3.0, True)
    assert value == pytest.approx(least, abs=20 * kept * loss_at_zero(v, k, True))
    part, _ = convex_programme(v, k, 2.5, True)
    assert part < oracles.brute_force(v, k, 2.5) * (1 - 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_search_finds_what_brute_force_finds(seed):
    rng = np.random.default_rng(seed)
    v, k = draw(rng, 4, 1, 3)
    more, sparse = draw(rng, 3, 3, 30)
    v, k = np.append(v, more), np.append(k, sparse)
    k[-1] = 3.0
    dimensions = float(rng.integers(0, 8)) if seed % 2 else rng.uniform(0, 7)
    # both refine a grid until neighbours differ by 1e-10, where the loss is flat to rounding
    assert exhaustive(v, k, dimensions) == pytest.approx(oracles.brute_force(v, k, dimensions), rel=1e-10, abs=1e-12)


def test_the_tolerance_of_the_programme_holds_for_any_budget():
    # where all constraints are active at once; 64 would be the largest number in any of them
    v, k = example("digits").importance, example("digits").kurtosis
    for dimensions in (63.0, 64.0, 1000.0):
        value, kept = convex_programme(v, k, dimensions, True)
        assert value <= solve(v, k, dimensions).loss + 10 * kept * loss_at_zero(v, k, True)


def test_search_meets_the_easy_cases():
    assert exhaustive(np.zeros(2), np.array([2.0, 5.0]), 1.0) == 0.0
    assert exhaustive(np.array([2.0, 1.0]), np.array([2.0, 2.0]), 0.0) == 5.0
    assert exhaustive(np.array([2.0, 1.0]), np.array([2.0, 2.0]), 1.0) == 1.0
    assert exhaustive(np.array([2.0, 1.0]), np.array([2.0, 2.0]), 5.0) == 0.0
    half = exhaustive(np.array([1.0]), np.array([2.0]), 0.5)
    assert half == pytest.approx(0.5 / 0.75, rel=1e-14)


def test_units_do_not_matter():
    v, k = np.array([2.0, 1.0, 0.7]), np.array([2.0, 9.0, 5.0])
    for unit in (1e-120, 1e120):
        assert exhaustive(v * unit, k, 1.3) == pytest.approx(exhaustive(v, k, 1.3) * unit**2, rel=1e-12)
        large, small = convex_programme(v * unit, k, 1.3, True)[0], convex_programme(v, k, 1.3, True)[0]
        assert large == pytest.approx(small * unit**2, rel=1e-8)
