"""Many small problems at once: the price search and the global optimum of every column of two matrices.

Arrays are laid out (n, m): features along the first axis, problems along the second, so that each step of the search is
a few passes over contiguous memory whatever n is. The algorithm is that of `capsolve.solvers.price` and
`capsolve.solvers.quadratic`: sort the breakpoints, bisect between them, interpolate. The budgets that end inside a
feature with κ < 3 need a search of their own and are left to the solver for one problem.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import demand_of

BoolArray = npt.NDArray[np.bool_]


class Solutions(NamedTuple):
    """What `solve_columns` returns: capacities (n, m), and which problems are left to the solver for one, (m,)."""

    capacity: FloatArray
    unfinished: BoolArray


def solve_columns(v: FloatArray, k: FloatArray, budget: FloatArray, bias: bool) -> Solutions:
    """Minimise the loss of each column's features, importance ``v`` and kurtosis ``k``, for its ``budget`` (m,)."""
    unfinished = np.zeros(budget.size, dtype=np.bool_)
    scarce = budget < np.count_nonzero(v, axis=0)
    if not scarce.all():
        capacity = np.where(v > 0.0, 1.0, 0.0)
        if scarce.any():
            part = solve_columns(v[:, scarce], k[:, scarce], budget[scarce], bias)
            capacity[:, scarce], unfinished[scarce] = part.capacity, part.unfinished
        return Solutions(capacity, unfinished)
    if not bias:
        return Solutions(_without_bias(v, k, budget), unfinished)

    filling = fill_columns(Curves.of(v, k), budget)
    capacity, concave = filling.capacity, k < 3.0
    tied = filling.jumping & concave
    crowded = np.flatnonzero(tied.any(axis=0))
    if crowded.size:
        # Features that tie at the price: those with κ < 3 whole, in the order of their index, the rest to κ = 3.
        tied, linear = tied[:, crowded], (filling.jumping & ~concave)[:, crowded]
        some = capacity[:, crowded]
        left, takers = total(some * (tied | linear)), np.count_nonzero(linear, axis=0)
        rounding = 8.0 * np.finfo(float).eps * budget[crowded]
        whole = np.minimum(np.floor(left + rounding), np.count_nonzero(tied, axis=0))
        rest = np.maximum(0.0, left - whole)
        some = np.where(tied, np.cumsum(tied, axis=0) <= whole, some)
        capacity[:, crowded] = np.where(linear, rest / np.maximum(takers, 1), some)
        unfinished[crowded] = rest > takers
    return Solutions(capacity, unfinished)


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


def _without_bias(v: FloatArray, k: FloatArray, budget: FloatArray) -> FloatArray:
    """Return the capacities of the saddle without bias, by a root of each column, see `QuadraticLoss.balance`."""
    from scipy.optimize import elementwise  # noqa: PLC0415  (takes longer to import than to use)

    def respond(trace: FloatArray, column: Any = slice(None)) -> FloatArray:
        some_v, some_k = v[:, column], k[:, column]
        return fill_columns(Curves.of(some_v + trace / (some_k - 1.0), some_k), budget[column]).capacity

    def excess(log_trace: FloatArray, column: npt.NDArray[np.intp]) -> FloatArray:
        trace = np.exp(log_trace)
        return trace_of(v[:, column], k[:, column], respond(trace, column)) / trace - 1.0

    # The trace of the answer minus the trace assumed falls monotonically, and no trace exceeds Σ v.
    column = np.arange(budget.size)
    start = np.log(trace_of(v, k, respond(np.zeros(budget.size))))
    low, high, step = start.copy(), start.copy(), 0.5
    while (negative := excess(low, column) < 0.0).any():
        low, step = np.where(negative, low - step, low), 2.0 * step
    step = 0.5
    while (positive := excess(high, column) > 0.0).any():
        high, step = np.where(positive, high + step, high), 2.0 * step
    found = elementwise.find_root(
        excess, (low, high), args=(column,), tolerances={"xatol": 1e-15, "xrtol": 4 * np.finfo(float).eps}
    )
    return respond(np.exp(found.x))


def trace_of(v: FloatArray, k: FloatArray, c: FloatArray) -> FloatArray:
    """Return the trace T = Σ (v_i − |w_i|²) of each column at the best row lengths, without a bias."""
    denominator = 1.0 + 0.5 * (k - 3.0) * c
    trace: FloatArray = total(v * ((1.0 - c) / denominator)) / (1.0 + total(0.5 * c / denominator))
    return trace


def total(a: FloatArray) -> FloatArray:
    """Return the sums of the columns, pairwise, so that rounding errors grow with the logarithm of their length."""
    half = len(a) // 2
    sums: FloatArray = a.sum(axis=0) if half <= 64 else total(a[:half]) + total(a[half:])
    return sums
