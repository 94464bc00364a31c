"""Central moments of many columns in one pass over their samples, in memory that the samples do not fill.

A block of samples is summed up, per column, by the powers of its distance from a centre near the mean, Σ ((x
− centre) / 2^unit)^p for p = 0 … 8. Two summaries merge when both are re-centred on their common mean and
added: Pébay's formulas for arbitrary-order moments (SAND2008-6212, 2008). Blocks are merged two by two like
the digits of a binary counter, so that rounding errors grow with the logarithm of the number of blocks. The
unit, a power of two per column, keeps eighth powers away from overflow and underflow whatever the column's
scale.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._arrays import cut_by_rows, to_numpy
from capsolve._checks import FloatArray

logger = logging.getLogger(__name__)

MINIMUM_SAMPLES = 30
"""The fewest samples accepted. Heavy tails need far more: see `Moments.kurtosis_error`."""

LARGEST_ENTRY = 2.0**1000
"""The largest absolute value of an activation, 1.07e301: below it differences and means cannot overflow."""

_ORDER = 8  # the standard error of a kurtosis needs the eighth moment
_ALL = 64  # halvings: until one is left
_BLOCK = 2**20  # values per block: 8 MB of float64
_LEAST_ROWS = 64  # per block, however wide the data: below this, merging would cost more than summing
_STEPS = 64  # from twice as many rows on they are added up in several lanes: a column has no longer sum than this
_SIMPLE = 8  # columns from which on NumPy adds up rows one after another
_PANEL = 2**15  # values that NumPy has at work: 256 KB of float64
_THREADS = min(4, os.cpu_count() or 1)  # more would wait for the memory

COMPILED_VALUES = 2**25
"""From so many values on compiled sums save more time than it takes to import Numba."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What was measured, column by column; every array has shape (n,) and cannot be written to.

    All are statistics of the population kind (divided by the number of samples N, not N − 1).
    """

    samples: int
    """N, the number of samples."""
    mean: FloatArray
    variance: FloatArray
    """m₂ = Σ (x − mean)² / N, in squared units of the activations; 0 or inf where float64 cannot hold it."""
    kurtosis: FloatArray
    """m₄ / m₂² (Pearson's), and 3 where `constant`, as a placeholder for what is not defined."""
    kurtosis_error: FloatArray
    """The standard error of the kurtosis for independent samples, to first order in 1/N; 0 where `constant`.

    It is itself an estimate, from the eighth moment: with heavy tails that N samples have not shown yet it is
    too small, like the kurtosis itself, which cannot exceed N.
    """
    density: FloatArray
    """The share of samples that are not zero, 0 … 1."""
    constant: npt.NDArray[np.bool_]
    """Where all samples are equal."""

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            getattr(self, field.name).setflags(write=False)

    def __repr__(self) -> str:
        return f"Moments({self.samples} samples, {self.mean.size} features, {self.constant.sum()} constant)"


def measure(activations: Any, *, progress: bool = False) -> Moments:
    """Return the moments of each column; `Profile.from_activations` says what ``activations`` may be."""
    with _Stream(_size(activations)) as stream:
        parts = (rows for chunk in _chunks(activations) for rows in stream.add(chunk))
        if progress:
            from tqdm import tqdm  # noqa: PLC0415  (which starts a thread)

            total = activations.shape[0] if _is_array(activations, ndim=2) else None
            with tqdm(total=total, unit=" samples", unit_scale=True) as bar:
                for rows in parts:
                    bar.update(rows)
        else:
            deque(parts, maxlen=0)
        return stream.finish()


def _size(activations: Any) -> int:
    """Return the number of values, the stored ones of a sparse matrix, where it is known; else 0."""
    if not _is_array(activations):
        return 0
    return int(activations.nnz) if _is_sparse(activations) else math.prod(activations.shape)


@dataclass(frozen=True)
class _Summary:
    """Some samples, reduced per column to sums of powers of (x − centre) / 2^unit and the extremes of x."""

    sums: FloatArray  # (9, n): Σ ((x − centre) / 2^unit)^p in row p; row 1 is not quite 0
    centre: FloatArray
    unit: npt.NDArray[np.int32]
    low: FloatArray
    high: FloatArray
    nonzero: FloatArray

    @property
    def samples(self) -> int:
        return int(self.sums[0, 0])


class _Dense:
    """Samples in rows, of float32 or float64."""

    def __init__(self, rows: FloatArray) -> None:
        self._rows = rows

    def extremes(self) -> FloatArray:
        """Return minimum, maximum, sum and number of nonzeros of each column, shape (4, n)."""
        out = np.empty((4, self._rows.shape[1]))
        for panel, rows in self._panels():
            out[:, panel] = rows.min(axis=0), rows.max(axis=0), _sum(rows), _sum(rows != 0.0)
        return out

    def power_sums(self, centre: FloatArray, scale: FloatArray) -> FloatArray:
        """Return Σ ((x − centre) · scale)^p of each column, p = 1 … 8, shape (8, n)."""
        out = np.empty((_ORDER, self._rows.shape[1]))
        for panel, rows in self._panels():
            distance = rows - centre[panel]
            distance *= scale[panel]
            power = distance.copy()
            for p in range(_ORDER):
                out[p, panel] = _sum(power)
                power *= distance
        return out

    def _panels(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield some columns at a time, in float64: what is computed of them stays in the cache."""
        rows, columns = self._rows.shape
        step = max(1, _PANEL // rows)
        for start in range(0, columns, step):
            panel = slice(start, start + step)
            yield panel, self._rows[:, panel].astype(np.float64, copy=False)


class _Sparse:
    """The entries of a sparse matrix that are not zero, none of them stored twice."""

    def __init__(self, matrix: Any) -> None:
        matrix = matrix.tocsc()
        matrix.eliminate_zeros()
        self._values, self._stored = matrix.data.astype(np.float64, copy=False), np.diff(matrix.indptr)
        self._filled = np.flatnonzero(self._stored)
        self._starts = matrix.indptr[:-1][self._filled]

    def extremes(self) -> FloatArray:
        """Return minimum, maximum, sum and number of each column's, shape (4, n)."""
        folds = ((np.minimum, np.inf), (np.maximum, -np.inf), (np.add, 0.0))
        return np.array([*(self._fold(ufunc, self._values, empty) for ufunc, empty in folds), self._stored])

    def power_sums(self, centre: FloatArray, scale: FloatArray) -> FloatArray:
        """Return Σ ((x − centre) · scale)^p of each column, p = 1 … 8, shape (8, n)."""
        out = np.empty((_ORDER, self._stored.size))
        distance = (self._values - np.repeat(centre, self._stored)) * np.repeat(scale, self._stored)
        power = distance.copy()
        for p in range(_ORDER):
            out[p] = self._fold(np.add, power, 0.0)
            power *= distance
        return out

    def _fold(self, ufunc: np.ufunc, entries: npt.NDArray[Any], empty: float) -> FloatArray:
        out = np.full(self._stored.size, empty)
        if self._filled.size:
            out[self._filled] = ufunc.reduceat(entries, self._starts, dtype=np.float64)  # pairwise, as np.sum
        return out


def _sum(rows: npt.NDArray[Any], halvings: int = 2) -> FloatArray:
    """Add up rows, halves first: then the sums that are left to be added one by one have few terms."""
    for _ in range(halvings):
        if len(rows) % 2:
            break
        half = len(rows) // 2
        rows = np.add(rows[:half], rows[half:], dtype=np.float64)
    out: FloatArray = np.add.reduce(rows, axis=0, dtype=np.float64)
    return out


def _summarise(part: _Dense | _Sparse, rows: int, lanes: int, *, zeros_left_out: bool) -> _Summary | None:
    """Sum up so many ``rows``; None where an entry is bad.

    Each column may come in several ``lanes``, the columns i, i + n, i + 2n, … of ``part``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        low, high, total, nonzero = part.extremes().reshape(4, lanes, -1)
    low, high, total, nonzero = low.min(axis=0), high.max(axis=0), _sum(total, _ALL), _sum(nonzero, _ALL)
    zeros = rows - nonzero if zeros_left_out else np.zeros(nonzero.size)
    beside = np.where(zeros > 0, 0.0, np.nan)  # fmin and fmax pass over NaN
    low, high = np.fmin(low, beside), np.fmax(high, beside)
    if not (np.isfinite(total).all() and low.min() >= -LARGEST_ENTRY and high.max() <= LARGEST_ENTRY):
        return None
    centre = np.clip(total / rows, low, high)
    unit = _exponent(np.maximum(high - centre, centre - low))
    scale = np.ldexp(1.0, -unit)
    sums = np.empty((_ORDER + 1, centre.size))
    sums[0] = rows
    found = part.power_sums(np.tile(centre, lanes), np.tile(scale, lanes)).reshape(_ORDER, lanes, -1)
    sums[1:] = _sum(found.swapaxes(0, 1), _ALL)
    if zeros_left_out:
        distance = -np.where(zeros > 0, centre, 0.0) * scale
        sums[1:] += zeros * np.cumprod(np.broadcast_to(distance, (_ORDER, distance.size)), axis=0)
    return _Summary(sums, centre, unit, low, high, nonzero)


def _summarise_rows(rows: FloatArray, compiled: Any = None) -> _Summary | None:
    """Sum up dense samples; where they are many, in several lanes each, so that narrow data become wide."""
    count, columns = rows.shape
    lanes = 1 << max(0, (count // _STEPS).bit_length() - 1)
    steps = count // lanes
    whole = steps * lanes
    wide = np.ascontiguousarray(rows[:whole]).reshape(steps, lanes * columns)
    same = steps % 4 == 0 and wide.shape[1] >= _SIMPLE  # order of the sums
    summary = _summarised("Dense", wide, compiled if same else None, whole, lanes)
    if whole == count or summary is None:
        return summary
    rest = _summarise_rows(rows[whole:], compiled)
    return rest and _merge(summary, rest)


def _summarise_sparse(matrix: Any, compiled: Any = None) -> _Summary | None:
    """Sum up the samples in a sparse matrix by rows."""
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return _summarised("Sparse", matrix, compiled, matrix.shape[0])


def _summarised(kind: str, data: Any, compiled: Any, rows: int, lanes: int = 1) -> _Summary | None:
    """Sum up samples by what is ``compiled``, if that works."""
    is_sparse = kind == "Sparse"
    if compiled and compiled.works:
        try:
            return _summarise(getattr(compiled, kind)(data), rows, lanes, zeros_left_out=is_sparse)
        except MemoryError:
            raise
        except Exception as reason:
            compiled.works = False
            logger.debug("no compiled moments from here on: %r", reason)
    return _summarise(_Sparse(data) if is_sparse else _Dense(data), rows, lanes, zeros_left_out=is_sparse)


def _compiled(values: int) -> Any:
    """Return the module of compiled sums where it is loaded or saves more time than loading takes."""
    loaded = "capsolve._moment_sums" in sys.modules
    return _compiled_sums() if loaded or values >= COMPILED_VALUES else None


@functools.cache
def _compiled_sums() -> Any:
    try:
        from capsolve import _moment_sums  # noqa: PLC0415  (imports Numba, for half a second)
    except Exception as reason:
        logger.debug("no compiled moments: %r", reason)
        return None
    return _moment_sums


def _merge(a: _Summary, b: _Summary) -> _Summary:
    """Sum up the samples of both."""
    gap = b.centre - a.centre
    unit = np.maximum(np.maximum(a.unit, b.unit), _exponent(gap))
    sums_a, sums_b = _rescaled(a.sums, a.unit - unit), _rescaled(b.sums, b.unit - unit)
    centre = a.centre + gap * (b.sums[0] / (a.sums[0] + b.sums[0]))
    sums = _recentred(sums_a, np.ldexp(a.centre - centre, -unit))
    sums += _recentred(sums_b, np.ldexp(b.centre - centre, -unit))
    low, high = np.minimum(a.low, b.low), np.maximum(a.high, b.high)
    return _Summary(sums, centre, unit, low, high, a.nonzero + b.nonzero)


def _rescaled(sums: FloatArray, exponent: npt.NDArray[np.int32]) -> FloatArray:
    """Return Σ (2^exponent · y)^p for exponent ≤ 0, where ``sums`` holds Σ y^p."""
    if not exponent.any():
        return sums
    out = sums.copy()
    factor = np.ldexp(1.0, exponent)
    power = factor.copy()
    for p in range(1, _ORDER + 1):
        out[p] *= power
        power *= factor
    return out


def _recentred(sums: FloatArray, shift: FloatArray) -> FloatArray:
    """Return Σ (y + shift)^p, where ``sums`` holds Σ y^p.

    After j rounds row p holds Σ y^(p−j) (y + shift)^j: the binomial theorem by Pascal's triangle.
    """
    out = sums.copy()
    for j in range(1, _ORDER + 1):
        out[j:] += shift * out[j - 1 : -1]
    return out


def _exponent(size: FloatArray) -> npt.NDArray[np.int32]:
    """Return the least e with |size| < 2^e, within ±1000; for zero −1000, which gives way to any other.

    At the ends nothing is lost: the smallest float64, 2^-1074, is 2^-74 in units of 2^-1000, and its eighth
    power is still far from underflow.
    """
    exponent = np.where(size == 0, -1000, np.frexp(size)[1])
    return np.clip(exponent, -1000, 1000).astype(np.int32)


class _Stream:
    """Takes chunks of samples, cuts them into blocks of a size of its own, and keeps the blocks' summaries.

    Dense chunks share their blocks, so that the way in which samples were cut into chunks changes nothing at
    all. Blocks are summed up by threads and merged in order.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected  # values, as far as is known
        self.values = 0  # taken in so far
        self.rows = 0  # of blocks so far
        self.summaries: list[_Summary] = []  # each at most half as large as the one before
        self.shape = (0, 0)  # of a block
        self.block: FloatArray | None = None  # samples that do not fill one
        self.filled = 0  # how many rows of it
        self.spare: list[FloatArray] = []  # blocks that may be written to again
        self.pool = ThreadPoolExecutor(_THREADS, "capsolve-moments")  # which starts no thread before the first block
        self.work: deque[tuple[Future[_Summary | None], int, Any, bool]] = deque()  # what threads sum up
        self.borrowed = False  # whether some of it is a view of a chunk

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def add(self, chunk: Any) -> Iterator[int]:
        """Take in a chunk, yielding the number of rows of each part."""
        if len(chunk.shape) == 3:
            batches, positions, features = chunk.shape
            step = max(1, _BLOCK // max(1, positions * features))
            for start in range(0, batches, step):
                yield from self.add(chunk[start : start + step].reshape(-1, features))
            return
        chunk = cut_by_rows(chunk)
        shape = _shape(chunk)
        if not self.shape[1]:
            if shape[1] == 0:
                raise ValueError("activations must have at least one column, got none")
            # a power of two, to be halved
            self.shape = max(1 << (max(1, _BLOCK // shape[1]).bit_length() - 1), _LEAST_ROWS), shape[1]
        if shape[1] != self.shape[1]:
            raise ValueError(
                f"activations must have the same columns in every chunk: {self.shape[1]} at first, "
                f"{shape[1]} in the chunk that starts at row {self.rows + self.filled}"
            )
        yield from self._add_sparse(chunk) if _is_sparse(chunk) else self._add_dense(chunk, shape[0])
        if self.borrowed:  # the caller may write to the chunk again
            self._wait()

    def finish(self) -> Moments:
        self._flush()
        if self.rows < MINIMUM_SAMPLES:
            raise ValueError(f"activations must have at least {MINIMUM_SAMPLES} samples, got {self.rows}")
        while len(self.summaries) > 1:
            self._merge_last()
        return _moments(self.summaries[0])

    def _add_dense(self, chunk: Any, rows: int) -> Iterator[int]:
        size = self.shape[0]
        start = 0
        while start < rows:
            stop = min(rows, start + size - self.filled)
            part = _real(to_numpy(chunk[start:stop], "activations"))
            if stop - start == size and part.dtype in (np.float32, np.float64) and part.flags.c_contiguous:
                self._submit(_summarise_rows, part, own=False)
            else:
                if self.block is None:
                    self.block = self.spare.pop() if self.spare else np.empty(self.shape)
                self.block[self.filled : self.filled + stop - start] = part
                self.filled += stop - start
                if self.filled == size:
                    self._submit(_summarise_rows, self.block, own=True)
                    self.block, self.filled = None, 0
            yield stop - start
            start = stop

    def _add_sparse(self, chunk: Any) -> Iterator[int]:
        from scipy import sparse  # noqa: PLC0415  (whoever has such a matrix has loaded it)

        self._flush()
        matrix = _real(chunk).tocsr()
        rows = matrix.shape[0]
        step = max(1, rows * math.prod(self.shape) // max(matrix.nnz, 1))
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            ends = matrix.indptr[start : stop + 1]
            entries = slice(ends[0], ends[-1])
            part = sparse.csr_array(  # without a copy
                (matrix.data[entries], matrix.indices[entries], ends - ends[0]), shape=(stop - start, matrix.shape[1])
            )
            self._submit(_summarise_sparse, part, own=False)
            yield stop - start

    def _flush(self) -> None:
        """Sum up all that was taken in."""
        if self.block is not None and self.filled:
            self._submit(_summarise_rows, self.block[: self.filled], own=False)  # none that may be written to again
            self.filled = 0
        self._wait()

    def _submit(self, summarise: Callable[[Any, Any], _Summary | None], part: Any, *, own: bool) -> None:
        """Let a thread sum up a block, where there are more than one; ``own`` says that nobody else writes to it."""
        self.values += part.size
        self.borrowed = self.borrowed or not own
        compiled = _compiled(max(self.expected, self.values))
        job: Future[_Summary | None] = Future()
        if 0 < self.expected <= _BLOCK:
            job.set_result(summarise(part, compiled))
        else:
            job = self.pool.submit(summarise, part, compiled)
        self.work.append((job, self.rows, part, own))
        self.rows += part.shape[0]
        if len(self.work) > _THREADS:
            self._take()

    def _take(self) -> None:
        """Wait for the first of the blocks at work."""
        job, row, part, own = self.work.popleft()
        self._push(job.result(), part, row)
        if own and not _is_sparse(part):
            self.spare.append(part)

    def _wait(self) -> None:
        while self.work:
            self._take()
        self.borrowed = False

    def _push(self, summary: _Summary | None, part: Any, row: int) -> None:
        """Keep the summary of samples that begin at a row."""
        if summary is None:
            raise _bad_entry(part, row)
        self.summaries.append(summary)
        while len(self.summaries) > 1 and 2 * self.summaries[-1].samples > self.summaries[-2].samples:
            self._merge_last()

    def _merge_last(self) -> None:
        last = self.summaries.pop()
        self.summaries[-1] = _merge(self.summaries[-1], last)


def _moments(total: _Summary) -> Moments:
    rows = total.sums[0]
    offset = total.sums[1] / rows
    central = _recentred(total.sums, -offset) / rows
    constant = total.low == total.high
    m2 = np.where(constant, 1.0, central[2])
    # Pearson's inequality κ ≥ 1 + skewness² may be missed by a rounding error
    kurtosis = np.maximum(central[4] / (m2 * m2), 1.0)
    powers = np.arange(_ORDER + 1.0)[:, None]
    with np.errstate(over="ignore"):
        variance = np.ldexp(m2, 2 * total.unit)
    return Moments(
        samples=total.samples,
        mean=np.where(constant, total.low, total.centre + np.ldexp(offset, total.unit)),
        variance=np.where(constant, 0.0, variance),
        kurtosis=np.where(constant, 3.0, kurtosis),
        kurtosis_error=np.where(constant, 0.0, _kurtosis_error(central / np.sqrt(m2) ** powers, kurtosis, rows)),
        density=total.nonzero / rows,
        constant=constant,
    )


def _kurtosis_error(standardised: FloatArray, kurtosis: FloatArray, rows: FloatArray) -> FloatArray:
    """Return the standard error of m₄/m₂² by the delta method, from the standardised moments α_p = E zᵖ.

    One more sample at z changes the kurtosis κ by 1/N of its influence z⁴ − κ − 2κ(z² − 1) − 4 α₃ z, the last
    term because the mean moves too. The variance of the influence, multiplied out, divided by N is the square
    of the standard error; for a Gaussian it is 24/N.
    """
    _, _, _, a3, _, a5, a6, _, a8 = standardised
    k = kurtosis
    variance = a8 - 4 * k * a6 - 8 * a3 * a5 + k * k * (4 * k - 1) + 16 * a3 * a3 * (1 + k)
    error: FloatArray = np.sqrt(np.maximum(variance, 0.0) / rows)  # 0 up to rounding for z = ±1
    return error


def _chunks(activations: Any) -> Iterable[Any]:
    if isinstance(activations, str | bytes):
        raise ValueError(f"activations must be arrays, got {activations!r}")  # noqa: TRY004
    if _is_array(activations):
        return [activations]
    if isinstance(activations, list | tuple) and not (activations and _is_array(activations[0], ndim=2)):
        return [_nested(activations)]
    try:
        chunks = iter(activations)
    except TypeError:
        got = type(activations).__name__
        raise ValueError(f"activations must be a 2-D array or an iterable of 2-D arrays, got {got}") from None
    return (chunk if _is_array(chunk) else _nested(chunk) for chunk in chunks)


def _is_array(value: Any, ndim: int | None = None) -> bool:
    """Whether ``value`` can be cut by rows, as arrays, sparse matrices and the datasets of h5py can."""
    shaped = _is_sparse(value) or (hasattr(value, "shape") and hasattr(value, "__getitem__"))
    return shaped and (ndim is None or len(value.shape) == ndim)


def _is_sparse(value: Any) -> bool:
    return hasattr(value, "tocsr")  # SciPy's, which need not be loaded to know


def _nested(value: Any) -> npt.NDArray[Any]:
    try:
        return to_numpy(value)
    except ValueError as error:  # ragged
        raise ValueError(f"activations must be a rectangular array of real numbers: {error}") from None


def _shape(chunk: Any) -> tuple[int, int]:
    if len(chunk.shape) != 2:
        axes = "samples × features or batch × position × feature"
        raise ValueError(f"activations must be {axes}, got shape {tuple(chunk.shape)}")
    if isinstance(chunk, np.ma.MaskedArray):
        raise ValueError("activations must not be masked: fill the gaps or drop their rows")  # noqa: TRY004
    return chunk.shape[0], chunk.shape[1]


def _real(part: Any) -> Any:
    # can_cast rather than dtype.kind, for the bfloat16 of ml_dtypes is none of NumPy's kinds
    if not np.can_cast(part.dtype, np.float64, "same_kind"):
        raise ValueError(f"activations must hold real numbers, got dtype {part.dtype}")
    return part


def _bad_entry(part: Any, start: int) -> ValueError:
    """Return what is wrong with samples, the first of which is in row ``start``."""
    from scipy import sparse  # noqa: PLC0415  (longer to import than anything here to do)

    entries = sparse.coo_array(part)
    bad = int(np.flatnonzero(~(np.abs(entries.data.astype(np.float64)) <= LARGEST_ENTRY))[0])
    value, row, column = float(entries.data[bad]), start + int(entries.row[bad]), int(entries.col[bad])
    allowed = "finite" if not np.isfinite(value) else f"within ±{LARGEST_ENTRY:.3g}"
    return ValueError(f"activations must be {allowed}, got {value!s} at row {row}, column {column}")
