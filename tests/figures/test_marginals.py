"""The water level: curves, dots and price are those of the allocation."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from scipy.optimize import minimize

import capsolve
from capsolve import Phase, figures
from capsolve.figures.marginals import spread


def curves(ax):
    """Return the curves of the features: lines but for the price."""
    return [line for line in ax.lines if len(line.get_xdata()) > 2]


def price(ax):
    """Return where the price is drawn."""
    return [line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 2]


def dots(ax):
    """Return the capacity, height and phase of every dot."""
    found = []
    for collection in ax.collections:
        assert type(collection) is PathCollection
        phase = Phase[collection.get_label().upper()]
        if len(collection.get_offsets()):
            assert tuple(collection.get_facecolors()[0]) == to_rgba(figures.COLOURS[phase])
        found += [(*offset, phase) for offset in collection.get_offsets().tolist()]
    return found


@pytest.mark.parametrize("bias", [True, False])
def test_each_curve_is_the_slope_of_the_loss(bias):
    allocation = capsolve.solve([4.0, 2.0, 1.0, 0.5, 0.1], [9.0, 4.0, 20.0, 9.0, 3.0], 2, bias=bias)
    drawn = curves(figures.water_level(allocation))
    assert len(drawn) == 5
    for i, line in enumerate(drawn):  # the profile is sorted by importance
        x, y = line.get_data()
        for k in np.flatnonzero((x > 0.01) & (x < 0.99))[::40]:
            # central differences of the loss in one capacity, others kept: an independent route to its slope
            step = 1e-6

            def loss(c, i=i):
                capacity = np.array(allocation.capacity)
                capacity[i] = c
                if bias:
                    return allocation.model.feature_loss(capacity).sum()
                # without bias: at the optimum's trace T, where ∂L/∂C is that of losses with v + T/(κ−1) for v
                v = allocation.model.effective_importance(allocation.model.trace(allocation.capacity))
                return capsolve.QuadraticLoss(v, allocation.model.kurtosis).feature_loss(capacity).sum()

            slope = (loss(x[k] - step) - loss(x[k] + step)) / (2 * step)
            # the difference's rounding is 1e-16 L / 1e-6, its truncation 1e-12 f'''
            assert y[k] == pytest.approx(slope, rel=1e-6, abs=1e-9 * allocation.loss)


def test_dots_lie_on_the_price_or_on_its_right_side():
    rng = np.random.default_rng(0)
    for _ in range(10):
        allocation = capsolve.solve(rng.pareto(1.5, 12), 3.0 + rng.pareto(1.0, 12), rng.uniform(1, 6))
        ax = figures.water_level(allocation)
        (level,) = price(ax)
        assert level == allocation.price
        seen = dots(ax)
        assert sorted(c for c, _, _ in seen) == sorted(allocation.capacity)
        for capacity, height, phase in seen:
            if phase is Phase.IGNORED:
                assert capacity == 0
                assert height <= level * (1 + 1e-9)
            elif phase is Phase.MONOSEMANTIC:
                assert capacity == 1
                assert height >= level * (1 - 1e-9)
            else:
                assert height == pytest.approx(level, rel=1e-9)


def test_dots_lie_on_their_curves_in_a_table_too():
    curve = capsolve.TabulatedLoss([[1.0, 0.5, 0.3, 0.0], [2.0, 0.5, 0.2, 0.1], [1.0, 0.9, 0.9, 1.0]])
    ax = figures.water_level(capsolve.allocate(curve, 1))
    heights = {line.get_color(): line.get_ydata() for line in curves(ax)}
    for _, height, phase in dots(ax):
        values = heights[figures.COLOURS[phase]]
        assert np.nanmin(values) <= height <= np.nanmax(values)
    drawn = next(line for line in curves(ax) if np.isclose(line.get_ydata()[0], 4.5))
    np.testing.assert_allclose(drawn.get_ydata(), np.repeat([4.5, 0.9, 0.3], 2))
    np.testing.assert_allclose(drawn.get_xdata(), np.repeat([0, 1 / 3, 2 / 3, 1], 2)[1:-1])


def test_weights_multiply_the_curve():
    allocation = capsolve.allocate(capsolve.TabulatedLoss([1.0, 0.4, 0.0], weight=[2.0, 1.0]), 1)
    heights = [line.get_ydata() for line in curves(figures.water_level(allocation))]
    np.testing.assert_allclose(heights, [[2.4, 2.4, 1.6, 1.6], [1.2, 1.2, 0.8, 0.8]])


def test_a_rising_loss_has_no_place_on_the_logarithmic_axis():
    ax = figures.water_level(capsolve.allocate(capsolve.TabulatedLoss([[1.0, 0.5, 0.7]]), 1))
    (line,) = curves(ax)
    np.testing.assert_array_equal(line.get_ydata(), [1.0, 1.0, np.nan, np.nan])


def test_names_say_which_curves_stand_for_several():
    allocation = capsolve.solve([2.0, 1.0, 1.0, 1.0, 0.5, 0.5], 9.0, 2)
    texts = [text.get_text() for text in figures.water_level(allocation).texts]
    assert texts == ["4 and 1 more", "1 and 2 more", "0"]
    texts = [text.get_text() for text in figures.water_level(allocation, names=["$x$", *"bbbcd"]).texts]
    assert texts == ["c and 1 more", "b (×3)", "$x$"]
    with pytest.raises(ValueError, match="6 features, got 1 names"):
        figures.water_level(allocation, names=["a"])


def test_of_many_curves_some_are_drawn_and_the_axis_says_so():
    allocation = capsolve.solve(capsolve.power_law(100_000, 1.0), 30.0, 3000)
    ax = figures.water_level(allocation)
    assert 30 <= len(curves(ax)) <= 36
    assert f"({len(curves(ax))} of 100,000 curves drawn)" in ax.get_xlabel()
    assert {phase for _, _, phase in dots(ax)} == set(Phase)
    assert not ax.texts


def test_there_is_no_line_at_price_zero():
    assert price(figures.water_level(capsolve.solve([1.0], 9.0, 2))) == []


@pytest.mark.parametrize(
    "allocation",
    [
        capsolve.solve([0.0, 0.0], [1.0, 9.0], 1),
        capsolve.solve([1.0, 0.0, 2.0], [2.0, 3.0, 9.0], 5),
        capsolve.solve([1.0, 2.0], 1.0, 1),
        capsolve.solve([1e-150, 1.0, 1e150], [1.0, 1e12, 3.0], 1.5),
        capsolve.solve([5e-324, 1.0], [9.0, 9.0], 0.5),
        capsolve.solve([1e150, 1e150], 9.0, 1),
    ],
    ids=repr,
)
def test_odd_allocations_are_drawn_without_a_warning(allocation, tmp_path):
    figures.save(figures.water_level(allocation).figure, tmp_path / "a.png")


def test_spread_moves_as_little_as_it_takes():
    rng = np.random.default_rng(0)
    for _ in range(5):
        places = np.sort(rng.uniform(size=6)).tolist()
        moved = spread(places, 0.15)
        assert np.diff(moved).min() > 0.15 - 1e-12
        found = minimize(
            lambda p, places=places: np.sum((p - places) ** 2),
            np.arange(6.0),
            constraints={"type": "ineq", "fun": lambda p: np.diff(p) - 0.15},
            method="SLSQP",
            tol=1e-14,
        )
        np.testing.assert_allclose(moved, found.x, atol=1e-6)  # √tol: the objective is flat at its minimum
    assert spread([], 1.0) == []


# side by side


def six():
    """Return the six cases of the paper's Fig. 4."""
    points = {"A": (0.5, 2.25), "B": (2, 2.25), "C": (1, 3.0), "D": (0.1, 18.0), "E": (0.6, 18.0), "F": (4.0, 18.0)}
    return {label: capsolve.solve([V, 1, 1, 1, 1, 1], kurtosis, 3) for label, (V, kurtosis) in points.items()}


