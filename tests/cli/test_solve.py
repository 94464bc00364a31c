"""``capsolve solve``: what it prints, writes and draws, and what it says of bad profiles."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import capsolve
import capsolve.allocation
from capsolve import Profile
from capsolve.files import read_profile, read_table, text, write_profile
from tests.cli.helpers import IMPORTANCE, KURTOSIS, NAMES, strict_json
from tests.extras import PARQUET, needs


@pytest.mark.parametrize("bias", [True, False])
def test_solve_prints_json(run, tmp_path, bias):
    kurtosis = np.maximum(KURTOSIS, 3.0)
    write_profile(Profile(IMPORTANCE, kurtosis, NAMES), tmp_path / "p.csv")
    status, out, err = run("solve", "p.csv", "-D", 2.5, "--json", *([] if bias else ["--no-bias"]))
    assert (status, err) == (0, "")
    expected = capsolve.solve(IMPORTANCE, kurtosis, 2.5, bias=bias)
    found = strict_json(out)
    columns = found.pop("columns")
    assert found == {
        "profile": "p.csv",
        "features": 6,
        "dimensions": 2.5,
        "bias": bias,
        "status": "optimal",
        "phases": expected.counts(),
        "price": expected.price,
        "scale": expected.scale,
        "loss": expected.loss,
        "lower_bound": expected.lower_bound,
        "gap": expected.gap,
        "tolerance": 1e-9,
        "kkt_error": expected.kkt_error,
        "budget_error": expected.budget_error,
        "nodes": expected.nodes,
    }
    assert columns["name"] == NAMES
    assert columns["capacity"] == expected.capacity.tolist()
    assert columns["squared_norm"] == expected.squared_norm.tolist()
    assert {len(column) for column in columns.values()} == {6}
    assert [capsolve.Phase[phase.upper()] for phase in columns["phase"]] == expected.phase.tolist()


def test_json_has_null_for_what_overflows(run, tmp_path):
    write_profile(Profile([1e200, 1e200, 1e200], 9.0), tmp_path / "p.csv")
    status, out, err = run("solve", "p.csv", "-D", 1.5, "--json")
    assert (status, err) == (0, "")
    found = strict_json(out)
    assert found["loss"] is None
    assert found["price"] is None
    assert found["columns"]["loss"] == [None] * 3
    assert found["columns"]["capacity"] == [0.5] * 3
    assert "name" not in found["columns"]


def test_solve_prints_a_summary_for_people(run, profile):
    expected = capsolve.solve(IMPORTANCE, KURTOSIS, 2.5)
    assert run("solve", profile, "--dimensions", "2.5") == (0, expected.summary() + "\n", "")


@pytest.mark.parametrize("suffix", [".csv", PARQUET])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_solve_writes_the_allocation(run, profile, tmp_path, suffix, flags):
    path = tmp_path / f"out{suffix}"
    status, out, err = run("solve", profile, "-D", 2.5, "-o", path, *flags)
    assert (status, err) == (0, "")
    assert (f"wrote {path}" in out) is not bool(flags)
    expected = capsolve.solve(IMPORTANCE, KURTOSIS, 2.5)
    table = read_table(path, {"name": text, "capacity": float, "phase": text, "price": float})
    assert table["name"] == NAMES
    assert table["capacity"] == expected.capacity.tolist()
    assert table["phase"] == [capsolve.Phase(phase).name.lower() for phase in expected.phase]
    assert table["price"] == [expected.price] * 6
    assert read_profile(path).importance.tolist() == IMPORTANCE  # an allocation is a profile too


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_solve_draws(run, profile, tmp_path, suffix, magic):
    path = tmp_path / f"out{suffix}"
    status, out, err = run("solve", profile, "-D", 2.5, "--figure", path, "-o", "out.csv")
    assert (status, err) == (0, "")
    assert out.endswith(f"\nwrote out.csv and {path}\n")
    assert path.read_bytes().startswith(magic)
    assert sorted(os.listdir(tmp_path)) == sorted(["profile.csv", "out.csv", path.name])


@pytest.mark.parametrize("tolerance", ["0", "1e-14", "2", "nan"])
def test_the_tolerance_is_an_option_and_no_fault_of_the_file(fails, profile, tolerance):
    message = fails(2, "solve", profile, "-D", 2, "--tolerance", tolerance)
    assert "Invalid value for '--tolerance': must be a number in [1e-13, 1], got" in message
    assert "profile.csv" not in message


def test_outputs_replace_old_files(run, profile, tmp_path):
    (tmp_path / "out.csv").write_text("old")
    assert run("solve", profile, "-D", 2.5, "-o", "out.csv")[0] == 0
    assert (tmp_path / "out.csv").read_text().startswith("name,importance")


def test_an_uncertified_answer_is_given_with_a_warning_and_a_status(run, profile, monkeypatch):
    """Whatever keeps the gap open: here, capacities that are not optimal."""

    def worse(importance, kurtosis, dimensions, *, bias, tolerance):
        model = capsolve.QuadraticLoss(importance, kurtosis, bias)
        return capsolve.certify(model, dimensions, np.full(6, dimensions / 6), tolerance=tolerance)

    monkeypatch.setattr(capsolve.allocation, "solve", worse)
    status, out, err = run("solve", profile, "-D", 3, "--json", "-o", "out.csv")
    assert status == 3
    assert strict_json(out)["status"] == "feasible"
    assert read_table("out.csv", {"capacity": float})["capacity"] == [0.5] * 6
    assert err.startswith("capsolve: warning: the allocation is feasible, not certified to be optimal: relative gap")
    assert err.count("\n") == 1


BAD_PROFILES = {
    "missing column": ("importance\n1\n", "column kurtosis is missing"),
    "bad cell": ("importance,kurtosis\n1,9\nx,9\n", "row 3, column importance: must be a finite number >= 0, got 'x'"),
    "empty cell": ("importance,kurtosis\n1,9\n1,\n", "row 3, column kurtosis"),
    "nan": ("importance,kurtosis\nnan,9\n", "row 2, column importance"),
    "inf": ("importance,kurtosis\n1,inf\n", "row 2, column kurtosis"),
    "negative importance": ("importance,kurtosis\n-1,9\n", "row 2, column importance: must be a finite number >= 0"),
    "kurtosis below 1": ("importance,kurtosis\n1,0.5\n", "row 2, column kurtosis: must be a finite number >= 1"),
    "short row": ("importance,kurtosis\n1\n", "row 2 must have 2 cells, got 1"),
    "long row": ("importance,kurtosis\n1,9\n1,9,9\n", "row 3 must have 2 cells, got 3"),
    "no rows": ("importance,kurtosis\n", "there are no rows"),
    "empty": ("", "the file is empty"),
    "twice a column": ("importance,kurtosis,importance\n1,9,1\n", "column importance is there 2 times"),
    "not text": (b"\xff\xfe\x00", "not UTF-8"),
    "too large": ("importance,kurtosis\n1e308,1e12\n", "importance × kurtosis must sum to less than"),
}


@pytest.mark.parametrize(("content", "message"), BAD_PROFILES.values(), ids=BAD_PROFILES)
def test_bad_profiles(fails, tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    err = fails(1, "solve", path, "-D", "1", "-o", "out.csv", "--figure", "out.png")
    assert f"capsolve: error: {path}: " in err
    assert message in err


def test_bad_profile_files(fails, tmp_path):
    (tmp_path / "profile.txt").write_text("importance,kurtosis\n1,9\n")
    (tmp_path / "plain").write_text("importance,kurtosis\n1,9\n")
    for name, message in {
        "missing.csv": "missing.csv: No such file or directory",
        "profile.txt": "the file type must be one of .csv, .parquet, got .txt",
        "plain": "the file type must be one of .csv, .parquet, got none",
        "digit": "digit: no such file, and no built-in example; the examples are digits",
    }.items():
        assert message in fails(1, "solve", name, "-D", "1", "-o", "out.csv")


@needs("pyarrow")
def test_a_broken_parquet_file(fails, tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 or not")
    message = "broken.parquet: not a readable .parquet file"
    assert message in fails(1, "solve", "broken.parquet", "-D", "1", "-o", "out.csv")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_profile(fails, profile):
    profile.chmod(0)
    assert "profile.csv: Permission denied" in fails(1, "solve", profile, "-D", "1")


def test_low_kurtosis_without_bias_is_refused(fails, profile):
    assert f"{profile}: kurtosis must be >= 3" in fails(1, "solve", profile, "-D", "1", "--no-bias")


def test_solve_knows_the_examples(run):
    status, out, err = run("solve", "digits", "-D", 16, "--figure", "out.png")
    assert (status, err) == (0, "")
    assert out.startswith("64 features in 16 dimensions: optimal\n")
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_does_not_hide_an_example(run, tmp_path):
    (tmp_path / "digits").mkdir()
    assert run("solve", "digits", "-D", 16)[0] == 0


def test_a_pipeline(run, fails, profile, tmp_path, monkeypatch):
    expected = run("solve", "profile.csv", "-D", 2, "-o", "a.csv", "--json")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(profile.read_bytes())))
    assert run("solve", "-", "-D", 2, "--json")[1] == expected[1].replace("profile.csv", "-")
    status, table, err = run("solve", "profile.csv", "-D", 2, "-o", "-")
    assert (status, table) == (expected[0], (tmp_path / "a.csv").read_text(encoding="utf-8"))
    assert err.startswith("6 features in 2 dimensions")
    assert "not both" in fails(2, "solve", "profile.csv", "-D", 2, "-o", "-", "--json")
    (tmp_path / "parts").mkdir()
    assert "is written to a folder, got -" in fails(2, "solve", "parts", "-D", 2, "-o", "-")


def test_an_empty_path_is_not_the_current_folder(fails, profile):
    assert "a path must not be empty" in fails(1, "solve", "", "-D", 2)
