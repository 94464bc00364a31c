"""The search through passes over the data: as accurate as the search among all breakpoints, on any data.

Tests of `solve` run here again with every problem, however small, forced through samples, windows and compiled passes.
"""

import mpmath
import numpy as np
import pytest
from capsolve.solvers.window import Answer, Arrays, Enclosed, Totals, Window, bracket, enclose, narrow, spread_out
from hypothesis import given
from hypothesis import strategies as st

from capsolve import QuadraticLoss, Status, certify, solve
from capsolve.solvers import quadratic, window
from capsolve.solvers.quadratic import solve_source
from tests.oracles import brute_force, profiles
from tests.solvers.test_quadratic import (  # noqa: F401  (run again)
    random_mixed,
    test_almost_full_budgets_meet_equal_marginal_losses,
    test_features_that_gain_nothing_come_last_and_whole,
    test_of_equal_concave_features_the_first_are_served_first,
    test_small_differences_do_not_drown,
    test_ties_are_split_as_documented,
)
from tests.test_allocation import (  # noqa: F401  (run again)
    test_all_importances_zero,
    test_every_answer_is_certified,
    test_losses_that_overflow_leave_the_certificate_intact,
    test_single_feature,
)


def compiled():
    pytest.importorskip("numba")
    from capsolve.solvers.kernels import Compiled

    return Compiled


KINDS = {"arrays": lambda: Arrays, "compiled": compiled}


@pytest.fixture(scope="module", params=KINDS, autouse=True)
def kind(request):
    """Force all problems through windows, with tiny samples and hardly an undecided feature allowed."""
    chosen = KINDS[request.param]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quadratic, "HANDFUL", 0)
        patch.setattr(quadratic, "SMALL", 0)
        patch.setattr(quadratic, "FEW", 1)
        patch.setattr(window, "FEW", 1)
        patch.setattr(window, "SAMPLE", 16)
        patch.setattr(window, "ROUGH", 4)
        patch.setattr(quadratic, "kind_for", lambda features: chosen)
        yield chosen


