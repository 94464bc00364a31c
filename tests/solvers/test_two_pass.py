"""The search through passes over the data: brackets, what is free in them, and how many passes it takes."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import QuadraticLoss, Status, allocate, solve
from capsolve.losses.quadratic import response_curve
from capsolve.solvers import two_pass
from capsolve.solvers.quadratic import solve_source
from capsolve.solvers.routes import Limits, Route
from capsolve.solvers.sources import NumPySource, ScaleInterval
from capsolve.solvers.two_pass import (
    TINY,
    AggregateFeature,
    BracketedProblem,
    TooSmall,
    bracket_all,
    bracket_price,
    find_root,
    sample_bracket,
    shrink_bracket,
)
from tests.oracles import profiles
from tests.routes import HARDLY_ANY, ROUTES, SmallBlocks, numba_source
from tests.solvers.test_quadratic import families

KINDS = {"NumPy": lambda: NumPySource, "NumPy, small blocks": lambda: SmallBlocks, "Numba": numba_source}
FAST = {name: kind for name, kind in KINDS.items() if name != "NumPy, small blocks"}
every_breakpoint = ROUTES["NumPy, all breakpoints"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    source = KINDS[request.param]()
    yield source
    assert getattr(source, "works", True), "the compiled passes have given up"


@pytest.fixture(scope="module", params=FAST)
def fast(request):
    source = FAST[request.param]()
    yield source
    assert getattr(source, "works", True), "the compiled passes have given up"


def by(kind, v, k, dimensions, limits=HARDLY_ANY):
    return allocate(QuadraticLoss(v, k), dimensions, route=Route("under test", source=kind, limits=limits))


# --- against extended precision -------------------------------------------------------------------------------------


def exact_sum_and_loss(v, k, scale):
    """Return Σ C and the loss at a scale, in 80-bit arithmetic."""
    v, k, scale = v.astype(np.longdouble), k.astype(np.longdouble), np.longdouble(scale)
    c = np.clip((v * (k - 1) - 2 * scale) / (scale * (k - 3)), 0, 1)
    return c, np.sum(v * v * (k - 1) * (1 - c) / (1 + (k - 3) / 2 * c))


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no longer than double")
@pytest.mark.parametrize("name", ["wide", "alike"])
def test_many_features_against_extended_precision(name, fast):
    n = 10**6 if fast is not NumPySource else 10**5
    v, k = families(n)[name]
    allocation = by(fast, v, k, n / 10, Limits(all_free=0))
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


def test_a_bracket_wider_than_the_range_of_floats(kind):
    """At scale 0, to which the bracket's end underflows in units of the price, features with κ = 1 would be full."""
    first = [63, 0, 150, -63, 27, 0, -7, 0, 0, 0, 52, 145, 114, 134, 64, -24, 0, -101]
    last = [0, 0, -75, 1, -8, -44, 149, 3, -49, 98, -116, 5, 0, -41, 1, 149, 0, -129]
    v = 10.0 ** np.array([*first, *last])
    k = np.ones(36)
    k[[0, 1, 3, 5, 6, 10, 12, 17, 18, 19, 24, 26, 29, 35]] += 1e-12
    for dimensions in (1e-300, 1e-3, 0.5):
        allocation = by(kind, v, k, dimensions)
        assert allocation.status is Status.OPTIMAL
        assert allocation.capacity.sum() == pytest.approx(dimensions, rel=1e-12)


def test_every_run_has_the_same_bits(fast):
    """Threads take parts of the data in any order; the sums are put together in one."""
    v, k = families(200_000)["mixed"]
    first, *others = (by(fast, v, k, 20_000.3) for _ in range(4))
    for other in others:
        np.testing.assert_array_equal(other.capacity, first.capacity)
        assert (other.loss, other.price, other.lower_bound) == (first.loss, first.price, first.lower_bound)


