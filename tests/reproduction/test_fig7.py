"""Fig. 7: the measures tell known diagrams apart, and networks are trained, stored and read again."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

import capsolve
from capsolve.diagrams import empirical
from capsolve.diagrams.problems import problems_over
from capsolve.reproduction import fig7
from capsolve.reproduction._report import Settings

CELLS = 5


def trained(x, y, *, model, cells, features, dimensions, **_):
    """Return what `capsolve.empirical_phase_diagram` would, with embeddings from formulas in place of trained ones.

    The sum model has the optimum of the quadratic model. The autoencoder has antipodal pairs when inputs are sparse,
    whatever the importance, and otherwise one axis for each of the most important features.
    """
    return dataclasses.replace(formula(x, y, model.partition("-")[0], cells, features, dimensions), model=model)


@functools.cache
def formula(x, y, kind, cells, features, dimensions):
    optimum = capsolve.phase_diagram(x, y, cells=cells, features=features, dimensions=dimensions)
    W = np.zeros((cells, cells, features, dimensions))
    for (row, p), (column, V) in itertools.product(enumerate(optimum.y.values), enumerate(optimum.x.values)):
        v = np.array([V] + [1.0] * (features - 1))
        if kind == "sum":
            W[row, column] = capsolve.solve(v, 1.8 / p, dimensions).embedding()
        elif p < 0.6:
            W[row, column, np.arange(6), np.arange(6) % 3] = np.where(np.arange(6) < 3, 1.0, -1.0)
        else:
            W[row, column, np.argsort(-v, kind="stable")[:dimensions], range(dimensions)] = 1.0
    base = capsolve.empirical_phase_diagram(
        ("importance", 0.5, 2.0), ("density", 0.5, 0.1), cells=2, features=2, dimensions=1, restarts=1, rng=0
    )
    return dataclasses.replace(
        base,
        x=optimum.x,
        y=optimum.y,
        capacities=capsolve.capacities(W),
        loss=np.ones((cells, cells)),
        agreeing=np.ones((cells, cells)),
        embedding=W,
        problems=problems_over(x, y, cells, features=features, dimensions=dimensions)[2],
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig7, "empirical_phase_diagram", trained)
        return fig7.make(Settings(tmp_path_factory.mktemp("fig7"), CELLS))


def test_findings_about_known_networks(result):
    verdicts = {finding.claim: finding for finding in result.findings}
    theory, ignored, full, rising, wider, sharper, band, gap, blocks = verdicts.values()
    assert theory.verdict == "agrees"
    assert "100.0% of the cells within 0.1" in theory.evidence
    assert rising.verdict == wider.verdict == band.verdict == gap.verdict == blocks.verdict == "agrees"
    assert ignored.verdict == full.verdict == "agrees"
    assert sharper.verdict == "agrees"
    # from the definitions: pairs have C = ½ in all rows with p < 0.6, which are 4 of 5, and two features to a block
    for finding in (band, gap):
        assert f"autoencoder ReLU 6-in-3 {1 - 1 / CELLS:.1%}" in finding.evidence
    assert "sum ReLU 6-in-3 0.0%" in gap.evidence
    assert "autoencoder ReLU 6-in-3 2.00" in blocks.evidence


def test_the_settings_are_told(result):
    assert "4 starts per cell, 1500 steps" in result.about
    assert "learning rate of 0.3 (sum), 0.03 (autoencoder)" in result.about


def test_arrays_and_pictures(result):
    assert result.arrays["capacity"].shape == (3, 3, CELLS, CELLS, 6)
    grid = result.pictures[""].axes
    np.testing.assert_array_equal(grid[4].collections[0].get_array(), result.arrays["capacity"][1, 1, :, :, 0])
    assert "$V$ on the squared error" in grid[3].get_ylabel()
    assert "$V$ inside the target" in grid[0].get_ylabel()
    for ax in result.pictures["-blocks"].axes:
        assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(1.0)


def test_a_different_law_is_contradicted(tmp_path, monkeypatch):
    """Negative control: with the two architectures' embeddings exchanged, what tells them apart fails."""

    def exchanged(*axes, model, **options):
        return trained(*axes, model="autoencoder-relu" if model.startswith("sum") else "sum-relu", **options)

    monkeypatch.setattr(fig7, "empirical_phase_diagram", exchanged)
    theory, *_, band, gap, blocks = fig7.make(Settings(tmp_path, CELLS)).findings
    assert [finding.verdict for finding in (theory, band, gap, blocks)] == ["DISAGREES"] * 4
    assert "Not so: autoencoder quadratic 6-in-3, autoencoder ReLU 6-in-3" in band.evidence


def test_networks_are_trained_once(tmp_path, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr(fig7, "ROWS", (("autoencoder", 3),))
    monkeypatch.setattr(fig7, "COLUMNS", ("relu",))
    for name, value in (("STEPS", 60), ("POINTS", 128), ("STARTS", 1)):
        monkeypatch.setattr(fig7, name, value)
    (first,) = fig7._panels(Settings(tmp_path, 3))
    monkeypatch.setattr(empirical, "compute_cells", None)  # whatever trains would fail
    (again,) = fig7._panels(Settings(tmp_path, 3))
    np.testing.assert_array_equal(first.capacity, again.capacity)
    with pytest.raises(TypeError):
        list(fig7._panels(Settings(tmp_path, 2)))


@pytest.mark.slow
def test_nine_sorts_of_networks_on_ten_by_ten_cells(tmp_path, monkeypatch):
    """Short trainings, every panel: what is far from close calls comes out as in the long ones."""
    pytest.importorskip("jax")
    for name, value in (("STARTS", 2), ("STEPS", 300), ("POINTS", 256)):
        monkeypatch.setattr(fig7, name, value)
    panels = {panel.name: panel for panel in fig7._panels(Settings(tmp_path, 10))}
    assert len(panels) == 9
    exact = panels["sum quadratic 6-in-3"].found.compare(strip=0.0)
    assert exact.largest < fig7.SHARED
    V, p = panels["sum quadratic 6-in-3"].importance, panels["sum quadratic 6-in-3"].density
    dense = p > fig7.DENSE
    for panel in panels.values():
        assert np.isfinite(panel.capacity).all()
        assert panel.capacity[np.ix_(dense, V < 0.1)].max() < fig7.SHARED
        assert panel.capacity[np.ix_(dense, V > 10.0)].min() > 1.0 - fig7.SHARED
        assert panel.rising > 0.9
    # antipodal pairs, wide at V orders of magnitude apart, in small blocks: half of the cells, against none
    pairs = panels["autoencoder ReLU 6-in-3"]
    sums = [panel for name, panel in panels.items() if name.startswith("sum")]
    assert pairs.band > 0.3
    assert pairs.gap > 0.2
    assert max(panel.band for panel in sums) < 0.05
    assert max(panel.gap for panel in sums) < 0.05
    sparse = p < fig7.SPARSE
    assert pairs.crowd(pairs.sizes[sparse]) + 1.0 < min(panel.crowd(panel.sizes[sparse]) for panel in sums)
