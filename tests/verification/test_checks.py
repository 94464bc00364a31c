"""Reports: all routes agree on what is right, and say so when it is not; what cannot be done is said too."""

import dataclasses

import numpy as np
import pytest

import capsolve
import capsolve.verification.checks
from capsolve import Verdict, verify, verify_suite

CONVEX = ([2.0, 1.0, 0.9, 0.8, 0.7], [9.0, 5.0, 12.0, 7.0, 20.0], 2)
MIXED = ([2.0, 1.0, 0.9, 0.8, 0.7], [9.0, 2.0, 12.0, 1.5, 2.9], 2)
FEW = 20_000  # samples


def by_route(report):
    return {(check.route, check.quantity): check for check in report.checks}


def verdicts(report):
    return {route: check.verdict.value for route, check in by_route(report).items()}


@pytest.mark.parametrize("bias", [True, False])
def test_all_routes_agree_on_a_convex_problem(bias):
    report = verify(*CONVEX, bias=bias, rng=0)
    assert set(verdicts(report).values()) == {"agree"}
    assert len(report.checks) == 7
    for check in report.checks:
        assert abs(check.difference) <= check.tolerance
        # and not because anything would: half of the loss is still another loss
        if check.quantity == "loss":
            assert check.tolerance < 0.1 * report.allocation.loss


def test_all_routes_agree_on_a_mixed_problem():
    report = verify(*MIXED, samples=FEW, rng=0)
    found = verdicts(report)
    assert found.pop(("optimised embedding", "capacity")) == "skipped"
    assert set(found.values()) == {"agree"}
    assert ("search over concave features", "loss") in found


