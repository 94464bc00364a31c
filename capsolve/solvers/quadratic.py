"""The global optimum of the quadratic loss, for any mixture of kurtoses.

Features with κ ≥ 3 have convex losses: one price search (`capsolve.solvers.price`) settles them. Features with κ < 3
have strictly concave losses, of which at most one is fractional at an optimum. So all of them together act as one
curve H(t): the least loss of the concave features when they receive t in total. With k = ⌊t⌋,

    H(t) = min( the k best are full and one other feature has t − k,
                the k + 1 best are used and one of those has only t − k ).

H is concave on every [k, k+1] and its values at the integers are convex: its convex envelope joins them by straight
lines. Hence the best t lies in the unit interval where the envelope puts it, and branch and bound (Falk & Soland
1969) in the single variable t finishes the job: no tree over features, however many of them are alike.

All this happens in a window of scales around the price (`capsolve.solvers.window`), where most features are decided
and count as one. Which concave feature has the rest t − k may depend on features far from the price, unless those in
the window are better candidates than any outside: see `_Others.missing`.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, outward
from capsolve.losses.quadratic import GIANT, Demand, QuadraticLoss, demand_of
from capsolve.solvers.branch import Relaxation, branch_and_bound
from capsolve.solvers.price import breakpoints_of, fill
from capsolve.solvers.small import solve_few
from capsolve.solvers.solution import Proof, Solution
from capsolve.solvers.window import (
    FEW,
    Answer,
    Arrays,
    Enclosed,
    IntArray,
    LocalKind,
    Ramp,
    Source,
    Window,
    enclose,
    narrow,
    regret,
)

logger = logging.getLogger(__name__)

BoolArray = npt.NDArray[np.bool_]
Interval = tuple[float, float]
# Up to here plain Python is faster than NumPy.
HANDFUL = 100
# Up to here all breakpoints are searched at once; beyond, passes over the data are faster.
SMALL = 1 << 14
# From here on compiled passes save more time than it takes to import Numba within a few calls.
MANY = 100_000


class Settled(NamedTuple):
    """What is known before the answer is written; importances count in ``unit``, losses in its square."""

    answer: Answer
    unit: float
    slack: float  # no allocation of the budget has a loss smaller by more
    boxes: int = 1


def solve_quadratic(model: QuadraticLoss, dimensions: float, tolerance: float) -> Solution:
    """Minimise L(C) subject to Σ C_i ≤ dimensions and 0 ≤ C_i ≤ 1.

    Where the optimum is not unique (features tied at the final price whose losses are linear or concave), those
    with κ < 3 are served first, whole, in the order of their index; those with κ = 3 share the rest equally.
    """
    if model.bias:
        if model.features <= HANDFUL and (solution := solve_few(*model.numbers(), dimensions)):
            return solution
        kind = kind_for(model.features)
        return solve_source(kind(*model.given), dimensions, tolerance, kind)
    if dimensions >= model.demand:
        return Solution(np.where(model.importance > 0.0, 1.0, 0.0))
    return Solution(model.balance(lambda trace: fill(model.demand_curve(trace), dimensions).capacity))


def kind_for(features: int) -> type[Arrays]:
    """Return the kind of source that is the fastest for NumPy arrays: compiled for many features, with Numba."""
    return _compiled() if features >= MANY else Arrays


@functools.cache
def _compiled() -> type[Arrays]:
    try:
        from capsolve.solvers.kernels import Compiled  # noqa: PLC0415  (imports Numba, for half a second)
    except Exception as reason:
        logger.debug("no compiled code: %r", reason)
        return Arrays
    return Compiled


@np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")  # every limit is meant
def solve_source(source: Source, dimensions: float, tolerance: float, local: LocalKind) -> Solution:
    """Solve the problem with a bias for data that are seen through the passes of a `Source` only.

    ``local`` makes a source of the features that need a closer look.
    """

    def look(window: Window | None) -> Enclosed | None:
        if isinstance(source, Arrays) and source.features <= SMALL:
            v, k = (column.astype(np.float64, copy=False) for column in (source.importance, source.kurtosis))
            whole = Enclosed(Ramp(0.0, math.inf, 0.0, 0.0), v, k, np.arange(v.size))
            return whole if dimensions < np.count_nonzero(v) else None
        return enclose(source, dimensions, local, window)

    settled = settle(look, dimensions, tolerance, local)
    capacity, totals = source.write(settled.answer, settled.unit)
    budget = dimensions if settled.answer.which.size or settled.answer.scale > 0.0 else totals.used
    size = totals.loss + totals.steepest * budget
    slack = settled.slack + totals.price * max(0.0, budget - totals.used) - outward(0.0, size, source.features)
    return Solution(capacity, boxes=settled.boxes, proof=Proof(totals, settled.unit, budget, slack))


def settle(
    look: Callable[[Window | None], Enclosed | None], dimensions: float, tolerance: float, local: LocalKind
) -> Settled:
    """Find the price and who gets what around it; ``look`` returns what lies in a window, or near the price."""
    outer = look(None)
    if outer is None:
        nobody = np.empty(0, dtype=np.int64)
        return Settled(Answer(0.0, 0.0, nobody, np.empty(0)), 1.0, 0.0)
    found = outer if outer.which.size <= SMALL and outer.decided.high == math.inf else narrow(outer, dimensions, local)
    filling = found.fill(dimensions)
    scale, capacity, jumping = filling.scale, filling.capacity[:-1], filling.jumping[:-1]
    unit = math.ldexp(1.0, math.frexp(scale)[1]) if scale > 0.0 else 1.0
    concave = found.kurtosis < 3.0
    tied = np.flatnonzero((jumping > 0.0) & concave)
    if tied.size:
        linear = np.flatnonzero((jumping > 0.0) & ~concave)
        left = capacity[tied].sum() + capacity[linear].sum()
        whole = min(int(left + 8.0 * np.finfo(float).eps * dimensions), tied.size)
        rest = max(0.0, left - whole)
        if rest > linear.size:
            return _share_one(look, outer, scale, whole, unit, dimensions, tolerance, local)
        capacity[tied] = np.where(np.arange(tied.size) < whole, 1.0, 0.0)
        capacity[linear] = rest / max(linear.size, 1)
    v = scaled(found.importance, found.kurtosis, unit)
    slack = regret(v, found.kurtosis, capacity, scale / unit) if scale > 0.0 else 0.0
    return Settled(Answer(scale, filling.correction, found.which, capacity), unit, slack)


def _share_one(  # noqa: PLR0915  (one computation, in the order of its steps)
    look: Callable[[Window | None], Enclosed | None],
    found: Enclosed,
    scale: float,
    whole: int,
    unit: float,
    dimensions: float,
    tolerance: float,
    local: LocalKind,
) -> Settled:
    """Find the best c in [0, 1]: what the concave features get beyond those served whole, all of it in one of them.

    ``scale`` is where the convex relaxation serves ``whole`` of the tied features and a part of the next.
    """
    for attempt in range(5):
        concave = found.kurtosis < 3.0
        group = np.flatnonzero(concave)
        v, k = found.importance[group], found.kurtosis[group]
        full = demand_of(v, k).full
        order = np.argsort(-full, kind="stable")
        group, v, k = group[order], v[order], k[order]
        served = int(np.count_nonzero(full > scale)) + whole
        others = _Others(found, ~concave, unit, dimensions - served, local)
        window = others.missing(v, k, served)
        if window is None:
            break
        found = look(window if attempt < 3 else Window(0.0, math.inf)) or found

    contenders = _contenders(k, served)
    passed_over = served - int(np.count_nonzero(contenders < served))
    curve = _group_loss(scaled(v[contenders], k[contenders], unit), k[contenders], served - passed_over)
    left = others.budget

    def loss_at(c: float) -> float:
        return curve(c)[0] + others.spread(left - c).loss

    def relax(box: Interval) -> Relaxation[Interval]:
        a, b = box
        at_a, at_b = curve(a)[0], curve(b)[0]
        chord = (at_a - at_b) / (b - a)
        spread = others.spread(left - a, np.sqrt(0.5 * chord), b - a)
        # weak duality: valid at any price, and the price of the relaxation makes it tight
        bound = min(at_a + spread.price * a, at_b + spread.price * b) + others.bound(spread.price) - spread.price * left
        c = a + spread.taken
        tries = [c, a, b] if box == root else [c]
        loss, best = min((loss_at(x), x) for x in tries if root[0] <= x <= root[1])
        return Relaxation(bound, loss, np.array([best]), lambda: [(a, c), (c, b)] if a < c < b else [])

    # The price times the budget is the size of the terms that cancel in the bound. Half the tolerance leaves room for
    # the finish.
    root = (max(0.0, left - others.most), min(1.0, left - others.least))
    c, slack, boxes = root[0], 0.0, 1
    if root[0] < root[1]:
        size = 2.0 * (scale / unit) ** 2 * dimensions
        outcome = branch_and_bound(relax, root, tolerance=tolerance / 2, floor=-size)
        slack, boxes = max(0.0, float(outcome.loss - outcome.lower_bound)), outcome.boxes
        c = float(outcome.capacity[0])
        # A loss within the tolerance leaves c uncertain by its square root: finish on the equal marginal values.
        trader = contenders[curve(c)[1]]
        alone = QuadraticLoss(scaled(v[[trader]], k[[trader]], unit), k[[trader]])

        def marginal(c: float) -> float:
            return float(alone.marginal(np.array([c]))[0])

        stationary = _descend(lambda c: others.spread(left - c).price - marginal(c), c, *root)
        if loss_at(stationary) <= loss_at(c) + 1e-14 * (outcome.loss + size):
            c = stationary

    _, shared, full_ones = curve(c)
    concave_capacity = np.zeros(group.size)
    concave_capacity[: full_ones + passed_over] = 1.0
    spread = others.spread(left - c)
    capacity = spread.capacity
    # The price jumps where a convex feature becomes full: the root is found to some ulps beside that point.
    capacity[capacity > 1.0 - 1e-13] = 1.0
    if 0.0 < c < 1.0:
        if root[0] < root[1]:
            # D − t is known to an ulp of D, which is much for a small capacity of a large kurtosis: those can have
            # the accuracy of the price instead, as long as that is a change by ulps of D.
            at_price = others.respond(marginal(c))
            capacity = np.where(np.abs(at_price - capacity) <= 1e-12, at_price, capacity)
        concave_capacity[contenders[shared]] = min(1.0, max(0.0, left - spread.decided - float(capacity.sum())))
    which = np.concatenate([others.which, found.which[group]])
    capacity = np.concatenate([capacity, concave_capacity])
    order = np.argsort(which)
    return Settled(Answer(spread.scale, spread.correction, which[order], capacity[order]), unit, slack, boxes)


class Spread(NamedTuple):
    """How the features with convex losses share a budget, with one jump that competes; importances in units."""

    capacity: FloatArray  # of the undecided
    decided: float  # what the decided ones take beyond ``least``
    taken: float  # what the jump takes
    price: float
    loss: float  # beyond a constant
    scale: float  # τ = scale + correction, not in units
    correction: float


class _Others:
    """The features with convex losses, with which the concave ones compete; there may be none.

    They have from ``budget`` − 1 to ``budget`` to share, and window and undecided features are narrowed to that.
    Decided ones, concave ones among them, take ``least`` of the whole budget for certain.
    """

    def __init__(self, found: Enclosed, convex: BoolArray, unit: float, budget: float, local: LocalKind) -> None:
        mine = found.only(convex)
        above, below = mine.ends(local)
        self.outer = found.decided, found.reach, above <= budget - 1.0, budget <= below
        if mine.which.size > FEW:
            low, high = mine.decided.low, mine.decided.high
            if above <= budget - 1.0 < below:
                high = narrow(mine, budget - 1.0, local).decided.high
            if above <= budget < below:
                low = narrow(mine, budget, local).decided.low
            mine = mine.within(low, high, local)
            above, below = mine.ends(local)
        ramp, self.unit, self.which, self.end = mine.decided, unit, mine.which, mine.decided.low
        self.low, self.high, self.width = ramp.low / unit, ramp.high / unit, ramp.at_low - ramp.at_high
        self.budget, self.least, self.most = budget - ramp.at_high, above - ramp.at_high, below - ramp.at_high
        v = scaled(mine.importance, mine.kurtosis, unit)
        self.model = QuadraticLoss(v, mine.kurtosis) if v.size else None
        self.demand = Ramp(self.low, self.high, self.width, 0.0).beside(demand_of(v, mine.kurtosis))
        self.breakpoints = breakpoints_of(self.demand)

    def spread(self, budget: float, step: float = 0.0, width: float = 0.0) -> Spread:
        """Fill these features and one jump of ``width`` at the scale ``step``."""
        demand, breakpoints = self.demand, self.breakpoints
        if step > 0.0:
            demand = Demand(*(np.append(part, x) for part, x in zip(demand, (step, step, 0.0, width), strict=True)))
            at = np.searchsorted(-breakpoints, -step)
            breakpoints = np.insert(breakpoints, [at, at], step)
        filling = fill(demand, budget, breakpoints)
        n = self.which.size
        few, decided = filling.capacity[:n], float(filling.capacity[n])
        loss = self._decided_loss(decided)
        if self.model:
            loss += float(np.sum(self.model.feature_loss(few)))
        taken = float(filling.capacity[n + 1]) if step > 0.0 else 0.0
        # the window's end in units may underflow, and at a scale of 0 features that gain nothing would be full
        scale = filling.scale * self.unit or self.end
        return Spread(few, decided, taken, 2.0 * filling.scale**2, loss, scale, filling.correction * self.unit)

    def bound(self, price: float) -> float:
        """Return min_C [L(C) + price · ΣC]."""
        scale, bound = math.sqrt(0.5 * price), 0.0
        if self.width > 0.0:
            share = self.low * (self.high - scale) / (scale * (self.high - self.low)) if scale > self.low else 1.0
            taken = self.width * max(0.0, share)
            bound = self._decided_loss(taken) + price * taken
        return bound + (self.model.lower_bound(price, 0.0) if self.model else 0.0)

    def respond(self, price: float) -> FloatArray:
        """Return the capacities of the undecided features at a price."""
        return self.model.response(price) if self.model else np.empty(0)

    def _decided_loss(self, taken: float) -> float:
        """Return the loss of the decided features above its value at the window's low end.

        dL = −2τ² dC with C linear in 1/τ makes L linear in τ.
        """
        if self.width == 0.0:
            return 0.0
        missing = self.width - taken
        return 2.0 * missing * self.low**2 / (1.0 - missing / self.width * ((self.high - self.low) / self.high))

    def missing(self, v: FloatArray, k: FloatArray, served: int) -> Window | None:
        """Return a wider window if features outside could matter: v and k are the concave ones inside, best first.

        Of those that are not served, one outside the window saves at most 2 low² per capacity, and is no contender if
        the first bit of another saves more. Of the served, one outside costs at least 2 high² per capacity, and is no
        contender if the last bit of another, worth 2v², costs less. Convex features outside are out of reach as well
        where a concave one stands in between; else the window must hold all budgets that they may be left with.
        """
        ramp, reach, high_enough, low_enough = self.outer
        low, high = float(np.max(v[served:] * (0.5 * (k[served:] - 1.0)))), float(np.min(v[:served], initial=math.inf))
        needed = 1.0
        if ramp.low > 0.0:
            needed = max(needed, ramp.low / low if low > 0.0 else math.inf)
        if ramp.high < math.inf:
            needed = max(needed, high / ramp.high)
        if needed > reach:
            return Window(ramp.low, ramp.high, needed * (1.0 + 1e-9))
        low_enough = low_enough or ramp.low <= low
        high_enough = high_enough or ramp.high >= high
        if low_enough and high_enough:
            return None
        return Window(ramp.low if low_enough else low, ramp.high if high_enough else high, reach)


def scaled(v: FloatArray, k: FloatArray, unit: float) -> FloatArray:
    """Return importances in units, capped where the feature is full for certain so that squares stay finite."""
    return np.minimum(v / unit, GIANT / k)


def _contenders(k: FloatArray, served: int) -> IntArray:
    """Return the positions of concave features that may be the fractional one, of features sorted by what they save.

    To have a part only, a feature of more kurtosis is better: it must have more than all that come closer to the edge
    between the served and the others, the first of which counts with both.
    """
    beyond, within = k[served:], k[served::-1]
    later = np.flatnonzero(beyond > np.concatenate([[0.0], np.maximum.accumulate(beyond)[:-1]]))
    earlier = np.flatnonzero(within > np.concatenate([[0.0], np.maximum.accumulate(within)[:-1]]))
    return np.concatenate([served - earlier[:0:-1], served + later])


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