def plainly(v, k, dimensions, handful=0):
    """Solve among all breakpoints, up to ``handful`` in plain Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quadratic, "HANDFUL", handful)
        patch.setattr(quadratic, "SMALL", 1 << 62)
        patch.setattr(quadratic, "kind_for", lambda features: Arrays)
        return solve(v, k, dimensions)


@given(profiles(max_features=60))
def test_agrees_with_the_search_among_all_breakpoints(problem):
    v, k, dimensions = problem
    mine = solve(v, k, dimensions)
    for other in (plainly(v, k, dimensions), plainly(v, k, dimensions, handful=100)):
        assert mine.status is other.status is Status.OPTIMAL
        size = other.loss + other.price * min(dimensions, v.size)
        if np.isfinite(size):
            assert mine.loss == pytest.approx(other.loss, rel=1e-12, abs=(1e-12 if (k >= 3).all() else 1e-9) * size)
        if ((k >= 3) & ((k == 3) | (k > 3 + 1e-6))).all():
            assert np.abs(mine.capacity - other.capacity).max() <= 1e-12
            assert mine.price == pytest.approx(other.price, rel=1e-10)


@pytest.mark.parametrize("seed", range(8))
def test_no_on_off_set_with_one_fractional_feature_is_better(seed):
    rng = np.random.default_rng(seed)
    v, k, dimensions = random_mixed(rng, 7, 0.3)
    k[np.flatnonzero(k < 3)[4:]] += 3
    allocation = solve(v, k, dimensions)
    best = brute_force(v, k, dimensions)
    assert allocation.status is Status.OPTIMAL
    assert allocation.loss == pytest.approx(best, rel=1e-8)
    assert allocation.lower_bound <= best * (1 + 1e-12)


def families(n, seed=0):
    rng = np.random.default_rng(seed)
    power = rng.permutation(np.arange(1, n + 1) ** -0.5)
    return {
        "wide": (power, np.exp(rng.uniform(np.log(3.5), np.log(300), n))),
        "log-normal": (rng.lognormal(0, 1, n), 3 + rng.exponential(20, n)),
        "alike": (1 + 1e-6 * rng.random(n), 9 + 1e-6 * rng.random(n)),
        "mixed": (power, np.exp(rng.uniform(np.log(1.2), np.log(100), n))),
        "sorted": (np.arange(1, n + 1) ** -0.5, 3 + rng.exponential(20, n)),
        "one giant": (np.append(rng.random(n - 1), 1e150), 3 + rng.exponential(20, n)),
        "tiny": (1e-150 * rng.lognormal(0, 1, n), 3 + rng.exponential(20, n)),
        "steps": (rng.lognormal(0, 1, n), np.full(n, 3.0)),
        "near-steps": (1 + 1e-13 * rng.random(n), 3 + 1e-12 * (1 + rng.random(n))),
        "equal": (np.ones(n), np.full(n, 9.0)),
        "equal steps": (np.ones(n), np.full(n, 3.0)),
        "equal concave": (np.ones(n), np.full(n, 1.5)),
        "concave": (rng.lognormal(0, 1, n), rng.uniform(1.1, 1.5, n)),
        "few concave": (rng.lognormal(0, 1, n), np.where(rng.random(n) < 0.003, 1.5, 4.0)),
        "half zeros": (rng.lognormal(0, 1, n) * (rng.random(n) < 0.5), 3 + rng.exponential(20, n)),
    }


@pytest.mark.parametrize("name", families(4))
def test_many_features(name, kind, monkeypatch):
    n = 20_000
    v, k = families(n)[name]
    monkeypatch.setattr(window, "SAMPLE", 2048)
    for dimensions in (0.0, 1e-9, n / 10 + 0.3, n - 0.5):
        mine, other = solve(v, k, dimensions), plainly(v, k, dimensions)
        assert mine.status is other.status is Status.OPTIMAL
        assert certify(QuadraticLoss(v, k), dimensions, mine.capacity, gap=mine.gap).status is Status.OPTIMAL
        if (k >= 3).all():
            # what is left for the last one is known to some ulps of the budget
            np.testing.assert_allclose(mine.capacity, other.capacity, rtol=0, atol=1e-12 + 1e-15 * dimensions)
        size = other.loss + other.price * dimensions
        assert mine.loss == pytest.approx(other.loss, rel=1e-12, abs=1e-13 * size)
        assert mine.price == pytest.approx(other.price, rel=1e-10)


def exact_sum_and_loss(v, k, scale):
    """Return Σ C and the loss at a scale, in 80-bit arithmetic."""
    v, k, scale = v.astype(np.longdouble), k.astype(np.longdouble), np.longdouble(scale)
    c = np.clip((v * (k - 1) - 2 * scale) / (scale * (k - 3)), 0, 1)
    return c, np.sum(v * v * (k - 1) * (1 - c) / (1 + (k - 3) / 2 * c))


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no longer than double")
@pytest.mark.parametrize("name", ["wide", "alike"])
def test_many_features_against_extended_precision(name, kind, monkeypatch):
    monkeypatch.setattr(window, "FEW", 32)
    monkeypatch.setattr(window, "SAMPLE", 1 << 14)
    n = 10**6 if kind is not Arrays else 10**5
    v, k = families(n)[name]
    allocation = solve(v, k, n / 10)
    low, high = np.longdouble(allocation.scale) * (1 - 1e-12), np.longdouble(allocation.scale) * (1 + 1e-12)
    for _ in range(3):  # Σ C is as good as linear here
        below, above = (exact_sum_and_loss(v, k, x)[0].sum() for x in (low, high))
        scale = low + (high - low) * (below - n / 10) / (below - above)
        low, high = scale * (1 - 1e-18), scale * (1 + 1e-18)
        if high <= low:
            break
    capacity, loss = exact_sum_and_loss(v, k, scale)
    assert np.abs(allocation.capacity - capacity).max() <= 1e-14
    assert abs(allocation.loss / loss - 1) <= 1e-14
    assert abs(allocation.scale / scale - 1) <= 1e-14


def test_a_window_wider_than_the_range_of_floats():
    """At scale 0, to which the window's end underflows in units of the price, features with κ = 1 would be full."""
    first = [63, 0, 150, -63, 27, 0, -7, 0, 0, 0, 52, 145, 114, 134, 64, -24, 0, -101]
    last = [0, 0, -75, 1, -8, -44, 149, 3, -49, 98, -116, 5, 0, -41, 1, 149, 0, -129]
    v = 10.0 ** np.array([*first, *last])
    k = np.ones(36)
    k[[0, 1, 3, 5, 6, 10, 12, 17, 18, 19, 24, 26, 29, 35]] += 1e-12
    for dimensions in (1e-300, 1e-3, 0.5):
        allocation = solve(v, k, dimensions)
        assert allocation.status is Status.OPTIMAL
        assert allocation.capacity.sum() == pytest.approx(dimensions, rel=1e-12)