# Each is wrong in one way; the routes named must see it.
WRONG = {
    "moved capacity": (CONVEX, [0.95, 0.3, 0.25, 0.25, 0.25]),
    "another concave feature": (([1.0, 0.9, 0.8], [2.0, 2.0, 2.0], 1), [0.0, 1.0, 0.0]),
    "budget left": (([1.0, 0.9, 0.8], [2.0, 2.0, 2.0], 2), [1.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_allocation_is_found_out(wrong):
    problem, capacity = WRONG[wrong]
    report = verify(*problem, capacity=capacity, samples=FEW, rng=0)
    assert report.verdict is Verdict.DISAGREE
    found = by_route(report)
    assert found["closed form, lower bound", "loss"].verdict is Verdict.DISAGREE
    optimised = found["optimised embedding", "loss"]
    assert optimised.verdict is Verdict.DISAGREE
    assert optimised.difference < -100 * optimised.tolerance
    if max(problem[1]) < 3:
        assert found["search over concave features", "loss"].verdict is Verdict.DISAGREE
    else:
        assert found["generic convex solver (CVXPY)", "loss"].verdict is Verdict.DISAGREE
        assert found["optimised embedding", "capacity"].verdict is Verdict.DISAGREE
        assert found["constructed embedding", "loss"].verdict is Verdict.DISAGREE


def test_a_solver_whose_loss_is_wrong_is_found_out(monkeypatch):
    def too_good(*args, **kwargs):
        allocation = capsolve.solve(*args, **kwargs)
        return dataclasses.replace(allocation, loss=allocation.loss * 0.99, lower_bound=allocation.lower_bound * 0.99)

    monkeypatch.setattr(capsolve.verification.checks, "solve", too_good)
    found = verdicts(verify(*CONVEX, samples=FEW, rng=0))
    assert found["generic convex solver (CVXPY)", "loss"] == "disagree"
    assert found["constructed embedding", "loss"] == "disagree"
    assert found["optimised embedding", "loss"] == "disagree"


def test_monte_carlo_sees_a_wrong_embedding(monkeypatch):
    def longer(self, *_, **__):
        return 1.5 * capsolve.construct_embedding(self.capacity, self.squared_norm, dimensions=2)

    monkeypatch.setattr(capsolve.Allocation, "embedding", longer)
    found = verdicts(verify(*CONVEX, rng=0))
    assert found["sampled model (Monte Carlo)", "loss"] == "disagree"
    assert found["constructed embedding", "loss"] == "disagree"
    assert found["constructed embedding", "capacity"] == "agree"  # which scale cannot change


def test_what_cannot_be_done_is_said(monkeypatch):
    found = by_route(verify(*CONVEX[:2], 2.5, rng=0))
    for route in ("constructed embedding", "optimised embedding"):
        assert found[route, "loss"].verdict is Verdict.SKIPPED
        assert found[route, "loss"].note == "no embedding has 2.5 dimensions"
        assert found[route, "loss"].difference is None
    assert found["generic convex solver (CVXPY)", "loss"].verdict is Verdict.AGREE
    assert "meet in" in by_route(verify([1, 1, 1], 900.0, 2, rng=0))["sampled model (Monte Carlo)", "loss"].note
    for name in ("PROGRAMME", "SEARCH", "EMBEDDING", "DESCENT", "SAMPLE"):
        monkeypatch.setattr(capsolve.verification.checks, f"LARGEST_{name}", 3)
    report = verify(*MIXED, rng=0)
    notes = [check.note for check in report.checks if check.verdict is Verdict.SKIPPED]
    assert len(notes) == len(report.checks) - 1
    assert all("> 3" in note or note == "no constructed embedding" for note in notes)
    assert report.verdict is Verdict.AGREE
    assert report.heading().endswith("all routes agree (7 skipped)")


def test_a_descent_that_only_finds_local_optima_is_inconclusive(monkeypatch):
    monkeypatch.setattr(capsolve.verification.checks, "_STARTS", (1,))
    n = 12
    v = 1.0 + 0.01 * np.arange(n)
    reports = [verify(v, 1.5, 6, samples=2, rng=seed) for seed in range(3)]
    checks = [by_route(report)["optimised embedding", "loss"] for report in reports]
    stuck = [i for i, check in enumerate(checks) if check.verdict is Verdict.INCONCLUSIVE]
    assert stuck
    assert "local optimum" in checks[stuck[0]].note
    assert checks[stuck[0]].difference > 0
    assert reports[stuck[0]].counts()["inconclusive"] == 1


@pytest.mark.parametrize(
    ("v", "k", "dimensions"),
    [([0.0, 0.0], 5.0, 1), ([1.0, 0.0], [9.0, 2.0], 1), ([2.0, 1.0], 9.0, 0), ([2.0, 1.0], 9.0, 3), ([3.0], 1.0, 1)],
)
def test_edges(v, k, dimensions):
    report = verify(v, k, dimensions, samples=FEW, rng=0)
    assert report.verdict is Verdict.AGREE, report.summary()


def test_arrays_of_other_libraries():
    xp = pytest.importorskip("array_api_strict")
    report = verify(*(xp.asarray(column) for column in CONVEX[:2]), 2, samples=FEW, rng=0)
    assert report.to_dict() == verify(*CONVEX, samples=FEW, rng=0).to_dict()


def test_progress_counts_the_starts_of_a_long_check(capsys):
    verify(*CONVEX, samples=FEW)
    assert capsys.readouterr().err == ""
    verify(*CONVEX, samples=FEW, progress=True)
    bars = capsys.readouterr().err
    assert "check" in bars
    assert "/16 " in bars
    assert "start" in bars


@pytest.mark.slow
def test_the_suite_agrees(capsys):
    reports = verify_suite(progress=True, rng=0)
    assert "19/19" in capsys.readouterr().err
    counts = {name: sum(report.counts()[name] for report in reports) for name in ("agree", "disagree", "skipped")}
    assert counts["disagree"] == 0
    assert counts["agree"] > 10 * counts["skipped"]
    kinds = {report.title.split(" 1:")[0].split(" density")[0] for report in reports if "1:" in report.title}
    assert kinds == {"convex", "mixed kurtosis", "low kurtosis", "no bias"}
    assert sum("Fig. 4" in report.title for report in reports) == 7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dimensions": -1}, "dimensions must be >= 0"),
        ({"kurtosis": 0.5}, "kurtosis must be >= 1"),
        ({"kurtosis": 2.0, "bias": False}, "kurtosis must be >= 3"),
        ({"samples": 1}, "samples must be >= 2"),
        ({"samples": 10.5}, "samples must be an integer"),
        ({"capacity": [1.0]}, "capacity must have one entry per feature"),
        ({"importance": [1e200, 1.0]}, "must have a loss below 1.8e308"),
    ],
)
def test_bad_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        verify(**{"importance": [1.0, 2.0], "kurtosis": 9.0, "dimensions": 1} | changed)


def test_a_profile_is_verified_under_its_names():
    profile = capsolve.Profile([2.0, 1.0, 0.5], [9.0, 8.0, 7.0], ["a", "b", "b"])
    report = capsolve.verify(profile, dimensions=2, samples=2000, rng=0)
    assert report.verdict is capsolve.Verdict.AGREE
    assert report.allocation.names == profile.names
    with pytest.raises(ValueError, match="a profile has its own kurtosis"):
        capsolve.verify(profile, 2)
