"""Arrays of other libraries get the answer that NumPy gets: in kind, where they are, in the precision they have."""

import tracemalloc

import numpy as np
import pytest

import capsolve
from capsolve._arrays import to_numpy
from capsolve.solvers import arrays, window

EPS = np.finfo(float).eps


def strict(device, dtype):
    def make(column):
        xp = pytest.importorskip("array_api_strict")
        return xp.asarray(np.asarray(column, dtype), device=xp.Device(device))

    return make


def torch(dtype):
    return lambda column: pytest.importorskip("torch").asarray(np.asarray(column, dtype))


def jax(column):
    return pytest.importorskip("jax.numpy").asarray(np.asarray(column, np.float32))


KINDS = {
    "strict": (strict("CPU_DEVICE", np.float64), np.float64),
    "strict float32": (strict("CPU_DEVICE", np.float32), np.float32),
    "strict elsewhere": (strict("device1", np.float64), np.float64),
    "strict without float64": (strict("no_float64", np.float32), np.float32),
    "torch": (torch(np.float64), np.float64),
    "torch float32": (torch(np.float32), np.float32),
    "jax": (jax, np.float32),
}


def problems(n=1536, seed=0):
    """Profiles of all sorts, with budgets: mixed kurtoses, ties, features of no importance, steps, wide ranges."""
    rng = np.random.default_rng(seed)
    mixed = np.exp(rng.uniform(np.log(1.2), np.log(100.0), n))
    yield "mixed", rng.lognormal(size=n), mixed, 0.1 * n
    yield "power law", rng.permutation(np.arange(1, n + 1) ** -0.5), np.exp(rng.uniform(1.3, 5.7, n)), 0.3 * n
    yield "ties", rng.integers(0, 4, n).astype(float), rng.choice([1.8, 3.0, 9.0], n), 0.45 * n + 0.3
    yield "concave", rng.lognormal(size=n), rng.uniform(1.0, 3.0, n), 0.2 * n + 0.5
    yield "steps", rng.lognormal(0.0, 0.1, n), 3.0 + 10.0 ** rng.uniform(-5, 0, n), 0.5 * n
    yield "alike", np.ones(n), np.full(n, 9.0), 0.01 * n
    yield "wide", 10.0 ** rng.uniform(-15, 15, n), 3.0 + 10.0 ** rng.uniform(-3, 3, n), 3.7
    yield "enough", rng.integers(0, 2, n).astype(float), mixed, float(n)
    yield "nothing", rng.lognormal(size=n), mixed, 0.0


def difference(capacity, expected, dimensions):
    """Return the largest difference, in units of what rounding may have made of it.

    The sums behind the price are off by some ulps of D, which the features at the price share among them; none moves
    by more than all of it. Writing the capacities in float32 changes them by half an ulp.
    """
    capacity = to_numpy(capacity)
    unit = EPS * max(1.0, dimensions) + (np.finfo(np.float32).eps / 2) * expected * (capacity.dtype == np.float32)
    return float(np.max(np.abs(capacity - expected) / (unit + 1e-37)))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(arrays.ArraySource, "BLOCK", 512)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_that_of_numpy(kind, small_blocks):
    make, dtype = KINDS[kind]
    for name, *columns, dimensions in problems():
        if kind == "jax" and name not in ("mixed", "ties", "steps"):
            continue  # it takes seconds to compile for other lengths
        v, k = (column.astype(dtype).astype(float) for column in columns)
        expected = capsolve.solve(v, k, dimensions)
        given = make(v)
        answer = capsolve.solve(given, make(k), dimensions)
        assert difference(answer.capacity, expected.capacity, dimensions) < 16, name
        assert type(answer.capacity) is type(given), name
        assert answer.capacity.dtype == given.dtype, name
        assert answer.capacity.device == given.device, name
        assert answer.status is expected.status is capsolve.Status.OPTIMAL, name
        assert answer.counts() == expected.counts(), name
        for number in ("loss", "price", "scale", "lower_bound"):
            assert getattr(answer, number) == pytest.approx(getattr(expected, number), rel=1e-9), (name, number)
        phase = to_numpy(answer.phase)
        assert phase.dtype == np.int8
        assert np.bincount(phase, minlength=3).tolist() == list(expected.counts().values()), name


