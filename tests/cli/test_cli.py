"""The command line as a whole, in this process and as a real one: help, usage, exit statuses, one-line errors."""

import os
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest

import capsolve
import capsolve.allocation
from capsolve import Profile, cli
from capsolve.files import write_profile
from capsolve.solvers.routes import compiled_route
from tests.cli.helpers import command, strict_json


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
        (["solve", "digits", "-D", "1", "--tolerance", "2"], "must be a number in [1e-13, 1], got 2"),
        (["solve", "digits", "-D", "1", "--tolerance", "nan"], "must be a number in [1e-13, 1], got nan"),
        (["solve", "digits", "digits", "-D", "1"], "unexpected extra argument"),
        (["profile"], "Missing argument 'ACTIVATIONS...'"),
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


def test_verbose_says_what_is_done_and_guessed(run, tmp_path, profile, activations):
    np.savez(tmp_path / "w.npz", W_dec=np.ones((7, 3)), b_dec=np.ones(3), noise=np.ones(5))
    (tmp_path / "i.csv").write_text("importance,kurtosis\n1,9\n2,3\n")
    for options, lines in (
        (("solve", profile, "-D", 2), ["6 features are solved by plain numbers; compiled code is for 100000 and more"]),
        (
            ("solve", "i.csv", "-D", 1, "--no-bias"),
            ["2 features without a bias: a search for the trace"],
        ),
        (
            ("measure", "w.npz"),
            [
                "w.npz: W_dec is taken, of the keys W_dec [7, 3], b_dec [3], noise [5]",
                "w.npz, W_dec: the rows are features: b_dec has 3 entries, one per dimension",
            ],
        ),
        (
            ("phase", "--cells", 3, "--empirical", "quadratic", "--data", "p.npz"),
            ["p.npz.cells: 0 of 1 pieces are there"],
        ),
    ):
        quiet = run(*options)
        assert quiet[2] == ""
        for verbose in (run("--verbose", *options), run(*options, "-v"), run("-v", *options, "--verbose")):
            assert verbose[:2] == quiet[:2]
            assert verbose[2] == "".join(f"capsolve: {line}\n" for line in lines)
    assert run("solve", profile, "-D", 2)[2] == ""  # it ends with the command


def test_verbose_says_how_a_folder_is_solved(run, tmp_path):
    pytest.importorskip("dask.array")
    (tmp_path / "parts").mkdir()
    write_profile(Profile([3.0, 2.0, 1.0], 9.0), tmp_path / "parts" / "a.parquet")
    assert (
        "capsolve: features are solved where they are, by passes over a DaskSource\n"
        in run("-v", "solve", "parts", "-D", 2)[2]
    )


def test_verbose_says_why_there_is_no_compiled_code(run, tmp_path, monkeypatch):
    write_profile(Profile(np.linspace(0.1, 1.0, 100_000), 9.0), tmp_path / "many.csv")
    monkeypatch.setitem(sys.modules, "capsolve.solvers.numba_source", None)
    compiled_route.cache_clear()
    try:
        lines = run("-v", "solve", "many.csv", "-D", 10)[2].splitlines()
    finally:
        compiled_route.cache_clear()
    assert lines[0].startswith("capsolve: no compiled code: ModuleNotFoundError(")
    assert lines[1] == "capsolve: 100000 features are solved by NumPy"
