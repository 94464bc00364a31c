"""All budgets at once: the price and the loss along the capacity path, from one sort of the breakpoints.

With κ ≥ 3 the used capacity S(u) = Σ C_i is piecewise linear in u = 1/τ, with slope A(u), the sum over the features
that are neither empty nor full of v_i (κ_i−1)/(κ_i−3). S grows from D = 0 and the loss from the far end, by
dL = −2τ² dS = 2A dτ: both are sums of positive terms. The slope is not: a feature adds to it where it enters and takes
away where it is full, and a running sum that adds 1e150 and later subtracts it has forgotten everything smaller. So it
is summed in threefold precision, and where that is not enough from the intervals of the features that cover each piece,
adding only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import QuadraticLoss

IntArray = npt.NDArray[np.intp]
EPS = float(np.finfo(np.float64).eps)


class Path(NamedTuple):
    """Knots of the capacity path, in the order of growing budget, shape (m,) each.

    Between two knots 1/``scale`` is linear in ``dimensions``; where two knots have the same scale the price stays
    constant.
    """

    dimensions: FloatArray
    scale: FloatArray
    loss: FloatArray


def capacity_knots(model: QuadraticLoss) -> Path:
    """Return the knots of the path of a model with a bias and κ ≥ 3, from D = 0 to its demand."""
    demand = model.demand_curve()
    wanting = demand.full > 0.0
    enter, full = demand.enter[wanting], demand.full[wanting]
    n, jumps = enter.size, enter == full
    events = -np.concatenate([enter, full])
    # A feature that jumps enters before it is full, and between the two, at one scale, its capacity arrives.
    order = np.argsort(events, kind="stable" if jumps.any() else None)
    scale = -events[order]
    filled = order >= n
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        # Slopes from the breakpoints as rounded, whose differences are exact: every feature then rises by 1 in total,
        # also where κ − 3 is a few ulps.
        rate = np.where(jumps, 0.0, enter * (full / (enter - full)))
        slope = _slopes(rate, order)
        fall = scale[:-1] - scale[1:]
        lost = 2.0 * slope * fall
        gained = slope * (fall / scale[:-1] / scale[1:])
        if jumps.any():
            jumping = filled & np.concatenate([jumps, jumps])[order]
            gained += jumping[1:]
            lost[jumping[1:]] += 2.0 * np.square(scale[1:][jumping[1:]])
    dimensions = np.concatenate([[0.0], running_sum(gained)])
    # Where no feature is on its way, the sum is a whole number of full ones: there the rounding errors are forgotten.
    whole = np.append(np.flatnonzero(slope == 0.0), scale.size - 1)
    drift = np.cumsum(filled)[whole] - dimensions[whole]
    dimensions += np.repeat(np.append(0.0, drift), np.diff(whole, prepend=0, append=scale.size))
    dimensions = np.minimum.accumulate(dimensions[::-1])[::-1]  # no knot beyond a later, exact one
    loss = np.append(running_sum(lost[::-1])[::-1], 0.0)
    return Path(dimensions, scale, loss)


def _slopes(rate: FloatArray, order: IntArray) -> FloatArray:
    """Return the slope on each piece between two events, ``order`` listing the n entrances, then the n exits."""
    n = rate.size
    moving = rate > 0.0
    change = np.concatenate([rate, -rate])[order]
    slope = running_sum(change, levels=3)[:-1]
    idle = np.cumsum(np.sign(change))[:-1] == 0.0
    slope[idle] = 0.0
    # The sum's worst error is (2nε)³ times the largest number in it; the slopes are to be exact to a few ε.
    largest = float(np.max(slope, initial=0.0))
    if np.min(slope, where=~idle, initial=math.inf) >= 1e16 * (2.0 * n * EPS) ** 3 * largest and largest < math.inf:
        return slope
    position = np.empty(2 * n, dtype=np.intp)
    position[order] = np.arange(2 * n)
    return _covered(position[:n][moving], position[n:][moving], rate[moving], 2 * n)[:-1]


def running_sum(values: FloatArray, levels: int = 2, block: int = 1 << 14) -> FloatArray:
    """Return the cumulative sums as if computed with ``levels`` times the precision, then rounded; infinite stays so.

    The errors of the sums are summed, and for a third level the errors of those. Each block of values stays in the
    cache. Ogita, Rump & Oishi, SIAM J. Sci. Comput. 26 (2005), algorithm 4.8.
    """
    result = np.empty_like(values)
    carried = [0.0] * levels
    with np.errstate(invalid="ignore"):  # ∞ − ∞ in the errors of a sum that has become infinite
        for start in range(0, values.size, block):
            terms = values[start : start + block]
            parts = []
            for level in range(levels):
                sums = np.concatenate([carried[level : level + 1], terms])
                np.cumsum(sums, out=sums)
                carried[level] = float(sums[-1])
                parts.append(sums[1:])
                if level + 1 < levels:
                    before, after = sums[:-1], sums[1:]
                    added = after - before
                    terms = (before - (after - added)) + (terms - added)
            result[start : start + block] = parts[0] + sum(reversed(parts[1:]))
            if not math.isfinite(carried[0]):
                result[start:] = values[start:].cumsum() + (result[start - 1] if start else 0.0)
                break
    return result


def _covered(first: IntArray, last: IntArray, value: FloatArray, size: int) -> FloatArray:
    """Return Σ of ``value`` over the intervals [first, last) that cover each of ``size`` cells, adding only."""
    levels = max(1, int(size - 1).bit_length())
    nodes = [np.zeros(1 << level) for level in range(levels + 1)]
    left, right = np.array(first), np.array(last)
    for level in range(levels, -1, -1):
        odd = (left & 1).astype(bool) & (left < right)
        nodes[level] += np.bincount(left[odd], value[odd], minlength=nodes[level].size)
        left = left + odd
        odd = (right & 1).astype(bool) & (left < right)
        right = right - odd
        nodes[level] += np.bincount(right[odd], value[odd], minlength=nodes[level].size)
        left, right = left >> 1, right >> 1
    total = nodes[0]
    for level in range(1, levels + 1):
        total = np.repeat(total, 2) + nodes[level]
    return total[:size]


def at_budgets(path: Path, dimensions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the scale τ and the loss at each budget; on a knot the scale is that of a growing budget."""
    right = np.searchsorted(path.dimensions, dimensions, side="right")
    inside = right < path.dimensions.size
    right = np.minimum(right, path.dimensions.size - 1)
    left = np.maximum(right - 1, 0)
    span = path.dimensions[right] - path.dimensions[left]
    share = np.where(span > 0.0, (dimensions - path.dimensions[left]) / np.where(span > 0.0, span, 1.0), 0.0)
    share = np.clip(share, 0.0, 1.0)
    near, far = path.scale[left], path.scale[right]
    scale = far / (share + (1.0 - share) * (far / near))
    # dL = −2τ² dD: a straight line where τ is constant, and in 1/τ linear otherwise.
    with np.errstate(over="ignore"):
        saved = 2.0 * (span * (1.0 - share)) * scale * far
    return np.where(inside, scale, 0.0), np.where(inside, path.loss[right] + saved, 0.0)
