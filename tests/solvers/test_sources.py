"""The passes over the data, and arrays of other libraries: these get the answer that NumPy gets, in kind."""

import tracemalloc

import numpy as np
import pytest

import capsolve
from capsolve._arrays import to_numpy
from capsolve.certificate import CertificateTerms
from capsolve.losses.quadratic import feature_terms
from capsolve.solvers.quadratic import solve_source
from capsolve.solvers.routes import Route
from capsolve.solvers.sources import (
    ArrayAPISource,
    InvalidEntry,
    NumPySource,
    PriceAndExceptions,
    ScaleInterval,
    Screening,
    raise_worst,
    rounded,
    spread_out,
    valid_sample,
)
from tests.routes import HARDLY_ANY, SmallBlocks, numba_source

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
    monkeypatch.setattr(ArrayAPISource, "BLOCK", 512)


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
            answer = answer._replace(free_index=answer.free_index[:-1], capacity=answer.capacity[:-1])
        if break_it == "block":
            answer = answer._replace(free_index=answer.free_index + 1)
        return write(self, answer, unit)

    write = ArrayAPISource.write
    monkeypatch.setattr(ArrayAPISource, "write", spoiled)
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
    np.testing.assert_array_equal(capsolve.QuadraticLoss(v, 9.0).to_numpy().importance, [2.0, 1.0, 1.0])
    assert capsolve.QuadraticLoss(v.to(torch.bfloat16), 9.0).importance.dtype == torch.float32


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
        single = rounded(column, xp.float32, xp)
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
    monkeypatch.setattr(ArrayAPISource, "BLOCK", 1 << 12)
    n = 1 << 17
    # 16 columns of a block, 8 of the sample, and 8 of the 3 % or so that are free
    assert peak_memory(make, n) < 4 * n + 8 * (16 * 2**12 + 8 * 2**14 + 8 * 0.03 * n)
    monkeypatch.setattr(ArrayAPISource, "BLOCK", n)
    assert peak_memory(make, n) > 40 * n  # and would be noticed


