"""Which feature with κ < 3 gets the rest? All local optima compared, for one problem or for many at once.

Features with κ < 3 have strictly concave losses, of which at most one is fractional at an optimum. Together they act as
one curve H(t), the least loss of the concave features when they receive t in total. With k = ⌊t⌋,

    H(t) = min( the k best are full and one other feature has t − k,
                the k + 1 best are used and one of those has only t − k ).

H is concave on every [k, k+1] and its values at the integers are convex: its convex envelope joins them by straight
lines. Hence the best t lies in the unit interval where the envelope, that is the convex relaxation, puts it. Given that
feature j has the fraction c, the loss is f_j(c) plus the least loss G of the features with κ ≥ 3 on what is left. Both
marginal values are 2τ² where it is stationary; c and the total S of the others are piecewise linear in u = 1/τ, and so
is the equation c_j(u) + S(u) = what is left: at most one root for each j between two knots of G. All these points, with
the knots and the ends of the interval of c, are the candidates; the best is the global optimum.

What this rests on is checked apart from the search, over all features of the problem: that the relaxation spends the
budget at the price it is given for (`_spends`), and that every concave feature was compared, or one that is at least as
good wherever it is fractional (`_covered`). Otherwise no bound beyond the Lagrangian's is claimed.

Arrays are laid out (n, m), features first, or (n, candidates, m).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import EPS, FloatArray
from capsolve.losses.quadratic import HUGE, ResponseCurve, column_sum, ratio
from capsolve.solvers.price import WaterFilling, interpolate_scale, solve_knapsack
from capsolve.solvers.value_function import ValueFunction

IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
# Numbers in one table of candidates: a dozen of these are in use at a time, and should stay in the cache.
TABLE = 1 << 18


class Fractional(NamedTuple):
    """Optimal capacities (n, m), and for each column the τ of the features with κ ≥ 3 and the duality gap ...

    ... L(C) − max over λ of the Lagrangian bound, in squares of the relaxation's scale: what the optimum of all
    candidates exceeds the bound by, whatever became of the capacities since.
    """

    capacity: FloatArray
    scale: FloatArray
    correction: FloatArray
    duality_gap: FloatArray


def solve_fractional(
    v: FloatArray, k: FloatArray, curve: ResponseCurve, budget: FloatArray, scale: FloatArray, whole: FloatArray
) -> Fractional:
    """Return the optimum of problems whose budget ends inside a feature with κ < 3, each a column of (n, m) arrays.

    At ``scale`` (m,) the convex relaxation saturates ``whole`` of the tied features with κ < 3, and a part of the next.
    ``curve`` are the response curves of all rows. A row with κ ≥ 3 may stand for many features: only its curve matters.
    """
    concave, full = k < 3.0, curve.full
    saturated = np.count_nonzero(concave & (full > scale), axis=0) + whole.astype(np.intp)
    # The concave ones first, in the order of what they save as a whole.
    order = np.argsort(np.where(concave, -full, np.inf), axis=0, kind="stable")
    rows = order[: np.max(np.count_nonzero(concave, axis=0))]
    with np.errstate(over="ignore"):  # measured in the scale, losses are of order one
        some_v = np.minimum(np.take_along_axis(v, rows, axis=0) / scale, HUGE)
    some_k = np.take_along_axis(k, rows, axis=0)
    others = ResponseCurve(*(np.where(concave, 0.0, part) for part in curve))
    if budget.size == 1 and not concave.all():
        others = others.take(~concave[:, 0])
    left = np.maximum(0.0, budget - saturated)

    fraction, fractional, adding, duality_gap = _best(some_v, some_k, others, left, scale, saturated)
    position = np.arange(len(rows))[:, None]
    shares = np.where(position < saturated + ~adding, 1.0, 0.0)
    column = np.arange(budget.size)
    shares[fractional, column] = 0.0
    relaxation = _spread(others, left - fraction)
    rest = _at_equal_price(others, relaxation, some_v[fractional, column] * scale, some_k[fractional, column], fraction)
    exact = np.clip(budget - column_sum(shares) - column_sum(rest), 0.0, 1.0)
    final = np.where((fraction > 0.0) & (fraction < 1.0), exact, fraction)
    shares[fractional, column] = final
    # The candidate is known to some ulps of the budget, and its value to as many times its marginal value.
    its_own = some_v[fractional, column], some_k[fractional, column]
    moved = np.where(np.abs(final - fraction) <= 16.0 * EPS * np.maximum(1.0, budget), final - fraction, 0.0)
    before, after = (its_own[0] * ratio(its_own[1], c) for c in (fraction, fraction + moved))
    duality_gap = np.maximum(0.0, duality_gap - 0.5 * before * after * moved)  # f(a) − f(b) = −½ w(a) w(b) (a − b)
    duality_gap = np.where(_spends(curve, concave, budget, scale), duality_gap, 0.0)

    capacity = np.zeros_like(v)
    capacity[~concave] = rest.ravel() if len(rest) < len(v) else rest[~concave]
    mine = np.take_along_axis(concave, rows, axis=0)
    np.put_along_axis(capacity, rows, np.where(mine, shares, np.take_along_axis(capacity, rows, axis=0)), axis=0)
    return Fractional(capacity, relaxation.scale, relaxation.correction, duality_gap)


def _spread(others: ResponseCurve, budget: FloatArray) -> WaterFilling:
    relaxation = solve_knapsack(others, budget)
    # The price jumps where a feature becomes full, and the root may lie some ulps beside that point.
    width = others.width
    capacity = np.where(relaxation.capacity > (1.0 - 1e-13) * width, width, relaxation.capacity)
    return relaxation._replace(capacity=capacity)


def _at_equal_price(
    others: ResponseCurve, relaxation: WaterFilling, v: FloatArray, k: FloatArray, fraction: FloatArray
) -> FloatArray:
    """Return the capacities of the others at the marginal value of the fractional feature, as far as rounding goes.

    What is left of the budget is known to an ulp of it, which is much for a small capacity of a large kurtosis: those
    can have the accuracy of the price instead.
    """
    inside = (fraction > 0.0) & (fraction < 1.0) & (relaxation.scale > 0.0)
    price = np.where(inside, 0.5 * v * ratio(k, np.where(inside, fraction, 0.0)), 1.0)
    with np.errstate(over="ignore", under="ignore"):
        there = others.at(np.where(price > 0.0, price, 1.0))
    near = inside & (np.abs(there - relaxation.capacity) <= 1e-12)
    capacity: FloatArray = np.where(near, there, relaxation.capacity)
    return capacity


def _best(
    v: FloatArray, k: FloatArray, others: ResponseCurve, left: FloatArray, scale: FloatArray, saturated: IntArray
) -> tuple[FloatArray, IntArray, BoolArray, FloatArray]:
    """Return the best fraction, whose it is, whether all of the saturated ones stay so, and the duality gap; (m,) each.

    The concave features in the order of what they save, importances in units of the scale.
    """
    m = left.size
    whole_loss = np.square(v) * (k - 1.0)  # of a feature without capacity
    concave = k < 3.0
    following = np.take_along_axis(whole_loss, saturated[None], axis=0)[0]
    proved = True
    best = Incumbent(np.full(m, np.inf), np.zeros(m), np.zeros(m, dtype=np.intp), np.ones(m, dtype=np.bool_))
    step = max(1, TABLE // (8 * max(1, len(others.enter)) * min(len(v), 64)))
    for part in (slice(i, i + step) for i in range(0, m, step)):
        some = others if m == 1 else ResponseCurve(*(a[:, part] for a in others))
        candidates = _Candidates.of(some, left[part], scale[part])
        rows = np.arange(len(v))
        if m == 1:
            rows = candidate_features(k[:, 0], int(saturated[0]))
            proved = proved and _covered(rows, np.where(concave, k, 0.0)[:, 0], int(saturated[0]))
        block = max(1, TABLE // (2 * candidates.fraction.size))
        here: Any
        for chosen in (rows[i : i + block] for i in range(0, rows.size, block)):
            here = (chosen, part)
            c, cost = candidates.of_features(v[here], k[here], concave[here])
            change = _change(v[here][:, None], k[here][:, None], c, candidates.from_full) + cost
            row = chosen[:, None]
            beyond = (whole_loss[here] - following[part])[:, None]
            # Either the best are full and j has a part, or the next one is full as well and j, one of them, has a part.
            kept = np.where(
                (concave[here] & (row >= saturated[part]))[:, None],
                change - np.where(candidates.from_full, beyond, 0.0),
                np.inf,
            )
            gone = np.where(
                (concave[here] & (row <= saturated[part]))[:, None],
                change + np.where(candidates.from_full, 0.0, beyond),
                np.inf,
            )
            best.improve(part, chosen, c, kept, adding=True)
            best.improve(part, chosen, c, gone, adding=False)
        best.value[part] += candidates.constant - np.where(candidates.from_full, following[part], 0.0)
    return best.fraction, best.fractional, best.adding, np.maximum(0.0, best.value if proved else 0.0 * best.value)


class Incumbent(NamedTuple):
    """The best candidate so far of each column; of equals, that which leaves more to features of lower index."""

    value: FloatArray
    fraction: FloatArray
    fractional: IntArray
    adding: BoolArray

    def improve(self, part: slice, rows: IntArray, c: FloatArray, value: FloatArray, adding: bool) -> None:
        """Look at a table (rows, candidates, m) of values at fractions ``c``."""
        at = np.argmin(value, axis=1)
        each = np.take_along_axis(value, at[:, None], axis=1)[:, 0]
        i = np.argmin(each, axis=0) if adding else len(rows) - 1 - np.argmin(each[::-1], axis=0)
        column = np.arange(i.size)
        found = each[i, column]
        equal = np.zeros_like(found, dtype=np.bool_) if adding else (found == self.value[part]) & ~self.adding[part]
        better = (found < self.value[part]) | equal
        self.value[part] = np.where(better, found, self.value[part])
        self.fraction[part] = np.where(better, c[i, at[i, column], column], self.fraction[part])
        self.fractional[part] = np.where(better, rows[i], self.fractional[part])
        self.adding[part] = np.where(better, adding, self.adding[part])


class _Candidates(NamedTuple):
    """Where local optima can be, for any fractional feature; losses in squares of the relaxation's scale.

    The fraction c, (candidates, m), leaves left − c to the others, whose Lagrangian at the relaxation's price, λ = 2,
    is ``cost`` there, but for what is the same for all. ``constant`` makes the sum of f_j(c) − f_j(0) and the cost the
    duality gap.

    Losses of the others are counted from where they have all that is left, so that the differences between candidates
    are accurate however much first bits save. Those of the fractional feature are counted from where it is full where
    much is left (``from_full``, (m,)), else from where it is empty.
    """

    fraction: FloatArray
    cost: FloatArray
    knots: ValueFunction  # between which there may be roots
    left: FloatArray
    constant: FloatArray
    from_full: BoolArray

    @classmethod
    def of(cls, others: ResponseCurve, left: FloatArray, scale: FloatArray) -> _Candidates:
        """Return the candidates that do not depend on which feature is fractional."""
        function = ValueFunction.of(others)
        with np.errstate(over="ignore"):
            function = function._replace(scale=function.scale / scale).until(left)
        ends = np.stack([np.maximum(0.0, left - function.dimensions[-1]), np.minimum(1.0, left)])
        # The Lagrangian bound of the others: at the relaxation's price they use what their curves say.
        taken = column_sum(others.at(scale))
        _, loss = function.at(np.minimum(left, np.concatenate([left - ends, taken[None]])))
        at_ends, at_price = np.split(loss, [2])
        if left.size == 1:  # only knots within one dimension of what is left can matter, and their neighbours
            first, last = np.searchsorted(function.dimensions[:, 0], [left[0] - 1.0, left[0]], side="right")
            function = ValueFunction(*(part[max(0, first - 2) : last + 1] for part in function))
        at_knots = left - function.dimensions
        possible = (at_knots >= 0.0) & (at_knots <= 1.0)
        fraction = np.concatenate([ends, np.clip(at_knots, 0.0, 1.0)])
        cost = np.concatenate([at_ends, np.where(possible, function.loss, np.inf)])
        return cls(fraction, cost, function, left, 2.0 * (left - taken) - at_price[0], left > 0.5)

    def of_features(self, v: FloatArray, k: FloatArray, concave: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Return fractions (n, candidates, m) of some features, and the loss of the others there, infinite for none."""
        roots, loss = self._roots(v, k, concave)
        fixed = (len(v), *self.fraction.shape)
        return (
            np.concatenate([np.broadcast_to(self.fraction, fixed), roots], axis=1),
            np.concatenate([np.broadcast_to(self.cost, fixed), loss], axis=1),
        )

    def _roots(self, v: FloatArray, k: FloatArray, concave: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Return where marginal values are equal, one candidate for each feature and each piece between two knots."""
        knots, left = self.knots, self.left
        near, far, begin, end, last = (
            knots.scale[:-1],
            knots.scale[1:],
            knots.dimensions[:-1],
            knots.dimensions[1:],
            knots.loss[1:],
        )
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
            scale, _ = interpolate_scale(high, low, part)
            taken = np.clip(total_high + part * (total_low - total_high), begin, end)
            c = np.where(there, np.clip(left - taken, 0.0, 1.0), 0.0)
            cost = np.where(there, last + 2.0 * (end - taken) * scale * far, np.inf)
        return c, cost


def candidate_features(k: FloatArray, saturated: int) -> IntArray:
    """Return the positions of concave features that may be the fractional one, of features sorted by what they save.

    To have a part only, a feature of more kurtosis is better: it must have more than all that come closer to the edge
    between the saturated and the others, the first of which counts with both.
    """
    beyond, within = k[saturated:], k[saturated::-1]
    later = np.flatnonzero(beyond > np.concatenate([[0.0], np.maximum.accumulate(beyond)[:-1]]))
    earlier = np.flatnonzero(within > np.concatenate([[0.0], np.maximum.accumulate(within)[:-1]]))
    return np.concatenate([saturated - earlier[:0:-1], saturated + later])


def _covered(rows: IntArray, k: FloatArray, saturated: int) -> bool:
    """Return whether each feature is among the rows, or one that is no worse with a part only.

    With the fraction c a feature saves its chord v²(κ−1) times ½(κ−1)c / (1 − c + ½(κ−1)c), which grows with κ. So of
    those that follow the saturated ones, one with at least the chord and the kurtosis of another is as good; of the
    saturated, whose last part is given up, one with at most the chord and at least the kurtosis.
    """
    compared = np.zeros(k.size)
    compared[rows] = k[rows]
    sides = (slice(saturated, None), slice(saturated, None, -1))
    return all(bool((np.maximum.accumulate(compared[side]) >= k[side]).all()) for side in sides)


def _spends(curve: ResponseCurve, concave: BoolArray, budget: FloatArray, scale: FloatArray) -> BoolArray:
    """Return whether the capacities of the convex relaxation can sum to the budget at this scale, for each column."""
    total = []
    for end in (scale * (1.0 + 8.0 * EPS), scale * (1.0 - 8.0 * EPS)):  # where the concave features jump
        convex = np.where(concave, 0.0, curve.at(end))
        total.append(column_sum(convex) + np.count_nonzero(concave & (curve.full >= end), axis=0))
    rounding = 64.0 * EPS * np.maximum(1.0, budget)
    holds: BoolArray = (total[0] - rounding <= budget) & (budget <= total[1] + rounding)
    return holds


def _change(v: FloatArray, k: FloatArray, c: FloatArray, from_full: BoolArray) -> FloatArray:
    """Return f(C) − f(1) or f(C) − f(0) = −½v²(κ−1)ρC, in a form that does not overflow before it must."""
    size = np.square(v * np.sqrt(ratio(k, c) * np.where(from_full, 1.0 - c, 0.5 * (k - 1.0) * c)))
    change: FloatArray = np.where(from_full, size, -size)
    return change