# --- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(profiles(max_features=30), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from([1.0, 1.5]))
def test_fixed_features_are_linear_between_the_ends_of_an_interval(kind, problem, one, other, margin):
    v, k, _ = problem
    points = np.sort(np.concatenate([v[v > 0], v[v > 0] * (k[v > 0] - 1) / 2 + v[v > 0]]))
    if points.size == 0:
        return
    low, high = np.sort(np.quantile(points, [one, other]))
    if not 1e-140 < low < high < 1e140:
        return
    part = kind(v, k).screen(ScaleInterval(low, high, margin))
    assert part.positive == np.count_nonzero(v)
    assert part.is_valid
    np.testing.assert_array_equal(part.importance, v[part.free_index])
    np.testing.assert_array_equal(part.kurtosis, k[part.free_index])
    fixed = np.setdiff1d(np.arange(v.size), part.free_index)
    jump = v * np.sqrt((np.minimum(k, 3) - 1) / 2)
    near = (k < 3) & (v > 0) & (jump > low / margin * (1 + 1e-12)) & (jump < high * margin * (1 - 1e-12))
    assert set(np.flatnonzero(near)) <= set(part.free_index), "those that jump count as free in the wider interval"
    for share in (0.0, 0.25, 1.0):  # which are exact, and so is 1 - share
        with mpmath.workdps(40):
            tau, exact = 1 / ((1 - share) / mpmath.mpf(high) + share / mpmath.mpf(low)), mpmath.mpf(0)
            for i in fixed:
                v_i, k_i = mpmath.mpf(v[i]), mpmath.mpf(k[i])
                if k_i > 3:
                    exact += min(1, max(0, (v_i * (k_i - 1) / tau - 2) / (k_i - 3)))
                else:
                    exact += v_i * mpmath.sqrt((min(k_i, 3) - 1) / 2) > tau
        assert (1 - share) * part.at_high + share * part.at_low == pytest.approx(float(exact), rel=1e-12, abs=1e-12)
        aggregate = AggregateFeature(low, high, part.at_low, part.at_high)
        rounding = 4 * np.finfo(float).eps * high / (high - low) * (part.at_low - part.at_high)  # of a float τ
        assert aggregate.at(float(tau)) == pytest.approx(float(exact), rel=1e-12, abs=1e-12 + rounding)


@np.errstate(all="ignore")
def test_an_interval_that_misses_is_moved(kind, monkeypatch):
    v, k = families(2000)["log-normal"]
    source, limits = kind(v, k), Limits(free=1, sample=16, rough=4)
    scale = solve(v, k, 200.0).scale
    for low, high in ((2.0, 2.1), (0.3, 0.301), (1.5, np.inf), (0.0, 0.2), (100.0, 101.0), (1e-3, 1.001e-3)):
        wrong = ScaleInterval(scale * low, scale * high)
        monkeypatch.setattr(two_pass, "sample_bracket", lambda *_, wrong=wrong: wrong)
        found = bracket_price(source, 200.0, kind, limits)
        assert found.fixed.low <= scale <= found.fixed.high
    assert bracket_price(source, 2000.0, kind, limits) is None


class Misleading(NumPySource):
    """All of the sample is far from the truth."""

    def sample(self, size, rng):
        return np.full(8, 123.0), np.full(8, 5.0)


class Silent(NumPySource):
    """There is no sample."""

    def sample(self, size, rng):
        return np.empty(0), np.empty(0)


@pytest.mark.parametrize("source", [Misleading, Silent])
def test_a_misleading_sample_costs_time_only(source):
    v, k = families(3000)["log-normal"]
    right = every_breakpoint(v, k, 300.25).capacity
    np.testing.assert_allclose(by(source, v, k, 300.25).capacity, right, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["wide", "log-normal", "alike", "mixed", "sorted", "tiny"])
def test_one_pass_finds_the_price_and_one_writes(name, fast):
    """The cost of a large problem: two passes over its data, and few free features."""
    n, free, written = 300_000, [], []

    class Counting(fast):
        def screen(self, interval):
            part = super().screen(interval)
            free.append(part.free_index.size / n)
            return part

        def write(self, answer, unit):
            written.append(answer.free_index.size)
            return super().write(answer, unit)

    route = Route("counted", source=fast, limits=Limits(sample=1 << 14))
    solve_source(Counting(*families(n)[name]), n / 10 + 0.3, route)
    assert len(free) == len(written) == 1
    assert free[0] < 0.1
    assert written[0] < 0.01 * n


@np.errstate(all="ignore")
def test_the_bracket_shrinks_to_a_few_features(fast):
    limits = Limits(sample=16, rough=4)
    v, k = families(50_000)["log-normal"]
    found = bracket_price(fast(v, k), 5000.0, fast, limits)
    few = shrink_bracket(found, 5000.0, limits)
    assert few.free_index.size <= limits.free < found.free_index.size
    assert isinstance(few, BracketedProblem)
    np.testing.assert_array_equal(few.importance, v[few.free_index])
    assert found.fixed.low <= few.fixed.low <= solve(v, k, 5000.0).scale <= few.fixed.high <= found.fixed.high


