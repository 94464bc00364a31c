"""Reports: the same numbers as a table, as Markdown and as JSON; one route that disagrees is a disagreement."""

import capsolve
from capsolve import Check, Verdict, Verification, verify

CONVEX = ([2.0, 1.0, 0.9, 0.8, 0.7], [9.0, 5.0, 12.0, 7.0, 20.0], 2)
FEW = 20_000  # samples


def check(verdict, value=1.0):
    return Check("a route", "loss", value, 1.0, 1e-9, verdict, "a note")


def report(*verdicts):
    return Verification("a problem", capsolve.solve([2.0, 1.0], 9.0, 1), tuple(check(verdict) for verdict in verdicts))


def test_one_route_that_disagrees_is_a_disagreement():
    agree, disagree, local, skipped = Verdict.AGREE, Verdict.DISAGREE, Verdict.INCONCLUSIVE, Verdict.SKIPPED
    assert report(agree, local, skipped).verdict is agree
    assert report(agree, disagree, agree).verdict is disagree
    assert report(agree, local, local).counts() == {"agree": 1, "disagree": 0, "inconclusive": 2, "skipped": 0}
    assert report(agree, skipped).heading() == "a problem: all routes agree (1 skipped)"
    assert report(disagree, local).heading() == "a problem: routes DISAGREE (1 inconclusive)"
    assert repr(report(agree, disagree)) == "Verification('a problem', DISAGREE: 1 agree, 1 disagree)"
    assert "| **disagree** |" in report(disagree).markdown()
    assert "**" not in report(agree, local).markdown()


def test_a_difference_needs_two_numbers():
    assert check(Verdict.AGREE, 1.5).difference == 0.5
    assert check(Verdict.SKIPPED, None).difference is None


def test_summaries_fit_a_terminal():
    long = [
        Check(c.route, c.quantity, -1.234567e-100, 1e-7, 1e-9, Verdict.INCONCLUSIVE, " ".join(["why"] * 40))
        for c in verify([2.0, 1.0, 0.9], [1.5, 5.0, 12.0], 2, samples=FEW).checks
    ]
    title = "a profile of some name: 64 features in 16 dimensions of a network that has no bias"
    summary = Verification(title, capsolve.solve([2.0, 1.0], 9.0, 1), tuple(long)).summary()
    assert max(map(len, summary.splitlines())) <= 84  # three digits in an exponent are rare
    ordinary = verify([2.0, 1.0, 0.9], [1.5, 5.0, 12.0], 2, samples=FEW, title=title).summary()
    assert max(map(len, ordinary.splitlines())) <= 80
    assert summary.count("why") == 40 * len(long)


def test_report_formats():
    report = verify(*CONVEX, samples=FEW, rng=0, title="a | problem")
    assert report.summary().startswith("a | problem: all routes agree\n\nroute ")
    lines = report.summary().splitlines()
    assert sum(line.startswith((*{check.route for check in report.checks},)) for line in lines) == len(report.checks)
    assert sum(line.startswith("  ") for line in lines) >= sum(bool(check.note) for check in report.checks)
    lines = report.markdown().splitlines()
    assert len(lines) == 4 + len(report.checks)
    assert len({line.count(" | ") for line in lines[2:]} - {6}) <= 1
    plain = report.to_dict()
    assert plain["verdict"] == "agree"
    assert plain["features"] == 5
    assert [entry["value"] for entry in plain["checks"]] == [check.value for check in report.checks]
    bad = Check("a route", "loss", 2.0, 1.0, 0.1, Verdict.DISAGREE, "why")
    worse = Verification("bad", report.allocation, (*report.checks, bad))
    assert worse.verdict is Verdict.DISAGREE
    assert "**disagree**" in worse.markdown()
    assert "bad: routes DISAGREE" in worse.summary()
    assert repr(worse) == "Verification('bad', DISAGREE: 7 agree, 1 disagree)"
