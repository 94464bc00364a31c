"""Batches against single solves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capsolve
from capsolve import Status, batch
from capsolve.solvers import quadratic
from tests.oracles import NASTY_KURTOSIS, brute_force, profiles


@st.composite
def batches(draw, *, convex=None):
    """Draw a few problems of equally many features."""
    problems = [draw(profiles(convex=convex)) for _ in range(draw(st.integers(1, 5)))]
    n = min(v.size for v, _, _ in problems)
    v, k = (np.array([p[i][:n] for p in problems]) for i in (0, 1))
    return v, k, np.array([p[2] for p in problems])


def assert_same(one, other):
    """The answers of two routes differ by rounding: of sums of n ≤ 14 numbers, in the units of their terms."""
    assert other.status is one.status is Status.OPTIMAL
    shared = one.model.kurtosis[((one.capacity > 0) & (one.capacity < 1)) | (one.capacity != other.capacity)]
    size = one.loss + one.price * min(one.dimensions, one.model.saturation_budget)
    if (shared < 3).any() and (abs(other.capacity - one.capacity) > 1e-12).any():
        # features that all but tie may change places; the loss says whether that is allowed
        if 1e-290 < size < 1e290:
            assert other.loss == pytest.approx(one.loss, rel=0, abs=1e-12 * size)
        return
    np.testing.assert_allclose(other.capacity, one.capacity, rtol=0, atol=1e-12)
    if not 1e-290 < size < 1e290:
        return
    for name in ("price", "scale", "loss"):
        # where price times budget is much larger than the loss, rounding is in units of that
        assert abs(getattr(one, name) - getattr(other, name)) <= 1e-12 * max(size, getattr(one, name)), name
    # both compare all local optima
    assert abs(one.lower_bound - other.lower_bound) <= 1e-12 * size
    assert abs(other.gap - one.gap) <= 1e-13
    assert abs(one.budget_error - other.budget_error) <= 1e-12
    if one.model.convex:
        assert abs(one.kkt_error - other.kkt_error) <= 1e-12


@given(batches())
def test_a_batch_is_a_loop_of_solves(problems):
    found = capsolve.solve_batch(*problems)
    for i, (v, k, dimensions) in enumerate(zip(*problems, strict=True)):
        one = capsolve.solve(v, k, dimensions)
        assert_same(one, found[i])
        np.testing.assert_array_equal(found.phase[i], found[i].phase)
        assert found.status[i] is found[i].status


@settings(max_examples=25)
@given(batches(convex=True))
def test_without_bias(problems):
    v, k, dimensions = problems
    found = capsolve.solve_batch(v, k, dimensions, bias=False)
    assert found.optimal.all(), (found.gap, found.kkt_error, found.budget_error)
    for i in range(dimensions.size):
        one = capsolve.solve(v[i], k[i], dimensions[i], bias=False)
        if k[i].min() >= 3.1:  # nearer 3, capacities answer to the last ulp of the trace
            np.testing.assert_allclose(found.capacity[i], one.capacity, rtol=0, atol=1e-11)
        if 0 < one.loss < 1e290:
            assert found.loss[i] == pytest.approx(one.loss, rel=1e-11, abs=1e-12 * one.price * dimensions[i])


def test_random_problems_of_several_sizes_in_several_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    for n, size in ((1, 7), (3, 40), (150, 4)):
        monkeypatch.setattr(batch, "BLOCK", 5 * n)
        v, k = rng.lognormal(size=(size, n)), rng.choice([1, 2, 3, 4, 9, 100], (size, n))
        dimensions = rng.uniform(0, 1.1 * n, size)
        found = capsolve.solve_batch(v, k, dimensions)
        for i in range(size):
            one = capsolve.solve(v[i], k[i], dimensions[i])
            np.testing.assert_allclose(found.capacity[i], one.capacity, rtol=0, atol=1e-12)
            assert found.gap[i] <= max(one.gap, 1e-13)


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0])
def test_one_fractional_concave_feature_is_the_best_one(spread):
    """Independent: every on/off set of the features with κ < 3, and every one of them fractional."""
    rng = np.random.default_rng(int(100 * spread))
    v, k = rng.lognormal(0, spread, (6, 4)), rng.uniform(1.05, 3, (6, 4))
    k[:, 3] += rng.exponential(4, 6)
    k[::3, 3] = 3.0
    dimensions = rng.uniform(0.2, 3.8, 6)
    found = capsolve.solve_batch(v, k, dimensions)
    assert found.optimal.all()
    shared = (found.capacity > 0) & (found.capacity < 1) & (k < 3)
    assert (shared.sum(axis=1) <= 1).all()
    assert shared.any(axis=1).sum() >= 2
    for i in range(6):
        # the zoomed grid of the oracle is exact to the square of its last step, and its bisection to 1e-12
        best = brute_force(v[i], k[i], dimensions[i])
        assert best * (1 - 1e-8) <= found.loss[i] <= best * (1 + 1e-9)


def test_a_concave_feature_can_share_with_others():
    rng = np.random.default_rng(4)
    v, k = rng.uniform(0.2, 0.4, (30, 4)), rng.uniform(7, 12, (30, 4))
    v[:, 0], k[:, 0] = 1.0, rng.uniform(2.8, 2.95, 30)
    dimensions = rng.uniform(0.3, 0.9, 30)
    found = capsolve.solve_batch(v, k, dimensions)
    shared = (found.capacity > 0) & (found.capacity < 1)
    inside = shared[:, 0] & shared[:, 1:].any(axis=1)
    assert inside.sum() >= 20
    for i in np.flatnonzero(inside):
        marginal = capsolve.QuadraticLoss(v[i], k[i]).marginal(found.capacity[i])
        np.testing.assert_allclose(marginal[shared[i]], marginal[0], rtol=1e-12)
        np.testing.assert_allclose(found.capacity[i], capsolve.solve(v[i], k[i], dimensions[i]).capacity, atol=1e-12)


def test_mixed_kurtosis_among_many_features():
    rng = np.random.default_rng(5)
    for n in (40, 80):  # all local optima, and one by one
        v, k = rng.lognormal(0, 0.3, (3, n)), rng.uniform(1.2, 6, (3, n))
        found = capsolve.solve_batch(v, k, n / 3 + 0.5)
        for i in range(3):
            one = capsolve.solve(v[i], k[i], n / 3 + 0.5)
            np.testing.assert_allclose(found.capacity[i], one.capacity, rtol=0, atol=1e-11)
            assert found.status[i] is Status.OPTIMAL


def test_ties_go_where_solve_sends_them():
    v = np.array([[1.0, 2.0, 2.0, 1.0], [1, 1, 1, 1], [1, 1, 1, 1]])
    k = np.array([[3.0, 1.5, 1.5, 3.0], [2, 2, 2, 2], [3, 3, 3, 3]])
    found = capsolve.solve_batch(v, k, [2.5, 2, 2])
    np.testing.assert_array_equal(found.capacity, [[0.25, 1, 1, 0.25], [1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]])


def test_features_that_gain_nothing_come_last_and_whole():
    found = capsolve.solve_batch([[1, 5, 9, 1, 0], [1, 5, 9, 1, 0]], [9, 1, 1, 9, 1], [2.0, 3.25])
    np.testing.assert_array_equal(found.capacity, [[1, 0, 0, 1, 0], [1, 1, 0.25, 1, 0]])
    np.testing.assert_array_equal(found.price, 0.0)


def test_the_smallest_and_largest_numbers():
    tiny = np.array([16, 36, 44]) * 5e-324
    found = capsolve.solve_batch(
        [tiny, [1.0, 1.0, 0.5], [1e200, 1.0, 1e-150]], [[1.5, 1.5, 1.5], [1e100] * 3, [2.0] * 3], 1.5
    )
    assert found.optimal.all()
    np.testing.assert_array_equal(found.capacity[0], [0.0, 0.5, 1.0])
    assert found.loss[2] == pytest.approx(0.5 / (1 - 0.25), rel=1e-15)


@pytest.mark.parametrize("ulps", [-8, -1, 1, 8])
def test_whole_budgets_but_for_rounding_are_whole(ulps):
    budget = np.array([57.0, 3.0, 100.0])
    found = capsolve.solve_batch(np.ones((3, 200)), 1.8, budget + ulps * np.spacing(budget))
    assert found.optimal.all()
    np.testing.assert_array_equal(found.capacity, np.arange(200) < budget[:, None])


def test_broadcasting():
    importance = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 6.0]])
    kurtosis, dimensions = np.array([5.0, 9.0])[:, None, None], np.array([0.5, 1.0, 1.5])
    found = capsolve.solve_batch(importance, kurtosis, dimensions)
    assert found.shape == (2, 3)
    assert (len(found), found.size, found.features) == (2, 6, 2)
    assert found.capacity.shape == found.phase.shape == (2, 3, 2)
    assert found.price.shape == found.status.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        one = capsolve.solve(importance[j], kurtosis[i, 0, 0], dimensions[j])
        np.testing.assert_array_equal(found[i, j].capacity, one.capacity)


def test_a_single_problem_and_no_problem():
    one = capsolve.solve_batch([2.0, 1.0, 1.0], 9.0, 1.0)
    assert one.shape == ()
    np.testing.assert_array_equal(one[()].capacity, capsolve.solve([2.0, 1.0, 1.0], 9.0, 1.0).capacity)
    with pytest.raises(TypeError, match="length"):
        len(one)
    none = capsolve.solve_batch(np.ones((0, 3)), 9.0, 1.0)
    assert none.capacity.shape == (0, 3)
    assert len(none) == none.status.size == 0


def test_the_answer_is_frozen_and_says_what_it_is():
    data = np.ones((2, 3))
    found = capsolve.solve_batch(data, 9.0, 1.0)
    data[:] = 7
    assert (found.importance == 1.0).all()
    for array in (found.capacity, found.importance, found.dimensions, found.gap, found[0].capacity):
        assert not array.flags.writeable
    assert repr(found) == "AllocationBatch((2,) problems of 3 features, 2 of 2 optimal)"
    with pytest.raises(IndexError, match="has 1 integers"):
        found[0, 1]
    with pytest.raises(TypeError):
        found[0:1]


def test_certificates_reject_another_answer(monkeypatch):
    """Negative control: capacities that are not optimal, or not within the budget, do not pass."""
    solved = quadratic._with_bias

    def wrong(*arguments):
        capacity, *rest = solved(*arguments)
        capacity = capacity.copy()
        capacity[0, 0] += 0.01
        capacity[1, 0] -= 0.01
        capacity[0, 1] += 0.01
        return capacity, *rest

    monkeypatch.setattr(quadratic, "_with_bias", wrong)
    found = capsolve.solve_batch(np.ones((3, 4)), 9.0, 2.0)
    assert found.status.tolist() == [Status.FEASIBLE, Status.INFEASIBLE, Status.OPTIMAL]
    reference = capsolve.certify(capsolve.QuadraticLoss(np.ones(4), 9.0), 2.0, found.capacity[0])
    assert reference.status is Status.FEASIBLE
    # the gap at the price of the right answer, which is the best one there is; `certify` knows the wrong answer's only
    assert 1e-6 < found.gap[0] < reference.gap
    assert found.lower_bound[0] <= found.loss[2] <= found.loss[0]
    assert found.kkt_error[0] == pytest.approx(reference.kkt_error, rel=1e-9)


def test_losses_of_any_size():
    v = 10.0 ** np.array([[-200.0, -201, -202], [0, -1, -2], [200, 199, 198], [0, 200, -200]])
    found = capsolve.solve_batch(v, 9.0, 1.5)
    assert found.optimal.all()
    np.testing.assert_allclose(found.capacity[0], found.capacity[1])
    np.testing.assert_allclose(found.capacity[2], found.capacity[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, -1.0]], 9.0, 1.0), r"importance must be >= 0, got -1.0 at index \(0, 1\)"),
        (([[1.0, np.nan]], 9.0, 1.0), r"importance must be finite, got nan at index \(0, 1\)"),
        ((3.0, 9.0, 1.0), "importance must have a last axis"),
        ((np.ones((2, 0)), 9.0, 1.0), "importance must have a last axis"),
        ((np.ones((2, 3)), [[9.0] * 3, [9.0, 0.5, 9.0]], 1.0), r"kurtosis must be >= 1, got 0.5 at index \(1, 1\)"),
        ((np.ones((2, 3)), [9.0, 9.0], 1.0), "kurtosis must have 3 features, or 1 that stands for all"),
        ((np.ones((2, 3)), 9.0, [1.0, -2.0]), "dimensions must be >= 0, got -2.0 at index 1"),
        ((np.ones((2, 3)), 9.0, [1.0, 2.0, 3.0]), "must broadcast"),
        (([[1.0, 1.0], [1e308, 1.0]], 9.0, 1.0), r"importance × kurtosis .* at index \(1,\)"),
        (([[1.0, 1.0]], [[9.0, 1.1e100]], 1.0), r"kurtosis must be <= 1e\+100, got 1.1e\+100 at index \(0, 1\)"),
        (([[1.0, 1.0]], "a", 1.0), "kurtosis must hold real numbers"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        capsolve.solve_batch(*arguments)


def test_bad_options():
    with pytest.raises(ValueError, match=r"kurtosis must be >= 3 .* got 2 at index \(1, 0\)"):
        capsolve.solve_batch(np.ones((2, 3)), [[3.0], [2.0]], 1.0, bias=False)
    with pytest.raises(ValueError, match="tolerance"):
        capsolve.solve_batch([1.0], 9.0, 1.0, tolerance=0.0)
    with pytest.raises(ValueError, match="bias"):
        capsolve.solve_batch([1.0], 9.0, 1.0, bias=1)


def test_every_nasty_kurtosis_at_once():
    k = np.array(NASTY_KURTOSIS)
    dimensions = np.linspace(0, k.size + 1, 31)
    found = capsolve.solve_batch(np.ones(k.size), k, dimensions)
    for i, budget in enumerate(dimensions):
        assert_same(capsolve.solve(np.ones(k.size), k, budget), found[i])


def test_a_profile_may_be_shared_by_all_problems():
    profile = capsolve.Profile([2.0, 1.0, 0.5], [9.0, 8.0, 7.0], ["a", "b", "b"])
    batch = capsolve.solve_batch(profile, dimensions=[0.5, 1.0, 2.0])
    assert (batch.shape, batch.names, batch[1].names) == ((3,), profile.names, profile.names)
    np.testing.assert_array_equal(batch[2].capacity, capsolve.solve(profile, dimensions=2.0).capacity)
