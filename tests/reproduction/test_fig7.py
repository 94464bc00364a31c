"""Fig. 7: the measures tell known diagrams apart, and networks are trained, stored and read again."""

from types import SimpleNamespace

import numpy as np
import pytest

import capsolve
from capsolve.reproduction import fig7
from capsolve.reproduction._report import Settings
from capsolve.simulate import networks

CELLS = 7


def trained(model, importance, density, *, dimensions, instances, **_):
    """Return what `capsolve.simulate.train` would, with optimal embeddings in place of trained ones.

    The sum model has the optimum of the quadratic model. The autoencoder has antipodal pairs when inputs are sparse,
    whatever the importance, and otherwise one axis for each of the most important features.
    """
    ny, nx, n = importance.shape
    W = np.zeros((ny, nx, n, dimensions))
    for row, column in np.ndindex(ny, nx):
        p, v = float(density[row, 0]), importance[row, column]
        if model.startswith("sum"):
            W[row, column] = capsolve.solve(v, 1.8 / p, dimensions).embedding()
        elif p < 0.6:
            W[row, column, np.arange(n), np.arange(n) % 3] = np.where(np.arange(n) < 3, 1.0, -1.0)
        else:
            W[row, column, np.argsort(-v, kind="stable")[:dimensions], range(dimensions)] = 1.0
    capacity = capsolve.capacities(W)
    return SimpleNamespace(
        best_embedding=W,
        capacity=capacity,
        capacities=np.repeat(capacity[..., None, :], instances, axis=-2),
        dispersion=np.zeros((ny, nx)),
        best_loss=np.ones((ny, nx)),
        diverged=np.zeros((ny, nx, instances), dtype=bool),
        settings=SimpleNamespace(learning_rate=0.3 if model.startswith("sum") else 0.03),
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig7, "train", trained)
        return fig7.make(Settings(tmp_path_factory.mktemp("fig7"), CELLS, False))


def test_findings_about_known_networks(result):
    verdicts = {finding.claim: finding for finding in result.findings}
    theory, ignored, full, rising, wider, sharper, band, gap, blocks = verdicts.values()
    assert theory.verdict == "agrees"
    assert "100.0% of the cells within 0.1" in theory.evidence
    assert rising.verdict == wider.verdict == band.verdict == gap.verdict == blocks.verdict == "agrees"
    assert ignored.verdict == full.verdict == "agrees"
    assert sharper.verdict == "agrees"
    # from the definitions: pairs have C = ½ in all rows with p < 0.6, which are 6 of 7, and two features to a block
    for finding in (band, gap):
        assert f"autoencoder ReLU 6-in-3 {1 - 1 / CELLS:.1%}" in finding.evidence
    assert "sum ReLU 6-in-3 0.0%" in gap.evidence
    assert "autoencoder ReLU 6-in-3 2.00" in blocks.evidence


def test_the_settings_are_told(result):
    assert "6 starts per cell, 1500 steps" in result.about
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

    def exchanged(model, *arguments, dimensions, **options):
        other = "autoencoder-relu" if model.startswith("sum") else "sum-relu"
        return trained(other, *arguments, dimensions=dimensions, **options)

    monkeypatch.setattr(fig7, "train", exchanged)
    theory, *_, band, gap, blocks = fig7.make(Settings(tmp_path, CELLS, False)).findings
    assert [finding.verdict for finding in (theory, band, gap, blocks)] == ["DISAGREES"] * 4
    assert "Not so: autoencoder quadratic 6-in-3, autoencoder ReLU 6-in-3" in band.evidence


def test_networks_are_trained_once(tmp_path, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr(fig7, "ROWS", (("autoencoder", 3),))
    monkeypatch.setattr(fig7, "COLUMNS", ("relu",))
    for name, value in (("STEPS", 60), ("POINTS", 128), ("INSTANCES", 1)):
        monkeypatch.setattr(fig7, name, value)
    V, p = np.geomspace(0.01, 100, 3), np.geomspace(1, 0.001, 3)
    settings = Settings(tmp_path, 3, False)
    (first,) = fig7._panels(V, p, settings)
    monkeypatch.setattr(networks, "_Block", None)  # whatever trains would fail
    (again,) = fig7._panels(V, p, settings)
    np.testing.assert_array_equal(first.capacity, again.capacity)
    with pytest.raises(TypeError):
        list(fig7._panels(V[:2], p, settings))
