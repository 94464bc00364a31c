"""The least loss of features with convex losses as a function of their budget, and the price along the way.

With κ ≥ 3 the used capacity S(u) = Σ C_i is piecewise linear in u = 1/τ, with slope A(u), the sum over the features
that are neither empty nor full of v_i (κ_i−1)/(κ_i−3). S grows from D = 0 and the loss from the far end, by
dL = −2τ² dS = 2A dτ: both are sums of positive terms. The slope is not: a feature adds to it where it enters and takes
away where it is full, and a running sum that adds 1e150 and later subtracts it has forgotten everything smaller. So it
is summed in threefold precision, and where that is not enough from the intervals of the features that cover each piece,
adding only.

Arrays have features first, and may have a second axis of problems, each of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import EPS, FloatArray
from capsolve.losses.quadratic import ResponseCurve
from capsolve.solvers.price import interpolate_scale

IntArray = npt.NDArray[np.intp]


class ValueFunction(NamedTuple):
    """Knots of L(D), in the order of growing budget, shape (q,) or (q, m) each.

    Between two knots 1/``scale`` is linear in ``dimensions``; where two knots have the same scale the price stays
    constant. ``loss`` is counted from its value at the last knot.
    """

    dimensions: FloatArray
    scale: FloatArray
    loss: FloatArray

    @classmethod
    def of(cls, curve: ResponseCurve) -> ValueFunction:
        """Return the knots of features with these curves, from D = 0 to where nothing gains any more."""
        if curve.enter.ndim == 1:
            curve = curve.take(curve.enter > 0.0)
        enter, full, width = curve.enter, curve.full, curve.width
        jumps = (enter <= full) & (enter > 0.0)
        events = -np.concatenate([enter, full])
        # A feature that jumps enters before it is full, and between the two, at one scale, its capacity arrives.
        order = np.argsort(events, axis=0, kind="stable" if jumps.any() else None)
        scale = -np.take_along_axis(events, order, axis=0)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            # Slopes from the breakpoints as rounded, whose differences are exact: every feature then rises by its width
            # in total, also where κ − 3 is a few ulps.
            moving = ~jumps & (enter > full)
            rate = np.where(moving, width * enter * (full / np.where(moving, enter - full, 1.0)), 0.0)
            slope = _slopes(rate, order)
            fall = scale[:-1] - scale[1:]
            lost = 2.0 * slope * fall
            gained = np.where(slope > 0.0, slope * (fall / scale[:-1] / scale[1:]), 0.0)
            if jumps.any():
                arrives = np.take_along_axis(
                    np.concatenate([np.zeros_like(width), np.where(jumps, width, 0.0)]), order, 0
                )
                gained += arrives[1:]
                lost += 2.0 * arrives[1:] * np.square(scale[1:])
        start = np.zeros((1, *enter.shape[1:]))
        dimensions = np.concatenate([start, running_sum(gained)])
        # Where no feature is on its way, the sum is that of saturated ones: there the rounding errors are forgotten.
        resting = np.concatenate([slope == 0.0, np.ones_like(start, dtype=np.bool_)])
        saturated = np.cumsum(np.take_along_axis(np.concatenate([np.zeros_like(width), width]), order, 0), axis=0)
        position = np.arange(len(scale)).reshape(-1, *([1] * (scale.ndim - 1)))
        last = np.maximum.accumulate(np.where(resting, position, 0), axis=0)
        drift = np.where(resting, saturated - dimensions, 0.0)
        dimensions += np.take_along_axis(drift, last, axis=0)
        dimensions = np.minimum.accumulate(dimensions[::-1])[::-1]  # no knot beyond a later, exact one
        loss = np.concatenate([running_sum(lost[::-1])[::-1], start])
        return cls(dimensions, scale, loss)

    def until(self, budget: FloatArray) -> ValueFunction:
        """Return the same up to a budget, shape (m,), with the loss counted from there.

        Differences between smaller budgets are then accurate however much the first and the last bits are worth.
        """
        beyond = self.dimensions > budget
        dimensions = np.minimum(self.dimensions, budget)
        scale = np.where(beyond, self.at(budget[None])[0], self.scale)
        width = np.diff(dimensions, axis=0)
        lost = np.where(width > 0.0, 2.0 * width * scale[:-1] * scale[1:], 0.0)
        loss = np.concatenate([running_sum(lost[::-1])[::-1], np.zeros_like(scale[:1])])
        return self._replace(dimensions=dimensions, scale=scale, loss=loss)

    def at(self, budget: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return scale τ and loss at budgets, shape (k,) or (k, m) each.

        On a knot the scale is that of a growing budget.
        """
        if self.dimensions.ndim == 1:
            right = np.searchsorted(self.dimensions, budget, side="right")
        else:
            right = np.count_nonzero(self.dimensions[:, None] <= budget, axis=0)
        end = len(self.dimensions) - 1
        inside = right <= end
        right = np.minimum(right, end)
        left = np.maximum(right - 1, 0)
        begin, stop, near, far, last = (
            np.take_along_axis(part, at, axis=0)
            for part, at in (
                (self.dimensions, left),
                (self.dimensions, right),
                (self.scale, left),
                (self.scale, right),
                (self.loss, right),
            )
        )
        span = stop - begin
        done, rest = np.clip(budget - begin, 0.0, span), np.clip(stop - budget, 0.0, span)
        part = np.where(span > 0.0, np.minimum(1.0, done / np.where(span > 0.0, span, 1.0)), 0.0)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scale, _ = interpolate_scale(near, far, part)
            # dL = −2τ² dD: a straight line where τ is constant, and in 1/τ linear otherwise.
            still = np.where(rest > 0.0, 2.0 * rest * scale * far, 0.0)
        return np.where(inside, scale, 0.0), np.where(inside, last + still, 0.0)


