"""Moments against exact rational arithmetic, over every way to cut, shift and scale the data."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from fractions import Fraction
from math import lcm, sqrt
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats

from capsolve import moments
from capsolve.moments import MINIMUM_SAMPLES, measure

# Σ y^p over N samples is a pairwise sum of products of p factors, re-centred a few times: relative errors of at most
# (p + log₂ N + some) · eps each, of which a kurtosis has three. Below 100 · eps = 2.2e-14 for all data here.
TOLERANCE = 1e-13


def exact(column):
    """Mean, variance, kurtosis and its squared standard error, with the size of the terms that cancel in it."""
    x = [Fraction(float(value)) for value in column]
    n = len(x)
    mean = sum(x) / n
    c = [value - mean for value in x]
    grid = lcm(*(value.denominator for value in c))
    c = [int(value * grid) for value in c]  # integers, for speed; only the variance knows the grid
    s2, s3, s4, s8 = (sum(value**p for value in c) for p in (2, 3, 4, 8))
    # the influence z⁴ − κ − 4 α₃ z − 2κ (z² − 1) of each sample on the kurtosis κ, times s2³
    influence = [s2 * n * (n * v**4 - s4 - 4 * s3 * v) - 2 * n * s4 * (n * v**2 - s2) for v in c]
    kurtosis = Fraction(n * s4, s2**2)
    error = Fraction(sum(i * i for i in influence), n**2 * s2**6)
    size = Fraction(n**3 * s8, s2**4) / n + 4 * kurtosis**3 / n
    return mean, Fraction(s2, n * grid**2), kurtosis, error, size


def naive_kurtosis(x):
    """The textbook one-pass formula from raw moments: the negative control."""
    r1, r2, r3, r4 = (np.mean(x**p, axis=0) for p in (1, 2, 3, 4))
    return (r4 - 4 * r1 * r3 + 6 * r1**2 * r2 - 3 * r1**4) / (r2 - r1**2) ** 2


def small_blocks(block, rows):
    return mock.patch.multiple(moments, _BLOCK=block, _LEAST_ROWS=rows)


def compiled_sums():
    pytest.importorskip("numba")
    from capsolve import _moment_sums

    return _moment_sums


ROUTES = {"NumPy": lambda: None, "Numba": compiled_sums}


def by(route):
    """Let one route sum up the blocks, whatever their size."""
    sums = ROUTES[route]()
    return mock.patch.object(moments, "_compiled", return_value=sums)


def samples(elements):
    return hnp.arrays(np.float64, st.tuples(st.integers(30, 40), st.integers(1, 2)), elements=elements)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


any_float = st.floats(-(2.0**1000), 2.0**1000)
tame_float = st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float)


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@given(samples(any_float | tame_float), st.integers(1, 40))
def test_any_data_in_any_blocks_against_exact_arithmetic(route, x, rows):
    with small_blocks(1, rows), by(route):
        got = measure(x)
    for i, column in enumerate(x.T):
        assert got.constant[i] == (len(set(column.tolist())) == 1)
        assert got.density[i] == np.count_nonzero(column) / len(column)
        if got.constant[i]:
            assert (got.mean[i], got.variance[i]) == (column[0], 0.0)
            assert (got.kurtosis[i], got.kurtosis_error[i]) == (3.0, 0.0)
            continue
        mean, variance, kurtosis, error, size = exact(column)
        assert abs(Fraction(got.mean[i]) - mean) <= Fraction(1e-15) * max(abs(v) for v in map(Fraction, column))
        assert got.kurtosis[i] == pytest.approx(float(kurtosis), rel=TOLERANCE)
        assert got.kurtosis[i] >= 1.0
        assert abs(got.kurtosis_error[i] ** 2 - float(error)) <= TOLERANCE * float(size)
        if 1e-300 < variance < 1e300:
            assert got.variance[i] == pytest.approx(float(variance), rel=TOLERANCE)


@given(samples(tame_float), st.lists(st.integers(0, 40), max_size=6))
def test_cutting_into_chunks_changes_no_bit(x, cuts):
    chunks = np.split(x, sorted(min(cut, len(x)) for cut in cuts))
    with small_blocks(1, 7):
        assert same(measure(x), measure(chunk for chunk in chunks))
        assert same(measure(x), measure(np.asfortranarray(x)))


@given(samples(tame_float), st.integers(0, 2**32))
def test_permuting_samples_and_columns(x, seed):
    rng = np.random.default_rng(seed)
    columns = rng.permutation(x.shape[1])
    with small_blocks(1, 7):
        a, b = measure(x), measure(rng.permutation(x)[:, columns])
    np.testing.assert_allclose(b.kurtosis, a.kurtosis[columns], rtol=2 * TOLERANCE)
    np.testing.assert_allclose(b.variance, a.variance[columns], rtol=2 * TOLERANCE)
    np.testing.assert_array_equal(b.density, a.density[columns])


@given(samples(tame_float.filter(lambda v: v == 0 or abs(v) > 1e-100)), st.integers(-600, 600))
def test_scaling_by_a_power_of_two_changes_no_bit(x, exponent):
    with small_blocks(1, 7):
        a, b = measure(x), measure(np.ldexp(x, exponent))
    np.testing.assert_array_equal(a.kurtosis, b.kurtosis)
    np.testing.assert_array_equal(a.kurtosis_error, b.kurtosis_error)
    np.testing.assert_array_equal(np.ldexp(a.mean, exponent), b.mean)


@given(samples(st.integers(-1000, 1000).map(float)), st.integers(-(2**50), 2**50))
def test_shifting_integers(x, shift):
    with small_blocks(1, 7):
        a, b = measure(x), measure(x + shift)
    np.testing.assert_allclose(b.kurtosis, a.kurtosis, rtol=2 * TOLERANCE)
    np.testing.assert_allclose(b.variance, a.variance, rtol=2 * TOLERANCE)


@pytest.mark.parametrize("route", ROUTES)
@given(samples(st.integers(-2, 2).map(float) | tame_float), st.sampled_from(["csr", "csc", "coo"]), st.data())
def test_sparse_as_dense(route, x, layout, data):
    x[:, -1] *= data.draw(st.booleans())  # a column without a stored entry
    cut = data.draw(st.integers(0, len(x)))
    dense = measure(x)
    matrix = sparse.coo_array(x).asformat(layout)
    with small_blocks(data.draw(st.sampled_from([1, 10, 2**18])), 1), by(route):
        whole = measure(matrix)
        mixed = measure([x[:cut], sparse.csr_matrix(x[cut:])])
    for got in (whole, mixed):
        np.testing.assert_allclose(got.kurtosis, dense.kurtosis, rtol=2 * TOLERANCE)
        np.testing.assert_allclose(got.variance, dense.variance, rtol=2 * TOLERANCE)
        np.testing.assert_allclose(got.mean, dense.mean, rtol=1e-14, atol=1e-15 * np.abs(x).max())
        np.testing.assert_array_equal(got.density, dense.density)
        np.testing.assert_array_equal(got.constant, dense.constant)
        assert got.samples == len(x)


def test_sparse_entries_stored_twice_or_as_zero():
    x = np.zeros((40, 2))
    x[3, 0] = 5.0
    matrix = sparse.coo_array(([2.0, 3.0, 0.0], ([3, 3, 9], [0, 0, 1])), shape=x.shape)
    assert same(measure(matrix), measure(sparse.csr_array(x)))
    unsummed = sparse.csr_array(([2.0, 3.0], [0, 0], [0] * 4 + [2] * 37), shape=(40, 2))
    assert same(measure(unsummed), measure(sparse.csr_array(x)))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("offset", [1e5, -1e8, 1e12])
def test_large_offset_where_the_textbook_formula_fails(route, offset):
    z = np.random.default_rng(1).integers(-50, 50, size=(2000, 2)).astype(float)
    wanted = np.array([float(exact(column)[2]) for column in z.T])
    with small_blocks(2**11, 8), by(route):
        np.testing.assert_allclose(measure(z + offset).kurtosis, wanted, rtol=TOLERANCE)
    np.testing.assert_allclose(naive_kurtosis(z), wanted, rtol=1e-12)  # without an offset it is right
    with np.errstate(all="ignore"):
        assert not np.allclose(naive_kurtosis(z + offset), wanted, rtol=1e-3)


def test_a_drifting_scale_over_chunks():
    """Later chunks 1e250 times larger, then back: the unit must follow, and earlier samples count as zeros."""
    rng = np.random.default_rng(2)
    parts = [scale * rng.standard_normal((50, 1)) for scale in (1e-200, 1e50, 1e-200)]
    with small_blocks(1, 10):
        got = measure(parts)
    assert got.kurtosis[0] == pytest.approx(float(exact(np.concatenate(parts)[:, 0])[2]), rel=TOLERANCE)


def test_many_samples_against_scipy():
    x = np.random.default_rng(3).gamma(2.0, size=(200_000, 3))
    got = measure(x)
    np.testing.assert_allclose(got.kurtosis, stats.kurtosis(x, fisher=False), rtol=1e-12)
    np.testing.assert_allclose(got.mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(got.variance, x.var(axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, ">f8", np.longdouble, np.int8, np.uint64, np.bool_, "bfloat16"]
)
def test_dtypes(dtype):
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    x = np.random.default_rng(4).integers(0, 9, size=(100, 3)).astype(dtype)
    assert same(measure(x), measure(x.astype(np.float64)))


def test_forms_of_input():
    x = np.random.default_rng(5).standard_normal((100, 3))
    wanted = measure(x)
    assert same(measure(x.tolist()), wanted)  # nested list
    assert same(measure(list(x)), wanted)  # list of rows
    assert same(measure([x[:40], x[40:]]), wanted)  # list of chunks
    assert same(measure(iter([x[:40].tolist(), x[40:]])), wanted)
    assert same(measure(np.repeat(x, 2, axis=0)[::2]), wanted)  # strided

    class Dataset:  # as h5py's: a shape and slices
        shape = x.shape

        def __getitem__(self, rows):
            return x[rows]

    assert same(measure(Dataset()), wanted)


# ------------------------------------------------------------------ threads and compiled code


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "columns"), [(300, 1500), (2000, 70), (40_000, 3), (70_000, 1)])
def test_compiled_sums_are_those_of_numpy_to_the_last_bit(dtype, rows, columns):
    rng = np.random.default_rng(10)
    x = (rng.standard_normal((rows, columns)) ** 3 + rng.standard_normal(columns)).astype(dtype)
    x[rng.random(x.shape) < 0.3] = 0.0
    module = compiled_sums()
    with mock.patch.multiple(moments, _BLOCK=2**14, _LEAST_ROWS=8):
        with by("NumPy"):
            wanted = measure(x)
        with by("Numba"), mock.patch.object(module, "Dense", wraps=module.Dense) as dense:
            assert same(measure(x), wanted)
            assert dense.call_count >= 2
            assert same(measure(np.array_split(x, 7)), wanted)
        with by("Numba"), mock.patch.object(moments, "_THREADS", 1):
            assert same(measure(x), wanted)
    assert module.works


@pytest.mark.parametrize("route", ROUTES)
def test_long_sparse_columns_against_exact_arithmetic(route):
    rng = np.random.default_rng(11)
    x = rng.gamma(1.0, size=(20_000, 2)) * (rng.random((20_000, 2)) < [0.9, 0.1]) + [0.0, 0.5]
    with by(route):
        got = measure(sparse.csr_array(x))
    for i, column in enumerate(x.T):
        mean, variance, kurtosis, error, _ = exact(column)
        assert got.mean[i] == pytest.approx(float(mean), rel=1e-14)
        assert got.variance[i] == pytest.approx(float(variance), rel=1e-14)
        assert got.kurtosis[i] == pytest.approx(float(kurtosis), rel=TOLERANCE)
        assert got.kurtosis_error[i] ** 2 == pytest.approx(float(error), rel=TOLERANCE)


def test_many_narrow_samples_far_from_zero_against_exact_arithmetic():
    """All their distances from the mean are positive or a large negative one: errors of a long sum would add up."""
    z = np.random.default_rng(12).integers(0, 3, size=(300_000, 1)).astype(float)
    z[::1000] = -50.0
    mean, variance, kurtosis, *_ = exact(z[:, 0])
    got = measure(z + 1e8)
    assert got.mean[0] - 1e8 == pytest.approx(float(mean), abs=2e-8)
    assert got.variance[0] == pytest.approx(float(variance), rel=1e-14)
    assert got.kurtosis[0] == pytest.approx(float(kurtosis), rel=1e-14)


def test_a_chunk_may_be_written_to_when_the_next_one_is_asked_for():
    x = np.random.default_rng(13).standard_normal((64, 500, 20))

    def refilled():
        chunk = np.empty(x.shape[1:])
        for part in x:
            chunk[:] = part
            yield chunk

    with small_blocks(2**12, 8):
        assert same(measure(refilled()), measure(x.reshape(-1, 20)))


def test_a_sparse_matrix_is_left_as_it_is():
    matrix = sparse.csr_array(([2.0, 3.0], [1, 1], [0] * 4 + [2] * 37), shape=(40, 2))
    measure(matrix)
    assert matrix.nnz == 2


def test_where_compiled_code_fails_numpy_answers(caplog):
    class Broken:
        works = True

        def Dense(self, rows):
            raise RuntimeError("no such instruction")

    broken, x = Broken(), np.random.default_rng(14).standard_normal((10_000, 20))
    with small_blocks(2**12, 8), caplog.at_level("DEBUG", "capsolve"):
        wanted = measure(x)
        with mock.patch.object(moments, "_compiled", return_value=broken):
            assert same(measure(x), wanted)
    assert not broken.works
    assert "no such instruction" in caplog.text


def in_a_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_compiled_code_is_loaded_for_large_arrays_only():
    pytest.importorskip("numba")
    code = """
