"""``capsolve phase``: pictures, arrays, comparisons, interruptions."""

import functools
import json

import numpy as np
import pytest

import capsolve
from capsolve import EmpiricalPhaseDiagram, PhaseDiagram
from tests.interruption import interrupt, start, written

SMALL = ["--features", "4", "--dimensions", "2", "--cells", "6x4"]


@pytest.fixture
def run(run):
    return functools.partial(run, "phase")


def test_the_papers_diagram(run, tmp_path):
    status, out, err = run("-o", "phase.png", "--data", "phase.npz")
    assert (status, err) == (0, "")
    assert "250 × 250 cells: importance × density" in out
    assert "critical point at (1, 0.6)" in out
    assert (tmp_path / "phase.png").read_bytes().startswith(b"\x89PNG")
    diagram = PhaseDiagram.load("phase.npz")
    np.testing.assert_array_equal(diagram.capacities, capsolve.phase_diagram().capacities)


def test_a_summary_needs_no_file(run, tmp_path):
    status, out, err = run(*SMALL)
    assert (status, err) == (0, "")
    assert "6 × 4 cells: importance × density, feature 0" in out
    assert "wrote" not in out
    status, out, err = run(*SMALL, "--empirical", "quadratic", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["agreement"]["close"] == 1.0
    assert not list(tmp_path.iterdir())


def test_axes_families_and_parameters_arrive(run):
    status, _, _ = run(
        *("--x", "exponent:0:2", "--y", "dimensions:1:9:log", "--family", "power-law", "--features", 12),
        *("--kurtosis", 20, "--track", 3, "--cells", "3x2", "--data", "a.npz", "--no-bias"),
    )
    assert status == 0
    expected = capsolve.phase_diagram(
        ("exponent", 0, 2),
        ("dimensions", 1, 9, "log"),
        family="power-law",
        features=12,
        kurtosis=20,
        tracked=3,
        bias=False,
        cells=(3, 2),
    )
    np.testing.assert_array_equal(PhaseDiagram.load("a.npz").capacities, expected.capacities)
    assert PhaseDiagram.load("a.npz").tracked == 3
    options = ["--x", "bias:0:1", "--y", "sparsity:0.5:0.9", "--distribution", "laplace", "--group", 2]
    assert run(*options, "--importance", 3, "--cells", 3, "--data", "b.npz")[0] == 0
    expected = capsolve.phase_diagram(
        ("bias", (False, True)), ("sparsity", 0.5, 0.9), distribution="laplace", group=2, importance=3, cells=3
    )
    np.testing.assert_array_equal(PhaseDiagram.load("b.npz").capacities, expected.capacities)


def test_empirical_diagrams_are_compared_with_the_theory(run, tmp_path):
    status, out, _ = run(*SMALL, "--empirical", "quadratic", "-o", "found.svg", "--data", "found.npz", "--json")
    assert status == 0
    numbers = json.loads(out)
    assert numbers["agreement"]["same_phase"] == numbers["agreement"]["close"] == 1.0
    assert numbers["agreement"]["cells"] + numbers["agreement"]["excluded"] == 24
    assert numbers["critical"] == [[1.0, 0.6]]
    assert sum(numbers["exact"].values()) == pytest.approx(1.0)
    found = EmpiricalPhaseDiagram.load("found.npz")
    same = capsolve.empirical_phase_diagram(features=4, dimensions=2, cells=(6, 4), rng=0)
    np.testing.assert_array_equal(found.embedding, same.embedding)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.npz", "found.svg"]
    status, out, _ = run(*SMALL, "--empirical", "quadratic", "--data", "found.npz", "--seed", 3, "--restarts", 1)
    assert status == 0
    assert "same phase" in out


@pytest.mark.slow
def test_several_workers_and_a_checkpoint_that_stays(run, tmp_path):
    options = [*SMALL, "--empirical", "quadratic"]
    assert run(*options, "--data", "one.npz", "--checkpoint", "cells")[0] == 0
    assert (tmp_path / "cells" / "settings.json").exists()
    assert run(*options, "--data", "two.npz", "--workers", 2)[0] == 0
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    status, out, err = run(*options, "--data", "one.npz", "--checkpoint", "cells", "--seed", 1)
    assert (status, out) == (1, "")
    assert "other arguments or another seed" in err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_command_goes_on(run, tmp_path, workers):
    options = ["--empirical", "quadratic", "--cells", "14x11", "--restarts", "1"]
    process = start("phase", *options, "--data", "a.npz", "--workers", workers, folder=tmp_path)
    folder = tmp_path / "a.npz.cells"
    stored = interrupt(process, folder, "batch-*.npz")
    assert 1 <= len(stored) < 4
    assert not (tmp_path / "a.npz").exists()
    assert run(*options, "--data", "a.npz", "--checkpoint", folder)[0] == 0
    assert stored.items() <= written(folder, "*").items()
    assert run(*options, "--data", "a.npz")[0] == 0  # everything is there; now the folder goes
    assert run(*options, "--data", "b.npz")[0] == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "a.csv"], "must be one of .npz"),
        (["-o", "a.gif"], "must be one of"),
        (["--x", "importance", "--data", "a.npz"], "an axis is NAME:LOW:HIGH"),
        (["--x", "importance:a:b", "--data", "a.npz"], "two numbers"),
        (["--x", "importance:-1:1", "--data", "a.npz"], "importance must be >= 0"),
        (["--x", "importance:1:2:cubic", "--data", "a.npz"], "'log' or 'linear'"),
        (["--cells", "1", "--data", "a.npz"], "60x40"),
        (["--cells", "ax2", "--data", "a.npz"], "60x40"),
        (["--x", "bias:0:1", "--no-bias", "--data", "a.npz"], "makes no sense"),
        (["--workers", "2", "--data", "a.npz"], "--workers makes no sense without --empirical"),
        (["--restarts", "2", "--data", "a.npz"], "--restarts makes no sense without --empirical"),
        (["--empirical", "magic", "--data", "a.npz"], "'magic' is not one of"),
    ],
)
def test_bad_usage_is_one_line(run, tmp_path, options, message):
    status, out, err = run(*options)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())


def test_bad_input_is_one_line(run, tmp_path):
    for options, message in (
        (["--x", "height:1:2"], "an axis must be one of"),
        (["--kurtosis", "9"], "say the same thing"),
        (["--no-bias"], "kurtosis must be >= 3"),
        (["--track", "6"], "tracked must be below"),
        (["--cells", "1000000"], "cells: 1000000 × 1000000 of 6 features would take 178000.0 GB of memory"),
        (["--empirical", "sum-relu", "--y", "kurtosis:3:9"], "needs a density"),
    ):
        status, out, err = run("--cells", 3, *options, "--data", "a.npz")
        assert (status, out) == (1, "")
        assert err.count("\n") == 1
        assert message in err
    assert not list(tmp_path.iterdir())