X = strict("CPU_DEVICE", np.float64)
BAD = {
    "NaN": (lambda: (X([1.0, np.nan]), 9.0), "importance must be finite, got nan at index 1"),
    "infinite kurtosis": (lambda: (X([1.0, 2.0]), X([3.0, np.inf])), "kurtosis must be finite, got inf at index 1"),
    "negative": (lambda: (X([1.0, 2.0, -3.0]), 9.0), r"importance must be >= 0, got -3.0 at index 2"),
    "small kurtosis": (lambda: (X([1.0, 2.0]), X([0.5, 3.0])), "kurtosis must be >= 1, got 0.5 at index 0"),
    "small scalar": (lambda: (X([1.0]), 0.5), "kurtosis must be >= 1, got 0.5"),
    "overflow": (lambda: (X([1.0, 1e250]), X([9.0, 1e90])), r"sum to less than .* got 1e\+250 × 1e\+90 at index 1"),
    "large kurtosis": (
        lambda: (X([1.0, 2.0]), X([9.0, 1e101])),
        r"kurtosis must be <= 1e\+100, got 1e\+101 at index 1",
    ),
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
    monkeypatch.setattr(ArrayAPISource, "BLOCK", 1)
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        capsolve.solve(*(*make(), 1.0)[:3])


# --- the passes over NumPy arrays -----------------------------------------------------------------------------------

LOCAL = {"NumPy": lambda: NumPySource, "NumPy, small blocks": lambda: SmallBlocks, "Numba": numba_source}


@pytest.fixture(params=LOCAL)
def kind(request):
    source = LOCAL[request.param]()
    yield source
    assert getattr(source, "works", True), "the compiled passes have given up"


@pytest.mark.parametrize("scale", [1e-120, 1.0, 1e120])
def test_terms_are_those_of_the_capacities(kind, scale):
    rng = np.random.default_rng(2)
    n = 10_000
    v = scale * rng.lognormal(0, 1, n)
    k = np.where(rng.random(n) < 0.2, rng.uniform(1, 3, n), 3 + rng.exponential(9, n))
    listed = np.sort(rng.choice(n, 50, replace=False))
    answer = PriceAndExceptions(2.0 * scale, 0.0, 2.1 * scale, listed, rng.random(50))
    capacity, terms = kind(v, k).write(answer, scale)
    np.testing.assert_array_equal(capacity[listed], answer.capacity)
    model = capsolve.QuadraticLoss(v / scale, k)
    marginal, gap = model.marginal(capacity), model.lagrangian_gap(capacity, 2 * 2.1**2)
    assert (gap >= -1e-12).all()
    assert terms == CertificateTerms(
        used=pytest.approx(capacity.sum(), rel=1e-14),
        empty=np.count_nonzero(capacity == 0),
        full=np.count_nonzero(capacity == 1),
        loss=pytest.approx(model.feature_loss(capacity).sum(), rel=1e-13),
        max_marginal_unsaturated=pytest.approx(marginal[capacity < 1].max(), rel=1e-13),
        min_marginal_active=pytest.approx(marginal[capacity > 0].min(), rel=1e-13),
        lagrangian_gap=pytest.approx(gap.sum(), rel=1e-12),
    )


@pytest.mark.parametrize("make", [strict("CPU_DEVICE", np.float64), strict("no_float64", np.float32)])
def test_terms_are_the_same_in_arrays(make, monkeypatch):
    monkeypatch.setattr(ArrayAPISource, "BLOCK", 77)
    rng = np.random.default_rng(3)
    v = rng.lognormal(0, 1, 500).astype(np.float32).astype(float)
    k = (
        np.where(rng.random(500) < 0.3, rng.uniform(1, 3, 500), 3 + rng.exponential(9, 500))
        .astype(np.float32)
        .astype(float)
    )
    listed = np.sort(rng.choice(500, 50, replace=False))
    answer = PriceAndExceptions(0.8, 0.0, 0.9, listed, rng.random(50))
    capacity, terms = ArrayAPISource(make(v), make(k)).write(answer, 2.0)
    expected, other = NumPySource(v, k).write(answer, 2.0)
    np.testing.assert_allclose(to_numpy(capacity), expected, rtol=1e-7, atol=1e-15)
    for name in terms._fields:  # sums over other blocks
        assert getattr(terms, name) == pytest.approx(getattr(other, name), rel=1e-13), name


def test_the_certificate_refuses_a_wrong_price(kind):
    """Negative control: capacities written at a price a millionth beside the right one."""
    rng = np.random.default_rng(0)
    v, k = rng.lognormal(0, 1, 5000), 3 + rng.exponential(20, 5000)
    for factor in (1 + 1e-6, 1 - 1e-6):

        class Beside(kind):
            beside = factor

            def write(self, answer, unit):
                return super().write(answer._replace(scale=answer.scale * self.beside), unit)

        route = Route("beside", source=Beside, limits=HARDLY_ANY)
        model = capsolve.QuadraticLoss(v, k)
        assert capsolve.allocate(model, 500.3, route=route).status is not capsolve.Status.OPTIMAL
    right = Route("right", source=kind, limits=HARDLY_ANY)
    assert capsolve.allocate(model, 500.3, route=right).status is capsolve.Status.OPTIMAL


@pytest.mark.parametrize(
    ("importance", "kurtosis", "message"),
    [
        (np.nan, 4.0, "importance must be finite, got nan at index 77"),
        (np.inf, 4.0, "importance must be finite, got inf at index 77"),
        (-1.0, 4.0, r"importance must be >= 0, got -1.0 at index 77"),
        (1.0, np.nan, "kurtosis must be finite, got nan at index 77"),
        (1.0, np.inf, "kurtosis must be finite, got inf at index 77"),
        (1.0, 0.5, "kurtosis must be >= 1, got 0.5 at index 77"),
        (1.0, 1.1e100, r"kurtosis must be <= 1e\+100, got 1.1e\+100 at index 77"),
        (1e300, 1e100, "importance × kurtosis must sum to less"),
    ],
)
def test_the_first_pass_validates(kind, importance, kurtosis, message):
    rng = np.random.default_rng(0)
    v, k = rng.random(9000), 3 + rng.exponential(20, 9000)
    v[77], k[77] = importance, kurtosis
    with pytest.raises(ValueError, match=message), np.errstate(all="ignore"):
        solve_source(kind(v, k), 5.0, Route("under test", source=kind, limits=HARDLY_ANY))


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


def test_a_sample_leaves_out_what_is_invalid():
    v = np.array([1.0, np.nan, -1.0, 2.0, 3.0, 1e300, 4.0])
    k = np.array([4.0, 4.0, 4.0, 0.5, 1e101, 1e99, 1e100])
    some_v, some_k = valid_sample(v, k)
    np.testing.assert_array_equal(some_v, [1.0, 4.0])
    np.testing.assert_array_equal(some_k, [4.0, 1e100])


@np.errstate(all="ignore")
def test_a_screening_is_that_of_its_parts(kind):
    rng = np.random.default_rng(4)
    v, k = rng.lognormal(0, 1, 100), rng.uniform(1, 9, 100)
    v[::7] = 0.0
    interval = ScaleInterval(0.5, 1.0, 1.2)
    whole = kind(v, k).screen(interval)
    parts = [(start, kind(v[start : start + 30], k[start : start + 30]).screen(interval)) for start in (0, 30, 60, 90)]
    merged = Screening.merge(parts)
    for name in merged._fields:
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-14, err_msg=name)
    np.testing.assert_array_equal(merged.importance, v[merged.free_index])
    for index, value in ((3, np.nan), (50, -1.0), (99, np.inf)):
        bad = v.copy()
        bad[index] = value
        assert not kind(bad, k).screen(interval).is_valid
    assert not kind(v, np.where(k > 5, 1e101, k)).screen(interval).is_valid