import sys, numpy as np
from capsolve import moments
moments.measure(np.ones((100_000, 10)))
print("numba" in sys.modules)
moments.COMPILED_VALUES = 10**6
moments.measure(np.ones((100, 10)) for _ in range(900))
print("numba" in sys.modules)
moments.measure(np.ones((100_000, 10)))
print("numba" in sys.modules)
"""
    assert in_a_process(code) == ["False", "False", "True"]


def test_without_numba_large_arrays_are_numpys():
    code = """
import sys, numpy as np
sys.modules["numba"] = None
from capsolve import moments
moments.COMPILED_VALUES = 0
print(moments.measure(np.arange(600_000.0).reshape(-1, 2)).samples, moments._compiled(1))
"""
    assert in_a_process(code) == ["300000", "None"]


def test_no_thread_is_left_behind():
    def interrupted():
        yield np.ones((2**16, 20))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(interrupted())
    with pytest.raises(ValueError, match="got nan at row 65535, column 19"):
        measure(np.where(np.arange(20 * 2**16).reshape(-1, 20) == 20 * 2**16 - 1, np.nan, 1.0))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("capsolve-moments")]


# ------------------------------------------------------------------ the standard error


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, size: rng.standard_normal(size),
        lambda rng, size: rng.uniform(-1, 1, size),
        lambda rng, size: rng.gamma(4.0, size=size),
        lambda rng, size: np.abs(rng.uniform(-1, 1, size)) * (rng.random(size) < 0.4),
    ],
    ids=["gaussian", "uniform", "gamma", "sparse"],
)
def test_standard_error_against_the_bootstrap(draw):
    n, resamples = 4000, 1000
    rng = np.random.default_rng(6)
    x = draw(rng, n)
    got = measure(x[:, None]).kurtosis_error[0]
    bootstrap = measure(x[rng.integers(n, size=(n, resamples))]).kurtosis.std()
    # the bootstrap's own error is (up to its kurtosis) 1/√(2·1000) = 2.2 %; the delta method's is of order 1/√n
    assert got == pytest.approx(bootstrap, rel=0.1)


def test_the_bootstrap_rejects_an_error_that_forgets_the_moving_mean():
    """Negative control: without the term 4 α₃ z the error of a skew variable is well off."""
    n, resamples = 4000, 1000
    rng = np.random.default_rng(6)
    x = rng.random(n) ** 3
    z = (x - x.mean()) / x.std()
    kurtosis = (z**4).mean()
    forgetful = np.std(z**4 - 2 * kurtosis * z**2) / sqrt(n)
    bootstrap = measure(x[rng.integers(n, size=(n, resamples))]).kurtosis.std()
    assert measure(x[:, None]).kurtosis_error[0] == pytest.approx(bootstrap, rel=0.1)
    assert forgetful != pytest.approx(bootstrap, rel=0.1)


def test_standard_error_of_a_gaussian_is_24_over_n():
    n = 10**6
    x = stats.norm.ppf((np.arange(n) + 0.5) / n)[:, None]  # as Gaussian as n samples can be
    assert measure(x).kurtosis_error[0] == pytest.approx(sqrt(24 / n), rel=0.01)


def test_plus_and_minus_one_have_kurtosis_one_without_error():
    x = np.tile([[0.3], [0.1]], (500, 1))
    got = measure(x)
    assert 1.0 <= got.kurtosis[0] <= 1.0 + TOLERANCE
    assert got.kurtosis_error[0] <= sqrt(TOLERANCE * 10 / 1000)


# ------------------------------------------------------------------ memory


@pytest.mark.slow
def test_memory_mapped_file_is_read_in_constant_memory(tmp_path):
    shape = (2**19, 64)  # 256 MiB
    file = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float64, shape=shape)
    rng = np.random.default_rng(7)
    for start in range(0, shape[0], 2**15):
        file[start : start + 2**15] = rng.random((2**15, 64))
    file.flush()
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        got = measure(mapped)
        peak = tracemalloc.get_traced_memory()[1]
        np.array(mapped[: 2**17])
        control = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert control > 64e6  # the meter does see arrays
    np.testing.assert_allclose(got.kurtosis, 9 / 5, atol=6 * got.kurtosis_error.max())
    assert got.kurtosis_error.max() < 0.002


def test_sparse_matrix_is_not_made_dense():
    matrix = sparse.random_array((10_000, 10_000), density=1e-4, rng=np.random.default_rng(8), format="csr")
    tracemalloc.start()
    try:
        measure(matrix)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6  # dense: 800 MB


# ------------------------------------------------------------------ bad input

GOOD = np.random.default_rng(9).standard_normal((40, 3))


def with_entry(value, row=37, column=2):
    x = GOOD.copy()
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (with_entry(np.nan), "must be finite, got nan at row 37, column 2"),
        (with_entry(-np.inf), "must be finite, got -inf at row 37, column 2"),
        (with_entry(1e305), r"within ±1.07e\+301, got 1e\+305 at row 37, column 2"),
        (iter([GOOD, GOOD, with_entry(np.nan)]), "got nan at row 117, column 2"),
        (sparse.csc_array(with_entry(np.nan)), "got nan at row 37, column 2"),
        ([GOOD, sparse.csr_array(with_entry(np.nan))], "got nan at row 77, column 2"),
        (GOOD[:29], "at least 30 samples, got 29"),
        ([], "must be samples × features"),
        (iter([]), "at least 30 samples, got 0"),
        (iter([GOOD[:0]]), "at least 30 samples, got 0"),
        (GOOD[:, 0], r"must be samples × features or batch × position × feature, got shape \(40,\)"),
        (GOOD[None, None], r"must be .* batch × position × feature, got shape \(1, 1, 40, 3\)"),
        (iter(GOOD), r"must be samples × features or batch × position × feature, got shape \(3,\)"),
        (GOOD[:, :0], "at least one column"),
        (
            iter([GOOD, GOOD[:, :2]]),
            "same columns in every chunk: 3 at first, 2 in the chunk that starts at row 40",
        ),
        (GOOD.astype(str), "real numbers, got dtype <U"),
        (GOOD + 1j, "real numbers, got dtype complex128"),
        (sparse.csr_array(GOOD + 1j), "real numbers, got dtype complex128"),
        (GOOD.astype(object), "real numbers, got dtype object"),
        (GOOD.astype("M8[s]"), "real numbers, got dtype datetime64"),
        ([[1.0, 2.0], [3.0]], "rectangular"),
        (b"activations.npy", "must be arrays, got b'activations.npy'"),
        (3.0, "got float"),
        (None, "got NoneType"),
        (np.ma.masked_array(GOOD, mask=GOOD > 1), "must not be masked"),
    ],
)
def test_bad_activations(activations, message):
    with pytest.raises(ValueError, match=message):
        measure(activations)


def test_three_axes_are_batch_position_and_feature():
    stacked = np.stack([GOOD, 2.0 * GOOD])
    for samples in (stacked, iter([stacked[:1], stacked[1:]])):
        found = measure(samples)
        assert found.samples == 80
        np.testing.assert_array_equal(found.variance, measure(stacked.reshape(80, 3)).variance)


def test_the_row_named_is_right_in_later_blocks():
    with small_blocks(1, 7), pytest.raises(ValueError, match="got nan at row 37, column 2"):
        measure(with_entry(np.nan))


def test_least_number_of_samples_is_accepted():
    assert measure(GOOD[:MINIMUM_SAMPLES]).samples == MINIMUM_SAMPLES


def test_moments_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        measure(GOOD).kurtosis[0] = 1.0


def test_repr_and_progress(capsys):
    assert repr(measure(GOOD)) == "Moments(40 samples, 3 features, 0 constant)"
    assert capsys.readouterr() == ("", "")
    measure(GOOD, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "40.0/40.0" in err
