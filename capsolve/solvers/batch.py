"""The optimum of many small problems, each a column of two matrices (n, m) as in `capsolve.solvers.columns`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.solvers.columns import Curves, fill_columns, total
from capsolve.solvers.sharing import share_columns

BoolArray = npt.NDArray[np.bool_]

# With more features, looking at all local optima takes longer than branch and bound.
FEW = 64


class Solutions(NamedTuple):
    """Capacities (n, m), and which of the columns (m,) ...

    ... are ``proved`` to be optimal by having looked at all local optima, and which are ``unfinished``: left to the
    solver for one problem.
    """

    capacity: FloatArray
    proved: BoolArray
    unfinished: BoolArray


def solve_columns(v: FloatArray, k: FloatArray, budget: FloatArray, bias: bool) -> Solutions:
    """Minimise the loss of each column's features, importance ``v`` and kurtosis ``k``, for its ``budget`` (m,)."""
    proved, unfinished = np.zeros((2, budget.size), dtype=np.bool_)
    scarce = budget < np.count_nonzero(v, axis=0)
    if not scarce.all():
        capacity = np.where(v > 0.0, 1.0, 0.0)
        if scarce.any():
            part = solve_columns(v[:, scarce], k[:, scarce], budget[scarce], bias)
            capacity[:, scarce], proved[scarce], unfinished[scarce] = part
        return Solutions(capacity, proved, unfinished)
    if not bias:
        return Solutions(_without_bias(v, k, budget), proved, unfinished)

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
        ends_inside = rest > takers
        inside = crowded[ends_inside]
        if len(v) > FEW:
            unfinished[inside] = True
        elif inside.size:
            proved[inside] = True
            capacity[:, inside] = share_columns(
                v[:, inside], k[:, inside], budget[inside], filling.scale[inside], whole[ends_inside]
            )
    return Solutions(capacity, proved, unfinished)


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