def test_an_answer_of_a_part():
    answer = PriceAndExceptions(1.0, 1e-17, 1.1, np.array([2, 5, 9]), np.array([0.1, 0.2, 0.3]))
    part = answer.section(5, 10)
    np.testing.assert_array_equal(part.free_index, [0, 4])
    np.testing.assert_array_equal(part.capacity, [0.2, 0.3])
    assert part[:3] == (1.0, 1e-17, 1.1)
    assert answer.section(6, 9).free_index.size == 0


def test_the_first_that_is_wrong_is_named_or_else_the_largest():
    entries = [
        InvalidEntry.of(np.array([1.0, 5.0]), np.array([3.0, 9.0]), 0),
        InvalidEntry.of(np.array([1.0, -2.0]), np.array([3.0, 9.0]), 2),
        InvalidEntry.of(np.array([np.nan, 1.0]), np.array([3.0, 9.0]), 4),
    ]
    with pytest.raises(ValueError, match=r"got -2\.0 at index 3"):
        raise_worst(entries)
    with pytest.raises(ValueError, match="at index 1"):
        raise_worst([entries[0], InvalidEntry.of(np.array([1.0]), np.array([3.0]), 2)])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64])
def test_numpy_of_other_precisions(dtype):
    v, k = np.array([4, 2, 1, 1]).astype(dtype), np.array([9, 5, 2, 12]).astype(dtype)
    model = capsolve.QuadraticLoss(v, k)
    expected = capsolve.solve(v.astype(float), k.astype(float), 2.0).capacity
    for limits in (HARDLY_ANY, Route("").limits):
        capacity = capsolve.allocate(model, 2.0, route=Route("NumPy", limits=limits)).capacity
        assert capacity.dtype == np.float64
        np.testing.assert_allclose(capacity, expected, rtol=0, atol=1e-15)


def test_feature_terms_in_any_namespace():
    xp = pytest.importorskip("array_api_strict")
    rng = np.random.default_rng(5)
    v, k, c = rng.lognormal(0, 1, 50), rng.choice([1.0, 1.5, 3.0, 9.0], 50), rng.choice([0.0, 0.4, 1.0], 50)
    plain = feature_terms(v, k, c, 0.7)
    other = feature_terms(*(xp.asarray(column) for column in (v, k, c)), 0.7, xp)
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_allclose(one, to_numpy(two), rtol=1e-15, atol=1e-16)
