"""Capacity against exact rational arithmetic, the paper's figures, simulation, and other array libraries."""

import itertools
import threading
import tracemalloc
import weakref
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import capsolve
from capsolve import capacities, efficiency, interference, leverages, random_capacity, stream_capacities
from capsolve.geometry import second_moment

EPS = np.finfo(float).eps


def ring(count):
    angle = 2 * np.pi * np.arange(count) / count
    return np.column_stack([np.cos(angle), np.sin(angle)])


def antiprism():
    upper = np.column_stack([np.cos(np.pi / 4 + ring_angle(4)), np.sin(np.pi / 4 + ring_angle(4)), [0.5**0.5] * 4])
    lower = np.column_stack([np.cos(ring_angle(4)), np.sin(ring_angle(4)), [-(0.5**0.5)] * 4])
    return np.concatenate([upper, lower])


def ring_angle(count):
    return 2 * np.pi * np.arange(count) / count


FIGURES = {
    "triangle": (ring(3), [2 / 3] * 3),
    "axis and antipodal pair": ([[1, 0], [0, 1], [0, -1]], [1, 1 / 2, 1 / 2]),
    "axis and unequal antipodal pair": ([[1, 0], [0, 0.1**0.5], [0, -(0.9**0.5)]], [1, 0.1, 0.9]),
    "two at 30 degrees": ([[1, 0], [3**0.5 / 2, 1 / 2]], [4 / 7] * 2),
    "tetrahedron": ([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], [3 / 4] * 4),
    "pentagon": (ring(5), [2 / 5] * 5),
    "square antiprism": (antiprism(), [3 / 8] * 8),
}


@pytest.mark.parametrize("name", FIGURES)
def test_paper_figures(name):
    W, expected = FIGURES[name]
    np.testing.assert_allclose(capacities(W), expected, rtol=8 * EPS)


def test_efficiency_of_the_paper_figures():
    for name, (W, expected) in FIGURES.items():
        assert efficiency(W) == pytest.approx(sum(expected) / np.shape(W)[1], rel=8 * EPS), name
        assert (efficiency(W) == pytest.approx(1, rel=8 * EPS)) == (name != "two at 30 degrees")


def exact(W):
    """Capacity, leverage, rank and whether each row is an eigenvector of M, in rational arithmetic."""
    rows = [[Fraction(int(x)) for x in row] for row in W]
    columns = [list(column) for column in zip(*rows, strict=True)]

    def dot(a, b):
        return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))

    basis = []
    for column in columns:
        for q in basis:
            t = dot(column, q) / dot(q, q)
            column[:] = [x - t * y for x, y in zip(column, q, strict=True)]
        if any(column):
            basis.append(column)
    capacity, leverage, eigenvector = [], [], []
    for i, row in enumerate(rows):
        if not any(row):
            capacity.append(Fraction(0))
            leverage.append(Fraction(0))
            eigenvector.append(True)
            continue
        image = [sum((dot(row, other) * other[k] for other in rows), Fraction(0)) for k in range(len(row))]
        capacity.append(dot(row, row) ** 2 / dot(row, image))
        leverage.append(sum((q[i] ** 2 / dot(q, q) for q in basis), Fraction(0)))
        eigenvector.append(dot(row, image) ** 2 == dot(row, row) * dot(image, image))
    return capacity, leverage, len(basis), eigenvector


integers = hnp.arrays(
    np.int64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6), elements=st.integers(-2, 2)
)


@settings(max_examples=200, deadline=None)
@given(integers)
def test_exact_bounds_and_when_they_are_reached(W):
    capacity, leverage, rank, eigenvector = exact(W)
    for C, ell, is_eigenvector in zip(capacity, leverage, eigenvector, strict=True):
        assert 0 <= C <= ell <= 1
        assert (ell == C) == is_eigenvector
    assert sum(leverage) == rank
    assert sum(capacity) <= rank
    assert (sum(capacity) == rank) == all(eigenvector)
    # Entries up to 2: M is exact, and so is everything but a few roundings at the end.
    np.testing.assert_allclose(capacities(W), np.array(capacity, float), rtol=20 * EPS)
    # Singular values of such small integer matrices stay far above D·eps times the largest.
    np.testing.assert_allclose(leverages(W), np.array(leverage, float), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 10))
