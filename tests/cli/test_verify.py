"""``capsolve verify``: reports in three formats, and an exit status for disagreement."""

import functools
import json

import pytest

import capsolve
import capsolve.verification.checks
from capsolve import Profile
from capsolve.files import write_profile


@pytest.fixture(autouse=True)
def _profile(tmp_path):
    write_profile(Profile([2.0, 1.0, 0.9, 0.8], [9.0, 2.0, 12.0, 7.0]), tmp_path / "profile.csv")


@pytest.fixture
def run(run):
    return functools.partial(run, "verify")


@pytest.fixture
def wrong(monkeypatch):
    """A solver that gives everybody the same."""

    def equal(v, k, dimensions, *, bias):
        n = len(v)
        return capsolve.certify(capsolve.QuadraticLoss(v, k, bias), dimensions, [float(dimensions) / n] * n)

    monkeypatch.setattr(capsolve.verification.checks, "solve", equal)


def test_a_profile(run, tmp_path):
    status, out, err = run("profile.csv", "-D", 2, "-o", "report.md")
    assert (status, err) == (0, "")
    assert out.startswith("profile.csv: 4 features in 2 dimensions: all routes agree")
    assert "generic convex solver (CVXPY)" in out
    assert out.endswith("\n1 problem: 7 agree, 0 disagree, 0 inconclusive, 1 skipped\n\nwrote report.md\n")
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.startswith(f"# Verification, capsolve {capsolve.__version__}\n\n1 problem: 7 agree,")
    assert "## profile.csv: 4 features in 2 dimensions: all routes agree (1 skipped)\n\n| route |" in report


def test_disagreement_has_an_exit_status_of_its_own(run, wrong):
    status, out, err = run("profile.csv", "-D", 2)
    assert status == 4
    assert "4 features in 2 dimensions: routes DISAGREE" in out
    assert err == "capsolve: warning: routes disagree: profile.csv: 4 features in 2 dimensions\n"
    status, out, err = run("profile.csv", "-D", 2, "--json")
    assert status == 4
    found = json.loads(out)
    assert found["disagree"] == 1
    assert found["problems"][0]["verdict"] == "disagree"


def test_the_suite(run, monkeypatch, tmp_path):
    cells = [cell for cell in capsolve.verification.checks._figure_4() if "0.1," in cell[0]]
    monkeypatch.setattr(capsolve.verification.checks, "_figure_4", lambda: cells[:2])
    monkeypatch.setattr(capsolve.verification.checks, "_RANDOM", 0)
    status, out, err = run("--json", "-o", "r.md")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["disagree"] == 0
    assert [problem["title"] for problem in found["problems"]] == [cell[0] for cell in cells[:2]]
    checks = found["problems"][0]["checks"]
    assert {check["verdict"] for check in checks} == {"agree"}
    assert checks[0]["difference"] == checks[0]["value"] - checks[0]["expected"]
    assert (tmp_path / "r.md").read_text(encoding="utf-8").count("\n## Fig. 4") == 2


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["profile.csv"], 2, "a profile needs --dimensions"),
        (["-D", "2"], 2, "the suite takes none"),
        (["--no-bias"], 2, "--no-bias needs a profile"),
        (["profile.csv", "-D", "-1"], 2, "must be a finite number >= 0"),
        (["profile.csv", "-D", "nan"], 2, "must be a finite number >= 0"),
        (["-o", "report.txt"], 2, "the file type must be one of .md"),
        (["-o", "missing/report.md"], 2, "the directory missing does not exist"),
        (["--seed", "-1"], 2, "-1 is not in the range"),
        (["missing.csv", "-D", "2"], 1, "missing.csv"),
        (["profile.csv", "-D", "2", "--no-bias"], 1, "profile.csv: kurtosis must be >= 3"),
    ],
)
def test_bad_usage_and_input(run, tmp_path, args, status, message):
    code, out, err = run(*args)
    assert (code, out) == (status, "")
    assert err.startswith("capsolve: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["profile.csv"]
