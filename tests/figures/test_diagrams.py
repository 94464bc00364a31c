"""The picture of a phase diagram: cells, lines and points are the diagram's."""

import dataclasses

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import capsolve
from capsolve import figures


def lines(ax):
    """Return the boundaries that are drawn: (style, x, y) by label."""
    return {
        line.get_label(): (line.get_linestyle(), *line.get_data())
        for line in ax.lines
        if line.get_linestyle() != "None"
    }


@pytest.fixture(scope="module")
def paper():
    return capsolve.phase_diagram(cells=(40, 30))


def test_cells_and_axes(paper):
    ax = figures.phase_diagram(paper)
    (mesh,) = ax.collections
    np.testing.assert_array_equal(mesh.get_array(), paper.capacity)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlim() == pytest.approx((0.01, 100.0), rel=0.2)
    assert ax.get_ylim() == pytest.approx((1.0, 0.001), rel=0.2)  # in the order of the axis: sparse at the top
    assert ax.get_xlabel() == "importance $V$ (inside the target)"
    assert ax.figure.axes[1].get_ylabel() == "capacity $C$ of feature 0"
    assert ax.get_title(loc="left") == paper.description


def test_boundaries_are_drawn_by_their_order(paper):
    ax = figures.phase_diagram(paper)
    drawn = lines(ax)
    assert len(drawn) == 3
    for boundary in paper.boundaries:
        style, x, y = drawn[f"{boundary.lower.name.lower()}–{boundary.upper.name.lower()}"]
        assert style == ("-" if boundary.order == "jump" else "--")
        np.testing.assert_array_equal(x, boundary.x)
        np.testing.assert_array_equal(y, boundary.y)
    (dot,) = (line for line in ax.lines if line.get_marker() == "o")
    assert tuple(np.ravel(dot.get_data())) == paper.critical[0] == (1.0, 0.6)


def test_names_stand_in_their_phase(paper):
    ax = figures.phase_diagram(paper)
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert set(places) == {"ignored", "polysemantic", "monosemantic"}
    for name, (v, p) in places.items():
        found = capsolve.solve([v, 1, 1, 1, 1, 1], 1.8 / p, 3)
        assert capsolve.Phase(int(found.phase[0])).name.lower() == name


def test_marks_replace_the_names(paper):
    ax = figures.phase_diagram(paper, marks={"A": (0.5, 0.8), "$b": (2, 0.1)})
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("A", (0.5, 0.8)), ("$b", (2, 0.1))]
    dots = [one.get_xydata()[0].tolist() for one in ax.lines if one.get_markersize() == 4.0]
    assert dots == [[0.5, 0.8], [2, 0.1]]
    renderer = FigureCanvasAgg(ax.figure).get_renderer()
    ax.figure.draw(renderer)
    for text, place in zip(ax.texts, dots, strict=True):  # the letter stands beside its point
        assert not text.get_window_extent(renderer).contains(*ax.transData.transform(place))


def test_without_boundaries_there_is_no_legend():
    diagram = capsolve.phase_diagram(("importance", 0.9, 1.1), ("density", 0.01, 0.02), cells=4)
    ax = figures.phase_diagram(diagram)
    assert ax.get_legend() is None
    assert not lines(ax)


def test_other_axes(tmp_path):
    diagram = capsolve.phase_diagram(("features", 2, 8), ("bias", (False, True)), kurtosis=9.0, tracked=3)
    ax = figures.phase_diagram(diagram)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["without bias", "with bias"]
    (mesh,) = ax.collections
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), diagram.capacity)
    assert np.isnan(diagram.capacity[:, 0]).all()  # there is no fourth feature of two
    figures.save(ax.figure, tmp_path / "a.png")


def test_a_tracked_feature_of_ones_own_axes():
    def family(a, b):
        return [a, 1.0, 1.0], [b, 5.0, 9.0]

    diagram = capsolve.phase_diagram(("a", 0.5, 2.0, "log"), ("b", 2.0, 20.0), family=family, dimensions=1, cells=6)
    ax = figures.phase_diagram(diagram)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")


def test_diagrams_that_were_found_numerically():
    axes = ("importance", 0.5, 2.0), ("density", 0.5, 0.1)
    found = capsolve.empirical_phase_diagram(*axes, cells=(3, 2), features=3, dimensions=1, restarts=1, rng=0)
    ax = figures.phase_diagram(found)
    np.testing.assert_array_equal(ax.collections[0].get_array(), found.capacity)
    assert ax.get_legend() is None
    assert ax.get_ylim() == (0.5, 0.1)  # and no density beyond what was asked for
    assert ax.get_title(loc="left") == f"quadratic: {found.description}"
    assert ax.get_xlabel() == "importance $V$ (inside the target)"
    trained = figures.phase_diagram(dataclasses.replace(found, model="autoencoder-relu"))
    assert trained.get_xlabel() == "importance $V$ (on the squared error)"
    theory = capsolve.phase_diagram(found.x, found.y, features=3, dimensions=1)
    drawn = lines(figures.phase_diagram(found, theory=theory))
    assert len(drawn) == len(theory.boundaries) == 2


# several side by side


X, Y = np.geomspace(0.01, 100, 5), np.geomspace(1, 0.001, 4)
ROWS, COLUMNS = ["sum", "autoencoder"], ["quadratic", "ReLU", "GeLU"]


@pytest.fixture
def capacity():
    return np.random.default_rng(0).uniform(size=(2, 3, 4, 5))


def test_panels_show_their_cells(capacity):
    capacity[1, 2, 0, 0] = np.nan
    figure = figures.architecture_grid(capacity, X, Y, rows=ROWS, columns=COLUMNS)
    *panels, bar = figure.axes
    assert len(panels) == 6
    for ax, expected in zip(panels, capacity.reshape(6, 4, 5), strict=True):
        (mesh,) = ax.collections
        np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), expected)
        assert (mesh.norm.vmin, mesh.norm.vmax) == (0.0, 1.0)
        assert ax.get_xlim() == (0.01, 100.0)  # half of an outer cell lies outside
        assert ax.get_ylim() == pytest.approx((1.0, 0.001))
    assert [ax.get_title() for ax in panels] == [*COLUMNS, "", "", ""]
    assert [ax.get_ylabel() for ax in panels] == ["sum", "", "", "autoencoder", "", ""]
    assert bar.get_ylabel() == "capacity $C$ of feature 0"


def test_cells_lie_around_their_values_in_the_order_given(capacity):
    ax = figures.architecture_grid(capacity, X, Y, rows=ROWS, columns=COLUMNS).axes[0]
    corners = ax.collections[0].get_coordinates()
    across, up = corners[0, :, 0], corners[:, 0, 1]
    np.testing.assert_allclose(np.sqrt(across[1:] * across[:-1]), X)
    np.testing.assert_allclose(np.sqrt(up[1:] * up[:-1]), Y)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # density falls upwards, as given


def test_bad_axes(capacity):
    draw = figures.architecture_grid
    with pytest.raises(ValueError, match=r"capacity must have shape .* = \(2, 2, 4, 5\), got \(2, 3, 4, 5\)"):
        draw(capacity, X, Y, rows=ROWS, columns=["a", "b"])
    with pytest.raises(ValueError, match="x must increase or decrease strictly"):
        draw(capacity, [1, 2, 2, 3, 4], Y, rows=ROWS, columns=COLUMNS)
    with pytest.raises(ValueError, match="y must be > 0 on a logarithmic axis, got 0"):
        draw(capacity, X, [0, 1, 2, 3], rows=ROWS, columns=COLUMNS)