@pytest.mark.parametrize("break_it", ["correction", "list", "block"])
def test_a_wrong_answer_would_be_noticed(break_it, small_blocks, monkeypatch):
    def spoiled(self, answer, unit):
        if break_it == "correction":
            answer = answer._replace(scale=answer.scale * (1 + 1e-12))
        if break_it == "list":
            answer = answer._replace(which=answer.which[:-1], capacity=answer.capacity[:-1])
        if break_it == "block":
            answer = answer._replace(which=answer.which + 1)
        return write(self, answer, unit)

    write = arrays.ArraySource.write
    monkeypatch.setattr(arrays.ArraySource, "write", spoiled)
    make, _ = KINDS["strict"]
    worst = 0.0
    for _, v, k, dimensions in problems():
        answer = capsolve.solve(make(v), make(k), dimensions)
        worst = max(worst, difference(answer.capacity, capsolve.solve(v, k, dimensions).capacity, dimensions))
    assert worst > 16


@pytest.mark.parametrize("kind", ["strict", "strict without float64", "torch float32"])
def test_a_kurtosis_for_all_and_columns_of_two_kinds(kind):
    make, dtype = KINDS[kind]
    v = np.random.default_rng(1).lognormal(size=40).astype(dtype).astype(float)
    expected = capsolve.solve(v, 9.0, 7)
    nines = [9.0] * 40
    for importance, kurtosis in [
        (make(v), 9),
        (make(v), make(9.0)),
        (make(v), nines),
        (make(v), np.array(nines)),
        (v, make(nines)),
        (v.tolist(), make(nines)),
    ]:
        answer = capsolve.solve(importance, kurtosis, 7)
        assert type(answer.capacity) is type(make(v))
        assert answer.capacity.dtype == make(v).dtype
        assert difference(answer.capacity, expected.capacity, 7) < 16


@pytest.mark.parametrize("kind", ["strict", "torch float32"])
def test_without_bias_and_what_is_computed_in_memory(kind):
    make, dtype = KINDS[kind]
    v = np.random.default_rng(1).lognormal(size=40).astype(dtype).astype(float)
    for bias in (True, False):
        expected = capsolve.solve(v, 9.0, 7, bias=bias)
        answer = capsolve.solve(make(v), make([9.0] * 40), 7, bias=bias)
        assert answer.status is capsolve.Status.OPTIMAL
        assert difference(answer.capacity, expected.capacity, 7) < 16
        np.testing.assert_allclose(to_numpy(answer.squared_norm), expected.squared_norm, rtol=2e-6, atol=1e-30)
        assert type(answer.squared_norm) is type(answer.capacity)
        assert answer.summary().splitlines()[:7] == expected.summary().splitlines()[:7]  # the rest is rounding errors
        same = answer.to_numpy()
        assert same.to_numpy() is same
        np.testing.assert_array_equal(same.capacity, expected.capacity)
        columns, wanted = answer.to_dict(), expected.to_dict()
        assert columns.keys() == wanted.keys()
        np.testing.assert_array_equal(columns["capacity"], wanted["capacity"])
        np.testing.assert_array_equal(
            answer.sensitivity().capacity_dimensions, expected.sensitivity().capacity_dimensions
        )
        np.testing.assert_allclose(capsolve.capacities(answer.embedding()), expected.capacity, atol=1e-13)


