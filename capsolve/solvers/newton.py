"""Newton's method for the price: a few sums over features that fit into the cache.

In u = 1/τ every capacity is C = clip(slope · u − gain, 0, 1): Σ C rises in linear pieces, and a step of Newton's from
the right piece ends at the root (the continuous quadratic knapsack; Cominetti, Mascarenhas and Silva 2014 compare such
methods). Steps stay inside the interval that is known to hold the root; if there are many, every other one halves it.

Features that jump (κ ≤ 3, or so close above 3 that slope and gain cancel) count as lines that are very steep. Where
the root lies on one of those the budget ends inside a jump, and which feature gets how much is for others to say.
Elsewhere the root is that of the true sum but for rounding, which `capsolve.solvers.quadratic` takes out with the sum
of the capacities that were written.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import TINY, response_curve

# Features that go from empty to full within such a part of τ count as jumping there; their lines take that long.
STEEP = 1e-7
# Features, evenly spread, whose root is the start for all: as many as cost less than a step among all.
SAMPLE = 512
# A step by such a part of u is the last: it has stayed on the line that it came from.
NEAR = 1e-9
# Steps that need not halve the interval, and all that there are: then the root is in a jump, or the general way's.
PURE, STEPS = 12, 60


class Root(NamedTuple):
    """Where Σ C = D: the scale τ, the smallest if there are several, and by how much Σ C falls there as τ rises.

    The slope is infinite where the budget ends inside a jump; then the scale is known to a ``STEEP`` part only.
    """

    scale: float
    slope: float


def lines(v: FloatArray, k: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return slope and gain, C = clip(slope · u − gain, 0, 1) with u = 1/τ, of importances v ≥ 0 and kurtoses."""
    gain, half = np.minimum(2.0 / np.maximum(k - 3.0, 2.0 * STEEP), 1.0 / STEEP), 0.5 * (k - 1.0)
    return gain * (v * np.where(k < 3.0, np.sqrt(half), half)), gain


def newton_root(v: FloatArray, k: FloatArray, budget: float) -> Root | None:
    """Return the root for a budget > 0; None where that is too much, or the root is not found."""
    slope, gain = lines(v, k)
    if budget >= np.count_nonzero(slope) or np.min(v, where=v > 0.0, initial=math.inf) < TINY:
        return None
    start, every = 1.0 / float(np.max(v)), v.size // SAMPLE
    if every > 1:
        rough = slope[::every]
        start = _search(rough, gain[::every], budget * rough.size / v.size, start)[0] or start
    u, total, steep = _search(slope, gain, budget, start)
    if u == 0.0:
        return None
    if steep:
        return Root(1.0 / u, math.inf)
    return Root(1.0 / u, total * u * u) if total > 0.0 else Root(_next_entry(v, k, 1.0 / u), 0.0)


def _next_entry(v: FloatArray, k: FloatArray, scale: float) -> float:
    """Return the smallest scale at which all capacities are those at ``scale``, where none is between 0 and 1."""
    enter = response_curve(v, k).enter
    return float(np.max(enter, where=enter < scale, initial=0.0))


def _search(slope: FloatArray, gain: FloatArray, budget: float, u: float) -> tuple[float, float, bool]:
    """Return the root, or 0, the slope of the sum there, and whether the root lies on a steep line."""
    low, high, share = 0.0, math.inf, np.empty_like(slope)
    for step in range(STEPS):
        np.multiply(slope, u, out=share)
        share -= gain
        between = (share > 0.0) & (share < 1.0)
        missing = budget - float(np.clip(share, 0.0, 1.0, out=share).sum())
        total = float(slope @ between)
        low, high = (u, high) if missing > 0.0 else (low, u)
        following = next_point(step, u, low, high, missing, total)
        if abs(following - u) <= NEAR * u:
            return following, total, bool((gain[between] >= 1.0 / STEEP).any())
        u = following
    return 0.0, 0.0, False


def next_point(step: int, u: float, low: float, high: float, missing: float, total: float) -> float:
    """Return where to look next for the root in [low, high], one end of which is u: Newton's point, or the middle."""
    if missing == 0.0:
        return u
    if total > 0.0:
        following = u + missing / total
        inside = low < following < high and (step < PURE or step % 2 == 0)
        if inside or abs(following - u) <= NEAR * u:
            return following
    if high == math.inf:
        return u * 4.0 ** (step + 1)
    return math.sqrt(low) * math.sqrt(high) if low > 0.0 else u * 0.25 ** (step + 1)
