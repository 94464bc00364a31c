"""solve and its certificate: independent routes, nasty profiles, symmetries, bad input."""

import dataclasses

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import capsolve
from capsolve import Phase, QuadraticLoss, Status, allocate, certify, solve
from capsolve.certificate import lagrangian_bound
from tests.oracles import clarabel_convex, exact_convex, feature_loss, profiles


def ordinary(rng, n):
    return rng.lognormal(0, 1, n), 3 + rng.exponential(6, n) + 0.01, rng.uniform(0.2, n - 0.2)


# --- certificates on nasty profiles -----------------------------------------------------------------------------


@given(profiles())
def test_every_answer_is_certified(problem):
    v, k, dimensions = problem
    allocation = solve(v, k, dimensions)
    assert allocation.status is Status.OPTIMAL, (allocation, allocation.kkt_error, allocation.budget_error)
    assert allocation.budget_error <= 1e-12 * max(1.0, dimensions)
    assert allocation.kkt_error <= 1e-10
    assert allocation.lower_bound <= allocation.loss
    if (k >= 3).all():
        assert allocation.gap <= 1e-12


@given(profiles(convex=True))
def test_agrees_with_fifty_digits(problem):
    v, k, dimensions = problem
    allocation = solve(v, k, dimensions)
    capacity, tau, loss = exact_convex(v, k, dimensions)
    # Capacities between κ = 3 and 3 + 1e-7 are as ill-conditioned as 1/(κ−3): judge those by the loss.
    steep = (k > 3) & (k < 3 + 1e-6)
    tied = (k == 3) & steep.any()
    error = np.abs(allocation.capacity - np.array([float(c) for c in capacity]))
    if not steep.any():
        assert error[~tied].max() <= 1e-12
    size = loss + 2 * tau**2 * min(dimensions, int(np.count_nonzero(v)))
    if size > 0 and 1e-300 < float(size) < 1e300:
        mine = mpmath.fsum(
            feature_loss(*map(mpmath.mpf, map(float, row))) for row in zip(v, k, allocation.capacity, strict=True)
        )
        assert abs(mine - loss) <= 1e-13 * size
        assert abs(allocation.loss - float(loss)) <= 1e-12 * float(size)


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_a_generic_convex_solver(seed):
    rng = np.random.default_rng(seed)
    v, k, dimensions = ordinary(rng, int(rng.integers(2, 40)))
    allocation = solve(v, k, dimensions)
    capacity = clarabel_convex(v, k, dimensions)
    # Clarabel stops at 1e-8 relative gap, which leaves capacities uncertain by its square root
    np.testing.assert_allclose(allocation.capacity, capacity, atol=1e-4)
    assert feature_loss(v, k, capacity).sum() == pytest.approx(allocation.loss, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_no_local_search_beats_the_lower_bound(seed):
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    n = 6
    v, k, dimensions = rng.lognormal(0, 0.5, n), rng.uniform(1.2, 8, n), rng.uniform(0.5, n - 0.5)
    allocation = solve(v, k, dimensions)
    reached = []
    for _ in range(20):
        start = rng.dirichlet(np.ones(n)) * min(dimensions, 1.0)
        result = minimize(
            lambda c: feature_loss(v, k, np.clip(c, 0, 1)).sum(),
            start,
            method="SLSQP",
            bounds=[(0, 1)] * n,
            constraints={"type": "ineq", "fun": lambda c: dimensions - c.sum()},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        if result.x.sum() <= dimensions + 1e-9:
            reached.append(result.fun)
    assert min(reached) >= allocation.lower_bound - 1e-8 * allocation.loss
    if (k >= 3).all():
        assert min(reached) == pytest.approx(allocation.loss, rel=1e-6)


# --- negative controls: the certificate must refuse wrong answers ---------------------------------------------------


def test_the_certificate_refuses_a_worse_allocation():
    rng = np.random.default_rng(3)
    v, k, dimensions = ordinary(rng, 12)
    model = QuadraticLoss(v, k)
    right = solve(v, k, dimensions).capacity
    assert certify(model, dimensions, right).status is Status.OPTIMAL
    i, j = np.flatnonzero((right > 0.01) & (right < 0.99))[:2]
    for shift in (1e-3, 1e-6):
        wrong = right.copy()
        wrong[i] += shift
        wrong[j] -= shift
        verdict = certify(model, dimensions, wrong)
        assert verdict.status is Status.FEASIBLE
        assert verdict.loss > solve(v, k, dimensions).loss
        assert verdict.lower_bound <= solve(v, k, dimensions).loss * (1 + 1e-12)
    assert certify(model, dimensions - 1e-6, right).status is Status.INFEASIBLE
    assert certify(model, dimensions, right * (1 - 1e-6)).status is Status.FEASIBLE


def test_a_gap_that_was_not_closed_is_not_called_optimal():
    model = QuadraticLoss([1.0, 1.0], 2.0)
    local = certify(model, 1.0, np.array([0.5, 0.5]))
    assert local.kkt_error == 0.0  # a stationary point: equal marginal losses …
    assert local.gap > 0.01  # … and yet not the optimum
    assert local.status is Status.FEASIBLE
    assert solve([1.0, 1.0], 2.0, 1.0).loss < local.loss


@given(profiles(max_features=5), st.randoms(use_true_random=False))
def test_a_lower_bound_from_any_capacities_is_a_lower_bound(problem, random):
    v, k, dimensions = problem
    best = solve(v, k, dimensions)
    wrong = np.array([random.choice([0.0, 1.0, random.random()]) for _ in range(v.size)])
    verdict = certify(QuadraticLoss(v, k), dimensions, wrong)
    assert verdict.lower_bound <= best.loss


def test_a_lower_bound_is_rounded_outwards():
    # price · D is 1e14 here, and its rounding error larger than the difference between bound and optimum
    best = solve([1e7, 1.0], [1.9, 2.4], 1.0)
    assert best.loss == pytest.approx(1.4, rel=1e-15)
    assert certify(best.model, 1.0, [0.0, 1.0]).lower_bound <= best.loss


@pytest.mark.parametrize("seed", range(8))
def test_without_bias_against_local_search(seed):
    """Independent: minimise over capacities the loss whose row lengths come from a linear system."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    n = 5
    v, k, dimensions = rng.lognormal(0, 0.5, n), 3 + rng.exponential(4, n), rng.uniform(0.5, n - 0.5)

    def loss(c):
        c = np.clip(c, 1e-12, 1)
        m = np.linalg.solve(np.diag((k - 1) + 2 * (1 / c - 1)) + 1.0, (k - 1) * v + v.sum())
        return np.sum((k - 1) * (v - m) ** 2 + 2 * m**2 * (1 / c - 1)) + np.sum(v - m) ** 2

    allocation = solve(v, k, dimensions, bias=False)
    assert allocation.status is Status.OPTIMAL
    reached = minimize(
        loss,
        np.full(n, dimensions / n),
        method="SLSQP",
        bounds=[(0, 1)] * n,
        constraints={"type": "ineq", "fun": lambda c: dimensions - c.sum()},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    assert allocation.loss == pytest.approx(loss(allocation.capacity), rel=1e-7)
    assert reached.fun >= allocation.lower_bound * (1 - 1e-8)  # SLSQP meets the budget to about 1e-9
    assert reached.fun == pytest.approx(allocation.loss, rel=1e-5)


# --- edges ------------------------------------------------------------------------------------------------------


def test_single_feature():
    for kurtosis in (1.0, 1.5, 3.0, 9.0):
        for dimensions in (0.0, 1e-9, 0.5, 1 - 1e-12, 1.0, 7.0):
            allocation = solve([2.0], kurtosis, dimensions)
            assert allocation.capacity[0] == pytest.approx(min(1.0, dimensions), rel=1e-15)
            assert allocation.status is Status.OPTIMAL


@given(profiles())
def test_no_budget_and_full_budget(problem):
    v, k, _ = problem
    nothing = solve(v, k, 0)
    assert not nothing.capacity.any()
    assert nothing.status is Status.OPTIMAL
    for dimensions in (np.count_nonzero(v), v.size, v.size + 0.5):
        everything = solve(v, k, dimensions)
        np.testing.assert_array_equal(everything.capacity, (v > 0).astype(float))
        assert everything.price == everything.loss == everything.gap == 0.0
        assert everything.status is Status.OPTIMAL


def test_all_importances_zero():
    allocation = solve(np.zeros(3), 5.0, 1.0)
    assert not allocation.capacity.any()
    assert allocation.loss == 0.0
    assert allocation.status is Status.OPTIMAL


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        lambda x: x.astype(np.float32),
        lambda x: np.repeat(x, 3)[::3],
        lambda x: x[::-1].copy()[::-1],
        lambda x: np.lib.stride_tricks.as_strided(x, writeable=False),
    ],
)
def test_array_kinds(convert):
    v, k = np.array([4.0, 2.0, 1.0, 0.5]), np.array([9.0, 5.0, 2.0, 12.0])
    np.testing.assert_array_equal(solve(convert(v), convert(k), 2.0).capacity, solve(v, k, 2.0).capacity)


def test_integers_are_numbers():
    np.testing.assert_array_equal(solve([3, 2, 1], 9, np.int64(2)).capacity, solve([3.0, 2.0, 1.0], 9.0, 2.0).capacity)


def test_losses_that_overflow_leave_the_certificate_intact():
    allocation = solve([1e150, 1e149], 1e12, 0.0)
    assert allocation.loss == np.inf
    assert allocation.status is Status.OPTIMAL
    assert solve([1e-170, 1e-171], 9.0, 1.0).status is Status.OPTIMAL


# --- symmetries ---------------------------------------------------------------------------------------------------


@given(profiles(), st.randoms(use_true_random=False))
def test_permuting_features_permutes_the_answer(problem, random):
    v, k, dimensions = problem
    order = list(range(v.size))
    random.shuffle(order)
    order = np.array(order)
    one, other = solve(v, k, dimensions), solve(v[order], k[order], dimensions)
    size = one.loss + one.price * dimensions
    assume(np.isfinite(size))
    assert other.loss == pytest.approx(one.loss, rel=1e-9, abs=1e-12 * size)
    if (k > 3 + 1e-6).all():
        np.testing.assert_allclose(other.capacity, one.capacity[order], atol=1e-12)


@given(profiles(), st.integers(-30, 30))
def test_scaling_importance_scales_the_loss_by_the_square(problem, exponent):
    v, k, dimensions = problem
    one, other = solve(v, k, dimensions), solve(v * 2.0**exponent, k, dimensions)
    np.testing.assert_array_equal(other.capacity, one.capacity)
    if 1e-280 < one.loss < 1e280:
        assert other.loss == one.loss * 4.0**exponent
        assert other.price == one.price * 4.0**exponent


@given(profiles(), st.floats(1.0, 100.0))
def test_a_feature_of_importance_zero_changes_nothing(problem, kurtosis):
    v, k, dimensions = problem
    one, other = solve(v, k, dimensions), solve(np.append(v, 0.0), np.append(k, kurtosis), dimensions)
    assert other.capacity[-1] == 0.0
    np.testing.assert_allclose(other.capacity[:-1], one.capacity, atol=1e-14)


def test_equal_data_get_equal_capacity():
    rng = np.random.default_rng(0)
    v, k = rng.random(20), rng.uniform(3.1, 20, 20)
    capacity = solve(np.repeat(v, 3), np.repeat(k, 3), 17.3).capacity.reshape(20, 3)
    np.testing.assert_array_equal(capacity[:, 0], capacity[:, 1])
    np.testing.assert_array_equal(capacity[:, 0], capacity[:, 2])


# --- the paper's numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("density", "ignored", "full"), [(0.1, 0.182, 2.125), (0.01, 0.0185, 2.459), (0.001, 0.00185, 2.496)]
)
def test_boundaries_of_figure_4(density, ignored, full):
    """One odd feature of importance V among six in three dimensions, uniform inputs of the given density."""
    kurtosis = 9 / 5 / density
    at = lambda importance: solve([importance, 1, 1, 1, 1, 1], kurtosis, 3).capacity[0]  # noqa: E731
    low = 2 * 5 / ((kurtosis - 3) * 3 + 2 * 5)
    high = (kurtosis - 1) * 5 / ((kurtosis - 3) * 2 + 2 * 5)
    assert low == pytest.approx(ignored, rel=5e-3)
    assert high == pytest.approx(full, abs=5e-4)
    assert at(low * (1 - 1e-9)) == 0.0 < at(low * (1 + 1e-9))
    assert at(high * (1 - 1e-9)) < 1.0 == at(high * (1 + 1e-9))


def test_below_the_critical_kurtosis_the_line_is_at_equal_importance():
    for kurtosis in (1.2, 2.0, 2.99):
        assert solve([1 - 1e-9, 1, 1, 1, 1, 1], kurtosis, 3).capacity[0] == 0.0
        assert solve([1 + 1e-9, 1, 1, 1, 1, 1], kurtosis, 3).capacity[0] == 1.0


def test_polysemantic_features_share_one_scale():
    rng = np.random.default_rng(8)
    v, k, dimensions = ordinary(rng, 50)
    allocation = solve(v, k, dimensions)
    inside = allocation.phase == Phase.POLYSEMANTIC
    np.testing.assert_allclose((allocation.squared_norm / allocation.capacity)[inside], allocation.scale, rtol=1e-12)
    np.testing.assert_array_equal(
        allocation.squared_norm[allocation.phase == Phase.MONOSEMANTIC], v[allocation.capacity == 1]
    )


# --- the object ---------------------------------------------------------------------------------------------------


def test_an_allocation_is_frozen_and_readable():
    allocation = solve([2, 1, 1, 1, 1, 1], 9.0, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        allocation.price = 1.0
    with pytest.raises(ValueError, match="read-only"):
        allocation.capacity[0] = 0.0
    assert allocation.counts() == {"ignored": 0, "polysemantic": 5, "monosemantic": 1}
    text = allocation.summary()
    assert "6 features in 3 dimensions: optimal" in text
    assert "OPTIMAL" in repr(allocation)


def test_table_export():
    allocation = solve([2, 1, 1], 9.0, 1)
    table = allocation.to_dict(names=["a", "b", "c"])
    assert {len(column) for column in table.values()} == {3}
    assert table["name"] == ["a", "b", "c"]
    assert sum(table["loss"]) == pytest.approx(allocation.loss)
    assert list(table["phase"]) == ["polysemantic"] * 3
    with pytest.raises(ValueError, match="3 features, got 1 names"):
        allocation.to_dict(names=["a"])


def test_a_number_has_no_index():
    with pytest.raises(ValueError, match=r"^dimensions must be finite, got nan$"):
        solve([1.0], 9.0, np.nan)


@pytest.mark.parametrize("dimensions", [-1, np.nan, np.inf, "3", [1, 2], None])
def test_bad_dimensions(dimensions):
    with pytest.raises(ValueError, match="dimensions"):
        solve([1, 1], 5.0, dimensions)


@pytest.mark.parametrize("tolerance", [-1, 0, 1e-15, np.nan, 2, "x"])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        solve([1, 1], 5.0, 1.0, tolerance=tolerance)


@pytest.mark.parametrize("bias", ["no", None, 1])
def test_bad_bias(bias):
    with pytest.raises(ValueError, match="bias must be True or False"):
        solve([1, 1], 5.0, 1.0, bias=bias)


def test_a_certificate_needs_sane_arguments():
    model = QuadraticLoss([1, 1], 5.0)
    for arguments, message in (
        ((model, -1, [0, 0]), "dimensions"),
        ((model, "3", [0, 0]), "dimensions"),
        ((model, np.nan, [0, 0]), "dimensions"),
    ):
        with pytest.raises(ValueError, match=message):
            certify(*arguments)
    for keywords in ({"lower_bound": np.nan}, {"tolerance": -3.0}):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            certify(model, 1.0, [0.5, 0.5], **keywords)
    for gap in (-1.0, np.nan, 1.1):
        with pytest.warns(DeprecationWarning, match="lower_bound"), pytest.raises(ValueError, match="gap"):
            certify(model, 1.0, [0.5, 0.5], gap=gap)
    with pytest.raises(TypeError, match="model must be"):
        certify("x", 1.0, [0.5, 0.5])
    for price, dimensions in ((-1, 1), (np.nan, 1), ("x", 1), (1, -5), (1, np.nan)):
        with pytest.raises(ValueError, match=r"price|dimensions"):
            lagrangian_bound(model, price, dimensions)


def test_a_bound_proved_elsewhere_is_used_where_it_is_better():
    best = solve([1.0, 0.9, 0.8], 2.0, 1.5)
    alone = certify(best.model, 1.5, best.capacity)
    assert alone.status is Status.FEASIBLE, "the Lagrangian bound of concave losses leaves a gap"
    proved = certify(best.model, 1.5, best.capacity, lower_bound=best.lower_bound)
    assert proved.status is Status.OPTIMAL
    assert proved.lower_bound == pytest.approx(best.lower_bound, rel=1e-14)
    assert certify(best.model, 1.5, best.capacity, lower_bound=0.0).lower_bound == alone.lower_bound
    with pytest.warns(DeprecationWarning, match="lower_bound"):
        former = certify(best.model, 1.5, best.capacity, gap=1e-12)
    assert former.status is Status.OPTIMAL
    assert former.lower_bound == pytest.approx(best.loss * (1 - 1e-12), rel=1e-14)


def test_a_loose_tolerance_is_what_was_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(50):
        allocation = solve(rng.lognormal(0, 0.3, 8), rng.uniform(1.2, 8, 8), rng.uniform(0.5, 7.5), tolerance=1e-2)
        assert allocation.gap <= 1e-2
        assert allocation.status is Status.OPTIMAL


@pytest.mark.parametrize("capacity", [[0.5], [0.5, 1.1], [0.5, -0.1], [0.5, np.nan], "x", [[0.5, 0.5]]])
def test_bad_capacity(capacity):
    model = QuadraticLoss([1, 1], 5.0)
    for judge in (lambda c: certify(model, 1.0, c), model.feature_loss, model.marginal, model.squared_norm):
        with pytest.raises(ValueError, match="capacity must"):
            judge(capacity)


def test_unknown_model():
    with pytest.raises(TypeError, match="loss_model must be"):
        capsolve.allocate("quadratic", 1.0)


# --- profiles --------------------------------------------------------------------------------------------------------


PROFILE = capsolve.Profile([2.0, 1.0, 0.5], [9.0, 8.0, 7.0], ["cat", "dog", "dog"])  # labels may repeat


@pytest.mark.parametrize("answer", [lambda: solve(PROFILE, dimensions=2), lambda: allocate(PROFILE, 2)])
def test_a_profile_is_its_importance_and_kurtosis_and_its_names_stay(answer):
    found, plain = answer(), solve([2.0, 1.0, 0.5], [9.0, 8.0, 7.0], 2)
    np.testing.assert_array_equal(found.capacity, plain.capacity)
    assert (found.loss, found.names, plain.names) == (plain.loss, ("cat", "dog", "dog"), None)
    assert found.to_dict()["name"] == ["cat", "dog", "dog"]
    assert found.to_dict(["x", "y", "z"])["name"] == ["x", "y", "z"]


def test_a_profile_is_certified_under_its_names():
    judged = certify(PROFILE, 2, [1.0, 0.5, 0.5])
    assert judged.names == PROFILE.names
    assert judged.gap == certify(QuadraticLoss(PROFILE.importance, PROFILE.kurtosis), 2, [1.0, 0.5, 0.5]).gap > 1e-3


def test_data_frames_keep_their_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"importance": [2.0, 1.0], "kurtosis": [9.0, 8.0]}, index=["cat", "cat"])
    v, k = frame["importance"], frame["kurtosis"]
    assert solve(v, k, 1).names == ("cat", "cat")
    assert solve(frame.reset_index()["importance"], 9.0, 1).names is None  # an index that counts names nothing
    assert capsolve.capacity_path(v, k, [1])[0].names == capsolve.solve_batch(v, k, [1])[0].names == ("cat", "cat")
    assert capsolve.measure(pandas.DataFrame(np.eye(2), index=["a", "b"])).names == ("a", "b")
    wide = pandas.DataFrame(np.ones((2, 3)), columns=["a", "b", "c"])
    assert capsolve.measure(wide, feature_axis="columns").names == ("a", "b", "c")
    with pytest.raises(ValueError, match=r'got a function; a data frame\'s column is frame\["kurtosis"\]'):
        solve(v, frame.kurtosis, 1)


def test_a_column_with_an_index_names_the_answer():
    column = np.array([2.0, 1.0]).view(Column)
    column.index = ["cat", "dog"]
    assert solve(column, 9.0, 1).names == ("cat", "dog")
    assert capsolve.Profile.from_distribution("laplace", importance=column).names == ("cat", "dog")


class Column(np.ndarray):
    """An array with an index, as the columns of data frames have."""


def test_float32_of_numpy_is_solved_in_float64_and_says_so():
    found = solve(np.ones(4, dtype=np.float32), np.float32(9.0), 2)
    assert found.capacity.dtype == np.float64
    assert capsolve.capacities(np.eye(2, dtype=np.float32)).dtype == np.float32


def test_a_profile_may_lack_a_bias_and_a_profile_larger_than_memory_is_one(tmp_path):
    capsolve.write_profile(PROFILE, tmp_path / "profile.csv")
    without = solve(PROFILE, dimensions=2, bias=False)
    assert without.loss == solve([2.0, 1.0, 0.5], [9.0, 8.0, 7.0], 2, bias=False).loss
    assert without.names == PROFILE.names
    pytest.importorskip("dask.array")
    pytest.importorskip("pyarrow")
    capsolve.write_profile(PROFILE, tmp_path / "profile.parquet")
    lazy = solve(capsolve.open_profile(str(tmp_path / "*.parquet")), dimensions=2)
    assert lazy.loss == pytest.approx(solve(PROFILE, dimensions=2).loss, rel=1e-12)
    assert allocate(capsolve.open_profile(str(tmp_path / "*.parquet")), 2).loss == lazy.loss


def test_a_profile_has_its_own_kurtosis():
    with pytest.raises(ValueError, match=r"a profile has its own kurtosis: .*dimensions=16"):
        solve(PROFILE, 2)
    for arguments, missing in (((PROFILE,), "dimensions"), (([1.0],), "kurtosis"), (([1.0], 9.0), "dimensions")):
        with pytest.raises(ValueError, match=f"{missing} must be given"):
            solve(*arguments)


def test_functions_are_no_loss_model_but_can_become_one():
    for functions in (lambda c: 1 - c, [np.exp, np.exp]):
        with pytest.raises(TypeError, match=r"loss_model must be .*; TabulatedLoss.from_callables makes one of func"):
            allocate(functions, 1)
    with pytest.raises(TypeError, match="got the class QuadraticLoss"):
        allocate(QuadraticLoss, 1)