def test_bounds_on_random_embeddings(seed, n, D):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, D)) * rng.lognormal(size=(n, 1))
    C, ell = capacities(W), leverages(W)
    assert ell.sum() == pytest.approx(min(n, D), rel=1e-9)
    assert (C >= 0).all()
    assert (ell - C > -1e-9).all()
    assert C.sum() <= min(n, D) * (1 + 1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.floats(-140, 140))
def test_symmetries(seed, power):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((12, 5))
    C, I = capacities(W), interference(W)  # noqa: E741
    Q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    order = rng.permutation(12)
    np.testing.assert_allclose(capacities(W @ Q), C, rtol=1e-13)
    np.testing.assert_allclose(capacities(W * 10**power), C, rtol=1e-13)
    np.testing.assert_allclose(capacities(W[order]), C[order], rtol=1e-13)
    np.testing.assert_allclose(capacities(W * rng.choice([-1, 1], (12, 1))), C, rtol=1e-13)
    np.testing.assert_allclose(capacities(W.T, feature_axis=-1), C, rtol=1e-13)
    np.testing.assert_allclose(interference(W @ Q), I, rtol=1e-12)
    np.testing.assert_allclose(interference(3 * W), 9 * I, rtol=1e-12)
    np.testing.assert_allclose(leverages(W @ rng.standard_normal((5, 5))), leverages(W), rtol=1e-8)
    # Scaling one row is no symmetry.
    assert abs(capacities(W * np.where(np.arange(12) == 0, 2.0, 1.0)[:, None]) - C).max() > 1e-6


def test_capacity_is_the_squared_correlation_for_white_inputs():
    rng = np.random.default_rng(5)
    W = rng.standard_normal((6, 3))
    samples = 200_000
    x = rng.standard_normal((samples, 6))
    y = x @ W @ W.T
    rho = np.array([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(6)])
    error = 2 * np.abs(rho) * (1 - rho**2) / samples**0.5
    assert (np.abs(rho**2 - capacities(W)) < 5 * error).all()
    assert (np.abs(rho**2 - leverages(W)) > 5 * error).any()  # another quantity is told apart


def test_interference_by_definition():
    rng = np.random.default_rng(2)
    W = rng.standard_normal((7, 4))
    W[3] = 0
    length = np.linalg.norm(W, axis=1, keepdims=True)
    cross = (W / np.where(length > 0, length, 1)) @ W.T
    np.fill_diagonal(cross, 0)
    np.testing.assert_allclose(interference(W), (cross**2).sum(axis=1), rtol=1e-13)


