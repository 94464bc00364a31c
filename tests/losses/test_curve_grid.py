"""Adaptive sampling: accuracy where it is claimed, errors where it is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import TabulatedLoss
from capsolve.losses import curve_grid

FINE = np.linspace(0.0, 1.0, 100_001)


def worst_error(model, function, row=0):
    """The largest interpolation error relative to the curve's range."""
    y = np.asarray(function(FINE))
    return np.max(np.abs(np.interp(FINE, model.grid, model.curves[row]) - y)) / max(np.ptp(y), 1e-300)


SMOOTH = {
    "quadratic": lambda c: (1 - c) ** 2,
    "logistic": lambda c: 1 / (1 + np.exp(40 * (c - 0.37))),
    "wave": lambda c: np.cos(64 * np.pi * c),  # in step with every uniform grid of up to 64 intervals
    "root": lambda c: 1 - np.sqrt(c),
    "steep": lambda c: np.exp(-1000 * c),
    "line": lambda c: 3 - 2 * c,
    "constant": lambda c: np.full_like(c, 7.0),
    "offset": lambda c: 1e9 + c**2,
    "tiny": lambda c: 1e-200 * (1 - c) ** 3,
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("accuracy", [1e-3, 1e-6])
def test_smooth_curves_meet_the_accuracy(name, accuracy):
    function = SMOOTH[name]
    model = TabulatedLoss.from_callables([function], accuracy=accuracy)
    assert model.grid[0] == 0.0
    assert model.grid[-1] == 1.0
    np.testing.assert_array_equal(model.curves[0], function(model.grid))
    # for a curve whose second derivative varies little within an interval the middle is the worst point
    assert worst_error(model, function) <= accuracy * 1.02 + 1e-7 * (name == "offset")


def test_finer_accuracy_costs_points_like_its_square_root():
    sizes = [TabulatedLoss.from_callables([SMOOTH["quadratic"]], accuracy=a).grid.size for a in (1e-4, 1e-6, 1e-8)]
    assert sizes == [65, 513, 8193]  # h²/8 · f'' = (range) h²/4 ≤ accuracy, from h = 1/64 by halving


@given(st.integers(0, 2**32 - 1))
def test_kinked_convex_curves_exceed_the_accuracy_by_at_most_the_stated_share(seed):
    rng = np.random.default_rng(seed)
    at, slope = rng.random(5), rng.normal(size=5) ** 2

    def kinked(c):
        return np.sum(slope * np.abs(c[:, None] - at), axis=1)

    model = TabulatedLoss.from_callables([kinked], accuracy=1e-4)
    y = kinked(FINE)
    error = np.interp(FINE, model.grid, model.curves[0]) - y
    assert np.max(np.abs(error)) <= 1.4143 * 1e-4 * np.ptp(y)


def test_a_grid_too_coarse_fails_the_same_check():
    coarse = np.linspace(0, 1, 65)
    model = TabulatedLoss(SMOOTH["logistic"](coarse)[None], coarse)
    assert worst_error(model, SMOOTH["logistic"]) > 1e-3


def test_one_grid_serves_the_most_demanding_curve():
    both = TabulatedLoss.from_callables([SMOOTH["line"], SMOOTH["steep"]], accuracy=1e-5)
    alone = TabulatedLoss.from_callables([SMOOTH["steep"]], accuracy=1e-5)
    np.testing.assert_array_equal(both.grid, alone.grid)
    np.testing.assert_array_equal(both.curves[1], alone.curves[0])


def test_a_single_callable_is_a_shape():
    model = TabulatedLoss.from_callables(SMOOTH["quadratic"], weight=[1.0, 2.0])
    np.testing.assert_allclose(model.feature_loss([0.5, 0.5]), [0.25, 0.5], rtol=1e-6)


def test_a_root_is_resolved_to_the_stated_accuracy():
    model = TabulatedLoss.from_callables([np.sqrt], accuracy=1e-7)
    x = np.concatenate([FINE, np.geomspace(1e-16, 1, 100_001)])
    assert np.max(np.abs(np.interp(x, model.grid, model.curves[0]) - np.sqrt(x))) <= 1.02e-7
    with pytest.raises(ValueError, match="too steep"):
        TabulatedLoss.from_callables([np.sqrt], accuracy=1e-9)


def test_a_jump_is_an_error_that_says_where():
    with pytest.raises(ValueError, match=r"functions\[1\] could not be sampled .* near C = 0\.3"):
        TabulatedLoss.from_callables([np.cos, lambda c: np.where(c < 0.3, 1.0, 0.0)])


def test_noise_is_an_error():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"functions\[0\] needs more than 100000 grid points"):
        TabulatedLoss.from_callables([lambda c: rng.random(c.size)])


def test_the_table_of_all_values_is_bounded(monkeypatch):
    monkeypatch.setattr(curve_grid, "LARGEST_TABLE", 300)
    with pytest.raises(ValueError, match="more than 100 grid points"):
        TabulatedLoss.from_callables([np.cos, np.sin, SMOOTH["steep"]])


@pytest.mark.parametrize(
    ("functions", "match"),
    [
        ([lambda c: np.where(c > 0.5, np.nan, c)], r"functions\[0\] must be finite.*got nan at C = 0\.5"),
        ([lambda c: np.where(c > 0.9, np.inf, 0.0)], r"functions\[0\] must be finite on \[0, 1\].*got inf at C = 0\.9"),
        ([np.cos, lambda c: c * 1e301], r"functions\[1\] must be finite on \[0, 1\] and at most 1e\+300"),
        ([lambda _: 1.0], r"functions\[0\] must return one real number per capacity.*shape \(\)"),
        ([lambda c: c[:-1]], "one real number per capacity"),
        ([lambda c: c + 1j], "dtype complex128"),
        ([lambda c: ["a"] * c.size], "one real number per capacity"),
        ([np.cos, 3], "functions must be callables, got int at index 1"),
        ([], "at least one callable"),
    ],
)
def test_bad_functions(functions, match):
    with pytest.raises(ValueError, match=match):
        TabulatedLoss.from_callables(functions)


def test_bad_arguments():
    with pytest.raises(ValueError, match="weight is needed"):
        TabulatedLoss.from_callables(np.cos)
    with pytest.raises(ValueError, match="weight goes with a single callable"):
        TabulatedLoss.from_callables([np.cos], weight=[1.0])
    for accuracy in (0.0, -1.0, np.nan, 1.0, [1e-3]):
        with pytest.raises(ValueError, match="accuracy must be"):
            TabulatedLoss.from_callables([np.cos], accuracy=accuracy)


def test_a_function_may_overwrite_its_argument():
    def greedy(c):
        c *= -1.0
        return c

    model = TabulatedLoss.from_callables([greedy])
    np.testing.assert_array_equal(model.curves[0], -model.grid)
