"""Agreement: what is compared, what is left out, and that differences are counted where they are."""

import numpy as np
import pytest

from capsolve import Axis, phase_diagram
from capsolve.diagrams.agreement import CLOSE, compare, near_jumps

X, Y = np.geomspace(0.1, 10.0, 9), np.array([0.9, 0.8, 0.1])  # above a density of 0.6 (kurtosis 3) the capacity jumps


@pytest.fixture(scope="module")
def exact():
    return phase_diagram(("importance", X), ("density", Y), features=4, dimensions=2)


def test_a_diagram_agrees_with_itself(exact):
    found = compare(exact.x, exact.y, exact.capacity, 1e-9, exact, 1.0)
    assert (found.same_phase, found.close, found.largest, found.mean) == (1.0, 1.0, 0.0, 0.0)
    assert found.cells + found.excluded == exact.capacity.size
    assert found.where.shape == (0, 2)
    assert "farthest" not in found.summary()


def test_differences_are_counted_where_they_are(exact):
    capacity = exact.capacity.copy()
    there = [(2, 0), (2, 8), (1, 8)]  # far from the jump
    for (row, column), change in zip(there, (0.3, -0.5 * CLOSE, -0.1), strict=True):
        capacity[row, column] += change
    found = compare(exact.x, exact.y, capacity, 1e-9, exact, 1.0)
    assert found.close == pytest.approx(1 - 2 / found.cells)
    assert found.largest == pytest.approx(0.3)
    assert found.mean == pytest.approx((0.4 + 0.5 * CLOSE) / found.cells)
    np.testing.assert_allclose(found.where, [[X[0], Y[2]], [X[8], Y[1]]])  # the largest first
    assert f"({X[0]:.4g}, {Y[2]:.4g}), ({X[8]:.4g}, {Y[1]:.4g})" in found.summary()


def test_cells_at_a_jump_and_without_an_answer_are_left_out(exact):
    (jump,) = (b for b in exact.boundaries if b.order == "jump")
    rows, columns = np.nonzero(near_jumps(exact, 0.5))
    assert set(rows) == {0, 1}
    assert np.abs(np.log(X[columns] / jump.x[0])).max() <= 0.5 * np.log(X[1] / X[0]) * (1 + 1e-12)
    capacity = exact.capacity.copy()
    capacity[rows, columns] = np.nan
    capacity[2, 3] = np.nan
    found = compare(exact.x, exact.y, capacity, 1e-9, exact, 0.5)
    assert (found.excluded, found.unknown) == (rows.size, 1)
    assert found.cells == capacity.size - rows.size - 1
    assert found.largest == 0.0
    assert "1 without an answer" in found.summary()
    wider = near_jumps(exact, 2.0)
    assert wider.sum() > rows.size
    assert wider[rows, columns].all()
    convex = phase_diagram(("importance", X), ("kurtosis", [5.0, 9.0]), features=4, dimensions=2)
    assert not near_jumps(convex, 9.0).any()


def test_phases_are_compared_to_within_the_tolerance(exact):
    full = np.argwhere(exact.capacity == 1.0)[-1]
    capacity = exact.capacity.copy()
    capacity[tuple(full)] = 0.99
    assert compare(exact.x, exact.y, capacity, 0.02, exact, 1.0).same_phase == 1.0
    assert compare(exact.x, exact.y, capacity, 1e-3, exact, 1.0).same_phase < 1.0


def test_nothing_left_to_compare(exact):
    found = compare(exact.x, exact.y, np.full(exact.shape, np.nan), 1e-9, exact, 1.0)
    assert found.cells == 0
    assert np.isnan([found.same_phase, found.close, found.mean]).all()


def test_other_axes_are_refused(exact):
    with pytest.raises(ValueError, match="the axes of the diagrams differ"):
        compare(Axis("kurtosis", X + 1), exact.y, exact.capacity, 1e-9, exact, 1.0)
    with pytest.raises(ValueError, match="strip must be >= 0"):
        compare(exact.x, exact.y, exact.capacity, 1e-9, exact, -1.0)
