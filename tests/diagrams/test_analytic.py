"""Diagrams against single solves, and files."""

import numpy as np
import pytest

import capsolve
from capsolve import PhaseDiagram, phase_diagram

FIG4 = {"x": ("importance", 0.01, 100), "y": ("density", 1, 0.001), "features": 6, "dimensions": 3}


def check_cells(diagram, problem, count=60):
    """Compare random cells with `solve`; ``problem`` maps (x, y) to its arguments."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        j, i = (int(rng.integers(size)) for size in diagram.shape)
        importance, kurtosis, dimensions, bias = problem(diagram.x.values[i], diagram.y.values[j])
        one = capsolve.solve(importance, kurtosis, dimensions, bias=bias)
        n = len(importance)
        np.testing.assert_allclose(diagram.capacities[j, i, :n], one.capacity, rtol=0, atol=1e-12)
        assert np.isnan(diagram.capacities[j, i, n:]).all()
        np.testing.assert_array_equal(diagram.phase[j, i, :n], one.phase)
        assert (diagram.phase[j, i, n:] == -1).all()
        assert diagram.loss[j, i] == pytest.approx(one.loss, rel=1e-12, abs=1e-13 * one.price)
        assert diagram.price[j, i] == pytest.approx(one.price, rel=1e-12)


def test_the_papers_diagram_is_solved_in_every_cell():
    diagram = phase_diagram(**FIG4)
    assert diagram.shape == (250, 250)
    assert diagram.optimal.all()
    check_cells(diagram, lambda x, y: ([x, 1, 1, 1, 1, 1], 1.8 / y, 3, True))
    assert (diagram.capacity == diagram.capacities[..., 0]).all()
    for array in (diagram.capacities, diagram.loss, diagram.price, diagram.gap, diagram.optimal):
        assert not array.flags.writeable


def test_the_default_is_the_papers_diagram():
    assert repr(phase_diagram(cells=20)) == repr(phase_diagram(**FIG4, cells=20))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"x": ("kurtosis", 1, 30), "y": ("dimensions", 0, 5), "importance": 3, "features": 4, "group": 2},
            lambda x, y: ([3, 3, 1, 1], x, y, True),
        ),
        (
            {"x": ("features", 1, 12), "y": ("sparsity", 0, 0.99), "distribution": "laplace", "importance": 2},
            lambda x, y: ([2, *[1] * (int(x) - 1)], 6 / (1 - y), 3, True),
        ),
        (
            {"x": ("exponent", 0, 2), "y": ("bias", (False, True)), "family": "power-law", "kurtosis": 7, "tracked": 2},
            lambda x, y: (np.arange(1, 7.0) ** -x, 7.0, 3, bool(y)),
        ),
        (
            {"x": ("rate", 0, 2), "y": ("density", 1, 0.1), "family": "exponential", "features": 8, "bias": True},
            lambda x, y: (np.exp(-x * np.arange(8)), 1.8 / y, 3, True),
        ),
        (
            {"x": ("features", 5, 9), "y": ("bias", (True, False)), "density": 0.1, "dimensions": 2.5, "importance": 4},
            lambda x, y: ([4, *[1] * (int(x) - 1)], 18.0, 2.5, bool(y)),
        ),
    ],
)
def test_other_axes_and_families(arguments, problem):
    check_cells(phase_diagram(**arguments, cells=13), problem)


def test_what_is_an_axis_is_not_told_as_the_same_everywhere():
    axes = {"y": ("density", 1, 0.1), "cells": 2}
    assert phase_diagram(("features", 2, 4), **axes, group=2).description == (
        "2 of them of another importance, 3 dimensions, importance 1, uniform inputs"
    )
    diagram = phase_diagram(("features", 2, 4), **axes, family="power-law", dimensions=1)
    assert diagram.description == "power-law importances, 1 dimension, exponent 1, uniform inputs"


def test_a_function_as_family():
    def zipf(spread, first):
        n = 3 + int(spread > 2)
        return capsolve.Profile(np.arange(1.0, n + 1) ** -first, kurtosis=3 + spread)

    diagram = phase_diagram(("spread", 1, 3), ("first", 0.5, 2), family=zipf, dimensions=2, cells=(6, 5), tracked=1)
    assert diagram.shape == (5, 6)
    assert diagram.capacities.shape == (5, 6, 4)
    check_cells(diagram, lambda x, y: (np.arange(1.0, 4 + int(x > 2)) ** -y, 3 + x, 2, True))
    same = phase_diagram(
        ("spread", 1, 3), ("dimensions", 1, 2), family=lambda spread, _: ([2.0, 1.0], [9.0, spread]), cells=4
    )
    check_cells(same, lambda x, y: ([2.0, 1.0], [9.0, x], y, True))


def test_files_bring_everything_back(tmp_path):
    for name, diagram in {
        "closed": phase_diagram(cells=12),
        "found": phase_diagram(("features", 2, 6), ("exponent", 0, 2), family="power-law", kurtosis=9, tracked=1),
    }.items():
        path = tmp_path / f"{name}.npz"
        diagram.save(path)
        again = PhaseDiagram.load(path)
        assert repr(again) == repr(diagram)
        for array in ("capacities", "price", "loss", "gap", "optimal", "phase"):
            np.testing.assert_array_equal(getattr(again, array), getattr(diagram, array))
        assert again.critical == diagram.critical
        assert len(again.boundaries) == len(diagram.boundaries)
        for one, other in zip(again.boundaries, diagram.boundaries, strict=True):
            assert repr(one) == repr(other)
            np.testing.assert_array_equal(one.x, other.x)
            np.testing.assert_array_equal(one.y, other.y)
        for one, other in ((again.x, diagram.x), (again.y, diagram.y)):
            assert repr(one) == repr(other)
            np.testing.assert_array_equal(one.values, other.values)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["closed.npz", "found.npz"]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of \.npz"):
        phase_diagram(cells=4).save(tmp_path / "diagram.csv")
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match=f"{name}: not a phase diagram of capsolve"):
            PhaseDiagram.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        PhaseDiagram.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": ("density", 1, 0.1), "y": ("density", 1, 0.1)}, "axes must differ"),
        ({"x": ("height", 1, 2)}, "an axis must be one of"),
        ({"family": "linear"}, "family must be one of"),
        ({"y": ("dimensions", 1, 2)}, "give kurtosis, density or sparsity"),
        ({"kurtosis": 3}, "kurtosis and density say the same thing"),
        ({"density": 0.5}, "density is an axis"),
        ({"exponent": 1}, "exponent belongs to the family 'power-law', not to 'groups'"),
        ({"family": "power-law"}, "importance belongs to the family 'groups'"),
        ({"features": 2.5}, "features must be an integer"),
        ({"dimensions": -1}, "dimensions must be >= 0"),
        ({"distribution": "cauchy"}, "distribution must be one of"),
        ({"tracked": 6}, "tracked must be below the number of features, 6"),
        ({"tracked": 0.5}, "tracked must be an integer"),
        ({"cells": 1}, "cells must be >= 2"),
        ({"cells": (2, 3, 4)}, "one number or"),
        ({"group": 0}, "group must be >= 1"),
        ({"group": 7}, "group must be at most features, 6, got 7"),
        (
            {"x": ("exponent", 0, 1), "family": "power-law", "group": 2},
            "group belongs to the family 'groups', got 2",
        ),
        ({"bias": False}, "kurtosis must be >= 3"),
        ({"family": lambda _x, _y: [1.0], "cells": 2}, "family must return a Profile"),
        (
            {"family": lambda _x, _y: ([-1.0], 3.0), "cells": 2},
            r"family, at importance = 0.01, density = 1: importance",
        ),
        ({"family": lambda _x, _y: ([1.0], 3.0), "features": 3}, "features cannot be given with a function"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        phase_diagram(**arguments)
