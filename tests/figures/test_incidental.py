"""Figures of incidental polysemanticity show the numbers they are given."""

import numpy as np
import pytest

from capsolve import figures
from capsolve.incidental import Autoencoders, collision_sweep, expected_neurons, integrate_row


def test_sparsification_shows_row_and_laws():
    flow = integrate_row(np.random.default_rng(0).normal(size=300) / np.sqrt(300), 1e-3)
    survivors, law, norm, _ = figures.sparsification(flow).lines
    np.testing.assert_array_equal(survivors.get_ydata(), flow.survivors[1:])
    np.testing.assert_array_equal(norm.get_ydata(), flow.norm[1:])
    np.testing.assert_array_equal(survivors.get_xdata(), 1e-3 * flow.time[1:])
    late = flow.time[1:] > 1.1 / 1e-3
    assert late.any()
    assert (law.get_ydata()[late] == 1.0).all()


def histories(values):
    """Make trained networks whose fourth norm at three looks is given."""
    fourth = np.array(values)[:, :, None]
    W = np.zeros((fourth.shape[1], 1, 2), np.float32)
    return Autoencoders(W, W, np.array([0, 10, 100]), fourth, fourth, fourth, fourth.astype(int), np.zeros(2, bool))


def test_fourth_norms_are_drawn_with_their_errors_and_labels_apart():
    one, two = histories([[0.2, 0.2], [0.3, 0.5], [0.8, 0.9]]), histories([[0.2, 0.2], [0.2, 0.3], [0.84, 0.86]])
    ax = figures.fourth_norm({"a": one, "b": two})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.2, 0.4, 0.85])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(0.85 + 2 * 0.05)
    places = [text.xy[1] for text in ax.texts]
    assert abs(np.log(places[1] / places[0])) > 0.04  # both end at 0.85
    with pytest.raises(ValueError, match="at least one"):
        figures.fourth_norm({})


def test_collisions_show_counts_with_two_standard_errors():
    sweep = collision_sweep(6, [2, 8, 12], instances=4, penalty=0.02, steps=300, learning_rate=0.02, rng=0)
    above, below = figures.collisions(sweep).axes
    (bars,) = above.containers
    np.testing.assert_array_equal(bars.lines[0].get_ydata(), sweep.mean("polysemantic"))
    low, high = np.array(bars.lines[2][0].get_segments())[:, :, 1].T
    np.testing.assert_allclose(high - low, 4 * sweep.error("polysemantic"))
    (ratios,) = below.containers  # two neurons have no place for six features of different signs
    np.testing.assert_allclose(
        ratios.lines[0].get_ydata(), sweep.mean("polysemantic")[1:] / expected_neurons(6, [8, 12], exclusive=True)
    )


def test_start_and_end():
    values = np.array([[0.5, -0.1], [0.0, 0.3]])
    (image,) = figures.start_end(values).images
    np.testing.assert_array_equal(image.get_array(), values)
    assert image.get_clim() == (-0.5, 0.5)
    with pytest.raises(ValueError, match="correlation must have 2 dimension"):
        figures.start_end([1.0])
