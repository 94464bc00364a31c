"""The global optimum of the quadratic loss, for any mixture of kurtoses.

Features with κ ≥ 3 have convex losses: one price search (`capsolve.solvers.price`) settles them. Features with κ < 3
have strictly concave losses, of which at most one is fractional at an optimum. So all of them together act as one
curve H(t): the least loss of the concave features when they receive t in total. With k = ⌊t⌋,

    H(t) = min( the k best are full and one other feature has t − k,
                the k + 1 best are used and one of those has only t − k ).

H is concave on every [k, k+1] and its values at the integers are convex: its convex envelope joins them by straight
lines. Hence the best t lies in the unit interval where the envelope puts it, and branch and bound (Falk & Soland
1969) in the single variable t finishes the job: no tree over features, however many of them are alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import GIANT, Demand, QuadraticLoss
from capsolve.solvers.branch import Relaxation, branch_and_bound
from capsolve.solvers.price import breakpoints_of, fill
from capsolve.solvers.solution import Solution

Interval = tuple[float, float]
WHOLE: Interval = (0.0, 1.0)


def solve_quadratic(model: QuadraticLoss, dimensions: float, tolerance: float) -> Solution:
    """Minimise L(C) subject to Σ C_i ≤ dimensions and 0 ≤ C_i ≤ 1.

    Where the optimum is not unique (features tied at the final price whose losses are linear or concave), those
    with κ < 3 are served first, whole, in the order of their index; those with κ = 3 share the rest equally.
    """
    if dimensions >= model.demand:
        return Solution(np.where(model.importance > 0.0, 1.0, 0.0))
    if not model.bias:
        return Solution(model.balance(lambda trace: fill(model.demand_curve(trace), dimensions).capacity))

    demand = model.demand_curve()
    filling = fill(demand, dimensions)
    capacity = filling.capacity
    concave = model.kurtosis < 3.0
    tied = np.flatnonzero((filling.jumping > 0.0) & concave)
    if tied.size == 0:
        return Solution(capacity)

    linear = np.flatnonzero((filling.jumping > 0.0) & ~concave)
    left = capacity[tied].sum() + capacity[linear].sum()
    whole = min(int(left), tied.size)
    rest = left - whole
    if rest > linear.size:
        served = int(np.count_nonzero(concave & (demand.full > filling.scale)))
        return _share_one(model, demand, dimensions, filling.scale, served + whole, tolerance)
    capacity[tied] = np.where(np.arange(tied.size) < whole, 1.0, 0.0)
    capacity[linear] = rest / max(linear.size, 1)
    return Solution(capacity)


def _share_one(
    model: QuadraticLoss, demand: Demand, dimensions: float, scale: float, served: int, tolerance: float
) -> Solution:
    """Find the best c in [0, 1]: what the concave features get beyond ``served``, all of it in one of them."""
    convex = np.flatnonzero(model.kurtosis >= 3.0)
    group = np.flatnonzero(model.kurtosis < 3.0)
    group = group[np.argsort(-demand.full[group], kind="stable")]
    # Measured in the root scale, every loss that still matters is of order one.
    v = np.minimum(model.importance / scale, GIANT / model.kurtosis)
    curve = _group_loss(v[group], model.kurtosis[group], served)
    others = _Others(v[convex], model.kurtosis[convex])
    left = dimensions - served

    def loss_at(c: float) -> float:
        return curve(c)[0] + others.loss(others.spread(left - c)[0])

    def relax(box: Interval) -> Relaxation[Interval]:
        a, b = box
        at_a, at_b = curve(a)[0], curve(b)[0]
        chord = (at_a - at_b) / (b - a)
        _, taken, price = others.spread(left - a, np.sqrt(0.5 * chord), b - a)
        # weak duality: valid at any price, and the price of the relaxation makes it tight
        bound = min(at_a + price * a, at_b + price * b) + others.bound(price) - price * left
        c = a + taken
        tries = [c, a, b] if box == WHOLE else [c]
        loss, best = min((loss_at(x), x) for x in tries if x <= left)
        return Relaxation(bound, loss, np.array([best]), lambda: [(a, c), (c, b)] if a < c < b else [])

    # The price (2, in these units) times the budget is the size of the terms that cancel in the bound. Half the
    # tolerance leaves room for the finish.
    size = 2.0 * dimensions
    outcome = branch_and_bound(relax, WHOLE, tolerance=tolerance / 2, floor=-size)
    c = float(outcome.capacity[0])
    if others.model is None:
        c = min(1.0, left)  # nobody else wants what is left
    else:
        # A loss within the tolerance leaves c uncertain by its square root: finish on the equal marginal values.
        trader = group[curve(c)[1]]
        alone = QuadraticLoss(v[[trader]], model.kurtosis[[trader]])

        def marginal(c: float) -> float:
            return float(alone.marginal(np.array([c]))[0])

        stationary = _descend(lambda c: others.spread(left - c)[2] - marginal(c), c, 0.0, min(1.0, left))
        if loss_at(stationary) <= loss_at(c) + 1e-14 * (outcome.loss + size):
            c = stationary

    _, shared, full = curve(c)
    capacity = np.zeros(model.features)
    capacity[group[:full]] = 1.0
    capacity[convex] = others.spread(left - c)[0]
    # The price jumps where a convex feature becomes full: the root is found to some ulps beside that point.
    capacity[capacity > 1.0 - 1e-13] = 1.0
    if 0.0 < c < 1.0:
        if others.model is not None:
            # D − t is known to an ulp of D, which is much for a small capacity of a large kurtosis: those can have
            # the accuracy of the price instead, as long as that is a change by ulps of D.
            at_price = others.model.response(marginal(c))
            near = np.abs(at_price - capacity[convex]) <= 1e-12
            capacity[convex] = np.where(near, at_price, capacity[convex])
        capacity[group[shared]] = 0.0
        capacity[group[shared]] = min(1.0, max(0.0, dimensions - capacity.sum()))
    gap = max(0.0, outcome.loss - outcome.lower_bound) / outcome.loss if outcome.loss > 0.0 else 0.0
    return Solution(capacity, gap, outcome.boxes)


class _Others:
    """The features with convex losses, with which the concave ones compete; there may be none."""

    def __init__(self, v: FloatArray, kurtosis: FloatArray) -> None:
        self.model = QuadraticLoss(v, kurtosis) if v.size else None
        self.demand = self.model.demand_curve() if self.model else Demand(*np.empty((4, 0)))
        self.breakpoints = breakpoints_of(self.demand)

    def spread(self, budget: float, step: float = 0.0, width: float = 0.0) -> tuple[FloatArray, float, float]:
        """Fill these features and one jump of ``width`` at the scale ``step``: capacities, what jumps, the price."""
        jump = (step, step, 0.0, width)
        demand = Demand(*(np.append(part, x) for part, x in zip(self.demand, jump, strict=True)))
        at = np.searchsorted(-self.breakpoints, -step)
        breakpoints = np.insert(self.breakpoints, [at, at], step) if step > 0.0 else self.breakpoints
        filling = fill(demand, budget, breakpoints)
        return filling.capacity[:-1], float(filling.capacity[-1]), 2.0 * filling.scale**2

    def loss(self, capacity: FloatArray) -> float:
        return float(np.sum(self.model.feature_loss(capacity))) if self.model else 0.0

    def bound(self, price: float) -> float:
        """Return min_C [L(C) + price · ΣC]."""
        return self.model.lower_bound(price, 0.0) if self.model else 0.0


def _descend(slope: Callable[[float], float], start: float, low: float, high: float) -> float:
    """Follow a loss with the given slope downhill from ``start`` to a stationary point or an end of [low, high]."""
    from scipy.optimize import brentq  # noqa: PLC0415  (scipy.optimize takes longer to import than to use)

    step, left, right = 1e-7, start, start
    while left > low and slope(left) > 0.0:
        left, right, step = max(low, left - step), left, 4.0 * step
    while right < high and slope(right) < 0.0:
        left, right, step = right, min(high, right + step), 4.0 * step
    if slope(left) > 0.0 or left == right:
        return left
    if slope(right) < 0.0:
        return right
    return float(brentq(slope, left, right, xtol=1e-16, rtol=4 * np.finfo(float).eps))


def _group_loss(v: FloatArray, kurtosis: FloatArray, served: int) -> Callable[[float], tuple[float, int, int]]:
    """Return c ↦ (H(served + c), position of the feature that trades, number of full features) for c in [0, 1].

    The features are sorted by what serving them whole saves. The trading feature has the capacity c. At the ends of the
    interval nobody trades, and it is the one that would by a small step inwards: at 0 the one that gains most from a
    first bit, at 1 the one that loses least by its last, 2v². Of equals, those of lower index keep more.
    """
    with np.errstate(over="ignore"):
        whole = np.square(v * np.sqrt(kurtosis - 1.0))
        start = 0.5 * np.square(v * (kurtosis - 1.0))
    base = float(np.sum(whole[served:]))
    first = slice(served, None, -1)  # the served ones and the next, the last first

    def curve(c: float) -> tuple[float, int, int]:
        if c <= 0.0:
            return base, served + int(np.argmax(start[served:])), served
        if c >= 1.0:
            return base - float(whole[served]), served - int(np.argmin(v[first])), served + 1
        denominator = 1.0 + 0.5 * (kurtosis - 3.0) * c
        # Count from the whole number of features that is nearer, so that small differences do not drown.
        if c < 0.5:
            near, cost = base, -start * (c / denominator)
            added, dropped = cost[served:], cost[first] + (whole[first] - whole[served])
        else:
            near, cost = base - float(whole[served]), whole * ((1.0 - c) / denominator)
            added, dropped = cost[served:] + (whole[served] - whole[served:]), cost[first]
        i, j = int(np.argmin(added)), int(np.argmin(dropped))
        if added[i] <= dropped[j]:
            return near + float(added[i]), served + i, served
        return near + float(dropped[j]), served - j, served + 1

    return curve
