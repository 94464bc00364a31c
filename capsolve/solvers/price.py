"""The price of capacity: one monotone piecewise-linear equation, solved exactly.

Minimising Σ f_i(C_i) with convex f_i subject to Σ C_i = D, 0 ≤ C ≤ 1 makes the marginal values of all features that
are neither empty nor full equal to one price λ = 2τ² (arXiv 2210.01892, eqs. 4–8 and 15–18). In u = 1/τ every
capacity is piecewise linear, so Σ C_i = D is a continuous quadratic knapsack: find the two neighbouring breakpoints
between which the budget is met, then interpolate. The answer is a convex combination of the capacities at
those breakpoints and meets the budget however steep they are: slopes and intercepts, which cancel near κ = 3, are
never summed.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import Demand

# Up to so many features, plain numbers are faster than arrays.
FEW = 64


class Filling(NamedTuple):
    """How a budget is spread over a demand curve.

    ``scale`` is the smallest τ at which the answer is optimal: 2τ² is what the *next* bit of budget would save.
    ``jumping`` marks features that jump exactly at ``scale``; what is left for them is shared in proportion. The exact
    τ is ``scale`` + ``correction``, for `Demand.at`.
    """

    capacity: FloatArray
    scale: float
    jumping: FloatArray
    correction: float = 0.0


def breakpoints_of(demand: Demand) -> FloatArray:
    """Return the scales at which a feature enters or becomes full, in descending order."""
    wanting = demand.enter > 0.0
    return -np.sort(-np.concatenate([demand.enter[wanting], demand.full[wanting]]))


def fill(demand: Demand, budget: float, breakpoints: FloatArray | None = None) -> Filling:
    """Spread ``budget`` ≥ 0 over the features with the highest marginal values.

    ``breakpoints`` are those of `breakpoints_of`, where they are known already.

    Features that jump at the final price are tied: each gets the same share of its width. A budget above what gains
    anything is spent on the features that do not, at scale 0, as far as it can be.
    """
    wanting = demand.enter > 0.0
    satisfied = np.where(wanting, demand.width, 0.0)
    spare = budget - satisfied.sum()
    if spare >= 0.0:
        # Features that gain nothing (κ = 1) take what is left, in the order of their index.
        idle = demand.width - satisfied
        return Filling(satisfied + np.clip(spare - (np.cumsum(idle) - idle), 0.0, idle), 0.0, np.zeros_like(idle))

    if demand.enter.size <= FEW:
        capacity, scale, jumping, correction = fill_few(zip(*(part.tolist() for part in demand), strict=True), budget)
        return Filling(np.array(capacity), scale, np.array(jumping), correction)
    if breakpoints is None:
        breakpoints = breakpoints_of(demand)
    # Largest p with Σ C(breakpoints[p]) ≤ budget. The sum rises along the array and is 0 at its start.
    low, high = 0, breakpoints.size
    below = demand.at(breakpoints[0])
    guess, step = high // 2, 0
    while high - low > 1:
        # Newton's step for the piecewise-linear sum, kept inside the bracket, and a bisection every third time so
        # that no profile can hold it up.
        step += 1
        p = (low + high) // 2 if step % 3 == 0 else min(max(guess, low + 1), high - 1)
        scale = breakpoints[p]
        capacity = demand.at(scale)
        total = capacity.sum()
        if total <= budget:
            low, below = p, capacity
        else:
            high = p
        guess = _newton(demand, capacity, scale, total, budget, breakpoints)

    scale = float(breakpoints[low])
    jump = demand.jumps_at(scale)
    above = below + jump
    reached, jump_total = below.sum(), jump.sum()
    if jump_total > 0.0 and budget <= above.sum():
        share = min(1.0, (budget - reached) / jump_total)
        return Filling(below + share * jump, scale, jump)

    # Between two neighbouring breakpoints every capacity is linear in 1/τ.
    next_scale = float(breakpoints[low + 1])
    end = demand.at(next_scale)
    start_total, end_total = above.sum(), end.sum()
    share = (budget - start_total) / (end_total - start_total)
    capacity = above + share * (end - above)
    exact, correction = _between(scale, next_scale, share)
    return Filling(capacity, exact, np.zeros_like(jump), correction)


def _newton(
    demand: Demand, capacity: FloatArray, scale: float, total: float, budget: float, breakpoints: FloatArray
) -> int:
    """Return the index of the breakpoint just above the τ where the current linear piece meets the budget."""
    moving = (capacity > 0.0) & (capacity < demand.width) & (demand.enter > demand.full)
    with np.errstate(over="ignore", invalid="ignore"):
        slope = np.sum(np.where(moving, demand.width * demand.gain * (demand.enter / scale), 0.0))
        if not slope > 0.0:
            return int(np.searchsorted(-breakpoints, -scale)) + (1 if total <= budget else -1)
        u = 1.0 + (budget - total) / slope  # scale / τ
    if not u > 0.0:
        return 0
    return int(np.searchsorted(-breakpoints, -scale / u, side="right")) - 1


def fill_few(
    curves: Iterable[tuple[float, float, float, float]], budget: float
) -> tuple[list[float], float, list[float], float]:
    """Return what a `Filling` holds for a few features, each the entries of a `Demand`, that have no use for all of it.

    For six features a call of NumPy costs as much as computing with all of them.
    """
    curves = list(curves)
    points = sorted(({curve[0] for curve in curves} | {curve[1] for curve in curves}) - {0.0}, reverse=True)
    # The last breakpoint at which Σ C ≤ budget; the sum rises along the list and is 0 at its start.
    after = bisect_left(points, True, 1, key=lambda scale: math.fsum(_at(curves, scale)) > budget)
    scale = points[after - 1]
    capacity = _at(curves, scale)
    jump = [width if full >= enter == scale else 0.0 for enter, full, _, width in curves]
    if any(jump):
        room, left = math.fsum(jump), budget - math.fsum(capacity)
        if left <= room or after == len(points):
            share = min(1.0, left / room)
            return [c + share * extra for c, extra in zip(capacity, jump, strict=True)], scale, jump, 0.0
        capacity = [c + extra for c, extra in zip(capacity, jump, strict=True)]

    end, following = _at(curves, points[after]), points[after]
    start = math.fsum(capacity)
    share = (budget - start) / (math.fsum(end) - start)
    capacity = [c + share * (to - c) for c, to in zip(capacity, end, strict=True)]
    exact, correction = _between(scale, following, share)
    return capacity, exact, [0.0] * len(jump), correction


def _at(curves: list[tuple[float, float, float, float]], scale: float) -> list[float]:
    """Compare `Demand.at`."""
    capacity = []
    for enter, full, gain, width in curves:
        if scale >= enter:
            share = 0.0
        elif scale <= full:
            share = width
        elif gain < 1.0:
            share = min(gain * ((enter - scale) / scale), 1.0) * width
        else:
            share = max(1.0 - (1.0 + gain) * ((scale - full) / scale), 0.0) * width
        capacity.append(share)
    return capacity


def _between(scale: float, following: float, share: float) -> tuple[float, float]:
    """Return the τ a ``share`` of the way from one scale to the next in 1/τ, as the sum of two numbers."""
    beyond = (1.0 - share) * following * ((scale - following) / scale)
    beyond /= share + (1.0 - share) * (following / scale)
    exact = following + beyond
    return exact, beyond - (exact - following)