def _slopes(rate: FloatArray, order: IntArray) -> FloatArray:
    """Return the slope on each piece between two events, ``order`` listing the n entrances, then the n exits."""
    n = len(rate)
    change = np.take_along_axis(np.concatenate([rate, -rate]), order, axis=0)
    slope = running_sum(change, levels=3)[:-1]
    resting_pieces = np.cumsum(np.sign(change), axis=0)[:-1] == 0.0
    slope[resting_pieces] = 0.0
    # The sum's worst error is (2nε)³ times the largest number in it; the slopes are to be exact to a few ε.
    largest = np.max(slope, axis=0, initial=0.0)
    least = np.min(slope, axis=0, where=~resting_pieces, initial=math.inf)
    exact = (least >= 1e16 * (2.0 * n * EPS) ** 3 * largest) & (largest < math.inf)
    for column in np.argwhere(~exact):
        here = (slice(None), *column)
        moving = rate[here] > 0.0
        position = np.empty(2 * n, dtype=np.intp)
        position[order[here]] = np.arange(2 * n)
        slope[here] = _covered(position[:n][moving], position[n:][moving], rate[here][moving], 2 * n)[:-1]
    return slope


def running_sum(values: FloatArray, levels: int = 2, block: int = 1 << 14) -> FloatArray:
    """Return the cumulative sums of columns as if computed with ``levels`` times the precision; infinite stays so.

    The errors of the sums are summed, and for a third level the errors of those. Each block of values stays in the
    cache. Ogita, Rump & Oishi, SIAM J. Sci. Comput. 26 (2005), algorithm 4.8.
    """
    result = np.empty_like(values)
    carried = np.zeros((levels, 1, *values.shape[1:]))
    with np.errstate(invalid="ignore", over="ignore"):  # ∞ − ∞ in the errors of a sum that has become infinite
        for start in range(0, len(values), block):
            terms = values[start : start + block]
            parts = []
            for level in range(levels):
                sums = np.concatenate([carried[level], terms])
                np.cumsum(sums, axis=0, out=sums)
                carried[level] = sums[-1:]
                parts.append(sums[1:])
                if level + 1 < levels:
                    before, after = sums[:-1], sums[1:]
                    added = after - before
                    terms = (before - (after - added)) + (terms - added)
            result[start : start + block] = np.where(
                np.isfinite(parts[0]), parts[0] + sum(reversed(parts[1:])), parts[0]
            )
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
