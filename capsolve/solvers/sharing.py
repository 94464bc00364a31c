"""Many small problems whose budget ends inside a feature with κ < 3: all local optima of each, and the best of them.

At an optimum at most one feature with a concave loss (κ < 3) is fractional; `capsolve.solvers.quadratic` shows which
sets of the others are full. Given that feature j, with the capacity c, the loss is f_j(c) plus the least loss G of the
features with κ ≥ 3 on what is left. Both marginal values are 2τ² where it is stationary, c and the total S of the
others are piecewise linear in u = 1/τ, and so is the equation c_j(u) + S(u) = what is left: at most one root for each j
between two breakpoints. All these points, with the breakpoints and the ends of the interval of c, are the candidates;
the best is the global optimum, and nothing has to be bounded.

Arrays are laid out (n, m), features first, or (n, candidates, m).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import GIANT, demand_of
from capsolve.solvers.columns import Curves, fill_columns, total

# Numbers in one table of candidates.
TABLE = 1 << 18


def share_columns(v: FloatArray, k: FloatArray, budget: FloatArray, scale: FloatArray, whole: FloatArray) -> FloatArray:
    """Return the optimal capacities of each column.

    At ``scale`` (m,) the convex relaxation serves ``whole`` of the tied features with κ < 3, and a part of the next.
    """
    step = max(1, TABLE // (6 * len(v) * len(v)))
    capacity = np.empty_like(v)
    for part in (slice(i, i + step) for i in range(0, budget.size, step)):
        capacity[:, part] = _share(v[:, part], k[:, part], budget[part], scale[part], whole[part])
    return capacity


def _share(v: FloatArray, k: FloatArray, budget: FloatArray, scale: FloatArray, whole: FloatArray) -> FloatArray:
    n, concave, full = len(v), k < 3.0, demand_of(v, k).full
    served = np.count_nonzero(concave & (full > scale), axis=0) + whole.astype(np.intp)
    number = np.count_nonzero(concave, axis=0)
    # The concave ones first, in the order of what they save as a whole; measured in the scale, losses are of order one.
    order = np.argsort(np.where(concave, -full, np.inf), axis=0, kind="stable")
    v = np.take_along_axis(np.minimum(v / scale, GIANT / k), order, axis=0)
    k = np.take_along_axis(k, order, axis=0)
    row = np.arange(n)[:, None]
    concave = row < number
    left = np.maximum(0.0, budget - served)

    others = np.where(concave, 0.0, v)
    curves = Curves.of(others, k)
    rest = _Rest.of(curves, others, k)
    c, cost = _candidates(v, k, concave, left, rest)
    used = _cost(v[:, None], k[:, None], c)
    unserved = np.square(v) * (k - 1.0)
    # Either the best ones are full and j has a part, or the next one is full too and j, one of them, has only a part.
    following = np.take_along_axis(unserved, served[None], axis=0)
    added = np.where((concave & (row >= served))[:, None], used - unserved[:, None] + cost, np.inf)
    dropped = np.where((concave & (row <= served))[:, None], used - following[:, None] + cost, np.inf)
    table = np.concatenate([added, dropped[::-1]])  # of equals, the first in this order
    at = np.argmin(table, axis=1)
    best = np.argmin(np.take_along_axis(table, at[:, None], axis=1)[:, 0], axis=0)
    adding = best < n
    trader = np.where(adding, best, 2 * n - 1 - best)
    column = np.arange(budget.size)
    share = c[trader, at[best, column], column]

    capacity = np.where(row < served + ~adding, 1.0, 0.0)
    capacity[trader, column] = 0.0
    spread = fill_columns(curves, left - share).capacity
    # the price jumps where a feature becomes full, and the root may lie some ulps beside that point
    spread = np.where(spread > 1.0 - 1e-13, 1.0, spread)
    capacity = np.where(concave, capacity, spread)
    exact = np.clip(budget - total(capacity), 0.0, 1.0)
    capacity[trader, column] = np.where((share > 0.0) & (share < 1.0), exact, share)
    result = np.empty_like(capacity)
    np.put_along_axis(result, order, capacity, axis=0)
    return result


class _Rest(NamedTuple):
    """How the features with κ ≥ 3 share: scale, total capacity and loss at the knots, (q, m), of growing capacity.

    The first knot is at an infinite scale. Features that jump have two knots at one scale, before and after.
    """

    scale: FloatArray
    total: FloatArray
    loss: FloatArray

    @classmethod
    def of(cls, curves: Curves, v: FloatArray, k: FloatArray) -> _Rest:
        breakpoints = np.sort(np.concatenate([curves.enter, curves.full]), axis=0)[::-1]
        scale = np.concatenate([np.full((1, v.shape[1]), np.inf), breakpoints])
        with np.errstate(divide="ignore"):  # at scale 0 everything is full
            before = curves.at(scale[:, None])
        jumping = (curves.enter <= curves.full) & (curves.enter > 0.0) & (curves.enter == scale[:, None])
        after = before + jumping
        knots = np.stack([before, after], axis=1).reshape(-1, *v.shape)
        # where several breakpoints lie at one scale, all that jumps there has jumped at the first of them
        used = np.maximum.accumulate(knots.sum(axis=1), axis=0)
        loss = np.minimum.accumulate(_cost(v, k, knots).sum(axis=1), axis=0)
        return cls(np.repeat(scale, 2, axis=0), used, loss)

    def at(self, capacity: FloatArray) -> FloatArray:
        """Return the least loss for a total capacity (m,)."""
        b = np.clip(np.count_nonzero(self.total <= capacity, axis=0), 1, len(self.total) - 1)[None]
        near, far, begin, end, last = (
            np.take_along_axis(knots, at, axis=0)[0]
            for knots, at in (
                (self.scale, b - 1),
                (self.scale, b),
                (self.total, b - 1),
                (self.total, b),
                (self.loss, b),
            )
        )
        part = np.where(end > begin, (capacity - begin) / np.where(end > begin, end - begin, 1.0), 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = far / (part + (1.0 - part) * (far / near))
        missing = end - capacity
        loss: FloatArray = last + 2.0 * missing * np.where(missing > 0.0, scale, 0.0) * far
        return loss


def _candidates(
    v: FloatArray, k: FloatArray, concave: npt.NDArray[np.bool_], left: FloatArray, rest: _Rest
) -> tuple[FloatArray, FloatArray]:
    """Return capacities c of each feature, (n, candidates, m), and the loss of the others there, infinite for none."""
    ends = np.stack([np.maximum(0.0, left - rest.total[-1]), np.minimum(1.0, left)])
    knots = left - rest.total
    c = np.concatenate([ends, np.clip(knots, 0.0, 1.0)])
    possible = (knots >= 0.0) & (knots <= 1.0)
    loss = np.concatenate([[rest.at(left - end) for end in ends], np.where(possible, rest.loss, np.inf)])
    roots, loss_there = _roots(v, k, concave, left, rest)
    fixed = (len(v), *c.shape)
    return (
        np.concatenate([np.broadcast_to(c, fixed), roots], axis=1),
        np.concatenate([np.broadcast_to(loss, fixed), loss_there], axis=1),
    )


def _roots(
    v: FloatArray, k: FloatArray, concave: npt.NDArray[np.bool_], left: FloatArray, rest: _Rest
) -> tuple[FloatArray, FloatArray]:
    """Return where marginal values are equal, one candidate for each feature and each ramp between two scales."""
    near, far = rest.scale[1:-1:2], rest.scale[2::2]
    begin, end, last = rest.total[1:-1:2], rest.total[2::2], rest.loss[2::2]
    first, final = (v * (0.5 * (k - 1.0)))[:, None], v[:, None]  # scales at which c is 0 and 1
    high, low = np.minimum(near, final), np.maximum(far, first)
    there = (high > low) & concave[:, None] & (first > 0.0)
    high, low = np.where(there, high, 1.0), np.where(there, low, 1.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        length = 1.0 / far - 1.0 / near
        rate = np.where((end > begin) & (length > 0.0), (end - begin) / length, 0.0)
        total_high, total_low = (begin + rate * (1.0 / scale - 1.0 / near) for scale in (high, low))
        excess = (k - 3.0)[:, None]
        c_high = np.where(high == final, 1.0, np.clip((2.0 * first / high - 2.0) / excess, 0.0, 1.0))
        c_low = np.where(low == first, 0.0, np.clip((2.0 * first / low - 2.0) / excess, 0.0, 1.0))
        above, below = total_high + c_high - left, total_low + c_low - left
        there &= (above >= 0.0) & (below <= 0.0) & (above > below)  # where it rises, the loss is at a maximum
        part = above / (above - below)
        scale = low / (part + (1.0 - part) * (low / high))
        taken = np.clip(total_high + part * (total_low - total_high), begin, end)
        c = np.where(there, np.clip(left - taken, 0.0, 1.0), 0.0)
        loss = np.where(there, last + 2.0 * (end - taken) * scale * far, np.inf)
    return c, loss


def _cost(v: FloatArray, k: FloatArray, c: FloatArray) -> FloatArray:
    """Return the losses of features at capacities c."""
    denominator = 1.0 + 0.5 * (k - 3.0) * c
    denominator = np.where(denominator == 0.0, 1.0, denominator)
    loss: FloatArray = np.square(v * np.sqrt((k - 1.0) * (1.0 - c) / denominator))
    return loss
