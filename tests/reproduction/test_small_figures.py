"""Figures that are made at once: their files, their statements, and statements that would be found false."""

import csv
from importlib import import_module

import numpy as np
import pytest
from click.testing import CliRunner

import capsolve
from capsolve import reproduction
from capsolve.cli import main
from capsolve.cli.reproduce import command
from capsolve.reproduction import FIGURES, fig2, fig6
from capsolve.reproduction._report import Finding, Result, Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path)


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


def test_a_report_says_what_disagrees(tmp_path):
    result = Result(
        "Title", "About.", {}, [Finding("A", True, "1 = 1"), Finding("B", False, "1 ≠ 2")], arrays={"x": [1]}
    )
    paths = result.write(tmp_path, "figx")
    assert [path.name for path in paths] == ["figx.npz", "figx.md"]
    text = paths[-1].read_text(encoding="utf-8")
    assert "1 of 2 statements agree." in text
    assert "- **agrees**: A  \n  1 = 1" in text
    assert "- **DISAGREES**: B  \n  1 ≠ 2" in text
    assert np.load(paths[0])["x"] == [1]


def test_the_command_writes_what_it_lists(tmp_path):
    ran = CliRunner().invoke(main, ["reproduce", "fig2", "-o", str(tmp_path / "new" / "paper")])
    assert ran.exit_code == 0, ran.output
    listed = ran.output.split()
    assert sorted(listed) == sorted(str(path) for path in (tmp_path / "new" / "paper").iterdir())
    with open(tmp_path / "new" / "paper" / "fig2.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["importance"]) for row in rows] == list(fig2.IMPORTANCE)


@pytest.mark.slow
def test_all_makes_one_figure_after_the_other(tmp_path, monkeypatch):
    assert all(callable(import_module(f"capsolve.reproduction.{name}").make) for name in FIGURES)
    monkeypatch.setattr(reproduction, "FIGURES", ("fig2", "fig6"))  # the others take long
    ran = CliRunner().invoke(main, ["reproduce", "all", "-o", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{kind}" for name in ("fig2", "fig6") for kind in ("png", "pdf", "csv", "md")
    } | {"fig6.npz"}


@pytest.mark.slow
def test_the_same_figure_is_the_same_to_the_byte(tmp_path):
    for name in "ab":
        capsolve.reproduce("fig2", tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_command_knows_every_figure():
    assert tuple(command.params[0].type.choices) == (*FIGURES, "all")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"figure must be one of fig2, .* or all, got 'fig3'"):
        capsolve.reproduce("fig3", tmp_path)
    with pytest.raises(ValueError, match="cells must be at least 2, got 1"):
        capsolve.reproduce("fig2", tmp_path, cells=1)
    (tmp_path / "file").write_text("")
    ran = CliRunner().invoke(main, ["reproduce", "fig2", "-o", str(tmp_path / "file")])
    assert ran.exit_code == 2
    with pytest.raises(OSError, match="file"):
        capsolve.reproduce("fig2", tmp_path / "file")