def test_every_run_has_the_same_bits(kind):
    """Threads take parts of the data in any order; the sums are put together in one."""
    v, k = families(200_000)["mixed"]
    first, *others = (solve(v, k, 20_000.3) for _ in range(4))
    for other in others:
        np.testing.assert_array_equal(other.capacity, first.capacity)
        assert (other.loss, other.price, other.lower_bound) == (first.loss, first.price, first.lower_bound)


def test_float32(kind):
    v, k = (column.astype(np.float32) for column in families(9000)["mixed"])
    mine, other = solve(v, k, 900.3), plainly(v.astype(np.float64), k.astype(np.float64), 900.3)
    assert mine.status is Status.OPTIMAL
    assert mine.capacity.dtype == np.float64
    np.testing.assert_allclose(mine.capacity, other.capacity, rtol=0, atol=1e-12)


def test_one_kurtosis_for_all(kind):
    v, _ = families(9000)["wide"]
    for kurtosis in (9.1, 3.0, 1.5):
        one, other = solve(v, kurtosis, 900.3), solve(v, np.full(9000, kurtosis), 900.3)
        np.testing.assert_allclose(one.capacity, other.capacity, rtol=0, atol=1e-14)
        assert one.model.kurtosis.strides == (0,)


# --- the parts ------------------------------------------------------------------------------------------------------


