"""Falling hulls against their definition, and price levels against sorting everything."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve.losses import envelope
from capsolve.losses.envelope import Envelope, decreasing_convex_envelope, decreasing_convex_envelopes

seeds = st.integers(0, 2**32 - 1)


def some_curve(seed, grid_size=None):
    """Draw a grid and a curve on it: rough, falling, convex, concave, stepped or flat."""
    rng = np.random.default_rng(seed)
    g = grid_size or int(rng.integers(2, 12))
    x = np.concatenate([[0.0], np.sort(rng.uniform(0.01, 0.99, g - 2)), [1.0]])
    steps = rng.exponential(size=g) * np.append(0.0, np.diff(x))
    kind = rng.integers(6)
    if kind == 0:
        y = rng.normal(size=g)
    elif kind == 1:
        y = -np.cumsum(steps)
    elif kind == 2:
        y = (1 - x) ** rng.uniform(1, 4)
    elif kind == 3:
        y = 1 - x ** rng.uniform(1, 4)
    elif kind == 4:
        y = rng.integers(0, 3, g).astype(float)
    else:
        y = np.full(g, rng.normal())
    return x, y * 10.0 ** rng.integers(-8, 9)


def least_chord(x, y, at):
    """The lower hull at one point by definition: the lowest chord over it."""
    chords = [
        y[a] + (at - x[a]) / (x[b] - x[a]) * (y[b] - y[a])
        for a, b in itertools.combinations(range(x.size), 2)
        if x[a] <= at <= x[b]
    ]
    return min(chords)


def check_table(table, x, y):
    vx, vy, gain, gaps = table
    size = np.ptp(y) + np.max(np.abs(y)) * 1e-15
    assert set(zip(vx, vy, strict=True)) <= set(zip(x, y, strict=True)), "vertices are points of the curve"
    assert vx[0] == x[0]
    assert vy[-1] == y.min()
    assert vx[-1] == x[np.argmin(y)], "the smallest minimiser"
    assert gain[-1] == 0.0
    assert (gain[:-1] > 0.0).all()
    assert (np.diff(gain) <= 0.0).all()
    np.testing.assert_allclose(gain[:-1] * np.diff(vx), -np.diff(vy), rtol=1e-9, atol=1e-14 * size)
    for at in [*x[x <= vx[-1]], *np.linspace(0, vx[-1], 7)]:
        assert abs(np.interp(at, vx, vy) - least_chord(x, y, at)) <= 1e-13 * size
    for k in range(vx.size - 1):
        inner = (x > vx[k]) & (x < vx[k + 1])
        hidden = np.max(y[inner] - np.interp(x[inner], vx, vy), initial=0.0)
        assert gaps[k + 1] - gaps[k] == (hidden > 8 * np.finfo(float).eps * np.max(np.abs(y)))


@given(seeds)
def test_the_hull_is_the_lowest_chord(seed):
    x, y = some_curve(seed)
    check_table(decreasing_convex_envelope(x, y), x, y)


def test_the_check_rejects_a_hull_that_misses_a_vertex():
    x = np.linspace(0, 1, 5)
    y = (1 - x) ** 2
    table = decreasing_convex_envelope(x, y)
    check_table(table, x, y)
    with pytest.raises(AssertionError):
        check_table(np.delete(table, 2, axis=1), x, y)


def test_gains_fall_even_where_a_line_was_rounded():
    """Slopes of a line differ in the last digit, and not in falling order."""
    rng = np.random.default_rng(0)
    for _ in range(3000):
        x = np.concatenate([[0.0], np.sort(rng.random(int(rng.integers(1, 38)))), [1.0]])
        gain = decreasing_convex_envelope(x, rng.exponential() * (1 - x))[2]
        assert (np.diff(gain) <= 0.0).all()


def test_many_curves_are_those_one_by_one():
    curves = [some_curve(seed, 9)[1] for seed in range(40)]
    x = np.linspace(0, 1, 9)
    for table, y in zip(decreasing_convex_envelopes(x, np.array(curves)), curves, strict=True):
        np.testing.assert_array_equal(table, decreasing_convex_envelope(x, y))


def some_envelope(seed, features=8):
    """Envelopes over one grid, some of them shared, some weights equal or 0."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, int(rng.integers(2, 12)))
    curves = np.array([some_curve(int(s), x.size)[1] for s in rng.integers(0, 2**32, 4)])
    weight = rng.choice([0.0, 1.0, 1.0, 0.3, 7.7], features)
    return Envelope(decreasing_convex_envelopes(x, curves), rng.integers(0, 4, features), weight), rng


def check_level(hulls, budget, level):
    """Everything that gains more than the price fits, and with the ties it does not."""
    price, below, above = level
    assert price > 0.0
    assert hulls.capacity(below).sum() <= budget + 1e-12
    assert hulls.capacity(above).sum() >= budget - 1e-12
    assert hulls.capacity(above).sum() > hulls.capacity(below).sum()
    for i in range(below.size):
        gain = hulls.weight[i] * hulls.gain[hulls.offset[i] + np.arange(hulls.length[i])]
        assert (gain[: below[i]] > price).all()
        assert (gain[below[i] : above[i]] == price).all()
        assert (gain[above[i] :] < price).all()


@given(seeds)
def test_the_level_by_pivots_is_the_level_by_sorting(seed):
    hulls, rng = some_envelope(seed)
    demand = hulls.capacity(hulls.length).sum()
    if demand == 0.0:
        return
    for budget in [0.0, demand * rng.random(), demand * rng.random(), demand * (1 - 1e-9)]:
        levels = []
        for limit in (0, 4_096):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(envelope, "SORT_LIMIT", limit)
                levels.append(hulls.solve_price(budget))
            check_level(hulls, budget, levels[-1])
        assert levels[0][0] == levels[1][0]
        np.testing.assert_array_equal(levels[0][1:], levels[1][1:])


def test_the_check_rejects_a_level_one_segment_off():
    x = np.linspace(0, 1, 5)
    hulls = Envelope(
        decreasing_convex_envelopes(x, (1 - x[None]) ** 2), np.zeros(3, dtype=int), np.array([1.0, 2.0, 3.0])
    )
    budget = hulls.capacity(hulls.length).sum() / 2
    price, below, above = hulls.solve_price(budget)
    check_level(hulls, budget, (price, below, above))
    below[np.flatnonzero(below)[0]] -= 1
    with pytest.raises(AssertionError):
        check_level(hulls, budget, (price, below, above))


@given(seeds)
def test_a_price_fills_what_gains_more(seed):
    hulls, rng = some_envelope(seed)
    some = hulls.weight[0] * hulls.gain[hulls.offset[0]]
    for price in (0.0, some, float(rng.exponential())):
        state = hulls.state(price)
        for i, filled in enumerate(state):
            gain = hulls.weight[i] * hulls.gain[hulls.offset[i] + np.arange(hulls.length[i])]
            assert filled == np.count_nonzero(gain > price)
