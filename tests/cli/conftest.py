"""The command line run in this process, in an empty folder."""

import logging

import numpy as np
import pytest

from capsolve import Profile, cli
from capsolve.files import write_profile
from tests.cli.helpers import IMPORTANCE, KURTOSIS, NAMES


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAPSOLVE_DEBUG", raising=False)
    # what is compiled first, and when, depends on the tests before: test_compiling.py has a process of its own
    monkeypatch.setattr(logging.getLogger("capsolve.compiling"), "disabled", True)


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