def test_gradients_are_left_alone():
    torch = pytest.importorskip("torch")
    v = torch.tensor([2.0, 1.0, 1.0], requires_grad=True)
    answer = capsolve.solve(v, v.detach() + 8, 1)
    assert not answer.capacity.requires_grad
    assert answer.model.importance is v
    # what is computed in NumPy takes a copy
    assert capsolve.solve_batch(v, 9.0, 1).capacity.shape == (3,)
    np.testing.assert_array_equal(capsolve.QuadraticLoss(v, 9.0).importance, [2.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"importance must be a rectangular array of real numbers: .*BFloat16"):
        capsolve.QuadraticLoss(v.to(torch.bfloat16), 9.0)


def test_other_precisions():
    torch = pytest.importorskip("torch")
    expected = capsolve.solve([2.0, 1.0, 1.0], 9.0, 1).capacity
    for dtype in (torch.bfloat16, torch.float16, torch.int32):
        answer = capsolve.solve(torch.tensor([2.0, 1.0, 1.0]).to(dtype), 9.0, 1)
        assert answer.capacity.dtype == torch.float32
        np.testing.assert_allclose(answer.capacity.numpy(), expected, rtol=1e-7)


def test_no_phase_is_made_by_rounding():
    torch = pytest.importorskip("torch")
    capacity = np.array([0.0, 1e-300, 1e-50, 0.5, 1.0 - 1e-12, 1.0 - EPS / 2, 1.0])
    for xp, column in [(np, capacity), (__import__("array_api_compat.torch").torch, torch.asarray(capacity))]:
        single = arrays.rounded(column, xp.float32, xp)
        assert single.dtype == xp.float32
        assert ((to_numpy(single) == 0.0) == (capacity == 0.0)).all()
        assert ((to_numpy(single) == 1.0) == (capacity == 1.0)).all()
        np.testing.assert_allclose(to_numpy(single), capacity, rtol=2.0**-24, atol=2e-38)
    assert np.float32(1.0 - 1e-12) == 1.0  # so it would be


def peak_memory(make, n):
    rng = np.random.default_rng(0)
    v, k = make(rng.lognormal(size=n)), make(3.0 + rng.exponential(20.0, n))
    tracemalloc.start()
    answer = capsolve.solve(v, k, 0.1 * n)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status is capsolve.Status.OPTIMAL
    return peak


def test_memory_is_the_answer_and_a_block(monkeypatch):
    make, _ = KINDS["strict float32"]
    monkeypatch.setattr(arrays.ArraySource, "BLOCK", 1 << 12)
    monkeypatch.setattr(window, "SAMPLE", 1 << 14)
    n = 1 << 17
    # 16 columns of a block, 8 of the sample, and 8 of the 3 % or so that are undecided
    assert peak_memory(make, n) < 4 * n + 8 * (16 * 2**12 + 8 * 2**14 + 8 * 0.03 * n)
    monkeypatch.setattr(arrays.ArraySource, "BLOCK", n)
    assert peak_memory(make, n) > 40 * n  # and would be noticed


X = strict("CPU_DEVICE", np.float64)
BAD = {
    "NaN": (lambda: (X([1.0, np.nan]), 9.0), "importance must be finite, got nan at index 1"),
    "infinite kurtosis": (lambda: (X([1.0, 2.0]), X([3.0, np.inf])), "kurtosis must be finite, got inf at index 1"),
    "negative": (lambda: (X([1.0, 2.0, -3.0]), 9.0), r"importance must be >= 0, got -3.0 at index 2"),
    "small kurtosis": (lambda: (X([1.0, 2.0]), X([0.5, 3.0])), "kurtosis must be >= 1, got 0.5 at index 0"),
    "small scalar": (lambda: (X([1.0]), 0.5), "kurtosis must be >= 1, got 0.5"),
    "overflow": (lambda: (X([1.0, 1e200]), X([9.0, 1e200])), r"sum to less than .* got 1e\+200 × 1e\+200 at index 1"),
    "lengths": (lambda: (X([1.0, 2.0]), X([3.0] * 3)), "one entry per feature: 2 features, got 3 entries"),
    "a matrix": (lambda: (X([[1.0, 2.0]]), 9.0), r"importance must have 1 dimension\(s\), got shape \(1, 2\)"),
    "a matrix of kurtoses": (lambda: (X([1.0]), X([[9.0]])), "scalar or one number per feature"),
    "nobody": (lambda: (X([]), 9.0), "at least one feature"),
    "complex": (lambda: (strict("CPU_DEVICE", complex)([1.0]), 9.0), "importance must hold real numbers"),
    "text": (lambda: (X([1.0]), "nine"), "kurtosis must hold real numbers"),
    "two devices": (
        lambda: (X([1.0]), strict("device1", float)([9.0])),
        "one device, got .*CPU_DEVICE.* and .*device1",
    ),
    "two libraries": (
        lambda: (X([1.0]), torch(float)([9.0])),
        r"arrays of one library, got array_api_strict\.Array and torch\.Tensor",
    ),
    "no budget": (lambda: (X([1.0]), 9.0, -1.0), "dimensions must be >= 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arrays(name, monkeypatch):
    monkeypatch.setattr(arrays.ArraySource, "BLOCK", 1)
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        capsolve.solve(*(*make(), 1.0)[:3])
