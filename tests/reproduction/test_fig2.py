"""Fig. 2 again: it agrees, and a wrong allocation would not."""

import pytest

import capsolve
from capsolve.reproduction import fig2


def test_figure_2_agrees(settings):
    result = fig2.make(settings)
    assert [finding.holds for finding in result.findings] == [True] * 5
    assert result.table["capacity"] == pytest.approx(capsolve.solve(fig2.IMPORTANCE, 9.0, 3).capacity)
    (ax,) = result.pictures[""].axes
    assert len(ax.texts) == len(fig2.IMPORTANCE)


def test_figure_2_would_contradict_a_wrong_allocation(settings, monkeypatch):
    model = capsolve.QuadraticLoss(fig2.IMPORTANCE, fig2.KURTOSIS)
    wrong = capsolve.certify(model, 3, [1.0, 0.8, 0.7, 0.3, 0.2, 0.0, 0.0, 0.0])
    monkeypatch.setattr(fig2, "solve", lambda *_: wrong)
    equal, _, _, trades, order = fig2.make(settings).findings
    assert not equal.holds
    assert not trades.holds
    assert order.holds
