"""The global optimum for tabulated losses: convex envelopes, one price, branch and bound for what they hide.

Over a node l ≤ C ≤ u every curve is replaced by its convex envelope. The relaxed problem is solved by filling
the envelopes' segments in the order of their gain until the budget is used or nothing gains any more. Only
features at the final price can end inside a segment; where the curve lies above the envelope there, the
answer costs more than the bound says. Then the node is split at that capacity (Falk & Soland 1969), where both
halves know the true loss.

**Dominance.** Feature a dominates b if its marginal value is at least b's on every interval of the grid; of
two that dominate each other, the one with the lower index does. Then some optimum has C_a ≥ C_b for *all*
such pairs: if C_a < C_b, exchanging the two capacities keeps the budget and changes the loss by −∫ (marginal
of a − marginal of b) over [C_a, C_b] ≤ 0; among the finitely many optima that are permutations of one, take
the one with the least Σ position(i) · C_i, where positions list dominators first; an exchange would lower it.
With one shape and weights w the order is total, w_a ≥ w_b, even where the shape rises: the argument then
applies to the running minimum of the shape, and the smallest minimiser of the shape below C_i falls with C_i
in the same way for all. So when a node is split at C_j = c, the half C_j ≥ c may raise the lower end of all
that dominate j to c, and the half C_j ≤ c may lower the upper end of all that j dominates. Thousands of
features that are alike, or ordered, close in a handful of nodes.

**Ties.** Features are tied when a segment of theirs gains exactly the final price. Segments that hide a gap
are filled whole, in the order of the index, as far as the budget goes; the rest is shared among segments
without a gap, each by the same fraction of its width. So identical features with convex curves get equal
capacities, and identical features with concave ones are filled one after the other.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, scalar
from capsolve.certificate import Solution, lagrangian_bound, model_terms
from capsolve.losses.envelope import Envelope, IntArray, decreasing_convex_envelope
from capsolve.losses.tabulated import TabulatedLoss, interpolate
from capsolve.solvers.branch_and_bound import Relaxation, branch_and_bound

logger = logging.getLogger(__name__)

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """One curve between two capacities: its row in the model, the ends, and the envelope in between."""

    shape: int
    lower: float
    upper: float
    hull: FloatArray  # see `decreasing_convex_envelopes`


@dataclass(frozen=True)
class Node:
    """Bounds on all capacities: feature i is confined to ``pieces[which[i]]``. Features may share a piece."""

    pieces: list[Piece]
    which: IntArray


@dataclass(frozen=True)
class RelaxationSolution:
    """Capacities that solve a relaxed problem."""

    capacity: FloatArray
    bound: float  # the envelopes there
    loss: float  # the curves there
    branching_feature: int  # the feature at which they differ most


def solve_tabulated(model: TabulatedLoss, dimensions: float, tolerance: float, *, node_limit: int = 20_000) -> Solution:
    """Minimise Σ f_i(C_i) subject to Σ C_i ≤ dimensions and 0 ≤ C_i ≤ 1, globally.

    Convex curves need one node. Unrelated S-shaped curves pose a knapsack problem (NP-hard): where
    ``node_limit`` does not suffice, the returned gap is larger than ``tolerance`` and says by how much the
    best capacities found could be improved at most; the default takes some 10 s with 30 features and some
    100 s with 1000. Which optimum is returned when there are several is stated by the module.

    Examples
    --------
    >>> from capsolve import TabulatedLoss
    >>> solution = solve_tabulated(TabulatedLoss([1.0, 0.9, 0.5, 0.0], weight=[1.0, 1.0, 1.0]), 1.5, 1e-9)
    >>> solution.capacity, solution.nodes
    (array([1. , 0.5, 0. ]), 3)
    """
    budget = scalar("dimensions", dimensions, low=0.0)
    tolerance = scalar("tolerance", tolerance, low=0.0, high=1.0)
    problem = _Problem(model, budget)
    outcome = branch_and_bound(problem.relax, problem.root(), tolerance=tolerance, node_limit=node_limit)
    logger.debug("%d curves are solved by branch and bound in %d nodes", model.features, outcome.nodes)
    scaled, unit = model.normalised(outcome.capacity)
    # The price of the relaxation of all capacities, where the Lagrangian bound is best.
    price = problem.price / unit / unit
    bound = lagrangian_bound(scaled, price, min(budget, model.saturation_budget), above_floor=True)
    proved = max(0.0, outcome.lower_bound / unit / unit - bound)
    terms = model_terms(scaled, outcome.capacity, price)
    return Solution(outcome.capacity, terms, math.sqrt(0.5 * price), unit, proved, outcome.nodes)


class _Problem:
    """How nodes are relaxed and split. All losses are measured from the minimum of their curve."""

    def __init__(self, model: TabulatedLoss, budget: float) -> None:
        self.grid, self.weight, self.shape_of = model.grid, model.multiplier, model.shape_of
        self.shapes, self.hulls = model.above_minimum, model.hulls
        self.budget = budget
        self.limit = budget * (1.0 + 1e-14)  # what rounding may add to a sum that equals the budget
        full = model.envelope.length
        scarce = float(np.sum(model.envelope.capacity(full))) > self.limit
        self.price = model.envelope.solve_price(budget)[0] if scarce else 0.0

    def root(self) -> Node:
        return Node([Piece(k, 0.0, 1.0, hull) for k, hull in enumerate(self.hulls)], self.shape_of)

    def piece(self, shape: int, lower: float, upper: float) -> Piece:
        curve = self.shapes[shape]
        at_lower, at_upper = np.interp([lower, upper], self.grid, curve)
        if lower == upper:
            return Piece(shape, lower, upper, np.array([[lower], [at_lower], [0.0], [0.0]]))
        first, last = np.searchsorted(self.grid, [np.nextafter(lower, 2.0), upper])
        x = np.concatenate([[lower], self.grid[first:last], [upper]])
        y = np.concatenate([[at_lower], curve[first:last], [at_upper]])
        return Piece(shape, lower, upper, decreasing_convex_envelope(x, y))

    def relax(self, node: Node) -> Relaxation[Node] | None:
        envelope = Envelope([piece.hull for piece in node.pieces], node.which, self.weight)
        least = envelope.capacity(np.zeros_like(envelope.length))
        if float(np.sum(least)) > self.limit:
            return None
        relaxed = self.solve_relaxation(envelope)
        split = functools.partial(
            self.split, node, relaxed.branching_feature, float(relaxed.capacity[relaxed.branching_feature])
        )
        return Relaxation(relaxed.bound, relaxed.loss, relaxed.capacity, split)

    def solve_relaxation(self, envelope: Envelope) -> RelaxationSolution:
        """Minimise the sum of the envelopes subject to the budget."""
        full = envelope.length
        capacity = envelope.capacity(full)
        if float(np.sum(capacity)) <= self.limit:
            loss = float(np.sum(self.weight * envelope.loss(full)))
            return RelaxationSolution(capacity, loss, loss, 0)

        _, below, above = envelope.solve_price(self.budget)
        capacity, value = envelope.capacity(below), envelope.loss(below)
        tied = np.flatnonzero(above > below)
        ends = envelope.capacity(above)[tied], envelope.loss(above)[tied]
        width, fall = ends[0] - capacity[tied], value[tied] - ends[1]
        gapped = envelope.gapped(below, above)[tied]
        share = self.shares(width, gapped, self.budget - float(np.sum(capacity)))
        capacity[tied] = self.on_grid(np.where(share < 1.0, capacity[tied] + share * width, ends[0]))
        line = np.where(share < 1.0, value[tied] - share * fall, ends[1])
        curve = interpolate(self.grid, self.shapes, self.shape_of[tied], capacity[tied])
        # a segment without a gap is the curve; saying so keeps its rounding out of the gap
        value[tied] = np.where(gapped, np.minimum(line, curve), curve)
        hidden = np.zeros_like(value)
        hidden[tied] = self.weight[tied] * (curve - value[tied])
        bound = float(np.sum(self.weight * value))
        return RelaxationSolution(capacity, bound, bound + float(np.sum(hidden)), int(np.argmax(hidden)))

    def on_grid(self, capacity: FloatArray) -> FloatArray:
        """Return the capacities, those that miss a grid point by rounding only moved onto it.

        What is left of a budget is a difference, known to some ulps of the budget; a capacity an ulp beside a kink of
        its curve would have the marginal value of the wrong side. Many features may each be that close and yet owe
        it to the budget, not to rounding: then together they are not, and stay.
        """
        k = np.clip(np.searchsorted(self.grid, capacity), 1, self.grid.size - 1)
        nearest = np.where(capacity - self.grid[k - 1] < self.grid[k] - capacity, self.grid[k - 1], self.grid[k])
        rounding = 16.0 * np.finfo(float).eps * self.budget
        miss = np.abs(capacity - nearest)
        close = miss <= rounding
        return np.where(close, nearest, capacity) if float(np.sum(miss[close])) <= rounding else capacity

    @staticmethod
    def shares(width: FloatArray, gapped: BoolArray, budget: float) -> FloatArray:
        """Return the fraction of each tied segment that is filled: see the module on ties."""
        whole = gapped & (np.cumsum(np.where(gapped, width, 0.0)) <= budget)
        share = whole.astype(np.float64)
        rest = max(0.0, budget - float(np.sum(width[whole])))
        smooth = float(np.sum(width[~gapped]))
        share[~gapped] = rest / smooth if rest < smooth else 1.0
        branching_feature = np.flatnonzero(gapped & ~whole)[:1]
        share[branching_feature] = np.clip((rest - smooth) / width[branching_feature], 0.0, 1.0)
        return share

    def split(self, node: Node, j: int, c: float) -> Iterable[Node | None]:
        """Return the halves C_j ≥ c and C_j ≤ c of a node, reduced by dominance; None for an empty one."""
        piece = node.pieces[node.which[j]]
        if not piece.lower < c < piece.upper:
            return []
        above, below = self.dominance(j)
        return [self.restrict(node, above, c, 1.0), self.restrict(node, below, 0.0, c)]

    def dominance(self, j: int) -> tuple[BoolArray, BoolArray]:
        """Return which features dominate j, and which ones j dominates; j itself is in both."""
        first = np.arange(self.weight.size) <= j
        last = np.arange(self.weight.size) >= j
        if len(self.shapes) == 1:
            more, less = self.weight >= self.weight[j], self.weight <= self.weight[j]
        else:
            more = (self.marginal >= self.marginal[j]).all(axis=1)
            less = (self.marginal <= self.marginal[j]).all(axis=1)
        return more & (~less | first), less & (~more | last)

    @functools.cached_property
    def marginal(self) -> FloatArray:
        return -np.diff(self.shapes, axis=1)

    def restrict(self, node: Node, chosen: BoolArray, lower: float, upper: float) -> Node | None:
        """Return the part of the node with the chosen capacities in [lower, upper]; None if it is empty."""
        pieces, which = list(node.pieces), node.which.copy()
        members = np.bincount(which)
        taken = np.bincount(which[chosen], minlength=members.size)
        for k in np.flatnonzero(taken):
            old = pieces[k]
            low, high = max(old.lower, lower), min(old.upper, upper)
            if (low, high) == (old.lower, old.upper):
                continue
            if low > high:
                return None
            new = self.piece(old.shape, low, high)
            if taken[k] == members[k]:
                pieces[k] = new
            else:
                which[chosen & (which == k)] = len(pieces)
                pieces.append(new)
        return Node(pieces, which)
