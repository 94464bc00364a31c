"""The compiled passes against NumPy's: the same answers, the same terms, the same errors."""

import multiprocessing
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import Status
from capsolve.solvers.sources import NumPySource, PriceAndExceptions, ScaleInterval
from tests.oracles import NASTY_KURTOSIS
from tests.routes import ROUTES
from tests.solvers.test_quadratic import families

pytest.importorskip("numba")

from capsolve.solvers.numba_source import BLOCK, BLOCKS_PER_TASK, SHARE_FREE, NumbaSource

EPS = np.finfo(float).eps


@pytest.fixture(autouse=True)
def compiled_code_works():
    yield
    assert NumbaSource.works, "the compiled passes have given up, and NumPy's were tested"


def some_problem(seed, n):
    rng = np.random.default_rng(seed)
    v = rng.lognormal(0, 1, n) * rng.choice([0.0, 1.0, 1.0, 1.0], n)
    k = rng.choice([*NASTY_KURTOSIS, *rng.uniform(1, 60, 20)], n)
    return v, k, rng


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 1]))
def test_screening_is_that_of_numpy(seed, n):
    v, k, rng = some_problem(seed, n)
    low, high = np.sort(rng.lognormal(0, 1, 2))
    for interval in (ScaleInterval(low, high), ScaleInterval(low, high, 1.3), ScaleInterval(0.0, np.inf)):
        with np.errstate(all="ignore"):
            mine, other = (kind(v, k).screen(interval) for kind in (NumbaSource, NumPySource))
        # both round where a feature enters and is full: those within ulps of the ends may be counted free by either
        differ = np.setxor1d(mine.free_index, other.free_index)
        ends = np.array([interval.low / interval.concave_margin, interval.low, interval.high])
        ends = np.append(ends, interval.high * interval.concave_margin)
        for i in differ:
            edges = [v[i], v[i] * (k[i] - 1) / 2, v[i] * np.sqrt((k[i] - 1) / 2)]
            assert min(abs(x / y - 1) for x in edges for y in ends if 0 < y < np.inf) <= 8 * EPS
        assert (mine.positive, mine.lowest, mine.highest) == (other.positive, other.lowest, other.highest)
        assert mine.least_positive == other.least_positive
        assert mine.total == pytest.approx(other.total, rel=1e-14 * np.log2(n + 2))
        if differ.size == 0:
            # one rounding of v (κ−1) − 2τ less: an ulp of it, which is much where κ is close to 3
            steep = 4 * EPS * (np.abs(k - 1) / np.maximum(np.abs(k - 3), 1e-15)).sum()
            assert mine.at_low == pytest.approx(other.at_low, abs=1e-13 * n + steep)
            assert mine.at_high == pytest.approx(other.at_high, abs=1e-13 * n + steep)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, BLOCK, 2 * BLOCK + 1]))
