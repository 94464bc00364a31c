"""Fig. 4: the diagram agrees with the theory, and an embedding or a boundary that is wrong would be noticed."""

import dataclasses
import functools

import numpy as np
import pytest

import capsolve
from capsolve.reproduction import fig4
from capsolve.reproduction._report import Settings


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig4, "FINE", 40)
        patch.setattr(fig4, "empirical_phase_diagram", functools.partial(fig4.empirical_phase_diagram, restarts=1))
        return fig4.make(Settings(tmp_path_factory.mktemp("fig4"), 3))


def test_everything_agrees(result):
    for finding in result.findings:
        assert finding.verdict == "agrees", finding
    assert "p = 0.1: V = 0.182 and 2.125; p = 0.01: V = 0.0185 and 2.459; p = 0.001: V = 0.00185 and 2.496" in (
        result.findings[0].evidence
    )


def test_arrays_and_pictures(result):
    left, right, *_ = result.pictures[""].axes
    np.testing.assert_array_equal(left.collections[0].get_array(), result.arrays["analytic_capacity"])
    np.testing.assert_array_equal(right.collections[0].get_array(), result.arrays["capacity"])
    assert [text.get_text() for text in left.texts] == list("ABCDEF")
    titles = [ax.get_title(loc="left") for ax in result.pictures["-cases"].axes]
    assert [title.split("\n")[1] for title in titles] == [
        "odd is ignored",
        "odd is monosemantic",
        "odd is polysemantic",
        "odd is ignored",
        "odd is polysemantic",
        "odd is monosemantic",
    ]


@pytest.fixture(scope="module")
def small():
    """Return an empirical diagram and the optimum in its cells."""
    axes = ("importance", 0.4, 4.0), ("density", 0.9, 0.1)
    found = capsolve.empirical_phase_diagram(*axes, cells=(2, 3), features=3, dimensions=1, restarts=1, rng=0)
    return found, capsolve.phase_diagram(found.x, found.y, features=3, dimensions=1)


def test_embeddings_that_differ_are_told(small):
    found, optimum = small
    capacities = np.array(found.capacities)
    capacities[2, 1, 0] += 0.3
    wrong = dataclasses.replace(found, capacities=capacities)
    agree, _, bound = fig4._empirical_findings(wrong, optimum)
    assert agree.verdict == "DISAGREES"
    V, p, C = found.x.values[1], found.y.values[2], capacities[2, 1, 0]
    assert f"Different: V = {V:.4g}, p = {p:.4g}: C = {C:.3f} for {optimum.capacity[2, 1]:.3f}" in agree.evidence
    assert bound.verdict == "agrees"


def test_phases_that_differ_are_told(small):
    found, optimum = small
    nothing = dataclasses.replace(found, capacities=np.zeros_like(found.capacities))
    _, phases, _ = fig4._empirical_findings(nothing, optimum)
    assert phases.verdict == "DISAGREES"


def test_embeddings_that_beat_the_optimum_are_told(small):
    found, optimum = small
    *_, bound = fig4._empirical_findings(dataclasses.replace(found, loss=optimum.loss * (1 - 1e-9)), optimum)
    assert bound.verdict == "DISAGREES"


def test_boundaries_that_are_wrong_are_told(result, monkeypatch):
    monkeypatch.setattr(fig4, "odd_group_boundaries", lambda k, *_: (0.9 * np.ones_like(k), 2.2 * np.ones_like(k)))
    diagram = fig4.phase_diagram(cells=20)
    assert fig4._analytic_findings(diagram)[0].verdict == "DISAGREES"
