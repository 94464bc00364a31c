"""The price of capacity: one monotone piecewise-linear equation, solved exactly, for one problem or for many at once.

Minimising Σ f_i(C_i) with convex f_i subject to Σ C_i = D, 0 ≤ C ≤ 1 makes the marginal values of all features that
are neither empty nor full equal to one price λ = 2τ² (arXiv 2210.01892, eqs. 4–8 and 15–18). In u = 1/τ every
capacity is piecewise linear, so Σ C_i = D is a continuous quadratic knapsack: find the two neighbouring breakpoints
between which the budget is met, then interpolate. The answer is a convex combination of the capacities at
those breakpoints and meets the budget however steep they are: slopes and intercepts, which cancel near κ = 3, are
never summed.

Arrays are laid out (n, m): features along the first axis, problems along the second, so that each step is a few passes
over contiguous memory whatever n is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import EPS, FloatArray
from capsolve.losses.quadratic import ResponseCurve, column_sum

BoolArray = npt.NDArray[np.bool_]
# A budget is a whole number but for rounding within such a part of it.
WHOLE = 8.0 * EPS


class WaterFilling(NamedTuple):
    """How a budget is spread over features: capacities (n, m), the rest one number for each problem (m,) or (n, m).

    ``scale`` is the smallest τ at which the answer is optimal: 2τ² is what the *next* bit of budget would save. The
    exact τ is ``scale`` + ``correction``. ``jumping`` marks the features that jump exactly there, (n, m); what is left
    for them is shared in proportion to their width.
    """

    capacity: FloatArray
    scale: FloatArray
    correction: FloatArray
    jumping: BoolArray


def solve_knapsack(curve: ResponseCurve, budget: FloatArray) -> WaterFilling:
    """Spread ``budget`` ≥ 0, shape (m,), over the features of each column with the highest marginal values.

    A budget above what gains anything is spent on the features that do not (κ = 1), in the order of their index, at
    scale 0, as far as it can be.
    """
    gains = curve.enter > 0.0
    width = np.where(gains, curve.width, 0.0)
    spare = budget - column_sum(width)
    abundant = spare >= 0.0
    if abundant.all():
        return _spend_spare(curve, width, spare)

    column = np.arange(budget.size)
    breakpoints = np.concatenate([curve.enter, curve.full])
    if budget.size == 1:  # each breakpoint once: there may be a million features that are equal
        breakpoints = np.unique(breakpoints[breakpoints > 0.0])[::-1, None]
        count = np.array([len(breakpoints)])
    else:
        breakpoints = -np.sort(-breakpoints, axis=0)
        count = 2 * np.count_nonzero(gains, axis=0)
    # Largest p with Σ C(breakpoints[p]) ≤ budget. The sum rises along the array and is 0 at its start.
    low, high = np.zeros_like(column), np.maximum(count, 1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # scales of 0, in columns settled at the end
        for _ in range(int(high.max()).bit_length()):
            middle = (low + high) >> 1
            affordable = column_sum(curve.at(breakpoints[middle, column])) <= budget
            low, high = np.where(affordable, middle, low), np.where(affordable, high, middle)
        scale = breakpoints[low, column]
        following = breakpoints[np.minimum(low + 1, len(breakpoints) - 1), column]
        below, end = curve.at(scale), curve.at(following)

        jumping = curve.jumps_at(scale)
        reached = ready = column_sum(below)
        above = below
        if jumping.any():
            above = np.where(jumping, curve.width, below)
            ready = column_sum(above)
        tie = (ready > reached) & (budget <= ready)
        jumping &= tie
        # A tie is shared in proportion; between two neighbouring breakpoints every capacity is linear in 1/τ.
        start, stop = np.where(tie, reached, ready), np.where(tie, ready, column_sum(end))
        part = np.where(stop > start, (budget - start) / np.where(stop > start, stop - start, 1.0), 0.0)
        base, target = (np.where(tie, below, above), np.where(tie, above, end)) if tie.any() else (above, end)
        capacity = base + np.minimum(part, 1.0) * (target - base)
        inside, correction = interpolate_scale(scale, following, part)
    relaxation = WaterFilling(capacity, np.where(tie, scale, inside), np.where(tie, 0.0, correction), jumping)
    if abundant.any():
        spent = _spend_spare(curve, width, spare)
        relaxation = WaterFilling(*(np.where(abundant, a, b) for a, b in zip(spent, relaxation, strict=True)))
    return relaxation


def _spend_spare(curve: ResponseCurve, width: FloatArray, spare: FloatArray) -> WaterFilling:
    indifferent = curve.width - width
    extra = np.clip(spare - (np.cumsum(indifferent, axis=0) - indifferent), 0.0, indifferent)
    nothing = np.zeros_like(spare)
    return WaterFilling(width + extra, nothing, nothing, np.zeros(width.shape, dtype=np.bool_))


def interpolate_scale(near: Any, far: Any, part: Any) -> tuple[Any, Any]:
    """Return the τ that is a ``part`` of the way from one scale to a smaller one in 1/τ, as the sum of two numbers."""
    beyond = (1.0 - part) * far * ((near - far) / near) / (part + (1.0 - part) * (far / near))
    scale = far + beyond
    return scale, beyond - (scale - far)


def resolve_ties(
    relaxation: WaterFilling, kurtosis: FloatArray, budget: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return the capacities with ties resolved, and for each column how many tied features with κ < 3 are saturated ...

    ... and whether the budget ends inside the next of them. Of features tied at the price, those with κ < 3 are
    saturated in the order of their index, the rest goes to those with κ = 3 equally.
    """
    capacity, concave = relaxation.capacity, kurtosis < 3.0
    tied = relaxation.jumping & concave
    whole, inside = np.zeros_like(budget), np.zeros(budget.shape, dtype=np.bool_)
    some = np.flatnonzero(tied.any(axis=0))
    if some.size == 0:
        return capacity, whole, inside
    linear = (relaxation.jumping & ~concave)[:, some]
    tied, chosen = tied[:, some], capacity[:, some]
    left = budget[some] - column_sum(np.where(tied | linear, 0.0, chosen))  # exact where the others are 0 or 1
    sharing = np.count_nonzero(linear, axis=0)
    rounding = WHOLE * budget[some]
    whole[some] = np.minimum(np.floor(left + rounding), np.count_nonzero(tied, axis=0))
    rest = np.maximum(0.0, left - whole[some])
    inside[some] = rest > sharing
    chosen = np.where(tied, np.cumsum(tied, axis=0) <= whole[some], chosen)
    capacity = capacity.copy()
    capacity[:, some] = np.where(linear, rest / np.maximum(sharing, 1), chosen)
    return capacity, whole, inside
