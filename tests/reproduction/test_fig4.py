"""Fig. 4: the diagram agrees with the theory, and an embedding or a boundary that is wrong would be noticed."""

import dataclasses

import numpy as np
import pytest

from capsolve.reproduction import fig4
from capsolve.reproduction._report import Settings


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig4, "FINE", 40)
        patch.setattr(fig4, "STARTS", {True: 1, False: 2})
        return fig4.make(Settings(tmp_path_factory.mktemp("fig4"), 4, False))


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


def empirical(result, **changes):
    names = ("importance", "density", "capacity", "loss", "optimal_capacity", "optimal_loss")
    return dataclasses.replace(fig4._Empirical(*(result.arrays[name] for name in names)), **changes)


def test_embeddings_that_differ_are_told(result):
    capacity = np.array(result.arrays["capacity"])
    capacity[2, 1] += 0.3
    agree, _ = fig4._empirical_findings(empirical(result, capacity=capacity))
    assert agree.verdict == "DISAGREES"
    V, p = result.arrays["importance"][1], result.arrays["density"][2]
    assert f"Different: V = {V:.4g}, p = {p:.4g}: C = {capacity[2, 1]:.3f} for" in agree.evidence


def test_embeddings_that_beat_the_optimum_are_told(result):
    _, bound = fig4._empirical_findings(empirical(result, loss=result.arrays["optimal_loss"] * (1 - 1e-9)))
    assert bound.verdict == "DISAGREES"


def test_cells_where_two_optima_tie_are_left_out():
    V, p = np.array([0.5, 1.0, 2.0]), np.array([0.9, 0.3])
    zeros = np.zeros((2, 3))
    found = fig4._Empirical(V, p, zeros, zeros + 1, zeros, zeros + 1)
    np.testing.assert_array_equal(found.strip, [[False, True, False], [False, False, False]])


def test_boundaries_that_are_wrong_are_told(result, monkeypatch):
    monkeypatch.setattr(fig4, "odd_group_boundaries", lambda k, *_: (0.9 * np.ones_like(k), 2.2 * np.ones_like(k)))
    diagram = fig4.phase_diagram(cells=20)
    assert fig4._analytic_findings(diagram)[0].verdict == "DISAGREES"
