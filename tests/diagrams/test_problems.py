"""Problems of a diagram: the profile at each point is the one that is asked for, whatever the axes are."""

import numpy as np
import pytest
from scipy import stats

from capsolve import Profile, _memory, empirical_phase_diagram, exponential, phase_diagram, power_law, solve
from capsolve.diagrams import problems as module
from capsolve.diagrams.problems import problems_over

IMPORTANCE, DENSITY = ("importance", 0.1, 10.0), ("density", 1.0, 0.1)


def only(problems, x, y):
    """The single problem at a point: importance, kurtosis, dimensions, bias."""
    (group,) = problems.groups(np.array([x]), np.array([y]))
    return group.importance[0], group.kurtosis[0], group.dimensions[0], group.bias


def test_the_papers_family():
    across, up, problems = problems_over(IMPORTANCE, DENSITY, (4, 3), group=2)
    assert (across.values.size, up.values.size) == (4, 3)
    v, k, D, bias = only(problems, 5.0, 0.2)
    np.testing.assert_array_equal(v, [5, 5, 1, 1, 1, 1])
    np.testing.assert_allclose(k, 1.8 / 0.2)
    assert (D, bias) == (3.0, True)
    assert problems.describe() == "6 features, 2 of them of another importance, 3 dimensions, uniform inputs"


@pytest.mark.parametrize(
    ("family", "name", "law"), [("power-law", "exponent", power_law), ("exponential", "rate", exponential)]
)
def test_named_families_are_those_of_profiles(family, name, law):
    _, _, problems = problems_over((name, 0.0, 2.0), ("features", 3, 5), 3, family=family, kurtosis=4.0, bias=0)
    v, k, D, bias = only(problems, 1.5, 5.0)
    np.testing.assert_allclose(v, law(5, 1.5), rtol=1e-14)
    assert (k.tolist(), D, bias) == ([4.0] * 5, 3.0, False)


def test_density_sparsity_and_kurtosis_say_the_same():
    y = np.array([0.25])
    x = np.array([1.0])
    by_density = problems_over(IMPORTANCE, DENSITY, 2, distribution="laplace")[2]
    by_sparsity = problems_over(IMPORTANCE, ("sparsity", 0.0, 0.9), 2, distribution="laplace")[2]
    by_kurtosis = problems_over(IMPORTANCE, ("kurtosis", 3.0, 30.0), 2)[2]
    assert by_density.kurtosis(x, y) == by_sparsity.kurtosis(x, 1 - y) == 24.0
    assert by_kurtosis.kurtosis(x, np.array([24.0])) == 24.0
    assert by_kurtosis.density(x, y) is None
    assert by_sparsity.density(x, 1 - y) == 0.25
    frozen = problems_over(IMPORTANCE, DENSITY, 2, distribution=stats.norm())[2]
    assert frozen.kurtosis(x, y) == pytest.approx(12.0)
    assert frozen.describe().endswith("norm inputs")


def test_problems_of_one_size_are_solved_together_and_answers_return_to_their_place():
    _, _, problems = problems_over(("features", [5, 3, 2]), ("dimensions", [1, 2]), 2, kurtosis=9.0, importance=2.0)
    x, y = (points.ravel() for points in np.meshgrid([5.0, 3.0, 2.0], [1.0, 2.0]))
    groups = list(problems.groups(x, y))
    assert sorted(group.importance.shape for group in groups) == [(2, 2), (2, 3), (2, 5)]
    assert sorted(np.concatenate([group.which for group in groups])) == list(range(6))
    answers = problems.solve(x, y, 1e-9)
    for i, (n, D) in enumerate(zip(x.astype(int), y, strict=True)):
        expected = solve([2.0] + [1.0] * (n - 1), 9.0, D)
        np.testing.assert_allclose(answers.capacities[i, :n], expected.capacity, atol=1e-12)
        assert np.isnan(answers.capacities[i, n:]).all()
        assert answers.loss[i] == pytest.approx(expected.loss, rel=1e-12, abs=1e-15)
    assert answers.optimal.all()


def test_many_problems_are_solved_in_parts(monkeypatch):
    _, _, family = problems_over(("features", [5, 3, 2]), ("dimensions", [1, 2]), 2, kurtosis=9.0, importance=2.0)
    x, y = np.repeat([3.0, 5.0, 2.0], 7), np.tile([1.0, 2.0, 0.5], 7)
    whole = family.solve(x, y, 1e-9)
    monkeypatch.setattr(module, "_NUMBERS", 10)
    sizes = [group.importance.shape for group in family.groups(x, y)]
    assert [n for _, n in sizes] == sorted([n for _, n in sizes], reverse=True)
    assert max(m * n for m, n in sizes) <= 10
    for one, other in zip(family.solve(x, y, 1e-9), whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("x", [("importance", 0.1, 10.0), ("features", 4, 40)])
def test_diagrams_beyond_the_memory_are_refused(monkeypatch, x):
    monkeypatch.setattr(_memory, "free_memory", lambda: 5e8)
    refused = pytest.raises(
        ValueError, match=r"cells: \d+ × 40000 of \d+ features would take .* GB of memory, and 0\.5"
    )
    with refused:
        phase_diagram(x, cells=40_000)
    with refused:
        empirical_phase_diagram(x, cells=40_000)
    with pytest.raises(ValueError, match=r"cells: 9 × 9 of 3000 features would take"):
        empirical_phase_diagram(cells=9, features=3000, dimensions=1500)


def test_a_function_decides_the_profile():
    def halves(x, y):
        return Profile([x, y], 5.0)

    _, _, problems = problems_over(("a", 1.0, 2.0), ("b", 1.0, 2.0), 2, family=halves, dimensions=1)
    np.testing.assert_array_equal(only(problems, 1.5, 2.0)[0], [1.5, 2.0])
    assert problems.describe() == "family halves, 1 dimension"
    for returned, message in (
        ([1.0, 2.0], "family must return a Profile or .*, got list at a = 1, b = 2"),
        (([1.0, -1.0], 3.0), "family, at a = 1, b = 2: importance must be >= 0"),
    ):
        bad = problems_over(("a", 1.0, 2.0), ("b", 1.0, 2.0), 2, family=lambda *_, r=returned: r, dimensions=1)[2]
        with pytest.raises(ValueError, match=message):
            only(bad, 1.0, 2.0)


@pytest.mark.parametrize(
    ("x", "y", "given", "message"),
    [
        (IMPORTANCE, IMPORTANCE, {}, "axes must differ"),
        (IMPORTANCE, DENSITY, {"group": 7}, "group must be at most features, 6, got 7"),
        (IMPORTANCE, DENSITY, {"group": 0}, "group must be >= 1"),
        (("rate", 0, 1), DENSITY, {"family": "exponential", "group": 2}, "group belongs to the family 'groups'"),
        (IMPORTANCE, DENSITY, {"features": 2.5}, "features must be"),
        (IMPORTANCE, DENSITY, {"cells": (2, 3, 4)}, "cells must be one number or"),
        (IMPORTANCE, DENSITY, {"cells": 1}, "cells must be >= 2"),
        (IMPORTANCE, DENSITY, {"sparsity": 0.5}, "say the same thing"),
        (IMPORTANCE, ("dimensions", 1, 2), {}, "give kurtosis, density or sparsity"),
        (
            ("a", 0, 1),
            ("b", 0, 1),
            {"family": lambda x, y: (x, y), "rate": 1.0},
            "rate cannot be given with a function",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(x, y, given, message):
    with pytest.raises(ValueError, match=message):
        problems_over(x, y, given.pop("cells", 4), **given)
