"""The experiments on incidental polysemanticity, made small: pictures, data, and statements that can be false."""

import numpy as np
import pytest

from capsolve.reproduction import incidental
from capsolve.reproduction._report import Settings

pytest.importorskip("jax")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(incidental, "ROW", 30_000)
    monkeypatch.setattr(incidental, "ROW_PENALTY", 1e-4)
    monkeypatch.setattr(incidental, "NOISE", {**incidental.NOISE, "features": 4, "neurons": 6, "steps": 300})
    monkeypatch.setattr(incidental, "KURTOSES", (1.0, 3.0))
    monkeypatch.setattr(incidental, "STANDARD_DEVIATIONS", (0.15,))
    monkeypatch.setattr(incidental, "FEATURES", 6)
    monkeypatch.setattr(incidental, "SWEEP", {"instances": 3, "steps": 300, "learning_rate": 0.02, "penalty": 0.02})


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_pictures_data_and_statements(tmp_path):
    result = incidental.make(Settings(tmp_path, cells=2))
    paths = {path.name for path in result.write(tmp_path, "incidental")}
    assert {"incidental-collisions.png", "incidental-noise.pdf", "incidental.csv", "incidental.npz"} <= paths
    text = (tmp_path / "incidental.md").read_text(encoding="utf-8")
    assert "2312.03096" in text
    assert "2210.01892" not in text
    findings = {finding.claim.split(":")[0]: finding for finding in result.findings}
    assert findings["|w|₁ of a row falls like 1/(λt)."].evidence.startswith("slope -0.9")
    # 300 steps are far too few for noise to do anything
    assert not findings["Bipolar noise concentrates rows"].holds
    inherited = findings["Collisions at the end are those that were drawn at the start."].evidence
    # n(n-1)/4m pairs are drawn on average; 7.5/6 in 6 neurons
    assert "after 0, 30, 100, 300 steps" in inherited
    assert 0.3 < float(inherited.partition("m = 6: ")[2].partition(",")[0]) < 3.0
    assert result.arrays["correlation"].shape == (2, 6, 6)
    np.testing.assert_array_equal(result.table["neurons"], [6, 96])
    # networks that are done are not trained again
    assert len(list((tmp_path / "cells" / "incidental").glob("network-*.npz"))) == 6
