"""The figure of a measurement holds what was measured."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba

import capsolve
from capsolve import Phase, figures
from capsolve.figures.measurements import _marchenko_pastur


def measured(n=300, D=20, *, activations=False):
    """Return the measurement of a noisy optimal embedding, with all three phases in it."""
    rng = np.random.default_rng(0)
    importance = capsolve.power_law(n, 0.9)
    W = capsolve.solve(importance, 9.0, D).embedding(rng=rng, rotate=True)
    W += 1e-4 * rng.standard_normal(W.shape)
    return capsolve.measure(W, activations=capsolve.Profile(importance, 9.0) if activations else None)


@pytest.mark.parametrize("n", [30, 300, 3000])
def test_the_histogram_counts_every_feature_in_its_phase(n):
    found = measured(n)
    ax = figures.measurement(found).axes[0]
    heights = {to_rgba(figures.COLOURS[phase]): 0.0 for phase in Phase}
    for bar in ax.patches:
        heights[bar.get_facecolor()] += bar.get_height()
        assert -1e-12 < bar.get_x() < 1.0
    for phase, count in found.counts().items():
        assert heights[to_rgba(figures.COLOURS[Phase[phase.upper()]])] == pytest.approx(count)
    (null,) = ax.lines
    np.testing.assert_allclose(null.get_xdata(), 20 / (n + 20 - 1))


@pytest.mark.parametrize("n", [30, 300, 3000])
def test_the_capacities_in_order(n):
    found = measured(n)
    ax = figures.measurement(found).axes[1]
    expected = np.sort(found.capacity)[::-1]
    drawn = 0
    for line in ax.lines[:-1]:
        phase = Phase[line.get_label().upper()]
        assert line.get_color() == figures.COLOURS[phase]
        rank = np.asarray(line.get_xdata(), dtype=int)
        np.testing.assert_array_equal(line.get_ydata(), expected[rank - 1])
        np.testing.assert_array_equal(np.sort(found.phase)[::-1][rank - 1], phase)
        drawn += rank.size
    assert drawn == n if n <= 300 else 200 < drawn <= 1000
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), 20 / (n + 20 - 1))


def test_the_spectrum_and_its_null():
    found = measured()
    ax = figures.measurement(found).axes[2]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), found.spectrum / found.spectrum.mean())
    assert ax.lines[0].get_xdata()[-1] == 20


@pytest.mark.parametrize("shape", [(2000, 200), (200, 2000), (1000, 1000)])
def test_the_null_of_the_spectrum_is_that_of_random_directions(shape):
    W = np.random.default_rng(0).standard_normal(shape)
    eigenvalues = np.linalg.svd(W, compute_uv=False) ** 2 * shape[1] / np.sum(W**2)
    null = _marchenko_pastur(*shape)
    assert null.shape == eigenvalues.shape
    # eigenvalues of random matrices are rigid: off by about the distance to their neighbour, log n at most
    largest = eigenvalues[0]
    assert np.abs(null - eigenvalues).max() < 0.02 * largest
    assert np.abs(np.linspace(largest, eigenvalues[-1], null.size) - eigenvalues).max() > 0.02 * largest


def test_the_comparison_shows_measured_against_optimal():
    found = measured(activations=True)
    figure = figures.measurement(found)
    (ax,) = (ax for ax in figure.axes if ax.get_xlabel() == "optimal capacity, coloured by its phase")
    (dots,) = ax.collections
    given = found.comparison
    np.testing.assert_array_equal(dots.get_offsets(), np.column_stack([given.allocation.capacity, given.capacity]))
    assert ax.get_title(loc="left") == f"at least {given.relative_suboptimality:.1%} suboptimal"
    assert len(figure.axes) == 4


def test_the_legend_counts_the_phases_of_the_optimum_too_where_its_colours_are_drawn():
    W = np.array([[1.0, 0.1], [0.1, 1.0], [1.0, 1.0]])
    (plain,) = figures.measurement(capsolve.measure(W)).legends
    assert [text.get_text() for text in plain.get_texts()][:2] == ["monosemantic (0)", "polysemantic (3)"]
    profile = capsolve.Profile([9.0, 1.0, 0.1], 9.0)
    (both,) = figures.measurement(capsolve.measure(W, activations=profile)).legends
    assert [text.get_text() for text in both.get_texts()] == [
        "monosemantic (0 measured, 2 in the optimum)",
        "polysemantic (3 measured, 0 in the optimum)",
        "ignored (0 measured, 1 in the optimum)",
        "random directions",
    ]


@pytest.mark.parametrize("W", [[[1.0]], np.eye(2), [[1.0], [-1.0]], np.random.default_rng(0).standard_normal((10, 5))])
def test_the_page_of_a_small_embedding_is_full(W):
    figure = figures.measurement(capsolve.measure(W))
    renderer, height = FigureCanvasAgg(figure).get_renderer(), figure.bbox.height
    figure.draw(renderer)
    below = min(ax.xaxis.get_tightbbox(renderer).y0 for ax in figure.axes)
    assert below - figure.legends[0].get_window_extent(renderer).y1 < 0.05 * height


@pytest.mark.parametrize("W", [[[1.0]], [[0.0, 0.0]], np.eye(3), np.ones((5, 2)), [[1.0, 0.0], [1e-300, 1e-300]]])
def test_extreme_measurements_can_be_drawn(tmp_path, W):
    profile = capsolve.Profile([1.0] * len(W), 9.0)
    figures.save(figures.measurement(capsolve.measure(W, activations=profile)), tmp_path / "a.png")


@pytest.mark.slow
def test_vector_files_of_many_measured_features_stay_small(tmp_path):
    W = np.random.default_rng(0).standard_normal((100_000, 8))
    profile = capsolve.Profile(capsolve.power_law(100_000, 0.5), 9.0)
    figures.save(figures.measurement(capsolve.measure(W, activations=profile)), tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").stat().st_size < 500_000
