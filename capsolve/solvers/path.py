"""All budgets at once: the price and the loss along the capacity path, from one sort of the breakpoints.

With κ ≥ 3 the used capacity S(u) = Σ C_i is piecewise linear in u = 1/τ, with slope A(u), the sum over the features
that are neither empty nor full of v_i (κ_i−1)/(κ_i−3). The slope on every piece is summed from the intervals of
the features that cover it (a segment tree over the sorted breakpoints): positive terms only, because a running sum
that adds a slope of 1e150 and later subtracts it has forgotten everything smaller. S grows from D = 0 and the loss
from the far end, by dL = −2τ² dS = 2A dτ, so both are sums of positive terms as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import QuadraticLoss

IntArray = npt.NDArray[np.intp]


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
    wanting = np.flatnonzero(demand.full > 0.0)
    enter, full = demand.enter[wanting], demand.full[wanting]
    scale, position = np.unique(-np.concatenate([enter, full]), return_inverse=True)
    scale = -scale
    first, last = position[: wanting.size], position[wanting.size :]
    ramps = first < last
    with np.errstate(over="ignore"):
        # Slopes from the breakpoints as rounded, whose differences are exact: every feature then rises by 1 in total,
        # also where κ − 3 is a few ulps.
        rate = enter[ramps] * (full[ramps] / (enter[ramps] - full[ramps]))
        slope = _covered(first[ramps], last[ramps], rate, scale.size)[:-1]
        fall = scale[:-1] - scale[1:]
        risen = slope * (fall / scale[:-1] / scale[1:])
        fallen = 2.0 * slope * fall
        jumps = np.bincount(first[~ramps], minlength=scale.size).astype(np.float64)
        jump_loss = np.where(jumps > 0.0, 2.0 * np.square(scale) * np.maximum(jumps, 1.0), 0.0)
    # Two knots per breakpoint: before and after the features that jump there.
    gained = np.empty(2 * scale.size)
    gained[0], gained[2::2], gained[1::2] = 0.0, risen, jumps
    lost = np.empty(2 * scale.size)
    lost[-1], lost[1:-1:2], lost[0::2] = 0.0, fallen, jump_loss
    dimensions = np.cumsum(gained)
    # Where no feature is on its way, the sum is a whole number of full ones: there the rounding errors are forgotten.
    full_so_far = np.cumsum(np.bincount(last, minlength=scale.size))
    whole = np.flatnonzero(slope == 0.0)
    drift = np.zeros_like(dimensions)
    drift[2 * whole + 1] = drift[2 * whole + 2] = full_so_far[whole] - dimensions[2 * whole + 1]
    known = np.zeros(dimensions.size, dtype=np.intp)
    known[2 * whole + 1], known[2 * whole + 2] = 2 * whole + 1, 2 * whole + 2
    dimensions += drift[np.maximum.accumulate(known)]
    dimensions[-1] = wanting.size
    dimensions = np.minimum.accumulate(dimensions[::-1])[::-1]  # no knot beyond a later, exact one
    loss = np.cumsum(lost[::-1])[::-1]
    return Path(dimensions, np.repeat(scale, 2), loss)


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