@given(profiles(max_features=30), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_decided_features_are_linear_between_the_ends_of_the_window(kind, problem, one, other):
    v, k, _ = problem
    points = np.sort(np.concatenate([v[v > 0], v[v > 0] * (k[v > 0] - 1) / 2 + v[v > 0]]))
    if points.size == 0:
        return
    low, high = np.sort(np.quantile(points, [one, other]))
    if not 1e-140 < low < high < 1e140:
        return
    part = kind(v, k).partition(Window(low, high))
    assert part.wanting == np.count_nonzero(v)
    decided = np.setdiff1d(np.arange(v.size), part.which)
    for share in (0.0, 0.3, 1.0):
        u = (1 - share) / high + share / low
        with mpmath.workdps(40):
            exact = mpmath.mpf(0)
            for i in decided:
                v_i, k_i, tau = mpmath.mpf(v[i]), mpmath.mpf(k[i]), 1 / mpmath.mpf(u)
                if k_i > 3:
                    exact += min(1, max(0, (v_i * (k_i - 1) / tau - 2) / (k_i - 3)))
                else:
                    exact += v_i * mpmath.sqrt((min(k_i, 3) - 1) / 2) > tau
        assert (1 - share) * part.at_high + share * part.at_low == pytest.approx(float(exact), rel=1e-12, abs=1e-12)


@np.errstate(all="ignore")
def test_a_window_that_misses_is_moved(kind, monkeypatch):
    v, k = families(2000)["log-normal"]
    source = kind(v, k)
    scale = solve(v, k, 200.0).scale
    for low, high in ((2.0, 2.1), (0.3, 0.301), (1.5, np.inf), (0.0, 0.2), (100.0, 101.0), (1e-3, 1.001e-3)):
        monkeypatch.setattr(window, "bracket", lambda *_: Window(scale * low, scale * high))  # noqa: B023
        found = enclose(source, 200.0, kind)
        assert found.decided.low <= scale <= found.decided.high
    assert enclose(source, 2000.0, kind) is None


def test_a_misleading_sample_costs_time_only(kind, monkeypatch):
    v, k = families(3000)["log-normal"]
    right = plainly(v, k, 300.25).capacity
    monkeypatch.setattr(kind, "sample", lambda self, size, rng: (np.full(8, 123.0), np.full(8, 5.0)))
    np.testing.assert_allclose(solve(v, k, 300.25).capacity, right, rtol=0, atol=1e-13)
    monkeypatch.setattr(kind, "sample", lambda self, size, rng: (np.empty(0), np.empty(0)))
    np.testing.assert_allclose(solve(v, k, 300.25).capacity, right, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["wide", "log-normal", "alike", "mixed", "sorted", "tiny"])
def test_one_pass_finds_the_price_and_one_writes(name, kind, monkeypatch):
    """The cost of a large problem: two passes over its data, and few undecided features."""
    n, undecided, written = 300_000, [], []
    monkeypatch.setattr(window, "FEW", 32)
    monkeypatch.setattr(window, "SAMPLE", 1 << 14)
    monkeypatch.setattr(window, "ROUGH", 1 << 10)

    class Counting(kind):
        def partition(self, window):
            part = super().partition(window)
            undecided.append(part.which.size / n)
            return part

        def write(self, answer, unit):
            written.append(answer.which.size)
            return super().write(answer, unit)

    solve_source(Counting(*families(n)[name]), n / 10 + 0.3, 1e-9, kind)
    assert len(undecided) == len(written) == 1
    assert undecided[0] < 0.1
    assert written[0] < 0.01 * n


@np.errstate(all="ignore")
def test_the_window_shrinks_to_a_few_features(kind, monkeypatch):
    monkeypatch.setattr(window, "FEW", 32)
    v, k = families(50_000)["log-normal"]
    source = kind(v, k)
    found = enclose(source, 5000.0, kind)
    few = narrow(found, 5000.0, kind)
    assert few.which.size <= 32
    assert isinstance(few, Enclosed)
    assert found.decided.low <= few.decided.low <= solve(v, k, 5000.0).scale <= few.decided.high <= found.decided.high


def test_samples_come_from_everywhere():
    rng = np.random.default_rng(0)
    for features, size in ((10, 20), (100, 16), (10**6, 1 << 14), (10**7, 64)):
        index = spread_out(features, size, rng)
        assert index.min() >= 0
        assert index.max() < features
        assert (np.diff(index) >= 0).all()
        assert index.size <= max(size, features if size >= features else 0)
        if size < features:
            assert np.abs(index.mean() / features - 0.5) < 0.2


@pytest.mark.parametrize("scale", [1e-120, 1.0, 1e120])
def test_totals_are_those_of_the_capacities(kind, scale):
    rng = np.random.default_rng(2)
    n = 10_000
    v, k = (
        scale * rng.lognormal(0, 1, n),
        np.where(rng.random(n) < 0.2, rng.uniform(1, 3, n), 3 + rng.exponential(9, n)),
    )
    which = np.sort(rng.choice(n, 50, replace=False))
    answer = Answer(2.0 * scale, 0.0, which, rng.random(50))
    capacity, totals = kind(v, k).write(answer, scale)
    np.testing.assert_array_equal(capacity[which], answer.capacity)
    model = QuadraticLoss(v / scale, k)
    open_value = model.marginal(capacity)[capacity < 1]
    assert totals == Totals(
        used=pytest.approx(capacity.sum(), rel=1e-14),
        empty=np.count_nonzero(capacity == 0),
        full=np.count_nonzero(capacity == 1),
        loss=pytest.approx(model.feature_loss(capacity).sum(), rel=1e-13),
        price=pytest.approx(open_value.max(), rel=1e-13),
        last=pytest.approx(model.marginal(capacity)[capacity > 0].min(), rel=1e-13),
        steepest=pytest.approx(model.steepest(capacity).max(), rel=1e-13),
    )


def test_the_certificate_refuses_a_wrong_price(kind, monkeypatch):
    """Negative control: capacities written at a price a millionth beside the right one."""
    v, k = families(5000)["log-normal"]
    real = kind.write
    for factor in (1 + 1e-6, 1 - 1e-6):
        monkeypatch.setattr(
            kind,
            "write",
            lambda self, answer, unit: real(self, answer._replace(scale=answer.scale * factor), unit),  # noqa: B023
        )
        assert solve(v, k, 500.3).status is not Status.OPTIMAL


@pytest.mark.parametrize(
    ("importance", "kurtosis", "message"),
    [
        (np.nan, 4.0, "importance must be finite, got nan at index 77"),
        (np.inf, 4.0, "importance must be finite, got inf at index 77"),
        (-1.0, 4.0, r"importance must be >= 0, got -1.0 at index 77"),
        (1.0, np.nan, "kurtosis must be finite, got nan at index 77"),
        (1.0, np.inf, "kurtosis must be finite, got inf at index 77"),
        (1.0, 0.5, "kurtosis must be >= 1, got 0.5 at index 77"),
        (1e300, 1e300, "importance × kurtosis must sum to less"),
    ],
)
def test_the_first_pass_validates(kind, importance, kurtosis, message):
    v, k = families(9000)["wide"]
    v[77], k[77] = importance, kurtosis
    with pytest.raises(ValueError, match=message), np.errstate(all="ignore"):
        solve_source(kind(v, k), 5.0, 1e-9, kind)


def test_bracket_of_nothing():
    assert bracket(Arrays(np.zeros(5), np.full(5, 4.0)), 1.0, Arrays) == Window(0.0, np.inf)
