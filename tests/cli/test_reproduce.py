"""``capsolve reproduce``: it writes what it lists, and knows every figure."""

import csv
from importlib import import_module

import pytest
from click.testing import CliRunner

from capsolve import reproduction
from capsolve.cli import main
from capsolve.cli.reproduce import command
from capsolve.reproduction import FIGURES, fig2


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


def test_the_command_knows_every_figure():
    assert tuple(command.params[0].type.choices) == (*FIGURES, "all")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    ran = CliRunner().invoke(main, ["reproduce", "fig2", "-o", str(tmp_path / "file")])
    assert ran.exit_code == 2
