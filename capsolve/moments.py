"""Central moments of many columns in one pass over their samples, in memory that the samples do not fill.

A block of samples is summed up, per column, by the powers of its distance from a centre near the mean, Σ ((x
− centre) / 2^unit)^p for p = 0 … 8. Two summaries merge when both are re-centred on their common mean and
added: Pébay's formulas for arbitrary-order moments (SAND2008-6212, 2008). Blocks are merged two by two like
the digits of a binary counter, so that rounding errors grow with the logarithm of the number of blocks. The
unit, a power of two per column, keeps eighth powers away from overflow and underflow whatever the column's
scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._arrays import cut_by_rows, to_numpy
from capsolve._checks import FloatArray

MINIMUM_SAMPLES = 30
"""The fewest samples accepted. Heavy tails need far more: see `Moments.kurtosis_error`."""

LARGEST_ENTRY = 2.0**1000
"""The largest absolute value of an activation, 1.07e301: below it differences and means cannot overflow."""

_ORDER = 8  # the standard error of a kurtosis needs the eighth moment
_BLOCK = 2**18  # values per block: 2 MB of float64
_LEAST_ROWS = 32  # per block, however wide the data: below this, merging would cost more than summing


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
    stream = _Stream()
    parts = (rows for chunk in _chunks(activations) for rows in stream.add(chunk))
    if progress:
        from tqdm import tqdm  # noqa: PLC0415  (which starts a thread)

        total = activations.shape[0] if _is_array(activations, ndim=2) else None
        with tqdm(total=total, unit=" samples", unit_scale=True) as bar:
            for rows in parts:
                bar.update(rows)
    else:
        for _ in parts:
            pass
    return stream.finish()


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


def _summarise(values: FloatArray, stored: npt.NDArray[np.intp], zeros: npt.NDArray[np.intp]) -> _Summary:
    """Sum up columns: column i has ``stored[i]`` consecutive entries of ``values`` and ``zeros[i]`` zeros."""
    ends = np.cumsum(stored)
    cuts = np.flatnonzero(np.diff(ends // _BLOCK)) + 1
    panels = [
        _summarise_panel(values[ends[i] - stored[i] : ends[j - 1]], stored[i:j], zeros[i:j])
        for i, j in pairwise([0, *cuts, stored.size])
    ]
    columns = [[getattr(panel, field.name) for panel in panels] for field in fields(_Summary)]
    return _Summary(*(np.concatenate(arrays, axis=-1) for arrays in columns))


def _summarise_panel(values: FloatArray, stored: npt.NDArray[np.intp], zeros: npt.NDArray[np.intp]) -> _Summary:
    filled = np.flatnonzero(stored)
    starts = (np.cumsum(stored) - stored)[filled]

    def fold(ufunc: np.ufunc, entries: npt.NDArray[Any], empty: float) -> FloatArray:
        out = np.full(stored.size, empty)
        if filled.size:
            out[filled] = ufunc.reduceat(entries, starts, dtype=np.float64)  # pairwise, as np.sum
        return out

    def spread(per_column: FloatArray) -> FloatArray:
        return np.repeat(per_column, stored)

    beside = np.where(zeros > 0, 0.0, np.nan)  # fmin and fmax pass over NaN
    low = np.fmin(fold(np.minimum, values, np.inf), beside)
    high = np.fmax(fold(np.maximum, values, -np.inf), beside)
    rows = (stored + zeros).astype(np.float64)
    centre = np.clip(fold(np.add, values * spread(1.0 / rows), 0.0), low, high)
    unit = _exponent(np.maximum(high - centre, centre - low))
    scale = np.ldexp(1.0, -unit)
    distance = (values - spread(centre)) * spread(scale)
    distance_of_zero = -np.where(zeros > 0, centre, 0.0) * scale
    sums = np.empty((_ORDER + 1, stored.size))
    sums[0] = rows
    power, power_of_zero = distance.copy(), distance_of_zero.copy()
    for p in range(1, _ORDER + 1):
        sums[p] = fold(np.add, power, 0.0) + zeros * power_of_zero
        power *= distance
        power_of_zero *= distance_of_zero
    return _Summary(sums, centre, unit, low, high, fold(np.add, values != 0, 0.0))


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
    all.
    """

    def __init__(self) -> None:
        self.rows = 0  # taken in so far
        self.summaries: list[_Summary] = []  # each at most half as large as the one before
        self.block = np.empty((0, 0))  # (n, rows): the samples of a column lie side by side
        self.filled = 0  # how many rows of the block

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
        if not self.block.size:
            if shape[1] == 0:
                raise ValueError("activations must have at least one column, got none")
            self.block = np.empty((shape[1], max(_BLOCK // shape[1], _LEAST_ROWS)))
        if shape[1] != len(self.block):
            raise ValueError(
                f"activations must have the same columns in every chunk: {len(self.block)} at first, "
                f"{shape[1]} in the chunk that starts at row {self.rows + self.filled}"
            )
        yield from self._add_sparse(chunk) if _is_sparse(chunk) else self._add_dense(chunk, shape[0])

    def finish(self) -> Moments:
        self._flush()
        if self.rows < MINIMUM_SAMPLES:
            raise ValueError(f"activations must have at least {MINIMUM_SAMPLES} samples, got {self.rows}")
        while len(self.summaries) > 1:
            self._merge_last()
        return _moments(self.summaries[0])

    def _add_dense(self, chunk: Any, rows: int) -> Iterator[int]:
        start = 0
        while start < rows:
            stop = min(rows, start + self.block.shape[1] - self.filled)
            part = _real(to_numpy(chunk[start:stop], "activations"))
            self.block[:, self.filled : self.filled + stop - start] = part.T
            self.filled += stop - start
            if self.filled == self.block.shape[1]:
                self._flush()
            yield stop - start
            start = stop

    def _flush(self) -> None:
        """Sum up what the block holds."""
        if not self.filled:
            return
        block = self.block[:, : self.filled]
        if not _bounded(block):
            row, column = np.argwhere(~(np.abs(block.T) <= LARGEST_ENTRY)).tolist()[0]
            raise _bad_entry(block[column, row], self.rows + row, column)
        counts = np.full(len(block), self.filled)
        self._push(_summarise(block.ravel(), counts, np.zeros_like(counts)))
        self.filled = 0

    def _add_sparse(self, chunk: Any) -> Iterator[int]:
        self._flush()
        matrix = _real(chunk).tocsr()
        rows = matrix.shape[0]
        step = max(1, rows * self.block.size // max(matrix.nnz, 1))
        for start in range(0, rows, step):
            part = matrix[start : start + step].tocsc()
            part.sum_duplicates()
            values = part.data.astype(np.float64)
            if not _bounded(values):
                bad = int(np.flatnonzero(~(np.abs(values) <= LARGEST_ENTRY))[0])
                column = int(np.searchsorted(part.indptr, bad, side="right")) - 1
                raise _bad_entry(values[bad], self.rows + int(part.indices[bad]), column)
            stored = np.diff(part.indptr)
            self._push(_summarise(values, stored, part.shape[0] - stored))
            yield part.shape[0]

    def _push(self, summary: _Summary) -> None:
        self.rows += summary.samples
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


def _bounded(values: FloatArray) -> bool:
    """Whether all are within ±LARGEST_ENTRY, which NaN is not."""
    return not values.size or bool(values.min() >= -LARGEST_ENTRY and values.max() <= LARGEST_ENTRY)


def _bad_entry(value: float, row: int, column: int) -> ValueError:
    allowed = "finite" if not np.isfinite(value) else f"within ±{LARGEST_ENTRY:.3g}"
    return ValueError(f"activations must be {allowed}, got {value!s} at row {row}, column {column}")
