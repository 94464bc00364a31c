"""The model: what it accepts, and every method against a slow direct calculation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import TabulatedLoss, allocate
from capsolve.certificate import lagrangian_bound
from capsolve.losses import tabulated
from capsolve.losses.model import is_loss_model

seeds = st.integers(0, 2**32 - 1)


def some_model(seed, *, shape=None):
    """Draw rough, falling, convex or concave curves: one each, or one shape with weights."""
    rng = np.random.default_rng(seed)
    n, g = int(rng.integers(1, 7)), int(rng.integers(2, 9))
    grid = np.concatenate([[0.0], np.sort(rng.uniform(0.01, 0.99, g - 2)), [1.0]])
    rows = 1 if (rng.random() < 0.5 if shape is None else shape) else n
    kind = rng.integers(3)
    curves = rng.normal(size=(rows, g))
    if kind == 1:
        curves = np.sort(curves)[:, ::-1]
    elif kind == 2:
        curves = (1 - grid) ** rng.uniform(0.3, 3.0, (rows, 1)) * rng.exponential(size=(rows, 1))
    if rows == n > 1 or shape is False:
        return TabulatedLoss(curves, grid), rng
    return TabulatedLoss(curves[0], grid, rng.exponential(size=n) * (rng.random(n) < 0.8)), rng


def rows_of(model):
    """The curves of all features, written out."""
    return model.curves if model.weight is None else np.outer(model.weight, model.curves)


def some_capacity(model, rng):
    """Capacities on the grid, between its points, and one ulp beside them."""
    c = np.where(rng.random(model.features) < 0.5, rng.random(model.features), rng.choice(model.grid, model.features))
    return np.clip(np.where(rng.random(c.size) < 0.2, np.nextafter(c, rng.choice([0, 1])), c), 0.0, 1.0)


@given(seeds)
def test_losses_are_linear_interpolation(seed):
    model, rng = some_model(seed)
    c, rows = some_capacity(model, rng), rows_of(model)
    expected = [np.interp(x, model.grid, y) for x, y in zip(c, rows, strict=True)]
    np.testing.assert_allclose(model.feature_loss(c), expected, atol=4e-16 * (1 + np.abs(rows).max()), rtol=1e-14)
    for k, x in enumerate(model.grid):
        np.testing.assert_array_equal(model.feature_loss(np.full(model.features, x)), rows[:, k])


@given(seeds)
def test_marginals_are_one_sided_slopes(seed):
    model, rng = some_model(seed)
    c, rows = some_capacity(model, rng), rows_of(model)
    slopes = -np.diff(rows) / np.diff(model.grid)
    for i, x in enumerate(c):
        right = next((k for k in range(slopes.shape[1]) if model.grid[k] <= x < model.grid[k + 1]), -1)
        left = next((k for k in range(slopes.shape[1]) if model.grid[k] < x <= model.grid[k + 1]), 0)
        assert model.marginal(c)[i] == pytest.approx(slopes[i, right], rel=1e-14)
        assert model.marginal(c, growing=False)[i] == pytest.approx(slopes[i, left], rel=1e-14)


@given(seeds, st.sampled_from([1, 10, 1 << 20]))
def test_average_gain_is_the_best_chord_ahead(seed, block):
    model, rng = some_model(seed)
    c, rows = some_capacity(model, rng), rows_of(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabulated, "BLOCK", block)  # however many features a temporary table holds
        found = model.average_gain(c)
    for i, x in enumerate(c):
        ahead = model.grid > x + 1e-12
        chords = (np.interp(x, model.grid, rows[i]) - rows[i][ahead]) / (model.grid[ahead] - x)
        expected = 0.0 if x == 1.0 else max([model.marginal(c)[i], *chords])
        assert found[i] == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.abs(rows).max())


@given(seeds)
def test_the_response_minimises_at_its_price(seed):
    model, rng = some_model(seed)
    rows = rows_of(model)
    slopes = np.append(np.abs(np.diff(rows) / np.diff(model.grid)).ravel(), 0.0)
    for price in (0.0, float(rng.exponential()), float(rng.choice(slopes))):
        total = rows + price * model.grid
        c = model.response(price)
        np.testing.assert_allclose(
            model.feature_loss(c) + price * c, total.min(axis=1), atol=1e-14 * np.abs(total).max(), rtol=0
        )
        # the smallest minimiser, where rounding does not make the tie
        clear = total > total.min(axis=1, keepdims=True) + 1e-12 * np.abs(total).max()
        first = model.grid[np.argmin(clear, axis=1)]
        assert (c >= first).all()
        only = np.count_nonzero(~clear, axis=1) == 1
        np.testing.assert_array_equal(c[only], first[only])


def test_of_several_responses_the_smallest():
    model = TabulatedLoss([[1.0, 0.5, 0.0, 0.0], [2.0, 1.0, 1.0, 0.0]], [0, 0.25, 0.5, 1.0])
    np.testing.assert_array_equal(model.response(0.0), [0.5, 1.0])
    np.testing.assert_array_equal(model.response(2.0), [0.0, 0.25])  # both have a segment that gains exactly 2
    assert model.saturation_budget == 1.5


@given(seeds)
def test_the_lower_bound_is_the_lagrangian_and_bounds_every_allocation(seed):
    model, rng = some_model(seed)
    rows, price, budget = rows_of(model), float(rng.exponential()), float(rng.uniform(0, model.features))
    direct = math.fsum(np.min(rows + price * model.grid, axis=1).tolist()) - price * budget
    size = np.abs(rows).max() + price * (budget + 1)
    assert lagrangian_bound(model, price, budget) == pytest.approx(direct, abs=1e-14 * model.features * size)
    for _ in range(20):
        c = rng.random(model.features)
        c *= min(1.0, budget / c.sum())
        assert model.feature_loss(c).sum() >= lagrangian_bound(model, price, budget) - 1e-13 * size


@given(seeds)
def test_floor_and_demand(seed):
    model, _ = some_model(seed)
    rows = rows_of(model)
    assert model.floor == pytest.approx(rows.min(axis=1).sum(), rel=1e-14, abs=1e-14 * np.abs(rows).max())
    assert model.saturation_budget == pytest.approx(model.grid[np.argmin(rows, axis=1)].sum(), rel=1e-14)


@given(seeds)
def test_one_shape_is_rows_written_out(seed):
    model, rng = some_model(seed, shape=True)
    rows = TabulatedLoss(rows_of(model), model.grid)
    c, price = some_capacity(model, rng), float(rng.exponential())
    size = np.abs(rows.curves).max() + price
    for name in ("feature_loss", "marginal", "average_gain"):
        ours, theirs = getattr(model, name)(c), getattr(rows, name)(c)
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-12, atol=1e-9 * size if name == "average_gain" else 1e-14 * size
        )
    assert lagrangian_bound(model, price, 1.0) == pytest.approx(lagrangian_bound(rows, price, 1.0), abs=1e-13 * size)
    assert model.floor == pytest.approx(rows.floor, abs=1e-13 * size)


def test_a_shape_takes_no_memory_per_feature_and_grid_point():
    import tracemalloc

    weight, shape = np.ones(100_000), np.linspace(1, 0, 1001) ** 2
    tracemalloc.start()
    model = TabulatedLoss(shape, weight=weight)
    c = model.response(1.0)
    for call in (model.feature_loss, model.marginal, model.average_gain):
        call(c)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # a table would be 800 MB


@pytest.mark.parametrize("unit", [1e-180, 1e-120, 1.0, 1e120, 1e180])
@pytest.mark.parametrize("weighted", [False, True])
def test_normalised_losses_are_of_order_one(unit, weighted):
    y = np.array([3.0, 1.0, 0.5, 0.25]) * unit
    model = TabulatedLoss(y, weight=[1.0, 2.0]) if weighted else TabulatedLoss([y, 2 * y])
    c = np.array([0.3, 0.9])
    scaled, root = model.normalised(c)
    assert 0.1 < scaled.feature_loss(c).max() < 100.0
    assert math.frexp(root)[0] == 0.5  # a power of two
    np.testing.assert_allclose(scaled.feature_loss(c) * root * root, model.feature_loss(c), rtol=1e-15)
    if unit == 1.0:
        assert scaled is model


def test_normalising_does_not_overflow_what_is_large_elsewhere():
    model = TabulatedLoss([[1e150, 0.0], [1e-150, 0.0]])
    scaled, root = model.normalised(np.array([1.0, 0.5]))
    assert np.isfinite(scaled.curves).all()
    np.testing.assert_allclose(scaled.feature_loss([1.0, 0.5]) * root * root, [0.0, 5e-151])


def test_it_satisfies_the_protocol():
    assert is_loss_model(TabulatedLoss([[1.0, 0.0]]))


def test_it_is_frozen_and_keeps_private_copies():
    y, x, w = np.array([1.0, 0.4, 0.0]), np.array([0.0, 0.5, 1.0]), np.ones(2)
    model = TabulatedLoss(y, x, w)
    y[0] = x[1] = w[0] = 77.0
    np.testing.assert_array_equal(model.feature_loss([0.5, 0.0]), [0.4, 1.0])
    with pytest.raises(AttributeError):
        model.grid = x
    for array in (model.curves, model.grid, model.weight):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_repr():
    assert repr(TabulatedLoss([[1, 0, 0]] * 2)) == "TabulatedLoss(2 features, one curve each, 3 grid points)"
    assert repr(TabulatedLoss([1, 0], weight=[1])) == "TabulatedLoss(1 features, one shape, weighted, 2 grid points)"


@pytest.mark.parametrize("curves", [[[1, 0.5, 0]], np.array([[1, 0.5, 0]], dtype=np.float32), ((1, 0.5, 0),)])
def test_what_arrays_may_look_like(curves):
    np.testing.assert_array_equal(allocate(TabulatedLoss(curves), 0.5).capacity, [0.5])
    strided = np.repeat(np.asarray(curves, dtype=float), 2, axis=1)[:, ::2]
    strided.setflags(write=False)
    np.testing.assert_array_equal(allocate(TabulatedLoss(strided), 0.5).capacity, [0.5])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"curves": [[1.0, np.nan]]}, r"curves must be finite, got nan at index \(0, 1\)"),
        ({"curves": [[1.0, np.inf]]}, "curves must be finite, got inf"),
        ({"curves": [["a", "b"]]}, "curves must hold real numbers"),
        ({"curves": [[1.0, 0.0], [1.0]]}, "curves must be a rectangular array"),
        ({"curves": 1.0}, r"curves must have shape .* got \(\)"),
        ({"curves": [[[1.0, 0.0]]]}, r"curves must have shape .* got \(1, 1, 2\)"),
        ({"curves": [[1.0]]}, r"curves must have shape .* got \(1, 1\)"),
        ({"curves": np.empty((0, 5))}, r"curves must have shape .* got \(0, 5\)"),
        ({"curves": [1.0, 0.0]}, "weight is needed with a single curve"),
        ({"curves": [[1.0, 0.0]], "weight": [1.0]}, "weight goes with a single curve"),
        ({"curves": [1.0, 0.0], "weight": []}, "weight must have at least one feature"),
        ({"curves": [1.0, 0.0], "weight": [1.0, -1.0]}, "weight must be >= 0, got -1.0 at index 1"),
        ({"curves": [1.0, 0.0], "weight": [np.inf]}, "weight must be finite"),
        ({"curves": [1.0, 0.0], "weight": [[1.0]]}, "weight must have 1 dimension"),
        ({"curves": [[1.0, 0.0]], "grid": [0.0, 0.5, 1.0]}, "grid must have one entry per column of curves: 2"),
        ({"curves": [[1.0, 0.0]], "grid": [0.1, 1.0]}, "grid must go from exactly 0 to exactly 1, got 0.1 to 1.0"),
        ({"curves": [[1.0, 0.0]], "grid": [0.0, 2.0]}, "grid must go from exactly 0 to exactly 1"),
        ({"curves": [[1, 1, 0]], "grid": [0, 0, 1]}, "grid must increase strictly, got 0.0 then 0.0 at index 1"),
        ({"curves": [[1, 1, 0, 0]], "grid": [0, 0.6, 0.5, 1]}, "grid must increase strictly, got 0.6 then 0.5"),
        ({"curves": [[1, 0, 0]], "grid": [0, np.nan, 1]}, "grid must be finite"),
        ({"curves": [[1e308, 0.0]]}, r"curves must sum to at most 1e\+300 in size, got 1e\+308"),
        ({"curves": [[-1e308, 0.0], [-1e308, 0.0]]}, "curves must sum to at most"),
        ({"curves": [1e200, 0.0], "weight": [1e200]}, "curves must sum to at most"),
        ({"curves": [1e301, 0.0], "weight": [0.0]}, "curves must sum to at most"),
        ({"curves": [[1e290, 0, 0]], "grid": [0, 1e-30, 1]}, r"must not fall by more than 1e\+300 per dimension"),
        ({"curves": [[1.0, 0, 0]], "grid": [0, 1e-310, 1]}, "must not fall by more than"),
    ],
)
def test_bad_input(arguments, match):
    with pytest.raises(ValueError, match=match):
        TabulatedLoss(**arguments)


@pytest.mark.parametrize(
    ("capacity", "match"),
    [
        ([0.5], r"capacity must have one entry per feature: shape \(2,\), got \(1,\)"),
        ([0.5, 1.1], r"capacity must be in \[0, 1\], got 1.1 at index 1"),
        ([-0.1, 0.5], r"capacity must be in \[0, 1\]"),
        ([np.nan, 0.5], "capacity must be finite"),
        (0.5, "capacity must have one entry per feature"),
    ],
)
@pytest.mark.parametrize("method", ["feature_loss", "marginal", "average_gain", "normalised"])
def test_bad_capacities(method, capacity, match):
    with pytest.raises(ValueError, match=match):
        getattr(TabulatedLoss([[1.0, 0.0]] * 2), method)(capacity)


def test_a_negative_price_is_refused():
    with pytest.raises(ValueError, match=r"price must be >= 0, got -1\.0"):
        TabulatedLoss([[1.0, 0.0]]).response(-1.0)
    with pytest.raises(ValueError, match=r"price must be >= 0, got -1\.0"):
        lagrangian_bound(TabulatedLoss([[1.0, 0.0]]), -1.0, 1.0)
