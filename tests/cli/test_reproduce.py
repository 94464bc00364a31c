"""``capsolve reproduce``: it writes what it lists, and knows every figure."""

import csv
from importlib import import_module

import pytest
from click.testing import CliRunner

from capsolve import reproduction
from capsolve.cli import main
from capsolve.cli.reproduce import command
from capsolve.reproduction import FIGURES, fig2
from capsolve.reproduction._report import Finding, Result


def test_the_command_writes_what_it_lists(tmp_path):
    ran = CliRunner().invoke(main, ["reproduce", "fig2", "-o", str(tmp_path / "new" / "paper")])
    assert ran.exit_code == 0, ran.output
    listed = ran.output.partition("\nwrote ")[2].strip().split(", ")
    assert sorted(listed) == sorted(str(path) for path in (tmp_path / "new" / "paper").iterdir())
    with open(tmp_path / "new" / "paper" / "fig2.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["importance"]) for row in rows] == list(fig2.IMPORTANCE)


def test_the_command_says_what_agrees(tmp_path):
    ran = CliRunner().invoke(main, ["reproduce", "fig2", "-o", str(tmp_path)])
    lines = ran.stdout.splitlines()
    assert lines[0] == "Fig. 2: marginal values and the price of capacity: 5 of 5 statements agree."
    assert sum(line.startswith("  agrees: ") for line in lines) == 5
    assert "    C = 1, 0.9739, 0.5817, 0.3203, 0.1242, 0, 0, 0." in lines
    report = " ".join((tmp_path / "fig2.md").read_text(encoding="utf-8").split())
    for entry in " ".join(ran.stdout.partition("\nwrote ")[0].split()).split("agrees: ")[1:]:
        assert entry.strip()[:60].rpartition(" ")[0] in report
    assert max(map(len, ran.stdout.partition("\nwrote ")[0].splitlines())) <= 80


def test_findings_of_every_kind_are_told():
    findings = [Finding("One.", 1.0, "a"), Finding("Two.", 0.5, "b"), Finding("Three.", False, "c")]
    lines = Result("T", "about", {}, findings).summary().splitlines()
    assert lines[0] == "T: 1 of 3 statements agree, 1 more in part."
    assert lines[1::2] == ["  agrees: One.", "  agrees in part: Two.", "  DISAGREES: Three."]
    assert lines[2::2] == ["    a", "    b", "    c"]


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
    ran = CliRunner().invoke(main, ["reproduce", "fig2", "-o", "-"])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "the files go to a folder, got -" in ran.stderr
