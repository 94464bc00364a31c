"""Boundaries: closed forms against bisection, and both against what the paper says."""

import numpy as np
import pytest

import capsolve
from capsolve import Phase, phase_diagram
from capsolve.diagrams.analytic import phase_of
from capsolve.diagrams.boundaries import _chains, odd_group_boundaries, traced
from capsolve.diagrams.problems import Problems


def traced_again(diagram, **given):
    """Find the boundaries of a diagram by bisection, whether they have a closed form or not."""
    given = {"features": 6, "dimensions": 3, **given}
    problems = Problems.of(diagram.x, diagram.y, "groups", given, given.pop("group", 1), "uniform")
    return traced(problems, diagram.x, diagram.y, phase_of(diagram.capacity), diagram.tracked, 1e-9)[0]


def test_figure_4():
    low, high = odd_group_boundaries(1.8 / np.array([0.1, 0.01, 0.001]), 6, 3)
    assert [f"{v:.3g}" for v in low] == ["0.182", "0.0185", "0.00185"]
    assert [f"{v:.4g}" for v in high] == ["2.125", "2.459", "2.496"]
    assert odd_group_boundaries(3.0, 6, 3) == (1.0, 1.0)
    diagram = phase_diagram(cells=30)
    assert diagram.critical == ((1.0, 0.6),)
    for boundary in diagram.boundaries[:2]:
        at = np.argmax(boundary.y)  # both curves begin at the critical point
        assert boundary.x[at] == 1.0
        assert boundary.y[at] == pytest.approx(0.6, rel=1e-15)
    jump = diagram.boundaries[2]
    assert jump.order == "jump"
    assert (jump.x == 1.0).all()
    assert (jump.y.min(), jump.y.max()) == (pytest.approx(0.6, rel=1e-15), 1.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": ("importance", 0.013, 90), "y": ("density", 1, 0.001)},
        {"x": ("kurtosis", 1.2, 60), "y": ("importance", 0.013, 90), "dimensions": 1, "features": 4},
        {"x": ("importance", 0.1, 7), "y": ("sparsity", 0, 0.9), "group": 2, "features": 9, "dimensions": 4},
        {"x": ("importance", 0.1, 7), "y": ("sparsity", 0, 0.9), "group": 3, "features": 9, "dimensions": 3},
    ],
)
def test_closed_forms_are_where_bisection_finds_the_phase_to_change(arguments):
    diagram = phase_diagram(**arguments, cells=24)
    assert all(boundary.exact for boundary in diagram.boundaries)
    axes = {name: arguments[name] for name in arguments if name not in "xy"}
    found = traced_again(diagram, **axes)
    importance, other = ("x", "y") if diagram.x.name == "importance" else ("y", "x")
    axis = getattr(diagram, other)
    n, group = arguments.get("features", 6), arguments.get("group", 1)
    kinds = {(b.lower, b.upper, b.order) for b in diagram.boundaries}
    assert {(b.lower, b.upper, b.order) for b in found} == kinds
    for boundary in found:
        v, at = getattr(boundary, importance), getattr(boundary, other)
        density = {"density": at, "sparsity": 1 - at}.get(axis.name)
        kurtosis = at if density is None else 1.8 / density
        low, high = odd_group_boundaries(kurtosis, n, arguments.get("dimensions", 3), group)
        expected = {0: np.ones_like(v), 1: low if boundary.lower is Phase.IGNORED else high}[boundary.order == "kink"]
        on_row = np.isin(at, axis.values)  # crossings along the importance, at the very value of the other axis
        assert on_row.sum() >= 2
        # bisected to 1e-10 in log V
        np.testing.assert_allclose(v[on_row], expected[on_row], rtol=2e-10)
        # along the other axis the curve may be steep in it: its slope is at most that of 1/κ here
        np.testing.assert_allclose(v[~on_row & np.isfinite(v)], expected[~on_row & np.isfinite(v)], rtol=1e-8)


def test_a_group_larger_than_the_budget_is_not_treated_alike_below_kurtosis_3():
    # three features of importance 2 in two dimensions share above κ = 3; below, two of them are served
    diagram = phase_diagram(("importance", 1.5, 7), ("kurtosis", 1.5, 7), group=3, features=9, dimensions=2, cells=12)
    (line,) = diagram.boundaries
    assert (line.lower, line.upper, line.order) == (Phase.POLYSEMANTIC, Phase.MONOSEMANTIC, "jump")
    np.testing.assert_allclose(line.y, 3.0, rtol=2e-10)


def test_the_phase_changes_there_and_nowhere_else():
    for density in (0.1, 0.01, 0.001):
        low, high = odd_group_boundaries(1.8 / density, 6, 3)
        for edge, phases in ((low, (0, 1)), (high, (1, 2))):
            v = np.ones((2, 6))
            v[:, 0] = edge * (1 - 1e-10), edge * (1 + 1e-10)
            assert tuple(capsolve.solve_batch(v, 1.8 / density, 3).phase[:, 0]) == phases


