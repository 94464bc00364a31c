"""The sums behind `capsolve.moments`, compiled by Numba: what `capsolve.moments` adds up with NumPy, to the last bit.

Importing this module imports Numba; `capsolve.moments` says when that is worth it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from capsolve._checks import FloatArray
from capsolve._compiled import compiled, inlined, larger, smaller

works = True  # as far as is known

LANES = 2048  # columns at a time: their sums stay in a near cache
RUN = 512  # terms of a sparse column that are added one by one, before they join the others


@inlined
def _one(x: float) -> float:
    return 0.0 if x == 0.0 else 1.0


@compiled
def _extremes(x, first, last, out):
    low, high, total, nonzero = out[0, first:last], out[1, first:last], out[2, first:last], out[3, first:last]
    low[:], high[:], total[:], nonzero[:] = np.inf, -np.inf, 0.0, 0.0
    quarter = x.shape[0] // 4
    for i in range(quarter):
        a, b = x[i, first:last], x[i + quarter, first:last]
        c, d = x[i + 2 * quarter, first:last], x[i + 3 * quarter, first:last]
        for j in range(last - first):
            p, q, r, s = np.float64(a[j]), np.float64(b[j]), np.float64(c[j]), np.float64(d[j])
            low[j] = smaller(low[j], smaller(smaller(p, r), smaller(q, s)))
            high[j] = larger(high[j], larger(larger(p, r), larger(q, s)))
            total[j] += (p + r) + (q + s)
            nonzero[j] += (_one(p) + _one(r)) + (_one(q) + _one(s))


@compiled
def _power_sums(x, first, last, centre, scale, out):
    one, two, three, four = out[0, first:last], out[1, first:last], out[2, first:last], out[3, first:last]
    five, six, seven, eight = out[4, first:last], out[5, first:last], out[6, first:last], out[7, first:last]
    out[:, first:last] = 0.0
    middle, unit = centre[first:last], scale[first:last]
    quarter = x.shape[0] // 4
    for i in range(quarter):
        a, b = x[i, first:last], x[i + quarter, first:last]
        c, d = x[i + 2 * quarter, first:last], x[i + 3 * quarter, first:last]
        for j in range(last - first):
            A, B = (np.float64(a[j]) - middle[j]) * unit[j], (np.float64(b[j]) - middle[j]) * unit[j]
            C, D = (np.float64(c[j]) - middle[j]) * unit[j], (np.float64(d[j]) - middle[j]) * unit[j]
            # Written out: with a loop over the powers this one is not vectorised, and takes twice as long.
            p, q, r, s = A, B, C, D
            one[j] += (p + r) + (q + s)
            p, q, r, s = p * A, q * B, r * C, s * D
            two[j] += (p + r) + (q + s)
            p, q, r, s = p * A, q * B, r * C, s * D
            three[j] += (p + r) + (q + s)
            p, q, r, s = p * A, q * B, r * C, s * D
            four[j] += (p + r) + (q + s)
            p, q, r, s = p * A, q * B, r * C, s * D
            five[j] += (p + r) + (q + s)
            p, q, r, s = p * A, q * B, r * C, s * D
            six[j] += (p + r) + (q + s)
            p, q, r, s = p * A, q * B, r * C, s * D
            seven[j] += (p + r) + (q + s)
            p, q, r, s = p * A, q * B, r * C, s * D
            eight[j] += (p + r) + (q + s)


@compiled
def _sparse_extremes(columns, values, out):
    out[:, 0], out[:, 1], out[:, 2:] = np.inf, -np.inf, 0.0
    for i in range(values.size):
        of, x = out[columns[i]], np.float64(values[i])
        of[0], of[1] = smaller(of[0], x), larger(of[1], x)
        of[2] += x
        of[3] += _one(x)


@compiled
def _sparse_power_sums(columns, values, centre, scale, count, run, out):
    for i in range(values.size):
        j, x = columns[i], np.float64(values[i])
        if x == 0.0:
            continue
        distance = (x - centre[j]) * scale[j]
        power = distance
        for p in range(8):
            run[j, p] += power
            power *= distance
        count[j] += 1
        if count[j] == RUN:
            out[j] += run[j]
            run[j], count[j] = 0.0, 0
    out += run


class Dense:
    """Samples in rows, contiguous, of float32 or float64; the number of rows is a multiple of four."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows.view()
        self._rows.setflags(write=False)  # one type of array for one machine code

    def extremes(self) -> FloatArray:
        """Return minimum, maximum, sum and number of nonzeros of each column, shape (4, n)."""
        out = np.empty((4, self._rows.shape[1]))
        for first, last in _panels(out):
            _extremes(self._rows, first, last, out)
        return out

    def power_sums(self, centre: FloatArray, scale: FloatArray) -> FloatArray:
        """Return Σ ((x − centre) · scale)^p of each column, p = 1 … 8, shape (8, n)."""
        out = np.empty((8, self._rows.shape[1]))
        for first, last in _panels(out):
            _power_sums(self._rows, first, last, centre, scale, out)
        return out


def _panels(out):
    columns = out.shape[1]
    return ((first, min(first + LANES, columns)) for first in range(0, columns, LANES))


class Sparse:
    """The entries of a sparse matrix by rows that are not zero, none of them stored twice."""

    def __init__(self, matrix: Any) -> None:
        self._entries = tuple(array.view() for array in (matrix.indices, matrix.data))
        for array in self._entries:
            array.setflags(write=False)
        self._size = matrix.shape[1]

    def extremes(self) -> FloatArray:
        """Return minimum, maximum, sum and number of each column's, shape (4, n)."""
        out = np.empty((self._size, 4))
        _sparse_extremes(*self._entries, out)
        total: FloatArray = np.ascontiguousarray(out.T)
        return total

    def power_sums(self, centre: FloatArray, scale: FloatArray) -> FloatArray:
        """Return Σ ((x − centre) · scale)^p of each column, p = 1 … 8, shape (8, n)."""
        out, run = np.zeros((2, self._size, 8))
        _sparse_power_sums(*self._entries, centre, scale, np.zeros(self._size, np.int64), run, out)
        total: FloatArray = np.ascontiguousarray(out.T)
        return total
