"""The command line, run in this process and as a real one: results, files, exit statuses, one-line errors."""

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import capsolve
import capsolve.allocation
from capsolve import Profile, cli
from capsolve.cli._shared import pool
from capsolve.files import read_profile, read_table, text, write_profile

IMPORTANCE = [3.0, 1.0, 0.5, 0.25, 2.0, 0.0]
KURTOSIS = [2.0, 9.0, 30.0, 5.0, 1.5, 3.0]
NAMES = ["a", "b, c", "π", 'd"', "e", "f"]


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAPSOLVE_DEBUG", raising=False)


@pytest.fixture
def run(capsys):
    """Run the command line in this process; return exit status, standard output and standard error."""

    def run(*args):
        with pytest.raises(SystemExit) as end:
            cli.main([str(arg) for arg in args], prog_name="capsolve")
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run


@pytest.fixture
def fails(run, tmp_path):
    """Run the command line, expecting one line on standard error, nothing else and no new file."""

    def fails(status, *args):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        code, out, err = run(*args)
        assert (code, out) == (status, "")
        assert err.startswith("capsolve: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return err

    return fails


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "profile.csv"
    write_profile(Profile(IMPORTANCE, KURTOSIS, NAMES), path)
    return path


@pytest.fixture
def activations(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.laplace(size=(500, 4)) * [1.0, 2.0, 0.0, 3.0]
    np.save(tmp_path / "x.npy", x)
    return x


def strict_json(output):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(output, parse_constant=refuse)


def command(*args, **options):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "capsolve", *map(str, args)], capture_output=True, text=True, check=False, **options
    )


# capsolve


def test_help_shows_every_command_and_an_example_of_each(run):
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for name in cli.main.commands:
        assert f"  {name} " in out
        status, page, err = run(name, "--help")
        assert (status, err) == (0, "")
        assert f"\n    capsolve {name} " in page  # indented, so click has not wrapped it
    assert run()[:2] == (0, out)


def test_version(run):
    assert run("--version") == (0, f"capsolve {capsolve.__version__}\n", "")


def test_help_waits_for_no_heavy_import():
    heavy = "{'numpy', 'scipy', 'matplotlib', 'tqdm', 'sympy', 'cvxpy', 'pyarrow'}"
    code = f"import sys, capsolve.cli; sys.exit(' '.join({heavy} & set(sys.modules)) or None)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_entry_point_is_the_command():
    (script,) = entry_points(group="console_scripts", name="capsolve")
    assert script.load() is cli.main


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sovle"], "No such command 'sovle'"),
        (["--fast"], "No such option"),
        (["solve"], "Missing argument 'PROFILE'"),
        (["solve", "digits"], "Missing option '-D' / '--dimensions'"),
        (["solve", "digits", "-D", "abc"], "'abc' is not a valid float"),
        (["solve", "digits", "-D", ""], "'' is not a valid float"),
        (["solve", "digits", "-D", "-1"], "must be a finite number >= 0, got -1"),
        (["solve", "digits", "-D", "nan"], "must be a finite number >= 0, got nan"),
        (["solve", "digits", "-D", "inf"], "must be a finite number >= 0, got inf"),
        (["solve", "digits", "-D", "1e999"], "must be a finite number >= 0, got inf"),
        (["solve", "digits", "-D", "1", "--tolerance", "2"], "must be a number in [0, 1], got 2"),
        (["solve", "digits", "-D", "1", "--tolerance", "nan"], "must be a number in [0, 1], got nan"),
        (["solve", "digits", "digits", "-D", "1"], "unexpected extra argument"),
        (["profile"], "Missing argument 'ACTIVATIONS'"),
        (["measure"], "Missing argument 'WEIGHTS'"),
        (["measure", "w.npy", "--features", "row"], "'row' is not one of 'rows', 'columns'"),
        (["measure", "w.npy", "--tolerance", "0"], "must be a number in [1e-12, 0.5], got 0"),
        (["measure", "w.npy", "--activations-key", "x"], "--activations-key needs --activations"),
    ],
)
def test_bad_usage(fails, args, message):
    err = fails(2, *args)
    assert message in err
    assert "--help')" in err