@pytest.mark.slow
def test_a_jump_halfway_between_cells_is_one_line():
    # V = 1 lies in the middle of an edge, where all optima tie: the first cut must not decide what the line is
    diagram = phase_diagram(("dimensions", 0, 6), ("importance", 0.1, 10), kurtosis=2.0, cells=40)
    found = {(b.lower, b.upper): b for b in diagram.boundaries if b.order == "jump"}
    ranges = {
        (Phase.IGNORED, Phase.POLYSEMANTIC): (0, 1),
        (Phase.IGNORED, Phase.MONOSEMANTIC): (1, 5),
        (Phase.POLYSEMANTIC, Phase.MONOSEMANTIC): (5, 6),
    }
    assert found.keys() == ranges.keys()
    D = diagram.x.values
    for kind, (low, high) in ranges.items():
        np.testing.assert_array_equal(np.sort(found[kind].x), [d for d in D if low < d < high])  # no NaN: one piece
        np.testing.assert_allclose(found[kind].y, 1.0, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("y", "dimensions", "meeting"),
    [(("density", 1, 0.01), 3, 0.6), (("kurtosis", 1.2, 30), 3, 3.0), (("sparsity", 0, 0.9), 2.5, 0.4)],
)
@pytest.mark.parametrize("across", [True, False])
def test_where_a_jump_ends_without_a_closed_form(y, dimensions, meeting, across):
    """The critical point is where κ = 3, found by the capacities alone, whichever way the axes run."""
    importance = ("importance", 0.013, 90)
    axes = (importance, y) if across else (y, importance)
    given = {"features": 6, "dimensions": dimensions}
    diagram = phase_diagram(*axes, cells=20, **given)
    problems = Problems.of(diagram.x, diagram.y, "groups", given, 1, "uniform")
    _, found = traced(problems, diagram.x, diagram.y, phase_of(diagram.capacity), 0, 1e-9)
    assert len(found) == 1
    assert found[0] == pytest.approx((1.0, meeting) if across else (meeting, 1.0), rel=1e-6)
    if dimensions == 2.5:  # no closed form: the diagram has it from the search
        assert diagram.critical == found


def test_a_jump_that_leaves_the_diagram_has_no_end():
    dense = phase_diagram(("importance", 0.013, 90), ("kurtosis", 1.2, 2.9), cells=20, dimensions=2.5)
    assert [boundary.order for boundary in dense.boundaries] == ["jump"]
    assert dense.critical == ()
    sparse = phase_diagram(("importance", 0.013, 90), ("kurtosis", 3.1, 30), cells=20, dimensions=2.5)
    assert {boundary.order for boundary in sparse.boundaries} == {"kink"}
    assert sparse.critical == ()


@pytest.mark.slow
def test_jumps_and_kinks_with_a_fractional_budget():
    # half a dimension too many for whole features: below κ = 3 the odd one gets 0, ½ or 1
    diagram = phase_diagram(("importance", 0.3, 3), ("kurtosis", 1.5, 8), dimensions=2.5, cells=12)
    assert not any(boundary.exact for boundary in diagram.boundaries)
    orders = {(b.lower, b.upper): set() for b in diagram.boundaries}
    for boundary in diagram.boundaries:
        orders[boundary.lower, boundary.upper].add(boundary.order)
    assert "kink" in orders[Phase.IGNORED, Phase.POLYSEMANTIC]
    assert "jump" in set().union(*orders.values())
    for boundary in diagram.boundaries:
        inside = np.isfinite(boundary.x)
        x, y = boundary.x[inside], boundary.y[inside]
        rows = np.isin(y, diagram.y.values)
        for v, k in zip(x[rows][:6], y[rows][:6], strict=True):
            pair = [capsolve.solve([v * s, 1, 1, 1, 1, 1], k, 2.5).capacity[0] for s in (1 - 1e-9, 1 + 1e-9)]
            assert (abs(pair[1] - pair[0]) > 1e-3) == (boundary.order == "jump")


@pytest.mark.slow
def test_without_bias_and_along_integers():
    diagram = phase_diagram(("importance", 0.05, 20), ("features", 4, 6), kurtosis=20, bias=False, cells=12)
    assert {b.order for b in diagram.boundaries} == {"kink"}
    for boundary in diagram.boundaries:
        assert set(boundary.y) <= {4, 5, 6}
        for v, n in zip(boundary.x, boundary.y, strict=True):
            phases = [
                capsolve.solve([v * s, *[1] * (int(n) - 1)], 20, 3, bias=False).phase[0] for s in (1 - 1e-9, 1 + 1e-9)
            ]
            assert phases == [boundary.lower, boundary.upper]


def test_no_boundary_where_nothing_changes():
    assert phase_diagram(("importance", 10, 20), ("density", 0.3, 0.2), cells=5).boundaries[0].x.size > 0
    assert phase_diagram(("importance", 10, 20), ("density", 0.3, 0.2), dimensions=6, cells=5).boundaries == ()
    both = phase_diagram(("features", 2, 9), ("bias", (False, True)), kurtosis=9.0, importance=3)
    assert both.boundaries == ()


def test_other_features_have_boundaries_too():
    # with two features in one dimension, one is ignored when the other is monosemantic
    first = phase_diagram(("importance", 0.1, 10), ("kurtosis", 4, 20), features=2, dimensions=1, cells=9)
    second = phase_diagram(("importance", 0.1, 10), ("kurtosis", 4, 20), features=2, dimensions=1, cells=9, tracked=1)
    mirrored = {(b.lower, b.upper): b for b in second.boundaries}
    for boundary in first.boundaries:
        other = mirrored[Phase(2 - boundary.upper), Phase(2 - boundary.lower)]
        rows = np.isin(other.y, first.y.values)
        curve = np.interp(np.log(other.y[rows]), np.log(np.sort(boundary.y)), boundary.x[np.argsort(boundary.y)])
        np.testing.assert_allclose(other.x[rows], curve, rtol=1e-9)


def test_rings_are_closed_and_open_lines_are_not():
    # the edges around the middle node of a 3 × 3 grid: 0…5 horizontal, 6…11 vertical
    at = np.full(12, -1)
    at[[2, 3, 7, 10]] = range(4)
    (ring,) = _chains(at, 3, 3)
    assert len(ring) == 5
    assert ring[0] == ring[-1]
    at = np.full(12, -1)
    at[[0, 2, 4]] = range(3)
    assert sorted(next(iter(_chains(at, 3, 3)))) == [0, 1, 2]
