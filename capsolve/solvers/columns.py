"""The price search of many small problems at once: every column of two matrices.

Arrays are laid out (n, m): features along the first axis, problems along the second, so that each step of the search is
a few passes over contiguous memory whatever n is. The algorithm is that of `capsolve.solvers.price`: sort the
breakpoints, bisect between them, interpolate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import demand_of

BoolArray = npt.NDArray[np.bool_]


class Curves(NamedTuple):
    """`Demand` curves, (n, m), as lines through the better conditioned of their two ends."""

    enter: FloatArray
    full: FloatArray
    anchor: FloatArray
    start: FloatArray
    slope: FloatArray
    idle: BoolArray  # features that gain nothing by capacity, but can use it (κ = 1)

    @classmethod
    def of(cls, v: FloatArray, k: FloatArray) -> Curves:
        """Return the curves of features with importance ``v`` and kurtosis ``k``."""
        enter, full, gain, width = demand_of(v, k)
        steep = gain >= 1.0
        start = steep.astype(np.float64)
        return cls(enter, full, np.where(steep, full, enter), start, gain + start, (enter <= 0.0) & (width > 0.0))

    def at(self, scale: FloatArray) -> FloatArray:
        """Return the capacities at a ``scale`` > 0 for each column; features that jump there have not jumped yet."""
        share = self.anchor - scale
        with np.errstate(over="ignore", invalid="ignore"):
            share /= scale
            share *= self.slope
            share += self.start
        # fmax and fmin drop the 0 · ∞ of a feature that jumps far away
        np.fmax(share, scale <= self.full, out=share)
        return np.fmin(share, scale < self.enter, out=share)


class Fillings(NamedTuple):
    """Capacities (n, m), the scale of each column (m,), and which features jump exactly there (n, m)."""

    capacity: FloatArray
    scale: FloatArray
    jumping: BoolArray


def fill_columns(curves: Curves, budget: FloatArray) -> Fillings:
    """Spread ``budget`` (m,) over the features of each column, as `capsolve.solvers.price.fill` does for one."""
    breakpoints = np.sort(np.concatenate([curves.enter, curves.full]), axis=0)[::-1]
    wanting = curves.enter > 0.0
    count, column = np.count_nonzero(wanting, axis=0), np.arange(budget.size)
    # Largest p with Σ C(breakpoints[p]) ≤ budget. The sum rises along the array and is 0 at its start.
    low, high = np.zeros_like(count), np.maximum(2 * count, 1)
    with np.errstate(divide="ignore"):  # scales of 0: columns where nobody gains anything, settled at the end
        for _ in range(int(2 * len(wanting)).bit_length()):
            middle = (low + high) >> 1
            affordable = total(curves.at(breakpoints[middle, column])) <= budget
            low, high = np.where(affordable, middle, low), np.where(affordable, high, middle)
        scale = breakpoints[low, column]
        next_scale = breakpoints[np.minimum(low + 1, len(breakpoints) - 1), column]
        below, end = curves.at(scale), curves.at(next_scale)

    jumping = (curves.enter <= curves.full) & (curves.enter == scale)
    above = below + jumping
    reached, ready = total(below), total(above)
    tie = (ready > reached) & (budget <= ready)
    jumping &= tie
    # A tie is shared in proportion; between two neighbouring breakpoints every capacity is linear in 1/τ.
    start, stop = np.where(tie, reached, ready), np.where(tie, ready, total(end))
    share = (budget - start) / np.where(stop > start, stop - start, 1.0)
    share = np.where(stop > start, share, 0.0)
    base, target = np.where(tie, below, above), np.where(tie, above, end)
    capacity = base + np.minimum(share, 1.0) * (target - base)
    with np.errstate(invalid="ignore"):
        inside = next_scale / (share + (1.0 - share) * (next_scale / scale))
    scale = np.where(tie, scale, inside)

    spare = budget - count
    rich = spare >= 0.0
    if rich.any():
        # Features that gain nothing (κ = 1) take what is left, in the order of their index.
        idle = curves.idle
        extra = np.clip(spare - (np.cumsum(idle, axis=0) - idle), 0.0, idle)
        capacity = np.where(rich, wanting + extra, capacity)
        scale = np.where(rich, 0.0, scale)
        jumping &= ~rich
    return Fillings(capacity, scale, jumping)


def total(a: FloatArray) -> FloatArray:
    """Return the sums of the columns, pairwise, so that rounding errors grow with the logarithm of their length."""
    half = len(a) // 2
    sums: FloatArray = a.sum(axis=0) if half <= 64 else total(a[:half]) + total(a[half:])
    return sums