@pytest.mark.parametrize("option", ["-o", "--figure"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.xyz", "the file type must be one of"),
        ("out", "the file type must be one of"),
        ("missing/out.png", "the directory missing does not exist"),
        ("missing/out.csv", "the directory missing does not exist"),
        ("folder.csv", "folder.csv is a directory"),
        ("profile.csv/out.csv", "the directory profile.csv does not exist"),
        ("profile.csv/out.png", "the directory profile.csv does not exist"),
    ],
)
def test_bad_outputs_are_found_before_the_input_is_read(fails, profile, tmp_path, option, name, message):
    (tmp_path / "folder.csv").mkdir()
    if name.endswith((".csv", ".png")) and name != "folder.csv" and name.endswith(".png") != (option == "--figure"):
        message = "the file type must be one of"
    err = fails(2, "solve", "no such file.csv", "-D", "1", option, name)
    assert message in err
    assert message in fails(2, "measure", "no such file.npy", option, name)
    if option == "-o":
        assert message in fails(2, "profile", "no such file.npy", option, name)


def test_parquet_without_its_library_is_found_before_the_input_is_read(fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'pip install "capsolve[parquet]"' in fails(2, "solve", "missing.csv", "-D", "1", "-o", "a.parquet")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written(fails, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "permission denied" in fails(2, "solve", "missing.csv", "-D", "1", "-o", "closed/a.csv")


def test_no_output_replaces_the_input(fails, profile, tmp_path):
    assert "would replace the input" in fails(2, "solve", profile, "-D", "1", "-o", profile)
    np.savetxt(tmp_path / "x.csv", np.eye(40), delimiter=",")
    assert "would replace the input" in fails(2, "profile", "x.csv", "-o", tmp_path / "x.csv")


def test_interruption(run, monkeypatch, profile):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(capsolve.allocation, "solve", interrupt)
    # the first line is the terminal's, with ^C in it
    assert run("solve", profile, "-D", "1") == (130, "", "\ncapsolve: error: interrupted\n")


def test_unexpected_errors_name_themselves_and_show_where_on_demand(fails, monkeypatch, profile):
    def fail(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(capsolve.allocation, "solve", fail)
    assert "internal error, ZeroDivisionError: by zero (set CAPSOLVE_DEBUG=1" in fails(1, "solve", profile, "-D", "1")
    monkeypatch.setenv("CAPSOLVE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["solve", str(profile), "-D", "1"], prog_name="capsolve")


def test_too_little_memory(fails, monkeypatch, profile):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(capsolve.allocation, "solve", fail)
    assert "not enough memory" in fails(1, "solve", profile, "-D", "1")


# capsolve solve


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
        "boxes": expected.boxes,
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


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
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
    "twice a name": ("name,importance,kurtosis\na,1,9\na,1,9\n", "names must differ"),
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
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 or not")
    for name, message in {
        "missing.csv": "missing.csv: No such file or directory",
        "profile.txt": "the file type must be one of .csv, .parquet, got .txt",
        "plain": "the file type must be one of .csv, .parquet, got none",
        "broken.parquet": "broken.parquet: not a readable .parquet file",
        "digit": "digit: no such file, and no built-in example; the examples are digits",
    }.items():
        assert message in fails(1, "solve", name, "-D", "1", "-o", "out.csv")


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


# capsolve profile


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_profile_measures_and_writes(run, activations, tmp_path, suffix):
    status, out, err = run("profile", "x.npy", "-o", f"p{suffix}")
    assert (status, err) == (0, "")
    expected = Profile.from_activations(activations)
    found = read_profile(tmp_path / f"p{suffix}")
    np.testing.assert_array_equal(found.importance, expected.importance)
    np.testing.assert_array_equal(found.kurtosis, expected.kurtosis)
    assert out.startswith("4 features from 500 samples\n")
    assert f"{expected.kurtosis.max():>12.4g}\n" in out
    assert "\n1 never vary and get importance 0, with kurtosis 3 as a placeholder\n  2\n" in out
    assert out.endswith(f"\nwrote p{suffix}\n")
    assert run("solve", f"p{suffix}", "-D", 2)[0] == 0


def test_profile_prints_json(run, activations):
    status, out, err = run("profile", "x.npy", "--json")
    assert (status, err) == (0, "")
    expected = Profile.from_activations(activations)
    assert strict_json(out) == {
        "activations": "x.npy",
        "samples": 500,
        "features": 4,
        "columns": {
            "importance": expected.importance.tolist(),
            "kurtosis": expected.kurtosis.tolist(),
            "mean": expected.moments.mean.tolist(),
            "variance": expected.moments.variance.tolist(),
            "kurtosis_error": expected.moments.kurtosis_error.tolist(),
            "density": expected.moments.density.tolist(),
            "constant": [False, False, True, False],
        },
    }


def test_profile_keeps_names(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="left,right", comments="")
    _, out, _ = run("profile", "x.csv", "--json")
    assert strict_json(out)["columns"]["name"] == ["left", "right"]


def test_profile_of_constants_alone(run, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((40, 12)))
    status, out, err = run("profile", "x.npy")
    assert (status, err) == (0, "")
    assert out == (
        "12 features from 40 samples\n\n12 never vary and get importance 0, with kurtosis 3 as a placeholder\n"
        "  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...\n"
    )


def test_profile_takes_a_key(run, fails, activations, tmp_path):
    np.savez(tmp_path / "x.npz", a=activations, b=activations[:, :2])
    assert run("profile", "x.npz", "--key", "b")[1].startswith("2 features")
    assert "the keys are a, b" in fails(1, "profile", "x.npz")
    assert "there is no key 'c'; the keys are a, b" in fails(1, "profile", "x.npz", "--key", "c")
    assert "a key is for" in fails(1, "profile", "x.npy", "--key", "b")


def test_progress_is_for_terminals(run, activations, monkeypatch):
    assert run("profile", "x.npy")[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = run("profile", "x.npy", "--json")
    assert status == 0
    strict_json(out)
    assert "samples" in err


BAD_ACTIVATIONS = {
    "nan": (np.where(np.eye(40) > 0, np.nan, 1.0), "must be finite, got nan at row 0, column 0"),
    "inf": (np.full((40, 2), np.inf), "must be finite, got inf"),
    "few": (np.ones((10, 2)), "at least 30 samples, got 10"),
    "no columns": (np.ones((40, 0)), "column"),
    "1-D": (np.ones(40), "2-D"),
    "complex": (np.ones((40, 2)) * 1j, "real numbers"),
    "strings": (np.full((40, 2), "x"), "real numbers"),
    "objects": (np.full((40, 2), None), "x.npy"),
}


@pytest.mark.parametrize(("array", "message"), BAD_ACTIVATIONS.values(), ids=BAD_ACTIVATIONS)
def test_bad_activations(fails, tmp_path, array, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    err = fails(1, "profile", "x.npy", "-o", "out.csv")
    assert err.startswith("capsolve: error: x.npy: ")
    assert message in err


def test_bad_activation_files(fails, tmp_path):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04N.")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 40 + "1,?\n")
    for name, message in {
        "missing.npy": "missing.npy: No such file or directory",
        "folder.npy": "folder.npy: Is a directory",
        "x.pkl": "x.pkl: the file type must be one of",
        "broken.npy": "broken.npy: not a readable .npy file",
        "x.csv": "x.csv: row 42, column b: must be a finite number, got '?'",
    }.items():
        assert message in fails(1, "profile", name, "-o", "out.csv")


def test_missing_extras_are_named(fails, profile, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "x.safetensors").write_bytes(b"x")
    assert 'pip install "capsolve[safetensors]"' in fails(1, "profile", "x.safetensors")


# capsolve measure


@pytest.fixture
def decoder(tmp_path):
    """A folder with five features in three dimensions, as SAELens writes them, in columns here."""
    W = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    (tmp_path / "sae").mkdir()
    save_file(
        {"W_dec": np.ascontiguousarray(W.T), "b_enc": W[:, 0].copy()}, tmp_path / "sae" / "sae_weights.safetensors"
    )
    (tmp_path / "sae" / "cfg.json").write_text('{"d_in": 3, "d_sae": 5}')
    return W


def test_measure_prints_what_the_library_says(run, decoder):
    status, out, err = run("measure", "sae", "-o", "c.csv", "--figure", "c.png")
    assert (status, err) == (0, "")
    found = capsolve.measure("sae")
    assert out == found.summary() + "\n\nwrote c.csv and c.png\n"
    assert "features are columns: cfg.json has d_in = 3, d_sae = 5" in out
    table = read_table("c.csv", {"feature": int, "capacity": float, "phase": text, "squared_norm": float})
    assert table["feature"] == list(range(5))
    assert table["capacity"] == found.capacity.tolist()
    np.testing.assert_allclose(table["capacity"], capsolve.capacities(decoder), rtol=1e-6)
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


def test_measure_as_json(run, decoder):
    status, out, err = run("measure", "sae/sae_weights.safetensors", "--key", "W_dec", "--json")
    assert (status, err) == (0, "")
    content, found = strict_json(out), capsolve.measure("sae")
    assert content["columns"]["capacity"] == found.capacity.tolist()
    assert content["spectrum"] == found.spectrum.tolist()
    assert (content["features"], content["dimensions"], content["orientation"]) == (5, 3, "columns")
    assert content["total"] == sum(content["columns"]["capacity"])
    assert content["random"] == 5 * 3 / 7
    assert sum(content["histogram"]["features"]) == sum(content["phases"].values()) == 5
    assert content["most_monosemantic"] == np.argsort(-found.capacity).tolist()
    assert [block["features"] for block in content["blocks"]] == [[0, 1, 2, 3, 4]]
    assert content["comparison"] is None


def test_measure_with_activations(run, decoder, tmp_path):
    x = np.random.default_rng(1).laplace(size=(200, 5))
    np.savez(tmp_path / "x.npz", x=x, y=-x)
    args = ("measure", "sae", "--activations", "x.npz", "--activations-key", "x")
    status, out, err = run(*args, "--json", "--figure", "c.svg")
    assert (status, err) == (0, "")
    content, found = strict_json(out), capsolve.measure("sae", activations=x).comparison
    assert content["comparison"]["loss"] == found.loss
    assert content["comparison"]["left"] == found.left
    assert content["columns"]["active_capacity"] == found.capacity.tolist()
    assert content["columns"]["allocated"] == found.allocation.capacity.tolist()
    assert "left on the table" in Path("c.svg").read_text(encoding="utf-8")
    assert f"left on the table: at least {found.left:.1%}" in run(*args)[1]


def test_measure_notes_a_guess_on_standard_error(run, tmp_path):
    np.save(tmp_path / "w.npy", np.ones((2, 7)))
    status, out, err = run("measure", "w.npy")
    assert status == 0
    assert out.startswith("w.npy: 7 features in 2 dimensions\n")
    assert err == (
        "capsolve: note: the columns are taken as features, being the longer axis; if they are not, use --features\n"
    )
    assert run("measure", "w.npy", "--features", "rows")[2] == ""


def test_measure_refuses(fails, decoder, tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    np.save(tmp_path / "nan.npy", np.full((4, 2), np.nan))
    np.save(tmp_path / "x.npy", np.ones((40, 4)))
    whole = Path("sae/sae_weights.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty").mkdir()
    for args, message in (
        (["one.npy"], "one.npy: must be 2-D, features and dimensions, got shape [3]"),
        (["nan.npy"], "nan.npy: must be finite, got nan at row 0, column 0"),
        (["sae", "--key", "W"], "there is no key 'W'; the keys are W_dec [3, 5], b_enc [5]"),
        (["sae", "--features", "rows"], "features must be columns, for the shape is [3, 5] and cfg.json has d_in = 3"),
        (["half.safetensors"], "half.safetensors: not a readable .safetensors file"),
        (["empty"], "empty: there is no file of weights"),
        (["missing.npy"], "missing.npy: No such file or directory"),
        (["sae", "--activations", "x.npy"], "x.npy: must have one column per feature: 5 features, got 4 columns"),
    ):
        assert message in fails(1, "measure", *args, "-o", "out.csv", "--figure", "out.png")
    np.savetxt(tmp_path / "x.csv", np.ones((40, 5)), delimiter=",")
    assert "would replace the input" in fails(2, "measure", "sae", "--activations", "x.csv", "-o", "x.csv")


# real processes


def test_a_real_process(profile):
    assert command("--version").stdout == f"capsolve {capsolve.__version__}\n"
    good = command("solve", profile, "-D", "2.5", "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert strict_json(good.stdout)["status"] == "optimal"
    bad = command("solve", "missing.csv", "-D", "2.5")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr == "capsolve: error: missing.csv: No such file or directory\n"


def test_a_reader_that_leaves_is_no_reason_for_a_traceback():
    args = [sys.executable, "-m", "capsolve", "solve", "digits", "-D", "16", "--json"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_workers_leave_interruptions_to_the_command():
    others = active_children()
    with pool(2) as executor:
        workers = [process for process in active_children() if process not in others]
        assert len(workers) == 2
        for when in ("while they start", "while they wait"):
            for worker in workers:
                os.kill(worker.pid, signal.SIGINT)
            assert {executor.submit(os.getpid).result() for _ in range(8)} <= {worker.pid for worker in workers}, when
        assert all(worker.is_alive() for worker in workers)
