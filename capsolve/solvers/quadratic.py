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
from capsolve.solvers.price import fill
from capsolve.solvers.solution import Solution

Interval = tuple[float, float]


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
    """Find the best total t in [served, served + 1] of the concave features: at most one of them is fractional."""
    convex = np.flatnonzero(model.kurtosis >= 3.0)
    group = np.flatnonzero(model.kurtosis < 3.0)
    group = group[np.argsort(-demand.full[group], kind="stable")]
    # Measured in the root scale, every loss that still matters is of order one.
    v = np.minimum(model.importance / scale, GIANT / model.kurtosis)
    curve = _group_loss(v[group], model.kurtosis[group], served)
    rest = QuadraticLoss(v[convex], model.kurtosis[convex]) if convex.size else None

    def spread(budget: float, step: float = 0.0, width: float = 0.0) -> tuple[FloatArray, float, float]:
        """Fill the convex features and one jump of ``width`` at the scale ``step``."""
        parts = rest.demand_curve() if rest else Demand(*(np.empty(0) for _ in range(4)))
        jump = Demand(*(np.array([x]) for x in (step, step, 0.0, width)))
        filling = fill(Demand(*(np.append(p, j) for p, j in zip(parts, jump, strict=True))), budget)
        return filling.capacity[:-1], float(filling.capacity[-1]), 2.0 * filling.scale**2

    def loss_at(t: float) -> float:
        return curve(t)[0] + (float(np.sum(rest.feature_loss(spread(dimensions - t)[0]))) if rest else 0.0)

    def relax(box: Interval) -> Relaxation[Interval]:
        a, b = box
        at_a, at_b = curve(a)[0], curve(b)[0]
        chord = (at_a - at_b) / (b - a)
        _, taken, price = spread(dimensions - a, np.sqrt(0.5 * chord), b - a)
        # weak duality: valid at any price, and the price of the relaxation makes it tight
        bound = min(at_a + price * a, at_b + price * b) - price * dimensions
        bound += rest.lower_bound(price, 0.0) if rest else 0.0
        t = a + taken
        tries = [t, a, b] if b - a == 1.0 else [t]
        loss, best = min((loss_at(x), x) for x in tries if x <= dimensions)
        return Relaxation(bound, loss, np.array([best]), lambda: [(a, t), (t, b)] if a < t < b else [])

    # The price times the budget is the size of the terms that cancel in the bound. Half the tolerance leaves room
    # for the finish below.
    outcome = branch_and_bound(relax, (float(served), served + 1.0), tolerance=tolerance / 2, floor=-2.0 * dimensions)
    t = float(outcome.capacity[0])
    if not rest:
        t = min(served + 1.0, dimensions)  # nobody else wants what is left
    else:
        # A loss within the tolerance leaves t uncertain by its square root: finish on the equal marginal values.
        trader = group[curve(t)[1]]
        alone = QuadraticLoss(v[[trader]], model.kurtosis[[trader]])

        def excess(t: float) -> float:
            return spread(dimensions - t)[2] - float(alone.marginal(np.array([t - served]))[0])

        polished = _descend(excess, t, float(served), min(served + 1.0, dimensions))
        t = polished if loss_at(polished) <= loss_at(t) * (1.0 + 1e-14) else t
    _, shared, full = curve(t)
    capacity = np.zeros(model.features)
    capacity[group[:full]] = 1.0
    capacity[convex] = spread(dimensions - t)[0]
    # The price jumps where a convex feature becomes full: the root may lie an ulp beside that point.
    capacity[capacity > 1.0 - 1e-13] = 1.0
    if served < t < served + 1.0:
        if rest:
            # D − t is known to an ulp of D; small capacities can have the accuracy of the price instead.
            price = float(alone.marginal(np.array([t - served]))[0])
            at_price = rest.response(price)
            near = np.abs(at_price - capacity[convex]) <= 1e-12
            capacity[convex] = np.where(near, at_price, capacity[convex])
        capacity[group[shared]] = 0.0
        capacity[group[shared]] = min(1.0, max(0.0, dimensions - capacity.sum()))
    gap = max(0.0, outcome.loss - outcome.lower_bound) / outcome.loss if outcome.loss > 0.0 else 0.0
    return Solution(capacity, gap, outcome.boxes)


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
    """Return t ↦ (H(t), position of the feature that trades, number of full features) for t in [k, k+1].

    The features are sorted by what serving them whole saves; k = ``served``. The trading feature has capacity t − k;
    at the ends of the interval it is the one that would gain or lose most by a small step inwards.
    """
    with np.errstate(over="ignore"):
        whole = np.square(v * np.sqrt(kurtosis - 1.0))
        start = 0.5 * np.square(v * (kurtosis - 1.0))
    base = float(np.sum(whole[served:]))

    def curve(t: float) -> tuple[float, int, int]:
        c = t - served
        if c <= 0.0:
            return base, served + int(np.argmax(start[served:])), served
        if c >= 1.0:
            return base - float(whole[served]), int(np.argmin(v[: served + 1])), served + 1
        denominator = 1.0 + 0.5 * (kurtosis - 3.0) * c
        # Count from the whole number of features that is nearer, so that small differences do not drown.
        if c < 0.5:
            near, cost = base, -start * (c / denominator)
            extra_added, extra_dropped = np.zeros_like(whole[served:]), whole[: served + 1] - whole[served]
        else:
            near, cost = base - float(whole[served]), whole * ((1.0 - c) / denominator)
            extra_added, extra_dropped = whole[served] - whole[served:], np.zeros_like(whole[: served + 1])
        cost_added, cost_dropped = cost[served:] + extra_added, cost[: served + 1] + extra_dropped
        added, dropped = int(np.argmin(cost_added)), int(np.argmin(cost_dropped))
        if cost_added[added] <= cost_dropped[dropped]:
            return near + float(cost_added[added]), served + added, served
        return near + float(cost_dropped[dropped]), dropped, served + 1

    return curve