def test_six_cases():
    figure = figures.marginal_cases(six())
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "A, increasing returns\nodd is ignored",
        "B, increasing returns\nodd is monosemantic",
        "C, constant returns\nodd is polysemantic",
        "D, diminishing returns\nodd is ignored",
        "E, diminishing returns\nodd is polysemantic",
        "F, diminishing returns\nodd is monosemantic",
    ]
    for ax, sign in zip(figure.axes, (1, 1, 0, -1, -1, -1), strict=True):
        for line in curves(ax):
            assert np.unique(np.sign(np.diff(line.get_ydata()).round(12))) == sign


def second_lines(cases, **given):
    return [ax.get_title(loc="left").partition("\n")[2] for ax in figures.marginal_cases(cases, **given).axes]


def test_only_where_one_feature_differs_it_is_called_odd():
    v = [3.0, 2.0, 1.0]
    plain = {"a": capsolve.solve(v, 9.0, 1), "b": capsolve.solve(v, 9.0, 3)}
    assert second_lines(plain) == ["feature 0 is polysemantic", "feature 0 is monosemantic"]
    assert second_lines(plain, names=["x", "y", "z"]) == ["x is polysemantic", "x is monosemantic"]
    named = {"a": capsolve.solve(capsolve.Profile(v, 9.0, ["cat", "dog", "dog"]), dimensions=3)}
    assert second_lines(named) == ["cat is monosemantic"]
    assert [text.get_text() for text in figures.marginal_cases(named).axes[0].texts] == ["dog", "dog", "cat"]
    assert second_lines({"a": capsolve.solve([1.0, 1.0, 1.0], 9.0, 3)}) == ["feature 0 is monosemantic"]


def test_where_nothing_is_worth_anything_that_is_said():
    ax = figures.water_level(capsolve.solve([0.0, 0.0], 9.0, 1))
    assert [text.get_text() for text in ax.texts] == ["0: no feature gains from capacity"]
    assert not ax.get_yticks().size


def test_cases_of_other_shapes():
    table = capsolve.allocate(capsolve.TabulatedLoss([1.0, 0.2, 0.0], weight=[3, 2, 1]), 1)
    mixed = capsolve.solve([1.0, 1.0], [2.0, 9.0], 1)
    figure = figures.marginal_cases({"table": table, "mixed": mixed}, names=None)
    assert len(figure.axes) == 2
    assert figure.axes[0].get_title(loc="left").startswith("table\n")
    assert "mixed returns" in figure.axes[1].get_title(loc="left")
    with pytest.raises(ValueError, match="at least one allocation"):
        figures.marginal_cases({})
