"""Fig. 6 again: it agrees, and a wrong embedding would not."""

import numpy as np

from capsolve.reproduction import fig6


def test_figure_6_agrees_with_the_published_capacities(settings):
    result = fig6.make(settings)
    assert all(finding.holds for finding in result.findings)
    table = result.table
    published = np.array(table["published"])
    given = np.isfinite(published)
    assert given.sum() == 3 + 3 + 2
    np.testing.assert_allclose(np.array(table["capacity"])[given], published[given], rtol=1e-14)
    assert len(result.pictures[""].axes) == 3 * 6


def test_figure_6_would_contradict_a_wrong_embedding(settings, monkeypatch):
    bent = [fig6._Example("bent", np.array([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.8]]), (2 / 3, 2 / 3, 2 / 3))]
    monkeypatch.setattr(fig6, "_examples", lambda: bent)
    assert [finding.holds for finding in fig6.make(settings).findings] == [False, False]
