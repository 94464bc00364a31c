"""``capsolve incidental``: what it prints and writes, how it goes on, what it refuses."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from capsolve.cli import main
from capsolve.cli.incidental import command
from capsolve.incidental import collision_sweep, sweep
from tests.interruption import interrupt, start, written

SHORT = ["--features", "6", "--instances", "3", "--steps", "300", "--learning-rate", "0.02", "--penalty", "0.02"]


def invoke(*arguments):
    return CliRunner().invoke(main, ["incidental", *SHORT, *arguments])


def test_figure_table_and_text_say_what_the_sweep_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("--neurons", "6:10:4", "--seed", "3", "-o", "c.png", "--data", "c.csv")
    assert result.exit_code == 0, result.output
    expected = collision_sweep(6, [6, 10], instances=3, penalty=0.02, steps=300, learning_rate=0.02, rng=3).table()
    with open("c.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name, column in expected.items():
        np.testing.assert_array_equal([float(row[name]) for row in rows], column)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert f"{expected['polysemantic'][1]:.2f} ± {expected['polysemantic_error'][1]:.2f}" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv", "c.png"]  # no checkpoint is left


def test_one_network_has_no_standard_error_and_lines_fit_a_terminal():
    result = invoke("--neurons", "2,4096", "--instances", "1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "6 features, 1 network of each width; ± is one standard error"
    assert "nan" not in result.stdout
    assert all(line.count(" ± –") == 3 for line in lines[3:])
    assert lines[3].endswith(" –")  # 6 features on 2 neurons, two each
    assert max(map(len, invoke("--neurons", "4096", "--instances", "3").stdout.splitlines() + lines)) <= 80


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def stopped(task, networks=sweep._networks):
        if task[1] == 8:
            raise KeyboardInterrupt
        return networks(task)

    monkeypatch.setattr(sweep, "_networks", stopped)
    result = invoke("--neurons", "6,8", "--data", "c.npz")
    assert result.exit_code == 130
    assert len(list((tmp_path / "c.npz.networks").glob("network-*.npz"))) == 3
    monkeypatch.setattr(sweep, "_networks", lambda task, n=sweep._networks.__defaults__[0]: only(8, task, n))
    result = invoke("--neurons", "6,8", "--data", "c.npz")
    assert result.exit_code == 0, result.output
    with np.load("c.npz") as file:
        assert file["opposite_pairs"].shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_real_signal_in_the_middle_changes_nothing(tmp_path, workers):
    options = "--features 16 --neurons 16:64:16 --instances 8 --steps 1200 --learning-rate 0.01 --penalty 0.01"

    def begin(name, workers=1):
        files = ["--data", name, "--checkpoint", f"{name}.kept", "--workers", workers]
        return start("incidental", *options.split(), *files, folder=tmp_path)

    kept, pattern = tmp_path / "a.npz.kept", "network-*.npz"
    stored = interrupt(begin("a.npz", workers), kept, pattern)
    assert 1 <= len(stored) < 32
    assert not (tmp_path / "a.npz").exists()
    for name in ("a.npz", "b.npz"):
        process = begin(name)
        assert (process.communicate(timeout=120)[1], process.returncode) == ("", 0)
    assert stored.items() <= written(kept, pattern).items()
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def only(width, task, networks):
    assert task[1] == width
    return networks(task)


def test_json():
    result = invoke("--neurons", "4", "--json")
    assert json.loads(result.stdout)["neurons"] == [4]


@pytest.mark.parametrize("value", ["0", "5:3:1", "2:8", "a", "4,4", "4:8:0", ""])
def test_bad_widths(value):
    result = invoke("--neurons", value)
    assert result.exit_code == 2
    assert "--neurons" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--low", "0.9", "--high", "0.8"], "--high must be at least --low"),
        (["--penalty", "-1"], "must be a finite number >= 0"),
        (["--data", "c.txt"], "the file type must be one of .csv, .parquet, .npz"),
        (["-o", "nowhere/c.png"], "does not exist"),
    ],
)
def test_bad_options(arguments, message):
    result = invoke("--neurons", "4", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_defaults_are_the_published_settings():
    defaults = {option.name: option.default for option in command.params}
    assert (defaults["features"], defaults["neurons"], defaults["instances"]) == (256, "256:4096:256", 16)
    assert (defaults["steps"], defaults["learning_rate"], defaults["penalty"]) == (7500, 1e-3, 1e-3)
    assert (defaults["low"], defaults["high"]) == (0.8, 1.2)