@pytest.mark.slow
def test_a_sample_brackets_the_price_most_of_the_time(fast):
    """Four standard errors on either side: 100 samples may miss once, by chance."""
    rng = np.random.default_rng(0)
    missed = 0
    for seed in range(50):
        n = int(rng.integers(5000, 20_000))
        v, k = families(n, seed)["mixed" if seed % 2 else "log-normal"]
        for share in (0.05, 0.5):
            interval = sample_bracket(fast(v, k), share * n, fast, Limits())
            missed += not interval.low <= solve(v, k, share * n).scale <= interval.high
    assert missed <= 1


def test_a_bracket_of_nothing():
    source = NumPySource(np.zeros(5), np.full(5, 4.0))
    assert sample_bracket(source, 1.0, NumPySource, Limits()) == ScaleInterval(0.0, math.inf)


@given(st.floats(0.1, 0.9), st.floats(1e-3, 1e3), st.floats(1e-4, 0.1))
def test_roots_are_found_and_jumps_are_closed_in_on(share, start, resolution):
    v, k = np.array([1.0, 2.0, 0.5, 3.0]), np.array([5.0, 9.0, 30.0, 4.0])
    used = NumPySource(v, k).used
    aim = 4 * share
    scale, same = find_root(used, aim - 0.01, aim + 0.01, [(start, used(start)[0])], 1e-9)
    assert scale == same
    assert aim - 0.01 <= used(scale)[0] <= aim + 0.01
    steps = NumPySource(v, np.full(4, 3.0)).used  # capacity jumps from one whole number to the next
    low, high = find_root(steps, 1.4, 1.6, [(start, steps(start)[0])], resolution)
    assert low <= 2.0 <= high <= low * (1 + resolution)


def test_an_aggregate_between_its_ends():
    one = AggregateFeature(1.0, 2.0, 5.0, 3.0)
    assert [one.at(scale) for scale in (0.5, 1.0, 2.0, 3.0)] == [5.0, 5.0, 3.0, 3.0]
    assert one.at(4 / 3) == pytest.approx(4.0, rel=1e-15), "linear in the inverse"
    curve = one.beside(response_curve(np.ones(2), np.full(2, 9.0)))
    # two features of importance 1 and κ = 9: (8/τ − 2)/6; then what is taken beyond 3
    np.testing.assert_allclose(curve.at(4 / 3)[:, 0], [2 / 3, 2 / 3, 1.0], rtol=1e-15)


# --- the smallest floats --------------------------------------------------------------------------------------------


def test_what_is_too_small_is_scaled_by_a_power_of_two():
    small = TooSmall(5e-324, 1e-300)
    mantissa, exponent = math.frexp(small.factor())
    assert mantissa == 0.5
    assert exponent == 1024
    assert TooSmall(TINY / 2, 1e10).factor() * 1e10 < 1e302
    with pytest.raises(ValueError, match=r"must not span more than 580 orders of magnitude: .* 4.94.*1e\+308"):
        TooSmall(5e-324, 1e308).factor()


@pytest.mark.parametrize("name", ["plain numbers", "NumPy, bracketed", "NumPy, all breakpoints", "Dask", "batch"])
def test_importances_may_span_580_orders_of_magnitude(name):
    v = np.array([5e-324, 1e-300, 1e-150, 1.0, 1e200])
    allocation = ROUTES[name](v, np.full(5, 4.0), 2.5)
    assert allocation.status is Status.OPTIMAL
    with pytest.raises(ValueError, match="580 orders of magnitude"):
        ROUTES[name](np.append(v, 1e280), np.full(6, 1e20), 2.5)


@np.errstate(all="ignore")
def test_candidates_outside_the_bracket_are_fetched(kind, monkeypatch):
    """A bracket that holds hardly more than the price leaves out features that may be fractional, or share."""
    inside = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        v, k = rng.lognormal(0, 0.4, 40), np.where(np.arange(40) < 38, rng.uniform(1.2, 2.99, 40), 9.0)
        dimensions = rng.uniform(1, 20)
        best = solve(v, k, dimensions)
        tau = float(two_pass.ReducedProblem(bracket_all(NumPySource(v, k), dimensions, kind), dimensions).scale)
        narrow = ScaleInterval(tau * (1 - 1e-7), tau * (1 + 1e-7))
        monkeypatch.setattr(two_pass, "sample_bracket", lambda *_, narrow=narrow: narrow)
        found = by(kind, v, k, dimensions, Limits(all_free=0, free=2))
        assert found.status is Status.OPTIMAL
        assert found.loss == pytest.approx(best.loss, rel=1e-13)
        inside += ((k < 3) & (found.capacity > 0) & (found.capacity < 1)).any()
    assert inside >= 5