def test_what_is_written_is_judged_as_numpy_judges_it(seed, n):
    """Right or wrong: half of the capacities come from the list, at random."""
    v, k, rng = some_problem(seed, n)
    listed = np.sort(rng.choice(n, (n + 1) // 2, replace=False))
    value = rng.choice([0.0, 1.0, 0.3, 1e-12, 1 - 1e-12], listed.size)
    scale = float(rng.lognormal())
    answer = PriceAndExceptions(scale, 0.0, scale * float(rng.choice([1.0, 1.1])), listed, value)
    capacity, mine = NumbaSource(v, k).write(answer, 2.0)
    np.testing.assert_array_equal(capacity[listed], value)
    # NumPy's terms at the very same capacities
    everyone = PriceAndExceptions(scale, 0.0, answer.multiplier, np.arange(n), capacity)
    same, other = NumPySource(v, k).write(everyone, 2.0)
    np.testing.assert_array_equal(same, capacity)
    assert (mine.empty, mine.full) == (other.empty, other.full)
    rel = 4e-15 * np.log2(n + 2)
    size = other.loss + 2 * (answer.multiplier / 2.0) ** 2 * n
    for name in ("used", "loss", "max_marginal_unsaturated", "min_marginal_active"):
        assert getattr(mine, name) == pytest.approx(getattr(other, name), rel=rel), name
    assert mine.lagrangian_gap == pytest.approx(other.lagrangian_gap, rel=1e-12, abs=rel * size)


@given(st.integers(0, 2**32 - 1))
def test_capacities_are_those_of_numpy(seed):
    v, k, rng = some_problem(seed, 300)
    scale = float(rng.lognormal())
    nobody = PriceAndExceptions(scale, scale * 1e-17, scale, np.empty(0, np.int64), np.empty(0))
    mine, other = (kind(v, k).write(nobody, 1.0)[0] for kind in (NumbaSource, NumPySource))
    jump = v * np.sqrt((np.minimum(k, 3) - 1) / 2)
    settled = np.abs(jump / scale - 1) > 4 * EPS
    steep = 8 * EPS * (1 + np.abs(k - 1) / np.maximum(np.abs(k - 3), 1e-300))
    assert (np.abs(mine - other) <= np.where(k > 3, steep, 0.0))[settled | (k > 3)].all()


def test_more_free_features_than_there_is_room_for():
    n = 2 * BLOCKS_PER_TASK * BLOCK
    assert n > n * SHARE_FREE
    part = NumbaSource(np.ones(n), np.full(n, 5.0)).screen(ScaleInterval(0.9, 1.1))
    np.testing.assert_array_equal(part.free_index, np.arange(n))


def test_a_late_concave_feature_is_seen():
    """A sample without κ < 3 leads to code that knows none, until the first pass has seen one."""
    n = (1 << 18) + 1000
    rng = np.random.default_rng(0)
    v, k = rng.lognormal(0, 1, n), 3 + rng.exponential(20, n)
    k[-3] = 1.5
    source = NumbaSource(v, k)
    source._mixed = False
    part = source.screen(ScaleInterval(0.5, 0.6))
    assert source._mixed
    other = NumPySource(v, k).screen(ScaleInterval(0.5, 0.6))
    assert part.at_low == pytest.approx(other.at_low, rel=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.float16])
def test_other_precisions(dtype):
    v, k = (column.astype(dtype) for column in (np.array([4.0, 2.0, 1.0, 1.0]), np.array([9.0, 5.0, 2.0, 12.0])))
    mine = ROUTES["Numba, bracketed"](v, k, 2.0)
    other = ROUTES["NumPy, all breakpoints"](v.astype(float), k.astype(float), 2.0)
    assert mine.status is Status.OPTIMAL
    assert mine.capacity.dtype == np.float64
    np.testing.assert_allclose(mine.capacity, other.capacity, rtol=0, atol=1e-14)


def test_one_kurtosis_for_all_takes_no_memory():
    v, _ = families(9000)["wide"]
    for kurtosis in (9.1, 3.0, 1.5):
        source = NumbaSource(v, np.asarray(kurtosis))
        assert source._k.size == BLOCK
        part = source.screen(ScaleInterval(0.01, 0.011))
        full = NumbaSource(v, np.full(9000, kurtosis)).screen(ScaleInterval(0.01, 0.011))
        np.testing.assert_array_equal(part.free_index, full.free_index)
        assert part.at_low == full.at_low


def test_importances_beyond_compiled_arithmetic_are_numpys():
    v = np.zeros(100_000)
    v[5] = 1e156
    allocation = ROUTES["Numba, bracketed"](v, np.full(v.size, 2.0), 0.5)
    assert allocation.status is Status.OPTIMAL
    assert np.isfinite([allocation.gap, allocation.kkt_error]).all()
    assert allocation.capacity[5] == 0.5


def test_threads_take_turns():
    v, k = families(50_000)["mixed"]
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ROUTES["Numba, bracketed"](v, k, 5000.3))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    for other in answers[1:]:
        np.testing.assert_array_equal(other.capacity, answers[0].capacity)


def _in_a_child(queue):
    v, k = families(50_000)["mixed"]
    queue.put(ROUTES["Numba, bracketed"](v, k, 5000.3).loss)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:os.fork:RuntimeWarning")  # JAX may be loaded
def test_a_child_of_a_fork_uses_one_core():
    v, k = families(50_000)["mixed"]
    here = ROUTES["Numba, bracketed"](v, k, 5000.3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == pytest.approx(here.loss, rel=1e-13)
    child.join()
    assert child.exitcode == 0
