"""The grid of architectures: every panel shows its own cells, on shared axes, with one colour bar."""

import numpy as np
import pytest

from capsolve import figures

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
        corners = mesh.get_coordinates()
        assert ax.get_xlim() == (corners[0, 0, 0], corners[0, -1, 0])
        assert ax.get_ylim() == (corners[0, 0, 1], corners[-1, 0, 1])
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
