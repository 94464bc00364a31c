"""Allocations of arrays of other libraries are drawn as those in memory are."""

import numpy as np
import pytest

import capsolve
from capsolve import figures

xp = pytest.importorskip("array_api_strict")


@pytest.mark.parametrize("draw", [figures.capacity, figures.phases, figures.water_level])
def test_the_same_picture(draw):
    importance, kurtosis = np.array([4.0, 2.0, 1.0, 0.5, 0.1]), np.array([9.0, 4.0, 20.0, 9.0, 3.0])
    given = capsolve.solve(xp.asarray(importance), xp.asarray(kurtosis), 2)
    drawn, expected = draw(given), draw(capsolve.solve(importance, kurtosis, 2))
    assert drawn.get_title(loc="left") == expected.get_title(loc="left")
    for one, other in zip(drawn.collections, expected.collections, strict=True):
        np.testing.assert_allclose(one.get_offsets(), other.get_offsets(), rtol=1e-12)
    for one, other in zip(drawn.lines, expected.lines, strict=True):
        np.testing.assert_allclose(one.get_data(), other.get_data(), rtol=1e-12)


def test_whole_pages():
    allocation = capsolve.solve(xp.asarray([4.0, 2.0, 1.0]), 9.0, 2)
    assert len(figures.allocation(allocation).axes) == 2
    (ax,) = figures.marginal_cases({"one": allocation}).axes
    assert ax.get_title(loc="left") == "one, diminishing returns\nfeature 0 is monosemantic"
