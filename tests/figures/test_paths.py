"""The picture of a path: its cells, lines and prices are those of the allocations."""

import numpy as np
import pytest

import capsolve
from capsolve import figures


def test_cells_are_the_capacities():
    importance = [0.5, 4.0, 1.0, 2.0]
    budgets = [3.0, 0.5, 1.0, 2.0, 1.0]
    path = capsolve.capacity_path(importance, 9.0, budgets)
    above, below, _ = figures.capacity_path(path, names="abcd").axes
    (mesh,) = above.collections
    expected = [capsolve.solve(importance, 9.0, D).capacity[[1, 3, 2, 0]] for D in (0.5, 1.0, 2.0, 3.0)]
    np.testing.assert_allclose(mesh.get_array(), np.transpose(expected), atol=1e-12)
    assert [label.get_text() for label in above.get_yticklabels()] == ["b", "d", "c", "a"]
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [0.25, 0.75, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(corners[:, 0, 1], [0.5, 1.5, 2.5, 3.5, 4.5])
    (line,) = below.lines
    np.testing.assert_array_equal(line.get_xdata(), np.sort(budgets))
    np.testing.assert_array_equal(line.get_ydata(), path.price[np.argsort(budgets, kind="stable")])


def test_lines_separate_the_phases():
    path = capsolve.capacity_path(capsolve.power_law(50, 1.0), 20.0, np.linspace(0, 49, 60))
    above = figures.capacity_path(path).axes[0]
    (mesh,) = above.collections
    represented, full = (line.get_ydata()[:-1] for line in above.lines)
    capacity = mesh.get_array()
    rank = np.arange(1, 51)[:, None]
    np.testing.assert_array_equal(capacity > 0.0, rank < represented)
    np.testing.assert_array_equal(capacity == 1.0, rank < full)
    assert (full < represented).any()


@pytest.mark.parametrize("budgets", [[1, 10, 100], [1, 2, 4]])
def test_lines_step_where_the_cells_change(budgets):
    above = figures.capacity_path(capsolve.capacity_path(capsolve.power_law(50, 1.0), 20.0, budgets)).axes[0]
    assert above.get_xscale() == ("log" if budgets[-1] == 100 else "linear")
    for line in above.lines:
        assert line.get_drawstyle() == "steps-post"
        np.testing.assert_array_equal(line.get_xdata(), above.collections[0].get_coordinates()[0, :, 0])


@pytest.mark.parametrize(
    ("budgets", "title"),
    [([4, 1, 2], "2 features in 3 budgets from 1 to 4 dimensions"), ([1.5], "2 features in 1.5 dimensions")],
)
def test_the_title_says_what_is_drawn(budgets, title):
    profile = capsolve.Profile([2.0, 1.0], 9.0, ["cat", "cat"])
    above = figures.capacity_path(capsolve.capacity_path(profile, dimensions=budgets)).axes[0]
    assert above.get_title(loc="left") == title
    assert [label.get_text() for label in above.get_yticklabels()] == ["cat", "cat"]  # the names of the profile


def test_there_are_no_lines_where_the_order_of_importance_is_not_that_of_the_phases():
    mixed = capsolve.capacity_path([1.0, 0.9, 0.5], [2.0, 2.5, 30.0], [0.5, 1.0, 2.0])
    assert not figures.capacity_path(mixed).axes[0].lines


def test_many_features_and_budgets_are_sampled():
    path = capsolve.capacity_path(capsolve.power_law(5000, 1.0), 30.0, np.geomspace(1, 5000, 250))
    above, below, _ = figures.capacity_path(path).axes
    (mesh,) = above.collections
    rows, columns = mesh.get_array().shape
    assert columns == 200
    assert 200 < rows <= 400
    assert above.get_xscale() == above.get_yscale() == "log"
    assert below.lines[0].get_xdata().size == 250
    assert np.all(np.diff(mesh.get_coordinates()[0, :, 0]) > 0)


@pytest.mark.parametrize("budgets", [[0.0], [2.0], [5.0, 5.0], [0.0, 1e-9]])
def test_odd_budgets(budgets, tmp_path):
    figure = figures.capacity_path(capsolve.capacity_path([1.0, 0.0], [9.0, 1.0], budgets))
    figures.save(figure, tmp_path / "a.png")


def test_price_zero_is_said():
    figure = figures.capacity_path(capsolve.capacity_path([1.0], 9.0, [2.0]))
    assert figure.axes[1].texts[0].get_text() == "0: every budget meets the demand"


def test_a_name_per_feature():
    with pytest.raises(ValueError, match="names must have one entry per feature: 2 features, got 1 names"):
        figures.capacity_path(capsolve.capacity_path([1.0, 2.0], 9.0, [1.0]), names=["a"])