def test_zero_rows_and_columns():
    W = np.array([[0.0, 0, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(capacities(W), [0, 1, 0])
    np.testing.assert_array_equal(leverages(W), [0, 1, 0])
    np.testing.assert_array_equal(interference(W), [0, 0, 0])
    np.testing.assert_array_equal(capacities(np.zeros((2, 3))), [0, 0])
    np.testing.assert_array_equal(leverages(np.zeros((2, 3))), [0, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lengths_at_both_ends_of_the_range(dtype):
    big, small = (1e200, 1e-200) if dtype is np.float64 else (1e30, 1e-30)
    W = np.array([[big, 0], [0, small], [0, -small]], dtype)
    np.testing.assert_allclose(capacities(W), [1, 1 / 2, 1 / 2], rtol=1e-6)
    np.testing.assert_allclose(leverages(W), [1, 1 / 2, 1 / 2], rtol=1e-6)
    W = np.array([[big, 0], [0, small], [small, small]], dtype)
    np.testing.assert_allclose(capacities(W), [1, 1 / 2, 0], rtol=1e-6)
    for scale in (big, small):
        np.testing.assert_allclose(capacities(ring(3).astype(dtype) * dtype(scale)), [2 / 3] * 3, rtol=1e-6)
    small = np.finfo(dtype).smallest_subnormal
    np.testing.assert_allclose(capacities(np.array([[small, 0], [0, small]])), [1, 1])


def test_capacity_stays_in_its_range_where_rounding_drowns_a_row():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((200, 6, 6)))[0]
    C = capacities(np.logspace(0, -12, 6)[:, None] * Q)
    assert ((C >= 0) & (C <= 1)).all()
    np.testing.assert_allclose(C[:, 0], 1, rtol=1e-12)


def test_batches():
    W = np.random.default_rng(0).standard_normal((2, 3, 7, 4))
    for function in (capacities, leverages, interference):
        one_by_one = np.array([[function(W[i, j]) for j in range(3)] for i in range(2)])
        np.testing.assert_allclose(function(W), one_by_one, rtol=1e-12)
        np.testing.assert_allclose(function(np.moveaxis(W, 2, 0), feature_axis=0), one_by_one, rtol=1e-12)
        np.testing.assert_allclose(function(W.swapaxes(-1, -2), feature_axis=-1), one_by_one, rtol=1e-12)
    assert efficiency(W).shape == (2, 3)
    W[0] *= 1e-150
    W[1, 0] = 0
    np.testing.assert_allclose(capacities(W)[0], [capacities(w) for w in W[0]], rtol=1e-12)


def test_stream_equals_array(monkeypatch):
    W = np.random.default_rng(1).standard_normal((1000, 30)).astype(np.float32)
    whole = capacities(W)
    cuts = [0, 1, 17, 400, 401, 1000]
    passes = []

    def blocks():
        passes.append(0)
        return (W[a:b] for a, b in itertools.pairwise(cuts))

    streamed = np.concatenate(list(stream_capacities(blocks)))
    assert len(passes) == 2
    assert streamed.dtype == np.float32
    # rounding errors of a sum of n products add up like a random walk, to about √n of them
    rounding = np.sqrt(len(W)) * np.finfo(np.float32).eps
    np.testing.assert_allclose(streamed, whole, rtol=rounding)
    # Blocks inside the array functions change nothing either; growing columns are rescaled between blocks.
    monkeypatch.setattr(second_moment, "_ADD", 100)
    monkeypatch.setattr(second_moment, "_MEASURE", 100)
    np.testing.assert_allclose(capacities(W), whole, rtol=rounding)
    growing = W.astype(float) * np.logspace(-250, 250, 1000)[:, None]
    by_rows = capacities(growing)
    monkeypatch.undo()
    np.testing.assert_allclose(by_rows, capacities(growing), rtol=1e-12)
    np.testing.assert_allclose(np.concatenate(list(stream_capacities(lambda: (growing,)))), by_rows, rtol=1e-12)


def test_a_stream_with_other_widths_is_refused():
    with pytest.raises(ValueError, match="same number of dimensions in every block, got 2 after 3"):
        list(stream_capacities(lambda: (np.ones((2, 3)), np.ones((2, 2)))))
    with pytest.raises(ValueError, match="add the rows"):
        second_moment.SecondMoment().capacities(np.ones((2, 3)))


def error_bound(W, unit_roundoff):
    """The bound in the docstring of `capacities`."""
    n, D = W.shape
    size = np.abs(W)
    length = np.linalg.norm(W, axis=1, keepdims=True)
    above = ((size / length @ size.T) ** 2).sum(axis=1)
    below = ((W / length @ W.T) ** 2).sum(axis=1)
    return 2 * (n + 2 * D) * unit_roundoff * above / below


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_short_floats_accumulate_in_single_precision(kind):
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if kind == "bfloat16" else np.dtype(kind)
    W = np.random.default_rng(3).standard_normal((3000, 40)).astype(dtype)
    C = capacities(W)
    assert C.dtype == np.float32
    truth = capacities(W.astype(np.float64))
    error = np.abs(C / truth - 1)
    assert (error <= error_bound(W.astype(np.float64), 2.0**-24)).all()
    assert error.max() < 1e-6  # summing 3000 products in half precision would be off by 1e-3


def test_float32_against_the_bound_when_cancellation_is_heavy():
    rng = np.random.default_rng(4)
    W = rng.standard_normal((200, 1)) + 1e-3 * rng.standard_normal((200, 20))  # nearly parallel rows
    W = W.astype(np.float32)
    error = np.abs(capacities(W) / capacities(W.astype(float)) - 1)
    assert (error <= error_bound(W.astype(float), 2.0**-24)).all()


def same_library(module, make, back, W):
    """Check every function on ``make(W)``: right values, and an answer of the same kind."""
    array = make(W)
    for function in (capacities, leverages, interference, efficiency):
        answer = function(array)
        assert type(answer) is type(array), (module, function)
        assert answer.dtype == array.dtype
        np.testing.assert_allclose(back(answer), function(W), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 4), (2, 9, 4), (3, 4)])
def test_array_api_strict(shape):
    xp = pytest.importorskip("array_api_strict")
    W = np.random.default_rng(0).standard_normal(shape)
    W[..., 1, :] = 0
    same_library("strict", xp.asarray, np.asarray, W)
    same_library("strict", xp.asarray, np.asarray, W.astype(np.float32))
    assert capacities(xp.asarray([[1, 0], [0, 1], [0, 1]])).dtype == xp.float64


@pytest.mark.parametrize("measure", [capacities, interference, efficiency])
@pytest.mark.parametrize(("shape", "axis"), [((6, 3), -2), ((2, 6, 3), -2), ((3, 6), -1)])
def test_derivatives_in_pytorch_are_finite_differences(measure, shape, axis):
    torch = pytest.importorskip("torch")
    matrix = torch.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)
    assert torch.autograd.gradcheck(lambda W: measure(W, feature_axis=axis), matrix)


def test_derivatives_in_pytorch_of_many_blocks_and_of_zero_and_orthogonal_rows(monkeypatch):
    torch = pytest.importorskip("torch")
    matrix = torch.tensor(np.random.default_rng(0).standard_normal((7, 3)), requires_grad=True)
    capacities(matrix).square().sum().backward()
    whole = matrix.grad.clone()
    monkeypatch.setattr("capsolve.geometry.second_moment._ADD", 6)
    monkeypatch.setattr("capsolve.geometry.second_moment._MEASURE", 9)
    matrix.grad = None
    capacities(matrix).square().sum().backward()
    np.testing.assert_allclose(matrix.grad, whole, rtol=1e-12, atol=1e-14)
    flat = torch.nn.Parameter(torch.eye(4)[:, :3])
    capacities(flat).sum().backward()
    np.testing.assert_array_equal(flat.grad, np.zeros((4, 3)))  # 1 is the most that a capacity can be


def test_leverages_in_pytorch_have_no_derivatives():
    torch = pytest.importorskip("torch")
    assert not leverages(torch.nn.Parameter(torch.eye(3))).requires_grad


def test_pytorch():
    torch = pytest.importorskip("torch")
    W = np.random.default_rng(0).standard_normal((2, 9, 4))
    same_library("torch", torch.asarray, lambda t: t.numpy(), W)
    for kind in (torch.float16, torch.bfloat16):
        half = torch.asarray(W).to(kind)
        assert capacities(half).dtype == torch.float32
        np.testing.assert_allclose(capacities(half).numpy(), capacities(half.double().numpy()), rtol=1e-6)
    if torch.cuda.is_available():
        on_device = torch.asarray(W, device="cuda")
        assert capacities(on_device).device == on_device.device
        np.testing.assert_allclose(capacities(on_device).cpu().numpy(), capacities(W), rtol=1e-12)


def test_jax():
    jnp = pytest.importorskip("jax.numpy")
    W = np.random.default_rng(0).standard_normal((2, 9, 4)).astype(np.float32)
    same_library("jax", jnp.asarray, np.asarray, W)


@pytest.mark.filterwarnings("default")
def test_dask():
    da = pytest.importorskip("dask.array")
    W = np.random.default_rng(0).standard_normal((40, 4))
    same_library("dask", lambda a: da.from_array(a, chunks=(10, 4)), np.asarray, W)


class Chunks:
    """A Dask array that counts how often its chunks are made, and how many are in memory at a time."""

    def __init__(self, count):
        self.lock, self.made, self.alive, self.most = threading.Lock(), 0, 0, 0
        da = pytest.importorskip("dask.array")
        self.array = da.map_blocks(self.make, chunks=((64,) * count, (4,)), dtype=float, meta=np.empty((0, 0)))

    def make(self, block_info=None):
        chunk = np.random.default_rng(block_info[None]["chunk-location"]).standard_normal((64, 4))
        with self.lock:
            self.made, self.alive = self.made + 1, self.alive + 1
            self.most = max(self.most, self.alive)
        weakref.finalize(chunk, self.drop)
        return chunk

    def drop(self):
        with self.lock:
            self.alive -= 1


@pytest.mark.parametrize("function", [capacities, interference, leverages])
@pytest.mark.parametrize("count", [1, 60])
def test_dask_arrays_larger_than_memory(function, count):
    dask = pytest.importorskip("dask")
    chunks = Chunks(count)
    lazy = function(chunks.array)
    assert chunks.made == 0
    assert lazy.chunks == chunks.array.chunks[:1]
    with dask.config.set(scheduler="threads", num_workers=2):
        answer = lazy.compute()
    assert chunks.made == 2 * count
    # two at work, and some whose results wait to be merged
    assert chunks.most <= 12
    expected = function(chunks.array.compute(scheduler="synchronous"))
    np.testing.assert_allclose(answer, expected, rtol=1e-12, atol=1e-13)


def test_that_chunks_pile_up_would_be_noticed():
    dask = pytest.importorskip("dask")
    chunks = Chunks(60)
    W = chunks.array
    with dask.config.set(scheduler="threads", num_workers=2):
        (W @ (W.T @ W)).sum(axis=1).compute()
    assert chunks.made == 60
    assert chunks.most > 30


def test_bad_dask_arrays():
    da = pytest.importorskip("dask.array")
    W = np.ones((6, 2))
    W[4, 1] = np.nan
    lazy = da.from_array(W, chunks=(2, 1))
    with pytest.raises(ValueError, match="W must be finite"):
        capacities(lazy).compute(scheduler="synchronous")
    with pytest.raises(ValueError, match=r"known sizes.*compute_chunk_sizes"):
        capacities(lazy[lazy[:, 0] > 0])


BAD = {
    "one axis": (np.ones(3), "feature and a dimension axis"),
    "a number": (3.0, "feature and a dimension axis"),
    "no rows": (np.ones((0, 3)), "not be empty"),
    "no columns": (np.ones((3, 0)), "not be empty"),
    "NaN": ([[1.0, np.nan]], "finite"),
    "infinity": ([[1.0, 2.0], [-np.inf, 0.0]], "finite"),
    "complex": ([[1j, 2.0]], "real numbers"),
    "text": ([["a", "b"]], "real numbers"),
    "objects": (np.array([[None, 1]]), "real numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], "rectangular"),
}


@pytest.mark.parametrize("function", [capacities, leverages, interference, efficiency, capsolve.blocks])
@pytest.mark.parametrize("name", BAD)
def test_bad_input(function, name):
    W, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        function(W)


def test_bad_axis_and_eight_bit_floats():
    with pytest.raises(ValueError, match="feature_axis must be in"):
        capacities(np.ones((2, 2)), feature_axis=2)
    kinds = pytest.importorskip("ml_dtypes")
    np.testing.assert_array_equal(capacities(np.ones((2, 2), kinds.float8_e4m3fn)), [0.5, 0.5])
    with pytest.raises(ValueError, match="int4"):
        capacities(np.ones((2, 2), kinds.int4))


@pytest.mark.parametrize(("n", "D"), [(30, 20), (400, 40), (60, 3)])
def test_random_null(n, D):
    rng = np.random.default_rng(11)
    draws = rng.standard_normal((4_000_000 // (n * D), n, D))
    draws /= np.linalg.norm(draws, axis=-1, keepdims=True)
    total = capacities(draws).sum(axis=-1)
    null = random_capacity(n, D)
    excess = null * 2 * (D - 1) * (n - 1) / ((D + 2) * (n + D - 1) ** 2)
    error = total.std() / len(total) ** 0.5
    # The mean exceeds the null as stated; the series goes on in powers of 1/min(n, D).
    assert abs(total.mean() - null - excess) < 5 * error + 3 * excess / min(n, D)
    assert abs(total.mean() - random_capacity(n, D + 1)) > 5 * error


def test_random_null_at_the_ends():
    assert random_capacity(1, 5) == 1
    assert random_capacity(10, 1) == 1
    with pytest.raises(ValueError, match="features"):
        random_capacity(0, 3)


@pytest.mark.slow
def test_a_real_size_in_bounded_memory():
    W = np.random.default_rng(0).standard_normal((65_536, 2_304), dtype=np.float32)
    tracemalloc.start()
    try:
        C = capacities(W)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 256e6
    moment = np.zeros((2_304, 2_304))
    for k in range(0, len(W), 8192):
        block = W[k : k + 8192].astype(float)
        moment += block.T @ block
    some = W[::97].astype(float)
    truth = np.vecdot(some, some) ** 2 / np.vecdot(some @ moment, some)
    np.testing.assert_allclose(C[::97], truth, rtol=np.sqrt(len(W)) * np.finfo(np.float32).eps)
    some = W[:10_000]
    streamed = np.concatenate(list(stream_capacities(lambda: (some[k : k + 5000] for k in (0, 5000)))))
    np.testing.assert_allclose(streamed, capacities(some), rtol=100 * np.finfo(np.float32).eps)  # √n, as above
